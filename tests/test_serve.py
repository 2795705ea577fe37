"""The example service, as a process of its own, over HTTP."""

import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import encoders, export
from simsiam_keras.__main__ import main
from simsiam_keras.data import sources
from simsiam_keras.evaluation import features
from tests.conftest import ROOT
from tests.tiny import randomized

for package in ("fastapi", "uvicorn", "multipart", "onnx", "onnxruntime", "tf2onnx"):
    pytest.importorskip(package)
httpx = pytest.importorskip("httpx")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SERVE = ROOT / "examples" / "serve"
SIZE, CROP = 16, 0.875
SMALL = {"FILE_BYTES": "200000", "BODY_BYTES": "500000", "PIXELS": "1000000", "FILES": "4"}


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Service:
    """uvicorn with the service in a process; a context manager that gives a client."""

    def __init__(self, **environment):
        self.number = port()
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self.environment.pop("KERAS_BACKEND", None)

    def __enter__(self):
        run = ["-m", "uvicorn", "--app-dir", str(SERVE), "app:app", "--log-level=warning"]
        self.process = subprocess.Popen(
            [sys.executable, *run, f"--port={self.number}"],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self.number}"
        until = time.monotonic() + 120
        while time.monotonic() < until and self.process.poll() is None:
            try:
                httpx.get(f"{self.url}/health", timeout=5)
                return httpx.Client(base_url=self.url, timeout=60)
            except httpx.HTTPError:
                time.sleep(0.1)
        self.process.kill()
        raise AssertionError(self.process.communicate()[1])

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate(timeout=30)


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(height, width, seed, mode="RGB"):
    rng = np.random.default_rng(seed)
    channels = {"RGB": 3, "RGBA": 4, "L": None, "CMYK": 4}[mode]
    shape = (6, 5) if channels is None else (6, 5, channels)
    image = Image.fromarray(rng.integers(0, 256, shape, dtype="uint8"), mode)
    return image.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with what people upload: sizes, a turned one, transparency, grey, CMYK, WebP."""
    folder = tmp_path_factory.mktemp("photographs")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    written = {
        "a.jpg": encoded(picture(60, 90, 0)),
        "b.jpg": encoded(picture(700, 400, 1)),  # which evaluation decodes at a fraction
        "c.jpg": encoded(picture(50, 80, 2), exif=exif),
        "d.png": encoded(picture(40, 40, 3, "RGBA"), "PNG"),
        "e.jpg": encoded(picture(33, 71, 4, "L")),
        "f.jpg": encoded(picture(64, 48, 5, "CMYK")),
        "g.webp": encoded(picture(30, 20, 6), "WEBP", quality=90),
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def handover(tmp_path_factory):
    folder = tmp_path_factory.mktemp("handover")
    made = randomized(encoders.resnet10((SIZE, SIZE, 3), width=4))
    export.save_encoder(made, folder, eval_crop=CROP)
    flags = [f"--encoder={folder / 'encoder.keras'}", f"--output={folder}", "--format=onnx"]
    assert main(["export", *flags]) == 0
    assert main(["export", *flags, "--with_preprocessing"]) == 0
    return folder


@pytest.fixture(scope="module")
def expected(handover, photographs):
    """{file: features} by the commands' own way from a file to features."""
    encoder = export.load_encoder(handover / "encoder.keras")
    source = sources.load(f"folder:{photographs}")
    rows = features(encoder, source, SIZE, CROP)
    return dict(zip((str(name).split("/")[-1] for name in source.names), rows, strict=True))


@pytest.fixture(scope="module")
def gallery(expected, tmp_path_factory, handover):
    path = tmp_path_factory.mktemp("gallery") / "vectors.parquet"
    rows = np.stack(list(expected.values())).astype("float32")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    digest = json.loads((handover / "encoder.json").read_text())["digest"]["encoder.keras"]
    table = pa.table(
        {
            "name": list(expected),
            "split": ["train"] * len(rows),
            "label": pa.array([*range(len(rows) - 1), None], pa.int64()),
            "vector": vectors,
        },
        metadata={"simsiam_keras": json.dumps({"encoder": digest})},
    )
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def client(handover, gallery):
    with Service(EXPORT=str(handover), VECTORS=str(gallery), **SMALL) as client:
        yield client


KINDS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


def upload(path, kind=None):
    return path.name, path.read_bytes(), kind or KINDS[path.suffix[1:]]


