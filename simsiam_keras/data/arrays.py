"""Data sets that are arrays already: scikit-learn's digits, and what is made of other arrays."""

import numpy as np

from simsiam_keras.data.base import ArraySource, NoSuchSplit
from simsiam_keras.data.found import Found

DIGITS_SPLITS = ("train", "test", "all")
DIGITS_SEED = 0


def load_digits(split):
    """scikit-learn's 1,797 digits, 8x8 grey: `train` 1,437, `test` 360, or `all`.

    The division is stratified and always the same.

    Args:
        split: one of the three.

    Returns:
        An `ArraySource` with labels.

    Raises:
        NoSuchSplit: if it is another.
        ImportError: if scikit-learn is missing.
    """
    if split not in DIGITS_SPLITS:
        raise NoSuchSplit("digits", split, DIGITS_SPLITS)
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("The data set `digits` needs scikit-learn: install it.") from error
    digits = datasets.load_digits()
    images, labels = rgb(digits.images / 16, "digits"), digits.target.astype(np.int64)
    chosen = np.arange(len(labels))
    if split != "all":
        halves = train_test_split(chosen, test_size=360, stratify=labels, random_state=DIGITS_SEED)
        chosen = np.sort(halves[split == "test"])
    names = tuple(str(name) for name in digits.target_names)
    known = Found("digits", split, DIGITS_SPLITS, modes=(("grey", len(chosen)),))
    return ArraySource("digits", images[chosen], labels[chosen], names, found=known)


def rgb(images, name):
    """Converts an array of any accepted layout to uint8 `[n, height, width, 3]`.

    Args:
        images: `[n, h, w]` or `[n, h, w, 1 | 3 | 4]`, uint8 or floats in [0, 1].
        name: of the array, for the error.

    Raises:
        ValueError: if it is none of these.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape[1:3]:
        raise ValueError(
            f"`{name}` must be [n, h, w] or [n, h, w, channels] with 1, 3 or 4 channels. "
            f"Received: shape={images.shape}"
        )
    if images.dtype.kind == "f":
        # Written so that NaN is refused as well.
        if not (images.min(initial=0) >= 0 and images.max(initial=0) <= 1):
            raise ValueError(
                f"`{name}` must be within [0, 1] when it holds floats. "
                f"Received: {images.min()} to {images.max()}"
            )
        images = np.rint(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise ValueError(
            f"`{name}` must be uint8, or floats in [0, 1]. Received: dtype={images.dtype}"
        )
    if images.shape[-1] == 4:
        alpha = images[..., 3:] / np.float32(255)
        images = np.rint(images[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:-1], 3)))
