"""Data sets in a .npz file: images and labels as arrays."""

import contextlib
import dataclasses
import math
import re
import zipfile

import numpy as np

from simsiam_keras.data import layouts
from simsiam_keras.data.arrays import in_channels
from simsiam_keras.data.base import ArraySource, NoSuchSplit
from simsiam_keras.data.decoding import memory_bytes
from simsiam_keras.data.found import Found
from simsiam_keras.errors import reading

ADVICE = "write it again with `numpy.savez`"
IMAGES = "images|x"  # `train_images` is MedMNIST's name, `x_train` that of Keras's files
LABELS = "labels|y"
ENTRY = b"PK\x01\x02"  # how one of a zip's directory begins
MODES = {1: "grey", 3: "RGB", 4: "RGBA"}


def load(name, path, split, channels=3):
    """Images, and labels if there are any, of a .npz file; `sources.load` has the rules.

    Args:
        name: for people.
        path: a `pathlib.Path`.
        split: name of the part.
        channels: of the images, as in `sources.load`; default 3.

    Returns:
        An `ArraySource`. Labels that cannot be used are none, and `found` says why.

    Raises:
        FileNotFoundError: if there is no such file.
        NoSuchSplit: if it has no images of that name.
        ValueError: if it is no .npz file, is damaged or does not fit into memory, or the images
            have the wrong shape, type or range.
    """
    with _open(path) as archive:
        parts = archive.parts(IMAGES)
        part = layouts.resolve(split, tuple(parts))
        if part is None:
            listed = ", ".join(archive.members) or "none"
            raise NoSuchSplit(f"{name} (arrays: {listed})", split, tuple(parts))
        key = parts[part]
        shape, kind = archive.header(key)
        _check_memory(archive, key, shape, kind, channels)
        images = in_channels(archive.array(key), key, channels)
        labels, classes, why, notes = _labels(archive, part, len(images))
        used = {*parts.values(), *archive.parts(LABELS).values(), "class_names"}
        others = [member for member in archive.members if member not in used]
    if part != split:
        notes = [f"`{part}` is taken as {split}", *notes]
    if others:
        notes.append(f"arrays that are not used: {', '.join(others)}")
    stored = shape[3] if len(shape) == 4 else 1
    known = Found(
        place=str(path),
        split=split,
        splits=tuple(parts),
        unlabelled=why,
        modes=((MODES.get(stored, f"{stored} channels"), len(images)),),
        notes=tuple(notes),
    )
    return ArraySource(name, images, labels, classes, found=known)


def splits(path):
    """Names of the parts of a .npz file."""
    with _open(path) as archive:
        return tuple(archive.parts(IMAGES))


@dataclasses.dataclass(frozen=True)
class _Archive:
    """An open .npz file, each of whose arrays is read whole or refused in a sentence."""

    path: object
    file: zipfile.ZipFile
    members: dict  # of `ZipInfo` by the array's name

    def parts(self, words):
        """The array of each split, its name being one of some words and that of the split."""
        found = {}
        for name in self.members:
            match = re.fullmatch(rf"(.+)_({words})|({words})_(.+)", name, re.DOTALL)
            if match:
                found.setdefault(match[1] or match[4], name)
        plain = words.partition("|")[0]
        for whole in layouts.WHOLE if plain in self.members else ():
            found.setdefault(whole, plain)
        return found

    def header(self, name):
        """The shape and the dtype of an array; its content is not read."""
        with self._opened(name) as (_, shape, kind, _):
            return shape, kind

    def array(self, name):
        """An array, checked to be what its header and the archive say of it."""
        with self._opened(name) as (file, shape, kind, order):
            data = file.read()  # to the end, where the archive's checksum is compared
            return np.ndarray(shape, kind, data, order=order)

    @contextlib.contextmanager
    def _opened(self, name):
        info = self.members[name]
        with reading(f"`{name}` of {self.path}", ADVICE), self.file.open(info) as file:
            shape, fortran, kind = _array_header(file)
            size = math.prod(shape) * kind.itemsize
            if not kind.hasobject and file.tell() + size != info.file_size:
                raise ValueError(f"{size} bytes of shape {shape} in {info.file_size} bytes")
            yield file, shape, kind, "F" if fortran else "C"


