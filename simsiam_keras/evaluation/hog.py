"""Histograms of oriented gradients: what of an image can be had without learning."""

import numpy as np

SIDE = 128  # px of the images that are described
ORIENTATIONS, CELL, BLOCK = (
    9,
    8,
    2,
)  # bins of 20 degrees, pixels of a cell's side, cells of a block's
INSTALL = "pip install -r requirements-worth.txt"


def missing():
    """How to get what `hog` needs where it is not there; "" where it is."""
    try:
        import skimage.feature  # noqa: F401
    except ImportError:
        return f"needs scikit-image: {INSTALL}"
    return ""


def hog(images):
    """Histograms of oriented gradients of a batch, in Dalal and Triggs' form.

    In each cell of 8x8 pixels the gradients vote, by their length, for one of nine orientations
    without sign, within [0, 180) degrees; each block of 2x2 cells is divided by its norm, clipped
    at 0.2 and divided again (L2-Hys). At a pixel the channel with the longest gradient counts. An
    image of one colour has only zeros.

    Args:
        images: `[n, side, side, channels]`, values 0..255, side >= 16.

    Returns:
        `[n, (side // 8 - 1)^2 * 36]`, float32.

    Raises:
        ImportError: if scikit-image is missing.

    Example:
    >>> hog(np.zeros([2, 32, 32, 3], "uint8")).shape
    (2, 324)

    Reference:
        Dalal & Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005, section 6,
        https://doi.org/10.1109/CVPR.2005.177
    """
    try:
        from skimage.feature import hog as described
    except ImportError as error:
        raise ImportError(f"HOG {missing()}") from error
    options = {
        "orientations": ORIENTATIONS,
        "pixels_per_cell": (CELL, CELL),
        "cells_per_block": (BLOCK, BLOCK),
        "block_norm": "L2-Hys",
        "channel_axis": -1,
    }
    return np.stack([described(image, **options) for image in np.asarray(images)]).astype("float32")
