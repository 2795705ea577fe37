"""What TensorBoard's projector shows: vectors, what they are of, and thumbnails in one picture."""

import io
import math

import numpy as np
from PIL import Image

from simsiam_keras import plots, runs
from simsiam_keras.data import images as codec

MOST = 5000  # images, beyond which a browser's t-SNE no longer moves
SIDE = 48  # pixels of a thumbnail
SPRITE = 8192  # pixels, the largest side of a picture that the projector takes
GREY = 128
CONFIG = "projector_config.pbtxt"
FOLDER = "projector"
TEXT = """embeddings {{
  tensor_name: "features"
  tensor_path: "{folder}/features.tsv"
  metadata_path: "{folder}/metadata.tsv"
  sprite {{
    image_path: "{folder}/sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""


def write(folder, features, source, seed=0):
    """Writes `projector_config.pbtxt` and what it names into a folder of event files.

    Of more than 5,000 images as many are taken at random.

    Args:
        folder: a `pathlib.Path`.
        features: `[n, d]`, a row for each of the source's `rows()`.
        source: a `data.Source`.
        seed: of the choice; default 0.

    Returns:
        How many images were written.
    """
    rows = source.rows()
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST])
    numbers = rows[chosen].tolist()
    side = min(SIDE, SPRITE // math.ceil(math.sqrt(len(numbers))))
    inside = folder / FOLDER
    inside.mkdir(parents=True, exist_ok=True)
    lines = ("\t".join(f"{value:.6g}" for value in row) for row in features[chosen].tolist())
    runs.write_atomically(inside / "features.tsv", "".join(f"{line}\n" for line in lines))
    runs.write_atomically(inside / "metadata.tsv", metadata(source, numbers))
    file = io.BytesIO()
    Image.fromarray(sprite(source, numbers, side)).save(file, "PNG")
    runs.write_atomically(inside / "sprite.png", file.getvalue())
    # Last: what it names is there when TensorBoard finds it.
    runs.write_atomically(folder / CONFIG, TEXT.format(folder=FOLDER, side=side))
    return len(numbers)


def metadata(source, numbers):
    """The text of metadata.tsv; one column has no heading, as the projector wants it."""
    names = [_cell(source.name_of(i)) for i in numbers]
    if source.labels is None:
        return "".join(f"{name}\n" for name in names)
    labels = [_cell(_label(source, i)) for i in numbers]
    rows = zip(names, labels, strict=True)
    return "name\tlabel\n" + "".join(f"{name}\t{label}\n" for name, label in rows)


def sprite(source, numbers, side):
    """Thumbnails in rows, as many in a row as there are rows, uint8 `[height, height, 3]`."""
    wide = math.ceil(math.sqrt(len(numbers)))
    image = np.full((wide * side, wide * side, 3), GREY, np.uint8)
    for place, number in enumerate(numbers):
        top, left = place // wide * side, place % wide * side
        square = codec.resize_and_crop(source.decode(number, side), side)
        image[top : top + side, left : left + side] = plots.shown(square[None])[0]
    return image


def _label(source, number):
    label, names = source.labels[number], source.class_names
    chosen = np.flatnonzero(label) if np.ndim(label) else [label]
    return ", ".join(str(names[i]) if names else str(i) for i in chosen)


def _cell(text):
    """A text without what ends a cell."""
    text = " ".join(str(text).split())
    return text.encode("utf-8", "backslashreplace").decode() or "-"
