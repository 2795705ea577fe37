"""Files that Pillow reads, also what it would not: 16 bits of each colour, long texts, HEIC."""

import contextlib
import dataclasses
import functools
import io
import os
import sys

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    features,
)

from simsiam_keras.data.numeric import tiff_values
from simsiam_keras.data.stored import COLOURS, ORIENTATION, TURNS, Skipped, Stored

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# By content, not by ending: photographs from the web are often misnamed. Pillow's rarer formats
# stay closed: some of them start other programs. Its classes and not `Image.open`, which refuses
# photographs of 200 megapixels; `formats` has a limit of its own.
KINDS = {
    PNG: PngImagePlugin.PngImageFile,
    JPEG: JpegImagePlugin.jpeg_factory,
    b"GIF8": GifImagePlugin.GifImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
}
MOST_METADATA = 2**26  # bytes of a PNG that is read again without its texts and profile


def without_metadata(data):
    """A PNG without its texts, its colour profile and everything else that is not shown.

    Args:
        data: bytes.

    Returns:
        Bytes, `data` itself where it is no PNG or more than 64 MiB.
    """
    if not data.startswith(PNG) or len(data) > MOST_METADATA:
        return data
    kept, start = [PNG], len(PNG)
    while start + 12 <= len(data):
        stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            kept.append(data[start:stop])
        start = stop
    return b"".join(kept)


def pillow(file):
    """Opens a JPEG, PNG, GIF, BMP or WebP."""
    image = _open(file)
    return _of_image(image, _open, _turn(image))


def _open(file):
    head = file.read(len(PNG))
    file.seek(0)
    kind = next((kind for start, kind in KINDS.items() if head.startswith(start)), None)
    if kind is None:
        raise UnidentifiedImageError("it is no image of a known kind")
    try:
        return kind(file)
    except ValueError:  # texts or a profile that Pillow finds too long
        if kind is not KINDS[PNG]:
            raise
        return kind(_stripped(file))


def avif(file):
    """Opens an AVIF, which later versions of Pillow read."""
    if not features.check("avif"):
        raise Skipped("AVIF needs Pillow 11.3 or later: pip install --upgrade pillow")
    from PIL.AvifImagePlugin import AvifImageFile

    image = AvifImageFile(file)
    return _of_image(image, None, _turn(image))


def heif(file):
    """Opens a HEIC, with pillow-heif."""
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError:
        raise Skipped("HEIC needs pillow-heif: pip install pillow-heif") from None
    return _of_image(HeifImageFile(file), None, None)  # libheif turns it


def tiff(file, channels=3):
    """Opens the first page of a TIFF."""
    if channels not in COLOURS:
        return tiff_values(file, f"--channels={channels}", channels)
    try:
        image = TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:
        if "unknown" not in str(error):  # such as "unknown pixel mode"
            raise
        file.seek(0)
        return tiff_values(file, error)
    stored = _of_image(image, TiffImagePlugin.TiffImageFile, None)  # Pillow turns it as it loads
    return dataclasses.replace(stored, inverted=stored.deep and _white_is_zero(image))


def _white_is_zero(image):
    return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _of_image(image, reopen, turn):
    """A `Stored` of an open Pillow image; `reopen` makes another one of its file."""
    raw = _raw(image)
    deep = image.mode[0] in "IF" or ";16" in raw
    known = {"turn": turn, "profile": image.info.get("icc_profile"), "mode": image.mode}
    known["channels"] = len(image.getbands())
    if not deep:

        def eight_bits(min_side):
            if min_side and jpeg:
                image.draft(image.mode, (min_side, min_side))
            return _loaded(image)

        jpeg = image.format in ("JPEG", "MPO")
        # A progressive one is held whole, in coefficients, whatever is made of them.
        shrinks = jpeg and "progressive" not in image.info
        return Stored(image.size, eight_bits, shrinks=shrinks, **known)
    key = image.info.get("transparency")
    key = (key,) if isinstance(key, int) else key
    pixels = functools.partial(_deep_pixels, image, raw, reopen)
    return Stored(image.size, lambda min_side: pixels(), True, key=key, **known)


def _loaded(image):
    """The image with its pixels, or another one where texts after them are refused."""
    raw = _raw(image)
    try:
        image.load()
    except ValueError:
        if image.format != "PNG":
            raise
        image = _read_as(_open(_stripped(image.fp)), raw)
        image.load()
    return image


def _deep_pixels(image, raw, reopen):
    """The numbers of an image of more than 8 bits; Pillow keeps 8 of each colour's 16."""
    if image.mode[0] in "IF":
        values = np.asarray(_loaded(image))
        return values.view(np.uint32) if raw in ("I;32N", "I;32", "I;32B") else values
    if raw == "LA;16B":  # as four bytes: grey and alpha, high and low
        values = np.asarray(_loaded(_read_as(image, "RGBA"))).astype(np.uint16)
        return values[..., ::2] << 8 | values[..., 1::2]
    other = reopen(io.BytesIO(_bytes(image.fp)))
    high = np.asarray(_loaded(image)).astype(np.uint16) << 8
    return high | np.asarray(_loaded(_read_as(other, _other_bytes(raw))))


def _other_bytes(raw):
    """The raw mode in which Pillow keeps the byte of 16 that it drops in `raw`."""
    kind, _, order = raw.partition(";16")
    little = order == "L" or order == "N" and sys.byteorder == "little"
    return f"{kind};16{'B' if little else 'L'}"


def _raw(image):
    """The raw mode in which Pillow will read the pixels of a PNG or TIFF, such as `RGB;16B`."""
    if image.format not in ("PNG", "TIFF") or not image.tile:  # BMP's `BGR;16` are 5 bits and 6
        return ""
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _read_as(image, raw):
    def changed(arguments):
        return (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw

    image.tile = [tile._replace(args=changed(tile.args)) for tile in image.tile]
    return image


def _turn(image):
    # A damaged EXIF block is no reason to lose the picture.
    with contextlib.suppress(Exception):
        if image.format != "PNG":
            return TURNS.get(image.getexif().get(ORIENTATION))
        # Pillow decodes a PNG to see what comes after its pixels.
        if _told_behind_the_pixels(image.fp):
            image = _open(io.BytesIO(_bytes(image.fp)))
            image.load()
        return TURNS.get(Image.Image.getexif(image).get(ORIENTATION))


def _told_behind_the_pixels(file):
    """Whether a PNG has texts or EXIF after its pixels; only the names of its parts are read."""
    position, kinds = file.tell(), []
    file.seek(len(PNG))
    while len(head := file.read(8)) == 8:
        kinds.append(head[4:])
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    file.seek(position)
    behind = kinds[kinds.index(b"IDAT") :]
    return not {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}.isdisjoint(behind)


def _bytes(file):
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    return data


def _stripped(file):
    return io.BytesIO(without_metadata(_bytes(file)))
