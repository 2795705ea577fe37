"""The ONNX file with what evaluation does to an image before, and a gallery of vectors."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq

from simsiam_keras import cards
from simsiam_keras.data import images as codec
from simsiam_keras.data.batches import OVERSAMPLED

BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # and RIFF....WEBP


class Refused(Exception):
    """A request that cannot be answered.

    Args:
        status: of HTTP.
        sentence: for who sent it.
    """

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


class Encoder:
    """An exported ONNX file.

    Args:
        folder: what `export` wrote.
        name: of the file; empty: `encoder.onnx`, otherwise the only one there.

    Raises:
        ValueError: if there is none, or it is not the one that encoder.json describes.
    """

    def __init__(self, folder, name=""):
        folder = Path(folder)
        card = cards.read(folder)
        found = sorted(path.name for path in folder.glob("*.onnx"))
        name = name or ("encoder.onnx" if "encoder.onnx" in found else found[0] if found else "")
        if card is None or name not in found:
            raise ValueError(
                f"EXPORT={folder} has no such ONNX file with its encoder.json; write one with "
                f"`export --format=onnx --output={folder}`. Received: {name or found}"
            )
        if card.digest.get(name) != cards.digest(folder / name):
            raise ValueError(f"{folder / name} is not the file that encoder.json describes")
        self.name, self.card = name, card
        self.size, _, self.channels = card.image_shape
        self.crop, self.range, self.dim = card.eval_crop, card.stored_range, card.features
        self.any_size = "any_size" in name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # each worker has its own core
        self.session = onnxruntime.InferenceSession(
            str(folder / name), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images):
        """Features of images from `pixels`.

        Args:
            images: list of uint8 `[height, width, channels]`.

        Returns:
            float32 `[n, dim]`.
        """
        # Of any size they may differ, and go one by one.
        batches = [image[None] for image in images] if self.any_size else [np.stack(images)]
        return np.concatenate(
            [self.session.run(["features"], {"images": batch})[0] for batch in batches]
        )


def pixels(data, number, encoder, limits):
    """Decodes an upload as evaluation decodes a file, and resizes it where the ONNX file does not.

    Args:
        data: its bytes.
        number: of the file in the request.
        encoder: an `Encoder`.
        limits: a `limits.Limits`.

    Returns:
        uint8 `[height, width, channels]`.

    Raises:
        Refused: if it is no image of a kind that is taken, too large, or damaged.
    """
    if not data.startswith(BEGINNINGS) and not (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        raise Refused(415, f"file {number} is no JPEG, PNG or WebP by its first bytes")
    try:
        height, width, _ = codec.header_shape(data, encoder.channels)
        if height * width > limits.pixels:
            raise Refused(
                413,
                f"file {number} may have {limits.pixels} pixels. Received: {width} x {height}",
            )
        side = OVERSAMPLED * round(encoder.size / encoder.crop)
        image = codec.decode(data, side, encoder.range, encoder.channels)
        return (
            image if encoder.any_size else codec.resize_and_crop(image, encoder.size, encoder.crop)
        )
    except Refused:
        raise
    except Exception as error:  # every decoder raises what it likes
        said = " ".join(str(error).split())[:120]
        raise Refused(422, f"file {number} cannot be decoded ({said})") from error


class Gallery:
    """Vectors of known images, in memory.

    Args:
        path: a Parquet file with the columns `name`, `split`, `label` and `vector`.
        encoder: the `Encoder` that it is searched with.

    Raises:
        ValueError: if its vectors are not as wide as the encoder's features.
    """

    def __init__(self, path, encoder):
        table = pq.read_table(path, columns=["name", "split", "label", "vector"])
        vectors = np.stack(table["vector"].to_numpy()).astype("float32") if len(table) else None
        if vectors is None or vectors.shape[1] != encoder.dim:
            width = None if vectors is None else vectors.shape[1]
            raise ValueError(
                f"VECTORS={path} must have vectors of {encoder.dim} numbers, as {encoder.name} "
                f"gives. Received: {width}"
            )
        self.unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self.rows = table.select(["name", "split", "label"]).to_pylist()
        meta = json.loads((table.schema.metadata or {}).get(b"simsiam_keras", b"{}"))
        # Whether they were made by a form that the card knows; None where the file does not say.
        made_by = meta.get("encoder")
        self.fitting = made_by in encoder.card.digest.values() if made_by else None

    def __len__(self):
        return len(self.rows)

    def nearest(self, vector, k):
        """The rows with the largest cosine, the largest first.

        Args:
            vector: float32 `[dim]`.
            k: how many.

        Returns:
            A list of dicts with `name`, `split`, `label` and `similarity`.
        """
        cosine = self.unit @ (vector / max(np.linalg.norm(vector), 1e-12))
        k = min(k, len(cosine))
        best = np.argpartition(-cosine, k - 1)[:k]
        best = best[np.argsort(-cosine[best], kind="stable")]
        return [{**self.rows[i], "similarity": round(float(cosine[i]), 6)} for i in best.tolist()]
