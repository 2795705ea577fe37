"""Thumbnails of all images in a few JPEGs, each a grid of squares."""

import dataclasses
import io
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from simsiam_keras.data import images as codec
from simsiam_keras.errors import sentence
from simsiam_keras.gallery.pictures import GREY, tile

SIDES = (128, 112, 96, 80, 64, 48, 40, 32)
WIDE = 2048  # pixels of a sheet at most, which every browser decodes
QUALITY = 80
SAMPLE = 144  # pictures by which the size of all is foreseen


@dataclasses.dataclass(frozen=True)
class Sheets:
    """Thumbnails of n images.

    Attributes:
        side: of a thumbnail, in pixels.
        columns: thumbnails in a row of a sheet.
        each: thumbnails on a sheet; the last may have fewer.
        jpegs: list of bytes, image i is on sheet `i // each`.
        missing: why a picture could not be read, by its number.
    """

    side: int
    columns: int
    each: int
    jpegs: list
    missing: dict

    @property
    def size(self):
        """Bytes of all."""
        return sum(map(len, self.jpegs))


def tiles(pictures, numbers, side):
    """Yields what `tile` gives for each number, in order, made by as many threads as processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(numbers), 256):  # so that no more than these are waiting
            part = numbers[first : first + 256]
            yield from pool.map(lambda number: tile(pictures, number, side), part)


def make(pictures, n, side, on_tile=None):
    """Reads n pictures and lays their thumbnails out.

    Args:
        pictures: with a `read(number, side)`, see `pictures.Files`.
        n: how many.
        side: of a thumbnail, in pixels.
        on_tile: called after each.

    Returns:
        A `Sheets`, in which a picture that cannot be read is grey.
    """
    columns = max(1, WIDE // side)
    each = columns * columns
    jpegs, missing, waiting = [], {}, []
    for number, found in enumerate(tiles(pictures, range(n), side)):
        if isinstance(found, Exception):
            missing[number] = sentence(found)
            found = np.full((side, side, 3), GREY, np.uint8)
        waiting.append(found)
        if len(waiting) == each or number == n - 1:
            jpegs.append(encoded(sheet(waiting, columns)))
            waiting = []
        if on_tile:
            on_tile()
    return Sheets(side, columns, each, jpegs, missing)


def sheet(squares, columns):
    """Squares `[side, side, 3]` in rows, as one uint8 image; what is left of it is grey."""
    side = squares[0].shape[0]
    columns = min(columns, len(squares))
    rows = -(-len(squares) // columns)
    image = np.full((rows * side, columns * side, 3), GREY, np.uint8)
    for i, square in enumerate(squares):
        top, left = i // columns * side, i % columns * side
        image[top : top + side, left : left + side] = square
    return image


def encoded(image):
    """A uint8 image as the bytes of a JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def best_side(pictures, n, most):
    """The largest side whose thumbnails are foreseen to take no more than so many bytes.

    It is foreseen by a sample of 144 pictures, evenly spaced.

    Args:
        pictures: as in `make`.
        n: how many.
        most: bytes of all JPEGs.

    Returns:
        One of `SIDES`, or None where even the smallest are too large.
    """
    numbers = sorted({round(i) for i in np.linspace(0, n - 1, SAMPLE)})
    found = [t for t in tiles(pictures, numbers, SIDES[0]) if not isinstance(t, Exception)]
    if not found:
        return SIDES[0]
    for side in SIDES:
        squares = [codec.resize_and_crop(square, side) for square in found]
        size = len(encoded(sheet(squares, math.isqrt(len(squares)))))
        if size / len(squares) * n <= most:
            return side
    return None
