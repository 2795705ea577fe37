"""Data sets that are arrays already: scikit-learn's digits, and what is made of other arrays."""

import numpy as np

from simsiam_keras.data.base import ArraySource, NoSuchSplit
from simsiam_keras.data.found import Found
from simsiam_keras.data.stored import COLOURS

DIGITS_SPLITS = ("train", "test", "all")
DIGITS_SEED = 0
LUMA = np.array([19595, 38470, 7471], np.uint32)  # of 65,536: ITU-R 601


def load_digits(split, channels=3):
    """scikit-learn's 1,797 digits, 8x8 grey: `train` 1,437, `test` 360, or `all`.

    The division is stratified and always the same.

    Args:
        split: one of the three.
        channels: of the images, 1 or 3; default 3.

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
    images = in_channels(digits.images / 16, "digits", channels)
    labels = digits.target.astype(np.int64)
    chosen = np.arange(len(labels))
    if split != "all":
        halves = train_test_split(chosen, test_size=360, stratify=labels, random_state=DIGITS_SEED)
        chosen = np.sort(halves[split == "test"])
    names = tuple(str(name) for name in digits.target_names)
    known = Found("digits", split, DIGITS_SPLITS, modes=(("grey", len(chosen)),))
    return ArraySource("digits", images[chosen], labels[chosen], names, found=known)


def in_channels(images, name, channels=3):
    """Converts an array of any accepted layout to uint8 `[n, height, width, channels]`.

    Args:
        images: `[n, h, w]` or `[n, h, w, 1 | 3 | 4]`, uint8 or floats in [0, 1]; where `channels`
            is neither 1 nor 3, `[n, h, w, channels]`.
        name: of the array, for the error.
        channels: of the result; default 3.

    Raises:
        ValueError: if it is none of these.
    """
    if images.ndim == 3:
        images = images[..., None]
    taken = (1, 3, 4) if channels in COLOURS else (channels,)
    if images.ndim != 4 or images.shape[-1] not in taken or 0 in images.shape[1:3]:
        rule = "[n, h, w] or [n, h, w, channels] with 1, 3 or 4 channels"
        if channels not in COLOURS:
            rule = f"[n, h, w, {channels}] with --channels={channels}"
        other = images.ndim == 4 and 0 < images.shape[-1] <= min(images.shape[1:3])
        other = other and images.shape[-1] not in taken
        remedy = f"; --channels={images.shape[-1]} takes it as it is" if other else ""
        raise ValueError(f"`{name}` must be {rule}. Received: shape={images.shape}{remedy}")
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
    if channels not in COLOURS:
        return np.ascontiguousarray(images)
    if images.shape[-1] == 4:
        alpha = images[..., 3:] / np.float32(255)
        images = np.rint(images[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    if channels == 1:
        return images if images.shape[-1] == 1 else _luma(images)
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:-1], 3)))


def _luma(images):
    """Grey `[n, h, w, 1]` of `[n, h, w, 3]`, in whole numbers as Pillow's mode L has it."""
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    for image, plane in zip(images, grey, strict=True):  # one by one, for four bytes a value
        plane[..., 0] = (image @ LUMA + 2**15) >> 16
    return grey
