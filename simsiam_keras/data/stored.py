"""What the readers of all kinds of image files give."""

import dataclasses
from collections.abc import Callable

from PIL import Image

COLOURS = (1, 3)  # channels that are made of grey or colour; any others are as they are
ORIENTATION = 0x0112  # EXIF's tag
TURNS = {  # EXIF 2.32, 4.6.4 A
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Skipped(ValueError):
    """An image that is left out for what it is, not for damage."""

    skipped = True


@dataclasses.dataclass(frozen=True)
class Stored:
    """An open image file.

    Attributes:
        size: `(width, height)` as stored, before `turn`.
        pixels: function of a short side, or None, to the pixels: a `PIL.Image.Image` of 8 bits,
            which may come at a fraction of the size with at least that short side; or, where it
            is deeper, numbers `[height, width]` or `[height, width, 1 | 2 | 3 | 4]`. Where other
            channels than 1 or 3 are asked for, numbers `[height, width, channels]` of any depth.
        deep: whether it is deeper than 8 bits.
        turn: how a viewer turns it, a `PIL.Image.Transpose` or None.
        window: `(low, high)` that the file itself names as black and white, or None.
        inverted: whether its largest value is black.
        profile: an ICC profile, bytes or None.
        opaque: the value of full opacity, where there is a 2nd or 4th channel and it is deep.
        shrinks: whether it can be decoded at 1/2, 1/4 or 1/8 in the memory of that alone.
        key: values of the transparent colour, where it is deep and has one.
        mode: what its pixels are: Pillow's mode, such as `RGB`, or a type of number.
        channels: how many it has as stored; a palette is one.
    """

    size: tuple
    pixels: Callable
    deep: bool = False
    turn: Image.Transpose | None = None
    window: tuple | None = None
    inverted: bool = False
    profile: bytes | None = None
    opaque: float = 65535
    shrinks: bool = False
    key: tuple | None = None
    mode: str = ""
    channels: int = 1
