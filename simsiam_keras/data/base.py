"""What a data set is: arrays in memory, or encoded images that are decoded on demand."""

import contextlib
import functools
import hashlib
import threading

import numpy as np
from absl import logging

from simsiam_keras.data import images as codec
from simsiam_keras.data.found import Found

IN_A_ROW = 10  # images that cannot be decoded, after which the disk is taken for lost


class NoSuchSplit(ValueError):
    """The data set is there, the part that was asked for is not.

    Args:
        name: of the data set.
        split: what was asked for.
        found: the splits that there are.
    """

    def __init__(self, name, split, found):
        super().__init__(
            f"`split` must be one of {', '.join(found) or '(none found)'} for {name}. "
            f"Received: split={split}"
        )


class Source:
    """Images by number, and what is known about them.

    Attributes:
        name: the data set as the user named it.
        labels: int64 `[n]`, or 0 and 1 `[n, classes]` where an image has several, or None when
            there are none.
        class_names: tuple of str, or None.
        image_shape: `(height, width, channels)`, or None when sizes vary.
        channels: of the images: 3 unless others were asked for.
        fingerprint: 16 hexadecimal digits that change when the data change.
        names: list of n str, such as the files, or None.
        missing: the error of each image that evaluation could not decode, by its number.
        value_range: `(low, high)` that became 0 and 255 in what is deeper than 8 bits, `"file"`
            where each file has its own, None where nothing is deeper.
        lost: the error of `read` after which nothing more could be read, or None.
    """

    channels = 3
    value_range = None
    lost = None

    def __init__(self, name, labels, class_names, image_shape, fingerprint, names=None, found=None):
        self.name = name
        self.labels = labels
        self.class_names = class_names
        self.image_shape = image_shape
        self.fingerprint = fingerprint
        self.names = names
        self.missing = {}
        self._found = found or Found()

    def __len__(self):
        raise NotImplementedError

    @property
    def found(self):
        """What was understood of the data, a `Found`."""
        return self._found.of(self)

    @found.setter
    def found(self, found):
        self._found = found

    def miss(self, index, error):
        """Notes that evaluation has no row of an image, and says so of the first ones."""
        self.missing[index] = error
        if len(self.missing) <= 5:
            logging.warning("No row of features: %s: %s", self.name_of(index), error)

    def name_of(self, index):
        """What an image is called: its file, or its number."""
        return f"image {index}" if self.names is None else self.names[index]

    def rows(self):
        """The numbers of the images that have a row of features, int64, once these are made."""
        return np.setdiff1d(np.arange(len(self)), list(self.missing))

    def lose(self, index):
        """The error that ten images in a row from a number on cannot be decoded, also in `lost`."""
        self.lost = ValueError(
            f"Ten images in a row cannot be decoded in {self.name}; check that the disk is still "
            f"there. Received: first={self.name_of(index)}"
        )
        return self.lost

    def decode(self, index, min_side=None):
        """As `read`, but an image that cannot be decoded raises.

        Args:
            index: as in `read`.
            min_side: as in `read`.
        """
        return self.read(index, min_side)

    def read(self, index, min_side=None):
        """Returns image `index` as uint8 `[height, width, channels]`; do not write into it.

        Args:
            index: within [0, len(self)).
            min_side: an image may come smaller by a whole number, its short side no less than
                this.
        """
        raise NotImplementedError


class ArraySource(Source):
    """Images of one size in memory.

    Args:
        name: for people.
        images: uint8 `[n, height, width, channels]`.
        labels: int64 `[n]`, 0 and 1 `[n, classes]`, or None.
        class_names: tuple of str or None.
        fingerprint: default None, a digest of the images and labels.
        **known: `names` and `found`, see `Source`.
    """

    def __init__(self, name, images, labels=None, class_names=None, fingerprint=None, **known):
        fingerprint = fingerprint or digest([images.shape, images, labels])
        super().__init__(name, labels, class_names, images.shape[1:], fingerprint, **known)
        self.images, self.channels = images, images.shape[3]

    def __len__(self):
        return len(self.images)

    def read(self, index, min_side=None):
        return self.images[index]


class EncodedSource(Source):
    """Images decoded when they are read: sizes vary, or memory is too small.

    Args:
        name: for people.
        items: sequence of paths or of encoded bytes.
        labels: int64 `[n]`, 0 and 1 `[n, classes]`, or None.
        class_names: tuple of str or None.
        image_shape: `(height, width, channels)`, None when sizes vary.
        fingerprint: digest of the data.
        value_range: default None, as the attribute of that name.
        channels: of the images; default 3.
        **known: `names` and `found`, see `Source`.

    Attributes:
        failed: the numbers of the images that `read` had to replace.
        store: what keeps images that are read with `kept_side`, see `cache.keep_decoded`.
        kept_side: the `min_side` of training, or -1.
    """

    def __init__(
        self,
        name,
        items,
        labels,
        class_names,
        image_shape,
        fingerprint,
        value_range=None,
        channels=3,
        **known,
    ):
        super().__init__(name, labels, class_names, image_shape, fingerprint, **known)
        self.items = items
        self.value_range, self.channels = value_range, channels
        self.failed = set()
        self.store, self.kept_side = None, -1
        self._lock = threading.Lock()

    def __len__(self):
        return len(self.items)

    def read(self, index, min_side=None):
        """Returns image `index`, or the next one that can be decoded when it is damaged.

        A replaced image is logged and counted in `failed`.

        Args:
            index: within [0, len(self)).
            min_side: an image may come smaller by a whole number, its short side no less than
                this.

        Returns:
            uint8 `[height, width, channels]`.

        Raises:
            ValueError: if ten images in a row cannot be decoded.
        """
        for step in range(min(IN_A_ROW, len(self))):
            candidate = (index + step) % len(self)
            try:
                return self.decode(candidate, min_side)
            except Exception as error:  # Every decoder raises what it likes.
                self._note(candidate, error)
        raise self.lose(index)

    def decode(self, index, min_side=None):
        item, options = self.items[index], (min_side, self.value_range)
        make = functools.partial(codec.decode, item, *options, self.channels)
        if self.channels != 3:  # what a cache of RGB has on the disk keeps its name
            options = (*options, self.channels)
        return self.store.get(item, options, make) if min_side == self.kept_side else make()

    def name_of(self, index):
        return super().name_of(index) if self.names else str(label_of(self.items, index))

    def _note(self, index, error):
        with self._lock:
            if index in self.failed:
                return
            self.failed.add(index)
        if len(self.failed) <= 5:
            logging.warning(
                "Replaced by the next image: %s: %s", label_of(self.items, index), error
            )
        elif (len(self.failed) & (len(self.failed) - 1)) == 0:
            logging.warning("%d damaged images replaced so far.", len(self.failed))


@contextlib.contextmanager
def told_by(source):
    """Within, what a source has raised is raised, whatever a backend's pipeline has made of it."""
    try:
        yield
    except Exception:
        if source.lost is not None:
            raise source.lost from None
        raise


def digest(parts):
    """16 hexadecimal digits of a SHA-256.

    Args:
        parts: iterable of arrays, bytes, or anything whose `repr` tells it.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
    return digest.hexdigest()[:16]


def label_of(items, index):
    """What to call an image in a message."""
    return f"image {index}" if isinstance(items[index], bytes) else items[index]