def near(found, row):
    return np.abs(np.array(found) - row).max() <= 1e-4 * np.abs(row).max()


# What is answered


def test_an_upload_has_the_features_of_its_file(client, photographs, expected):
    assert len(expected) == 7
    for name, row in expected.items():
        answer = client.post("/features", files={"image": upload(photographs / name)})
        assert answer.status_code == 200, answer.text
        assert near(answer.json()["features"], row), name
        others = [other for key, other in expected.items() if key != name]
        assert not any(near(answer.json()["features"], other) for other in others)


def test_a_batch_is_answered_in_its_order(client, photographs, expected):
    names = ["d.png", "a.jpg", "g.webp", "a.jpg"]
    files = [("images", upload(photographs / name)) for name in names]
    found = client.post("/features/batch", files=files).json()["features"]
    assert all(near(row, expected[name]) for row, name in zip(found, names, strict=True))


def test_the_nearest_of_the_gallery_by_the_definition(client, photographs, expected):
    rows = {name: row / np.linalg.norm(row) for name, row in expected.items()}
    for name in rows:
        files = {"image": upload(photographs / name)}
        found = client.post("/search", params={"k": 3}, files=files).json()["found"]
        cosine = {other: float(rows[other] @ rows[name]) for other in rows}
        assert [row["name"] for row in found] == sorted(cosine, key=cosine.get, reverse=True)[:3]
        assert found[0]["similarity"] == pytest.approx(1, abs=1e-4)
        for row in found:
            assert row["similarity"] == pytest.approx(cosine[row["name"]], abs=1e-4)
    assert {row["label"] for row in found} <= {*range(6), None} and found[0]["split"] == "train"


def test_health_says_what_is_served(client):
    found = client.get("/health").json()
    assert found == {
        "status": "ok",
        "file": "encoder.onnx",
        "image_size": SIZE,
        "features": 32,
        "gallery": {"vectors": 7, "of_this_encoder": True},
    }


# What is refused


