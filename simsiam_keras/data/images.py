"""Encoded images to uint8 RGB arrays, with Pillow: one decoder whatever the backend."""

import contextlib
import io
import os

import numpy as np
from PIL import Image, ImageOps

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")

# By content, not by ending: photographs from the web are often misnamed. Pillow's rarer formats
# stay closed: some of them start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")

ORIENTATION = 0x0112  # EXIF's tag

# A larger picture must have as many bytes as any real one: PNG has at most 8,256 pixels in each,
# but a GIF of 40 bytes may say that it is 65,535 pixels wide and high, and is then decoded as such.
LARGE = 2**24
PIXELS_PER_BYTE = 10_000


def decode(item, min_side=None):
    """Decodes one image as a viewer would show it.

    The EXIF orientation is applied, transparency is composited on white, a palette, grey, CMYK or
    16-bit grey image becomes 8-bit RGB, and an animation gives its first frame.

    Args:
        item: a path, or the encoded bytes.
        min_side: when given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its
            short side stays at least this; default None, full size.

    Returns:
        uint8 `[height, width, 3]`, possibly read-only.

    Raises:
        Exception: of whatever kind Pillow's decoder raises on a damaged file.
    """
    with _open(item) as image:
        if min_side:
            image.draft(image.mode, (min_side, min_side))
        image.load()
        # A damaged EXIF block is no reason to lose the picture, nor its orientation: Pillow turns
        # the image in place before it writes the block without the orientation.
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image)


def header_shape(item):
    """The shape that `decode` would give, read from the header only.

    Args:
        item: a path, or the encoded bytes.

    Returns:
        `(height, width, 3)`.

    Raises:
        Exception: of whatever kind Pillow raises when it is not an image.
    """
    with _open(item) as image:
        width, height = image.size
        with contextlib.suppress(Exception):  # as in `decode`
            if image.getexif().get(ORIENTATION) in (5, 6, 7, 8):  # a quarter turn
                return (width, height, 3)
        return (height, width, 3)


def mode(item):
    """Pillow's mode of an image, such as `RGB` or `L`, read from the header only."""
    with _open(item) as image:
        return image.mode


def to_rgb(image):
    """Converts a Pillow image of any mode to uint8 RGB, transparency over white.

    Args:
        image: a `PIL.Image.Image`. Modes that begin with `I` are read as 16-bit grey.

    Returns:
        uint8 `[height, width, 3]`, possibly read-only.
    """
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # or it copies


def resize_and_crop(image, size, eval_crop=1.0):
    """Scales the short side to `round(size / eval_crop)`, then crops the centre `size x size`.

    Bilinear with antialiasing. Nothing is resampled when the short side has that length already.

    Args:
        image: uint8 `[height, width, 3]`.
        size: side of the result, at least 1.
        eval_crop: fraction of the short side that is kept, in (0, 1]; default 1. ImageNet's usual
            224 out of 256 is .875.

    Returns:
        uint8 `[size, size, 3]`.
    """
    height, width = image.shape[:2]
    short, target = min(height, width), round(size / eval_crop)
    if short != target:
        height, width = (max(target, round(side * target / short)) for side in (height, width))
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        image = np.asarray(resized)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def _open(item):
    encoded = isinstance(item, bytes)
    image = Image.open(io.BytesIO(item) if encoded else item, formats=FORMATS)
    width, height = image.size
    size = len(item) if encoded else os.path.getsize(item)
    if width * height > max(LARGE, PIXELS_PER_BYTE * size):
        image.close()
        raise ValueError(f"{width} x {height} pixels in a file of {size} bytes")
    return image
