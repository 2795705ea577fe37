"""Images that networks are trained on, read once and kept in a file without a name."""

import numpy as np

from simsiam_keras import runs
from simsiam_keras.data.pipeline import evaluation_batches


def kept(source, size, eval_crop, folder):
    """The images of a source at one size, un-augmented, in the memory of a few.

    Args:
        source: a `data.Source`.
        size: side in pixels.
        eval_crop: share of the short side that the centre crop keeps.
        folder: where the file is while it is written.

    Returns:
        uint8 `[n, size, size, channels]`, a row for each image of `source.rows()`.
    """
    path = folder / ".images.bin"
    with runs.atomic_file(path) as file:
        for images, _ in evaluation_batches(source, size, eval_crop):
            file.write(np.ascontiguousarray(images))
    shape = (len(source.rows()), size, size, source.channels)
    found = np.memmap(path, np.uint8, "r", shape=shape)
    try:
        path.unlink()  # the map keeps the content until it is closed
    except PermissionError:  # Windows, where a file cannot go before its map
        found = np.array(found)
        path.unlink()
    return found
