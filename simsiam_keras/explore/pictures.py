"""The pictures behind vectors: files of a folder, or images of a data set, read when shown."""

import os
import re

import numpy as np

from simsiam_keras.data import images as codec


class Files:
    """Pictures that are files.

    Args:
        root: the folder that the names are below.
        names: list of n str, with /.
        value_range: as in `data.images.decode`; default None.
        channels: as in `data.images.decode`; default 3.
    """

    def __init__(self, root, names, value_range=None, channels=3):
        self._root, self._names = os.fspath(root), names
        self._options = {"value_range": value_range, "channels": channels}

    def path(self, number):
        """Where a picture lies.

        Raises:
            ValueError: if its name leads out of the folder.
        """
        parts = self._names[number].split("/")
        if os.path.isabs(self._names[number]) or ".." in parts:
            raise ValueError("its name leads out of the folder")
        return os.path.join(self._root, *parts)

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


def rgb(image):
    """An image of any channels as it is shown, uint8 `[height, width, 3]`."""
    if image.shape[-1] >= 3:
        return np.ascontiguousarray(image[..., :3])
    return image[..., :1].repeat(3, axis=-1)
