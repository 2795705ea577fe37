"""The pictures behind vectors: files of a folder, or images of a data set, read when shown."""

import os
import re

import numpy as np

from simsiam_keras import plots
from simsiam_keras.data import images as codec
from simsiam_keras.data import ranges, sources

GREY = 128  # of a picture that cannot be read


class Paths:
    """Pictures that are files.

    Args:
        paths: list of n paths.
        value_range: as in `data.images.decode`; default None.
        channels: as in `data.images.decode`; default 3.
    """

    def __init__(self, paths, value_range=None, channels=3):
        self._paths = paths
        self._options = {"value_range": value_range, "channels": channels}

    def path(self, number):
        """Where a picture lies."""
        return self._paths[number]

    def read(self, number, side):
        """A picture as RGB, uint8 `[height, width, 3]`, its short side `side` or more.

        Args:
            number: within [0, n).
            side: in pixels; smaller pictures stay as they are.

        Raises:
            Exception: of whatever kind, where it cannot be read.
        """
        return rgb(codec.decode(self.path(number), side, **self._options))

    def shape(self, number):
        """`(height, width)` of a picture, by its header alone."""
        channels = self._options["channels"]
        return codec.header_shape(self.path(number), channels)[:2]


class Files(Paths):
    """Pictures below a folder.

    Args:
        root: the folder.
        names: list of n str, with /.
        value_range: as in `Paths`.
        channels: as in `Paths`.
    """

    def __init__(self, root, names, value_range=None, channels=3):
        super().__init__(names, value_range, channels)
        self._root = os.fspath(root)

    def path(self, number):
        """Where a picture lies.

        Raises:
            ValueError: if its name leads out of the folder.
        """
        name = self._paths[number]
        if os.path.isabs(name) or ".." in name.split("/"):
            raise ValueError("its name leads out of the folder")
        return os.path.join(self._root, *name.split("/"))


class OfSources:
    """Pictures that are images of data sets.

    Args:
        of: list of n `(data.Source, number)`.
    """

    def __init__(self, of):
        self._of = of

    def read(self, number, side):
        """As `Files.read`."""
        source, row = self._of[number]
        return rgb(source.decode(row, side))


def numbered(names, splits, load):
    """Pictures of images that have numbers for names, such as `image 3`.

    Args:
        names: list of n str.
        splits: list of n str.
        load: function of a split's name to a `data.Source`.

    Returns:
        An `OfSources`. An image that its data set does not have is an `IndexError` when it is read.
    """
    sources = {split: load(split) for split in dict.fromkeys(splits)}
    numbers = [int((re.search(r"(\d+)$", name) or [0, 2**62])[1]) for name in names]
    return OfSources([(sources[s], i) for s, i in zip(splits, numbers, strict=True)])


def range_of(about, value_range):
    """The values that are shown as black and white, as `data.images.decode` takes them.

    Args:
        about: a `vectors.About`.
        value_range: the flag; where it is `auto`, that of the encoder counts.
    """
    chosen = ranges.chosen(value_range, about.stored_range)
    return None if isinstance(chosen, str) and chosen == ranges.AUTO else chosen


def of_vectors(about, names, splits, value_range, data_dir=""):
    """The pictures of rows of a file of vectors.

    Args:
        about: its `vectors.About`.
        names: list of n str.
        splits: list of n str.
        value_range: as in `range_of`.
        data_dir: where data sets that have no folder lie; default TFDS's own place.

    Returns:
        A `Files` or an `OfSources`.

    Raises:
        ValueError: if a data set cannot be opened.
    """
    if about.root:
        return Files(about.root, names, range_of(about, value_range), about.channels)

    def load(split):
        return sources.load(about.dataset, data_dir or None, split, channels=about.channels)

    return numbered(names, splits, load)


def tile(pictures, number, side):
    """The middle of a picture as a square, uint8 `[side, side, 3]`, or an error in its place."""
    try:
        return codec.resize_and_crop(pictures.read(number, side), side)
    except Exception as error:  # every decoder raises what it likes
        return error


def tile_or_grey(pictures, number, side):
    """As `tile`, grey where the picture cannot be read; `pictures` None has none that can."""
    found = tile(pictures, number, side) if pictures else OSError()
    return np.full((side, side, 3), GREY, "uint8") if isinstance(found, Exception) else found


def rgb(image):
    """An image of any channels as it is shown, uint8 `[height, width, 3]`."""
    return np.ascontiguousarray(plots.shown(image[None])[0])