def bomb(width, height):
    """A PNG of that size in a few bytes."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


GOOD = encoded(picture(60, 90, 0))
JPEG = "image/jpeg"
BAD = {
    "a text file": ({"image": ("a.txt", b"hello", "text/plain")}, 415, "must be image/jpeg"),
    "a text as JPEG": ({"image": ("a.jpg", b"hello" * 99, JPEG)}, 415, "first bytes"),
    "half a JPEG": ({"image": ("a.jpg", GOOD[: len(GOOD) // 2], JPEG)}, 422, "cannot be decoded"),
    "a header alone": ({"image": ("a.jpg", GOOD[:20], JPEG)}, 422, "cannot be decoded"),
    "GIF": ({"image": ("a.gif", b"GIF89a" + bytes(99), "image/gif")}, 415, "must be image/jpeg"),
    "a bomb": ({"image": ("a.png", bomb(30000, 30000), "image/png")}, 4, "pixels"),
    "a small bomb": ({"image": ("a.png", bomb(1001, 1000), "image/png")}, 413, "1000000 pixels"),
    "nothing": ({"image": ("a.jpg", b"", JPEG)}, 422, "1 to 200000 bytes"),
    "too much": ({"image": ("a.jpg", GOOD + bytes(200_000), JPEG)}, 413, "1 to 200000 bytes"),
    "another field": ({"photo": ("a.jpg", GOOD, JPEG)}, 422, "in the field `image`"),
    "two": ([("image", ("a.jpg", GOOD, JPEG))] * 2, 400, "Too many files"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_upload_gets_a_sentence(name, client):
    files, status, sentence = BAD[name]
    answer = client.post("/features", files=files)
    assert answer.status_code == status or status == 4 and answer.status_code in (413, 422)
    assert sentence in answer.json()["detail"], answer.text
    assert client.post("/features", files={"image": ("a.jpg", GOOD, JPEG)}).status_code == 200


def test_one_bad_file_of_a_batch_is_named(client):
    files = [("images", ("a.jpg", data, JPEG)) for data in (GOOD, GOOD[:300], GOOD)]
    answer = client.post("/features/batch", files=files)
    assert answer.status_code == 422 and "file 1 cannot be decoded" in answer.json()["detail"]


def test_too_many_files(client):
    files = [("images", ("a.jpg", GOOD, JPEG))]
    assert client.post("/features/batch", files=files * 4).status_code == 200
    answer = client.post("/features/batch", files=files * 5)
    assert answer.status_code == 400 and "Too many files" in answer.json()["detail"]


def test_a_body_is_refused_by_its_header_and_as_it_comes(client):
    answer = client.post("/features", files={"image": ("a.jpg", bytes(600_000), JPEG)})
    assert answer.status_code == 413 and "500000 bytes" in answer.json()["detail"]

    def chunks():  # without a length
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield bytes(10_000)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/features", content=chunks(), headers=kind)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path, request_, status",
    [
        ("/features", {"content": GOOD, "headers": {"content-type": JPEG}}, 415),
        ("/features", {}, 415),
        ("/features", {"data": {"image": "text"}}, 415),
        ("/search?k=0", {"files": {"image": ("a.jpg", GOOD, JPEG)}}, 422),
        ("/search?k=101", {"files": {"image": ("a.jpg", GOOD, JPEG)}}, 422),
        ("/search?k=x", {"files": {"image": ("a.jpg", GOOD, JPEG)}}, 422),
        ("/nothing", {}, 404),
    ],
)
def test_other_requests(path, request_, status, client):
    assert client.post(path, **request_).status_code == status


def test_a_slow_upload_is_ended(handover):
    with Service(EXPORT=str(handover), SECONDS="1") as client:

        def slowly():
            yield b"--x\r\n"
            time.sleep(3)
            yield b"--x--\r\n"

        kind = {"content-type": "multipart/form-data; boundary=x"}
        began = time.monotonic()
        try:
            answer = client.post("/features", content=slowly(), headers=kind)
            assert answer.status_code == 503 and "within 1 s" in answer.json()["detail"]
        except httpx.WriteError:  # the server closed what was still being sent
            pass
        assert time.monotonic() - began < 20
        assert client.post("/search", files={"image": ("a.jpg", GOOD, JPEG)}).status_code == 404
        assert client.post("/features", files={"image": ("a.jpg", GOOD, JPEG)}).status_code == 200


def test_the_file_for_any_size_gives_the_same(handover, photographs, expected):
    with Service(EXPORT=str(handover), FILE="encoder_any_size.onnx") as client:
        files = [("images", upload(photographs / name)) for name in expected]
        found = client.post("/features/batch", files=files).json()["features"]
        assert all(near(row, expected[n]) for row, n in zip(found, expected, strict=True))


@pytest.mark.parametrize("fault", ["no folder", "another file", "a narrow gallery"])
def test_it_does_not_start_on_what_it_cannot_serve(fault, handover, gallery, tmp_path):
    given = {"EXPORT": str(handover), "VECTORS": str(gallery)}
    if fault == "no folder":
        given["EXPORT"] = str(tmp_path)
    if fault == "another file":
        for name in ("encoder.json", "encoder.onnx"):
            (tmp_path / name).write_bytes((handover / name).read_bytes())
        with open(tmp_path / "encoder.onnx", "ab") as file:
            file.write(b"\0")
        given["EXPORT"] = str(tmp_path)
    if fault == "a narrow gallery":
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(6, "float32")), 3)
        columns = {"name": ["a", "b"], "split": ["x", "x"], "label": [0, 1], "vector": vectors}
        pq.write_table(pa.table(columns), tmp_path / "narrow.parquet")
        given["VECTORS"] = str(tmp_path / "narrow.parquet")
    with pytest.raises(AssertionError, match="ValueError: "):
        Service(**given).__enter__()


def test_it_imports_neither_keras_nor_a_backend(handover):
    code = (
        "import sys, app; print([x for x in ('keras', 'tensorflow', 'torch') if x in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{SERVE}", "EXPORT": str(handover)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_load_counts_what_is_answered(client, photographs):
    run = [
        SERVE / "load.py",
        f"--url={str(client.base_url).rstrip('/')}/features",
        "--workers=2",
        "--seconds=1",
    ]
    run += ["--file", photographs / "a.jpg", photographs / "g.webp"]
    done = subprocess.run(
        [sys.executable, *map(str, run)], capture_output=True, text=True, check=True
    )
    found = dict(part.rsplit(" ", 1) for part in done.stdout.strip().split(", "))
    assert int(found["answered"]) > 2 and found["failed"] == "0"
    assert float(found["p50_ms"]) <= float(found["p99_ms"])
    # Of two workers each waits for its own: as many requests as both have time for.
    assert 0.3 < float(found["requests_per_second"]) * float(found["p50_ms"]) / 1000 < 6