@contextlib.contextmanager
def _open(path):
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; give `npz:PATH` an existing .npz file.")
    if not zipfile.is_zipfile(path):  # not to read what else may be large
        raise ValueError(f"`npz:PATH` must be a .npz file of named arrays. Received: {path}")
    with contextlib.ExitStack() as stack:
        with reading(path, ADVICE):
            file = stack.enter_context(zipfile.ZipFile(path))
            for info in file.infolist():
                file.open(info).close()  # the name in front of the data is that of the directory
                if ENTRY in info.comment + info.extra:
                    raise ValueError("an entry of its directory lies in another one")
        yield _Archive(path, file, {i.filename.removesuffix(".npy"): i for i in file.infolist()})


def _array_header(file):
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array of version {version}")
    shape, fortran, kind = readers[version](file)
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    return shape, fortran, kind


def _check_memory(archive, name, shape, kind, channels):
    """Refuses what would not fit, as it is and as it is used, before it is read."""
    stored = math.prod(shape) * kind.itemsize
    needed = stored * (2 if kind.kind == "f" else 1) + channels * math.prod(shape[:3])
    if needed > memory_bytes() // 2:
        raise ValueError(
            f"`{name}` of {archive.path} must fit into half of the memory: "
            f"{needed / 2**30:.1f} GiB of {memory_bytes() / 2**30:.1f} GiB. Write its images into "
            "class folders and use `folder:PATH`, which reads them from the disk."
        )


def _labels(archive, part, n):
    """Labels, class names, why there are none, and notes."""
    parts = archive.parts(LABELS)
    if part not in parts:
        return None, None, "", []
    key, notes = parts[part], []
    found, why = _usable(archive, key, n)
    if found is None:
        return None, None, why, notes
    names = _class_names(archive, notes)
    if found.dtype.kind == "U":
        texts = {str(text) for other in parts.values() for text in _texts(archive, other).ravel()}
        if names is None or not texts <= set(names):
            names = tuple(sorted(texts))
        numbers = {name: number for number, name in enumerate(names)}
        return np.array([numbers[str(text)] for text in found], np.int64), names, "", notes
    if found.ndim == 2:
        if found.shape[1] > 1 and n and (found.sum(1) == 1).all():
            notes.append(f"`{key}` marks one class in each row, which is taken as the label")
            found = found.argmax(1)
        else:
            notes.append(f"`{key}` has {found.shape[1]} labels for each image")
    largest = found.shape[1] - 1 if found.ndim == 2 else found.max(initial=0)
    if names is not None and largest >= len(names):
        notes.append(f"`class_names` has {len(names)} names, too few, and is not used")
        names = None
    return found.astype(np.int64), names, "", notes


def _usable(archive, key, n):
    """An array of labels, integers `[n]` or `[n, c]` or texts `[n]`, or None and why it is none."""
    shape, kind = archive.header(key)
    if kind.hasobject:
        return None, f"`{key}` is saved as objects; save it with `.astype(str)`, or as integers"
    told = f"Received: shape={shape}, dtype={kind}"
    found = _texts(archive, key) if kind.kind in "US" else archive.array(key)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.shape[:1] != (n,) or found.ndim not in (1, 2):
        return None, f"`{key}` must hold one label for each of the {n} images. {told}"
    if found.ndim == 2:
        if found.dtype.kind in "biuf" and found.size and np.isin(found, (0, 1)).all():
            return found.astype(np.int64), ""
        return None, f"`{key}` must be 0 and 1 where an image has several labels. {told}"
    if found.dtype.kind not in "biuU":
        return None, f"`{key}` must be integers or texts. {told}"
    if found.dtype.kind == "U":
        return found, ""
    low, high = (int(found.min()), int(found.max())) if found.size else (0, 0)
    if low < 0 or high >= 2**63:
        return None, f"`{key}` must be >= 0. Received: {low} to {high}"
    return found.astype(np.int64), ""


def _texts(archive, key):
    """An array of texts; of anything else, none."""
    _, kind = archive.header(key)
    if kind.kind == "U":
        return archive.array(key)
    if kind.kind == "S":
        return np.char.decode(archive.array(key), "utf-8", "replace")
    return np.zeros(0, "U1")


def _class_names(archive, notes):
    if "class_names" not in archive.members:
        return None
    shape, kind = archive.header("class_names")
    if kind.hasobject or len(shape) != 1:
        notes.append("`class_names` must be texts [classes], saved without objects; it is not used")
        return None
    texts = archive.array("class_names") if kind.kind != "S" else _texts(archive, "class_names")
    return tuple(map(str, texts))
