"""Features a block of rows at a time, from an array or from a file larger than memory."""

import mmap

import numpy as np


def blocks(features, size):
    """Yields the rows of a matrix in order, a block at a time.

    What was read through a memory map opened with mode `"r"` is given back after each block: the
    process never holds more of the file than one.

    Args:
        features: array or memory map `[n, d]`.
        size: rows in a block, >= 1; the last may have fewer.

    Yields:
        The number of the block's first row, and the block, at most `[size, d]`.

    Example:
        >>> import numpy as np
        >>> [(first, rows.tolist()) for first, rows in blocks(np.eye(3), 2)]
        [(0, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), (2, [[0.0, 0.0, 1.0]])]
    """
    for first in range(0, len(features), size):
        yield first, features[first : first + size]
        _give_back(features)


def _give_back(features):
    while isinstance(getattr(features, "base", None), np.ndarray):  # a list has none
        features = features.base
    # Only what can be read again: of a private, writable map the changes would be lost.
    if isinstance(features, np.memmap) and features.mode == "r":
        features.base.madvise(mmap.MADV_DONTNEED)
