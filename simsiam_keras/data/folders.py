"""Folders of images, flat or with a folder for each class."""

import collections
import os

import numpy as np

from simsiam_keras.data import images as codec
from simsiam_keras.data import layouts, tables
from simsiam_keras.data.base import NoSuchSplit, digest
from simsiam_keras.data.decoding import from_encoded
from simsiam_keras.data.found import Found

FILES_LOOKED_INTO, BYTES_LOOKED_AT = 4096, 4096  # for the fingerprint


def load(name, root, split, labels="", columns="", value_range="auto", channels=3, lenient=False):
    """Images of a folder; `sources.load` has the rules.

    Args:
        name: for people.
        root: a `pathlib.Path`.
        split: a subfolder of it, or `train` or `all` for itself.
        labels: a table of labels, see `tables.read`; default none, the folders are the classes.
        columns: its columns, see `tables.read`.
        value_range: as in `sources.load`.
        channels: as in `sources.load`.
        lenient: as in `sources.load`.

    Returns:
        A `Source`.

    Raises:
        FileNotFoundError: if there is no such folder or table.
        NoSuchSplit: if it has no such part.
        ValueError: if it holds no image, too many cannot be decoded, the name of a split
            would become a class, or the table does not speak of these images.
    """
    layout = _layout(root)
    table = tables.read(labels, columns) if labels else None
    names = layout.splits if table is None else table.splits(layout.splits)
    by_table = table is not None and table.divides
    part = layouts.resolve(split, names)
    if part is None:
        raise NoSuchSplit(name, split, names)
    if part in layouts.WHOLE and layout.refusal and split != "all" and table is None:
        raise ValueError(layout.refusal)
    folder, notes = (layout.root, []) if by_table else layout.folder(part)
    read = _Files(folder)
    if not read.files:
        raise ValueError(_no_image(folder, read))
    if part != split:
        notes = [f"`{part}` is taken as {split}", *notes]
    if table is None:
        numbers, classes, why = _by_folders(read, layout, part)
    else:
        everything = read if folder is layout.root else _Files(layout.root)
        found = table.match(read.paths, everything.paths, part if by_table else None)
        read.keep(found.kept)
        numbers, classes, why = found.labels, found.classes, found.unlabelled
        notes += found.notes
    items = [os.path.join(folder.path, path) for path in read.paths]
    return from_encoded(
        name,
        items,
        numbers,
        classes,
        _fingerprint(read.files, items),
        value_range=value_range,
        channels=channels,
        lenient=lenient,
        names=read.paths,
        found=Found(
            place=folder.path,
            split=split,
            splits=names,
            unlabelled=why,
            ignored=tuple(read.ignored.most_common()),
            skipped=tuple(read.skipped),
            notes=(*layout.notes, *notes),
        ),
    )


def splits(root, labels="", columns=""):
    """Names of the parts of a folder."""
    found = _layout(root).splits
    return tables.read(labels, columns).splits(found) if labels else found


def _layout(root):
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}; give `folder:PATH` an existing one.")
    return layouts.understand(root)


class _Files:
    """The images of a folder, `(path below it with /, bytes)`, and what else is in it."""

    def __init__(self, folder):
        self.files, self.skipped, self.ignored = [], [], collections.Counter()
        for path, inside in folder.walk():
            prefix = f"{path}/" if path else ""
            self.files += [(prefix + name, size) for name, size in inside.images]
            self.skipped += [(prefix + name, why) for name, why in inside.listing.skipped]
            self.ignored += inside.listing.ignored
        self.files.sort()

    @property
    def paths(self):
        return [path for path, _ in self.files]

    def keep(self, numbers):
        self.files = [self.files[i] for i in numbers]


def _by_folders(read, layout, part):
    """Labels by the folder at the top, names of the classes, and why there are none."""
    tops = [path.partition("/")[0] if "/" in path else None for path in read.paths]
    counts = collections.Counter(tops)
    loose = counts.pop(None, 0)
    if not counts:
        return None, None, "no folder for each class"
    if loose:
        return None, None, f"{loose} images lie beside the class folders, {_few(counts)}"
    # Over all splits: a class that one of them lacks must not renumber the others.
    others = [layout.folder(name)[0] for name in layout.parts if name != part]
    elsewhere = set().union(*(_class_names(folder, counts) for folder in others))
    if len(counts) == 1 and not counts.keys() <= elsewhere:
        return None, None, f"all are in one folder, {_few(counts)}, which is no class"
    if len(counts) > 2 and max(counts.values()) == 1 and not counts.keys() & elsewhere:
        return None, None, f"a folder for each image, {_few(counts)}"
    classes = tuple(sorted(counts.keys() | elsewhere))
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[top] for top in tops], np.int64), classes, ""


def _class_names(folder, known):
    """The names of another split's class folders; none where there is one, or one an image."""
    names = {inside.name for inside in folder.filled}
    if folder.images or len(names) < 2:
        return set()
    one_each = all(len(f.images) == 1 and not f.filled for f in folder.filled)
    return set() if len(names) > 2 and one_each and not names & known.keys() else names


def _few(names):
    named = [f"`{name}`" for name in sorted(names)[:3]]
    return ", ".join(named) + (", ..." if len(names) > 3 else "")


def _no_image(folder, read):
    text = f"{folder.path} holds no image; accepted endings are {', '.join(codec.ENDINGS)}."
    archives = [ending for ending in read.ignored if ending in layouts.ARCHIVES]
    if archives:
        text += f" It holds {archives[0]} archives: unpack them."
    elif read.ignored:
        counts = ", ".join(f"{count} {what}" for what, count in read.ignored.most_common(5))
        text += f" It holds {counts}."
    return text


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
