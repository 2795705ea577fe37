"""An encoder behind HTTP: features of uploaded images, and the images of a gallery like them.

    EXPORT=handover VECTORS=vectors.parquet uvicorn --app-dir examples/serve app:app

`EXPORT` is a folder that `export --format=onnx` wrote. Neither Keras nor a backend is imported.
"""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI, HTTPException, Request
from limits import BodyLimit, Limits
from model import Encoder, Gallery, Refused, pixels

LIMITS = Limits.from_environment()


@contextlib.asynccontextmanager
async def lifespan(app):
    """Opens the encoder and the gallery before the first request, or does not start."""
    app.state.encoder = Encoder(LIMITS.export, LIMITS.file)
    app.state.gallery = Gallery(LIMITS.vectors, app.state.encoder) if LIMITS.vectors else None
    app.state.waiting = 0
    with ThreadPoolExecutor(LIMITS.workers) as pool:
        app.state.pool = pool
        yield


app = FastAPI(title="Image features", lifespan=lifespan)
app.add_middleware(BodyLimit, most=LIMITS.body_bytes)


@app.get("/health")
async def health(request: Request):
    """What is served; 200 says that requests are answered."""
    encoder, gallery = request.app.state.encoder, request.app.state.gallery
    return {
        "status": "ok",
        "file": encoder.name,
        "image_size": encoder.size,
        "features": encoder.dim,
        "gallery": gallery and {"vectors": len(gallery), "of_this_encoder": gallery.fitting},
    }


@app.post("/features")
async def features(request: Request):
    """Features of one image, the form's field `image`."""
    found = await answered(request, "image", 1)
    return {"features": found[0].tolist()}


@app.post("/features/batch")
async def batch(request: Request):
    """Features of several images, the form's fields `images`, in their order."""
    found = await answered(request, "images", LIMITS.files)
    return {"features": found.tolist()}


@app.post("/search")
async def search(request: Request, k: int = 10):
    """The `k` images of the gallery whose features have the largest cosine with the upload's."""
    gallery = request.app.state.gallery
    if gallery is None:
        raise HTTPException(404, "there is no gallery here: start with VECTORS=FILE.parquet")
    if not 1 <= k <= LIMITS.neighbours:
        raise HTTPException(422, f"k must be within 1 and {LIMITS.neighbours}. Received: {k}")
    found = await answered(request, "image", 1)
    return {"found": gallery.nearest(found[0], k)}


async def answered(request, field, most):
    """Reads the uploads and computes their features, within the limits.

    Args:
        request: the request, a form with files.
        field: name of the field that the files are in.
        most: files at most.

    Returns:
        float32 `[n, dim]`.

    Raises:
        HTTPException: with a sentence, if the request is refused or the time is up.
    """
    state = request.app.state
    if state.waiting >= LIMITS.waiting:
        raise HTTPException(503, "too many requests are waiting", {"Retry-After": "1"})
    state.waiting += 1
    try:
        async with asyncio.timeout(LIMITS.seconds):
            files = await uploads(request, field, most)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(state.pool, computed, state.encoder, files)
    except TimeoutError:
        raise HTTPException(503, f"not done within {LIMITS.seconds:g} s") from None
    except Refused as refusal:
        raise HTTPException(refusal.status, str(refusal)) from None
    finally:
        state.waiting -= 1


async def uploads(request, field, most):
    """The bytes of the files in a form's field; as in `answered`."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise Refused(415, f"send a form with files in `{field}`. Received: {kind[:60] or 'none'}")
    async with request.form(max_files=most, max_fields=8) as form:
        files = form.getlist(field)
        if not files or len(files) != len(form.multi_items()):
            names = sorted({name[:40] for name, _ in form.multi_items()})
            raise Refused(422, f"files must be in the field `{field}`. Received: {names}")
        for number, file in enumerate(files):
            if file.content_type not in LIMITS.types:
                taken, given = ", ".join(LIMITS.types), (file.content_type or "none")[:60]
                raise Refused(415, f"file {number} must be {taken}. Received: {given}")
            if not 0 < file.size <= LIMITS.file_bytes:
                most = f"1 to {LIMITS.file_bytes} bytes"
                sentence = f"file {number} must have {most}. Received: {file.size}"
                raise Refused(413 if file.size else 422, sentence)
        return [await file.read() for file in files]


def computed(encoder, files):
    """Features of encoded images; in a thread, so that other requests are read meanwhile."""
    return encoder([pixels(data, number, encoder, LIMITS) for number, data in enumerate(files)])
