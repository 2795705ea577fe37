"""Features of a data set, in memory or streamed to a file."""

import numpy as np

from simsiam_keras import runs
from simsiam_keras.data.pipeline import evaluation_batches


def features(encode, source, size, eval_crop=1.0, batch_size=256, on_batch=None):
    """Puts the un-augmented images of a source through an encoder, in order.

    Args:
        encode: function of uint8 images `[m, size, size, 3]` to features `[m, d]`.
        source: a `data.sources.Source` of n images, n >= 1.
        size: side of the images in pixels.
        eval_crop: share of the resized short side that the centre crop keeps.
        batch_size: images in a call of `encode`.
        on_batch: called with the number of images done after each batch.

    Returns:
        Features, a float32 NumPy array `[n, d]`: a row for each image of `source.rows()`, which
        lacks those that cannot be decoded.

    Raises:
        ValueError: if the features of an image are NaN or infinite, or no image can be decoded.
    """
    first = 0
    for rows in _batches(encode, source, size, eval_crop, batch_size, on_batch):
        if first == 0:
            found = np.empty((len(source), rows.shape[1]), "float32")
        found[first : first + len(rows)] = rows
        first += len(rows)
    return found[:first]


def features_to_file(path, encode, source, size, eval_crop=1.0, batch_size=256, on_batch=None):
    """Writes what `features` returns to a .npy file, in the memory of a few batches whatever n is.

    The file appears when it is complete.

    Args:
        path: the file.
        encode: as in `features`.
        source: as in `features`.
        size: as in `features`.
        eval_crop: as in `features`.
        batch_size: as in `features`.
        on_batch: as in `features`.

    Returns:
        The features as a read-only memory map, float32 `[n, d]`.

    Raises:
        ValueError: as in `features`.
    """
    # Appended, not written through a memory map: a full disk is then an error, not a crash.
    with runs.atomic_file(path) as file:
        for rows in _batches(encode, source, size, eval_crop, batch_size, on_batch):
            if file.tell() == 0:
                _write_header(file, rows, len(source))
            file.write(rows)
        if len(source.rows()) < len(source):  # which is known at the end; headers are of one length
            file.seek(0)
            _write_header(file, rows, len(source.rows()))
    return np.load(path, mmap_mode="r")


def _write_header(file, rows, n):
    header = np.lib.format.header_data_from_array_1_0(rows)
    header["shape"] = (n, rows.shape[1])
    np.lib.format.write_array_header_1_0(file, header)


def _batches(encode, source, size, eval_crop, batch_size, on_batch):
    first = 0
    for images, _ in evaluation_batches(source, size, eval_crop, batch_size):
        rows = np.ascontiguousarray(encode(images), "float32")
        _refuse_not_finite(rows, first, source)
        yield rows
        first += len(rows)
        if on_batch:
            on_batch(len(images))


def _refuse_not_finite(rows, first, source):
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=-1))
    if len(wrong):
        raise ValueError(
            f"features must be finite. Received: NaN or infinity for {len(wrong)} of the images "
            f"{first} to {first + len(rows) - 1} of {source.name}, the first of them "
            f"{first + wrong[0]}: the weights of the encoder are damaged or its training diverged"
        )
