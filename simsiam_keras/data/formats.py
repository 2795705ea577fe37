"""Kinds of image files, told by their first bytes: what each stores, as it stores it."""

import contextlib
import functools
import io
import os
import stat

from simsiam_keras.data import numeric, pictures
from simsiam_keras.data.stored import COLOURS, Skipped

ENDINGS = (
    ".avif",
    ".bmp",
    ".dcm",
    ".gif",
    ".heic",
    ".heif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".npy",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)

HEAD = 132  # bytes, within which each kind says what it is

# A larger picture must have as many bytes as any real one: PNG has at most 8,256 pixels in each,
# but a GIF of 40 bytes may say that it is 65,535 pixels wide and high, and is then decoded as such.
LARGE = 2**24
PIXELS_PER_BYTE = 10_000
MOST_PIXELS = 400_000_000  # 1.2 GB as RGB, 2.4 GB while a progressive JPEG is read
MOST_ASPECT = 50  # or a short side scaled to 224 pixels makes a long one beyond all use


@contextlib.contextmanager
def opened(item, channels=3):
    """Opens an image and reads its header.

    Args:
        item: a path, or the encoded bytes.
        channels: that are wanted; 1 and 3 are made of grey and colour, other numbers must be what
            the image has.

    Yields:
        A `Stored`, within whose block the pixels can be read.

    Raises:
        Skipped: if it is no regular file, too large or too thin, has other channels, or needs a
            library that is not installed.
        Exception: of whatever kind a decoder raises when it is not an image.
    """
    if not isinstance(item, bytes) and not is_regular(item):
        raise Skipped("it is no regular file")
    with io.BytesIO(item) if isinstance(item, bytes) else open(item, "rb") as file:
        head = file.read(HEAD)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        stored = _reader(head, item, channels)(file)
        _refuse_size(*stored.size, size)
        if channels not in COLOURS and stored.channels != channels:
            raise Skipped(
                f"it has {stored.channels} channel(s), not those of --channels={channels}"
            )
        yield stored


def is_regular(path):
    """Whether a path leads to a regular file; it is not opened, which would wait at a FIFO.

    Raises:
        OSError: if it leads nowhere.
    """
    return stat.S_ISREG(os.stat(path).st_mode)


def has_8_bits(item):
    """Whether an image is of a kind without more, by its first bytes alone.

    Args:
        item: as in `opened`.
    """
    if isinstance(item, bytes):
        return item.startswith(_OF_8_BITS)
    if not is_regular(item):
        return False
    with open(item, "rb", buffering=0) as file:
        return file.read(8).startswith(_OF_8_BITS)


_OF_8_BITS = tuple(start for start in pictures.KINDS if start != pictures.PNG)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _reader(head, item, channels):
    if head.startswith(_TIFF):
        return functools.partial(pictures.tiff, channels=channels)
    if head.startswith(b"\x93NUMPY"):
        return functools.partial(numeric.npy, item=item, channels=channels)
    if head[4:8] == b"ftyp":
        brands = {head[i : i + 4] for i in range(8, min(len(head), _box(head)), 4)}
        if brands & {b"avif", b"avis"}:
            return pictures.avif
        if brands & set(_HEIF):
            return pictures.heif
    dicom = not isinstance(item, bytes) and os.fspath(item).lower().endswith(".dcm")
    if head[128:132] == b"DICM" or dicom and not head.startswith((pictures.PNG, pictures.JPEG)):
        return numeric.dicom
    return pictures.pillow


def _box(head):
    return int.from_bytes(head[:4], "big")


def _refuse_size(width, height, size):
    if width * height > max(LARGE, PIXELS_PER_BYTE * size):
        raise ValueError(f"{width} x {height} pixels in a file of {size} bytes")
    if width * height > MOST_PIXELS:
        raise Skipped(f"its {width} x {height} pixels are more than {MOST_PIXELS // 10**6} million")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise Skipped(f"its {width} x {height} pixels are thinner than 1 to {MOST_ASPECT}")
