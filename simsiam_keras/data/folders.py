"""Folders of images, flat or with a folder for each class."""

import os

import numpy as np

from simsiam_keras.data import images as codec
from simsiam_keras.data.base import NoSuchSplit, digest
from simsiam_keras.data.decoding import from_encoded

SPLITS = ("train", "test", "val", "validation")
FILES_LOOKED_INTO, BYTES_LOOKED_AT = 4096, 4096  # for the fingerprint


def load(name, root, split, value_range):
    """Images of a folder; `sources.load` has the rules.

    Args:
        name: for people.
        root: a `pathlib.Path`.
        split: a subfolder of it, or `train` or `all` for itself.
        value_range: as in `sources.load`.

    Returns:
        A `Source`.

    Raises:
        FileNotFoundError: if there is no such folder.
        NoSuchSplit: if it has no such part.
        ValueError: if it holds no image, or more than 1 % cannot be decoded.
    """
    found = splits(root)
    if split not in found:
        raise NoSuchSplit(name, split, found)
    divided = _is_divided(root)
    folder = root / split if divided or split not in ("train", "all") else root
    files = sorted(_walk(folder, ""))
    if not files:
        raise ValueError(
            f"{folder} holds no image; accepted endings are {', '.join(codec.ENDINGS)}."
        )
    tops = [path.partition("/")[0] if "/" in path else None for path, _ in files]
    labels = classes = None
    if None not in tops and len(set(tops)) > 1:
        # Over all splits: a class that one of them lacks must not renumber the others.
        parts = [root / s for s in found] if divided else [folder]
        classes = sorted({sub.name for part in parts for sub in _subfolders(part)})
        numbers = {c: number for number, c in enumerate(classes)}
        labels = np.array([numbers[top] for top in tops], np.int64)
        classes = tuple(classes)
    items = [os.path.join(folder, path) for path, _ in files]
    return from_encoded(name, items, labels, classes, _fingerprint(files, items), value_range)


def _fingerprint(files, items):
    """A digest of names, sizes and the ends of files, of some of them where there are many.

    Other pictures may have the same names and, uncompressed, the same sizes. Times do not count: a
    copied folder holds the same images.
    """
    every = -(-len(items) // FILES_LOOKED_INTO)
    return digest([files, *map(_end, items[::every])])


def _end(path):
    try:
        if not codec.is_regular(path):
            return b""
        with open(path, "rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - BYTES_LOOKED_AT))
            return f.read()
    except OSError:
        return b""  # counted with what cannot be decoded


def splits(root):
    """Names of the parts of a folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}; give `folder:PATH` an existing one.")
    found = tuple(sub.name for sub in _subfolders(root))
    if _is_divided(root):
        return found
    return (*(s for s in found if s in SPLITS and s != "train"), "train", "all")


def _is_divided(root):
    # `train` may also be a class, beside `bus` and `car`.
    found = {sub.name for sub in _subfolders(root)}
    others = found - {"train"}
    return "train" in found and (
        not others or not others.isdisjoint(SPLITS) or bool(_subfolders(root / "train"))
    )


def _subfolders(folder):
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if _visible(e) and e.is_dir()), key=lambda e: e.name)


def _walk(folder, prefix):
    """Yields (path below the folder with `/`, size in bytes) of every visible image."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _visible(entry):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(codec.ENDINGS):
                # A broken link has no size; it is counted with what cannot be decoded.
                size = entry.stat().st_size if os.path.exists(entry.path) else 0
                yield f"{prefix}{entry.name}", size


def _visible(entry):
    return not entry.name.startswith(".") and entry.name != "__MACOSX"
