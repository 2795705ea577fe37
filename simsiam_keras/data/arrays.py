"""Data sets that are arrays already: scikit-learn's digits, and .npz files."""

import zipfile

import numpy as np

from simsiam_keras.data.base import ArraySource, NoSuchSplit
from simsiam_keras.data.decoding import memory_bytes
from simsiam_keras.data.found import Found
from simsiam_keras.errors import reading

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
    images, labels = _rgb(digits.images / 16, "digits"), digits.target.astype(np.int64)
    chosen = np.arange(len(labels))
    if split != "all":
        halves = train_test_split(chosen, test_size=360, stratify=labels, random_state=DIGITS_SEED)
        chosen = np.sort(halves[split == "test"])
    names = tuple(str(name) for name in digits.target_names)
    known = Found("digits", split, DIGITS_SPLITS, modes=(("grey", len(chosen)),))
    return ArraySource("digits", images[chosen], labels[chosen], names, found=known)


def load_npz(name, path, split):
    """Images, and labels if there are any, of a .npz file; `sources.load` has the rules.

    Args:
        name: for people.
        path: a `pathlib.Path`.
        split: name of the part.

    Returns:
        An `ArraySource`.

    Raises:
        FileNotFoundError: if there is no such file.
        NoSuchSplit: if it has no images of that name.
        ValueError: if it is no .npz file, or an array has the wrong shape, type or range.
    """
    with _open(path) as arrays:
        found = _splits(arrays)
        if split not in found:
            raise NoSuchSplit(f"{name} (arrays: {', '.join(arrays.files) or 'none'})", split, found)
        prefix = f"{split}_" if f"{split}_images" in arrays.files else ""
        images = _rgb(_array(path, arrays, f"{prefix}images"), f"{prefix}images")
        labels = _array(path, arrays, f"{prefix}labels")
        classes = _array(path, arrays, "class_names")
    if labels is not None:
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"`{prefix}labels` must be integers [n], one for each of the {len(images)} images. "
                f"Received: shape={labels.shape}, dtype={labels.dtype}"
            )
        labels = labels.astype(np.int64)
        if labels.size and labels.min() < 0:
            raise ValueError(f"`{prefix}labels` must be >= 0. Received: minimum={labels.min()}")
    if classes is not None and classes.ndim != 1:
        raise ValueError(f"`class_names` must be [classes]. Received: shape={classes.shape}")
    classes = None if classes is None else tuple(str(c) for c in classes)
    if classes and labels is not None and labels.max(initial=0) >= len(classes):
        raise ValueError(
            f"`class_names` must name every label. Received: {len(classes)} names, "
            f"largest label={labels.max()}"
        )
    return ArraySource(name, images, labels, classes)


def npz_splits(path):
    """Names of the parts of a .npz file."""
    with _open(path) as arrays:
        return _splits(arrays)


def _open(path):
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; give `npz:PATH` an existing .npz file.")
    if not zipfile.is_zipfile(path):  # not to read what else may be large
        raise ValueError(f"`npz:PATH` must be a .npz file of named arrays. Received: {path}")
    with reading(path, "write it again with `numpy.savez`"):
        return np.load(path)


def _array(path, arrays, name):
    """An array of a .npz file, None where there is none."""
    if name not in arrays.files:
        return None
    with reading(f"`{name}` of {path}", "write it again with `numpy.savez`"):
        members = {info.filename.removesuffix(".npy"): info for info in arrays.zip.infolist()}
        size = members[name].file_size
        if size > memory_bytes() // 2:
            raise ValueError(
                f"it must fit into half of the memory: {size / 2**30:.1f} GiB of "
                f"{memory_bytes() / 2**30:.1f} GiB"
            )
        found = arrays[name]
        if not isinstance(found, np.ndarray):
            raise ValueError("it is no array")
        return found


def _splits(arrays):
    named = [key.removesuffix("_images") for key in arrays.files if key.endswith("_images")]
    plain = [s for s in ("train", "all") if "images" in arrays.files and s not in named]
    return tuple(named + plain)


def _rgb(images, name):
    """Converts an array of any accepted layout to uint8 `[n, height, width, 3]`."""
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
