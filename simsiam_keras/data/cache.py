"""Images that were decoded for training, kept: in memory, or in files."""

import os
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import PIL
from absl import logging

from simsiam_keras.data.base import EncodedSource, digest
from simsiam_keras.data.decoding import memory_bytes

MEMORY_SHARE = 1 / 4  # of the machine's, at most
SAMPLE = 8  # images that are decoded to say how much all will take
FORMAT = 1  # to be raised when `images.decode` gives other pixels
HEAD = struct.Struct("<4sIII")  # magic, height, width, CRC-32 of these and of the pixels
MAGIC = b"SSKc"
STALE = 24 * 3600  # seconds, after which what another process has not finished is removed


class Memory:
    """Decoded images in memory, as many as fit.

    Args:
        most: bytes.
    """

    def __init__(self, most):
        self.most, self.size = most, 0
        self._images, self._lock = {}, threading.Lock()

    def get(self, item, options, make):
        """What `make` returns, from its first call on for an item with the same options.

        Args:
            item: a path or encoded bytes.
            options: what else decides about the pixels, hashable.
            make: function without arguments to uint8 `[height, width, channels]`.

        Returns:
            uint8 `[height, width, channels]`, the same whether it was kept or not.
        """
        key = (item, options)
        image = self._images.get(key)
        if image is None:
            image = make()
            with self._lock:
                if key not in self._images and self.size + image.nbytes <= self.most:
                    self._images[key] = image
                    self.size += image.nbytes
        return image


class Disk:
    """Decoded images in files, which other runs and later ones read too.

    A file is named after what decides about its pixels: path, size and time of the image's own
    file, or its bytes; the options; the versions of decoder and format. It is written beside and
    renamed, and has a checksum: what is damaged is decoded and written again. Where the disk does
    not take any more, images are decoded whenever they are read.

    Args:
        folder: is created when the first image is written.
    """

    def __init__(self, folder):
        self.folder, self.full = Path(folder), False
        for path in self.folder.glob("*/.*.partial"):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink(missing_ok=True)

    def get(self, item, options, make):
        """As `Memory.get`."""
        path = self.folder / self._name(item, options)
        image = self._read(path)
        if image is None:
            image = make()
            self._write(path, image)
        return image

    def _name(self, item, options):
        if not isinstance(item, bytes):
            about = os.stat(item)
            item = (os.path.abspath(item), about.st_size, about.st_mtime_ns)
        name = digest([item, options, FORMAT, PIL.__version__])
        return f"{name[:2]}/{name[2:]}"

    def _read(self, path):
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if len(data) < HEAD.size:
            return None
        magic, height, width, checksum = HEAD.unpack_from(data)
        pixels = memoryview(data)[HEAD.size :]
        channels, rest = divmod(len(pixels), max(1, height * width))
        whole = magic == MAGIC and channels and not rest
        if not whole or checksum != _checksum(height, width, pixels):
            return None
        return np.frombuffer(pixels, np.uint8).reshape(height, width, channels)

    def _write(self, path, image):
        if self.full:
            return
        height, width = image.shape[:2]
        pixels = np.ascontiguousarray(image).data.cast("B")
        partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(partial, "wb") as file:
                    file.write(HEAD.pack(MAGIC, height, width, _checksum(height, width, pixels)))
                    file.write(pixels)
                os.replace(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        except OSError as error:
            self.full = True
            logging.warning("%s takes no more images (%s); all goes on without.", path, error)


def _checksum(height, width, pixels):
    return zlib.crc32(pixels, zlib.crc32(b"%d %d" % (height, width)))


def default_folder():
    """Where decoded images are kept unless `--cache_dir` says: the user's own cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "simsiam_keras"


def keep_decoded(source, kind, folder, min_side):
    """Has a source keep the images that are read from it for training.

    No pixel depends on it. Sources whose images are in memory anyway are left alone, and those
    that are trained on at full size.

    Args:
        source: a `Source`; its `store` and `kept_side` are set.
        kind: `memory`, `disk` or `none`.
        folder: for `disk`; empty for `default_folder()`.
        min_side: the short side that training needs, or None for full size.

    Returns:
        A sentence with the expected size, or an empty text.
    """
    if kind == "none" or not isinstance(source, EncodedSource) or not min_side:
        return ""
    most = int(memory_bytes() * MEMORY_SHARE)
    store = Memory(most) if kind == "memory" else Disk(folder or default_folder())
    source.store, source.kept_side = store, min_side
    sizes = [source.read(i, min_side).nbytes for i in range(0, len(source), _every(source))]
    expected = len(source) * sum(sizes) // len(sizes)
    amount = f"about {expected / 1e9:.2g} GB for {len(source):,} images"
    if kind == "disk":
        return f"Decoded images are kept in {store.folder}: {amount}."
    if expected <= most:
        return f"Decoded images are kept in memory: {amount}."
    return (
        f"Decoded images would take {amount}; {most / 1e9:.2g} GB of them are kept in memory, the "
        "others are decoded whenever they are read. --cache=disk keeps all."
    )


def _every(source):
    return -(-len(source) // SAMPLE)
