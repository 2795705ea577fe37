"""Encoded images to uint8 arrays, RGB unless told: one decoder whatever the backend."""

import contextlib
import functools
import io
import threading

import numpy as np
from PIL import Image, ImageCms

from simsiam_keras.data import formats, ranges
from simsiam_keras.data.formats import ENDINGS, is_regular
from simsiam_keras.data.stored import COLOURS, ORIENTATION, TURNS, Skipped

__all__ = [
    "ENDINGS",
    "ORIENTATION",
    "Skipped",
    "decode",
    "each_channel",
    "header_shape",
    "is_regular",
    "on_canvas",
    "own_range",
    "resize_and_crop",
    "to_grey",
    "to_rgb",
]

WHITE = 255
# Larger ones are decoded one at a time, whatever the number of threads: 100 MB each as RGB.
ALONE = 2**25  # pixels
SAME_COLOUR = 2  # of 255, by which a profile may differ from sRGB
_alone = threading.Lock()


def decode(item, min_side=None, value_range=None, channels=3):
    """Decodes one image as a viewer would show it.

    The EXIF orientation is applied, colours of a wide profile are converted to sRGB, transparency
    is composited on white, a palette, grey or CMYK image becomes RGB, what is deeper than 8 bits
    is scaled to 0..255 by `value_range`, and of an animation or of many pages the first is taken.

    Args:
        item: a path, or the encoded bytes.
        min_side: when given, an image may come smaller by a whole number, as long as its short
            side stays at least this; default None, full size.
        value_range: `(low, high)`, the values that become 0 and 255 where the image is deeper than
            8 bits; default None or `"file"`, its own, see `own_range`.
        channels: of the result; default 3. With 1 what is said above becomes grey, the luma of
            ITU-R 601. Any other number must be what the image has, and its channels then are what
            they are: a fourth is no transparency, and colours are not converted.

    Returns:
        uint8 `[height, width, channels]`, possibly read-only.

    Raises:
        Skipped: if it is no regular file, too large or too thin, has other channels, or needs a
            library that is not installed.
        Exception: of whatever kind a decoder raises on a damaged file.
    """
    with formats.opened(item, channels) as stored, _turn_of(stored, min_side):
        if channels not in COLOURS:
            return _as_they_are(stored, min_side, value_range)
        image = _eight_bits(stored, min_side, value_range)
        image = _reduced(image, min_side)
        if stored.turn is not None:
            image = image.transpose(stored.turn)
        if stored.profile:
            image = _to_srgb(image, stored.profile)
        return to_rgb(image) if channels == 3 else to_grey(image)


def header_shape(item, channels=3):
    """The shape that `decode` would give, read from the header only.

    Args:
        item: a path, or the encoded bytes.
        channels: as in `decode`.

    Returns:
        `(height, width, channels)`.

    Raises:
        Skipped: as in `decode`.
        Exception: of whatever kind a decoder raises when it is not an image.
    """
    with formats.opened(item, channels) as stored:
        width, height = stored.size
        quarter = stored.turn in [TURNS[number] for number in (5, 6, 7, 8)]
        return (width, height, channels) if quarter else (height, width, channels)


def own_range(item, channels=3):
    """What of an image deeper than 8 bits becomes 0 and 255 by its own account.

    It is the first window that a DICOM file names, otherwise `ranges.of_values` of its pixels, all
    channels together.

    Args:
        item: a path, or the encoded bytes.
        channels: as in `decode`.

    Returns:
        None for an image of at most 8 bits; otherwise a function without arguments to
        `(low, high)`.

    Raises:
        Exception: as in `decode`.
    """
    if formats.has_8_bits(item):
        return None
    with formats.opened(item, channels) as stored:
        if not stored.deep:
            return None

    def measure():
        with formats.opened(item, channels) as stored, _turn_of(stored):
            values = stored.pixels(None)
            values = _colours(values)[0] if channels in COLOURS else values
            return _low_and_high(stored, values, None)

    return measure


def mode(item, channels=3):
    """What an image's pixels are, such as `RGB`, `L` or `uint16`, read from the header only."""
    with formats.opened(item, channels) as stored:
        return stored.mode


def to_rgb(image):
    """Converts a Pillow image of 8 bits of any mode to uint8 RGB, transparency over white.

    Args:
        image: a `PIL.Image.Image`.

    Returns:
        uint8 `[height, width, 3]`, possibly read-only.
    """
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, WHITE))
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # or it copies


def to_grey(image):
    """As `to_rgb`, then to uint8 `[height, width, 1]` by ITU-R 601, as Pillow rounds it."""
    if image.mode != "L" or image.has_transparency_data:
        image = Image.fromarray(to_rgb(image)).convert("L")
    return np.asarray(image)[..., None]


def each_channel(function, image):
    """A function of a Pillow image of one channel, applied to each of an array's.

    Args:
        function: of a `PIL.Image.Image` to another.
        image: uint8 `[height, width, channels]`.

    Returns:
        uint8, of as many channels.
    """
    planes = (Image.fromarray(image[..., c]) for c in range(image.shape[2]))
    return np.stack([np.asarray(function(plane)) for plane in planes], axis=-1)


def resize_and_crop(image, size, eval_crop=1.0):
    """Scales the short side to `round(size / eval_crop)`, then crops the centre `size x size`.

    Bilinear with antialiasing. Nothing is resampled when the short side has that length already.

    Args:
        image: uint8 `[height, width, channels]`.
        size: side of the result, at least 1.
        eval_crop: fraction of the short side that is kept, in (0, 1]; default 1. ImageNet's usual
            224 out of 256 is .875.

    Returns:
        uint8 `[size, size, channels]`.
    """
    height, width = image.shape[:2]
    short, target = min(height, width), round(size / eval_crop)
    if short != target:
        height, width = (max(target, round(side * target / short)) for side in (height, width))
        image = _resampled(image, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def on_canvas(image, canvas):
    """Places an image in the top left corner of an upright canvas, transposed if it is wide.

    One that is too large is made smaller with its aspect kept, bilinear with antialiasing; none is
    enlarged.

    Args:
        image: uint8 `[height, width, channels]`.
        canvas: `(height, width)`, the height no less than the width.

    Returns:
        uint8 `[*canvas, channels]`, black beside the image, and the image's `(height, width)`
        before it is transposed, int32.
    """
    height, width = image.shape[:2]
    scale = min(canvas[0] / max(height, width), canvas[1] / min(height, width))
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in (height, width))
        image = _resampled(image, height, width)
    placed = np.zeros((*canvas, *image.shape[2:]), "uint8")
    if width > height:
        placed[:width, :height] = image.swapaxes(0, 1)
    else:
        placed[:height, :width] = image
    return placed, np.array([height, width], "int32")


def _resampled(image, height, width):
    def resize(image):
        return image.resize((width, height), Image.Resampling.BILINEAR)

    colours = image.shape[2] == 3
    return np.asarray(resize(Image.fromarray(image)) if colours else each_channel(resize, image))


def _turn_of(stored, min_side=None):
    """What an image waits for that is large while it is decoded, before its pixels are read."""
    by = min(stored.size) // min_side if min_side and stored.shrinks else 1
    by = next(scale for scale in (8, 4, 2, 1) if scale <= max(1, by))
    pixels = stored.size[0] * stored.size[1] / by**2
    return _alone if pixels > ALONE else contextlib.nullcontext()


def _eight_bits(stored, min_side, value_range):
    """The pixels as a Pillow image of 8 bits."""
    pixels = stored.pixels(min_side)
    if not stored.deep:
        return pixels
    colours, alpha = _colours(pixels)
    image = ranges.to_bytes(colours, *_low_and_high(stored, colours, value_range))
    image = WHITE - image if stored.inverted else image
    if stored.key is not None:
        shown = np.any(np.atleast_3d(colours) != np.array(stored.key), axis=-1)
        alpha = np.where(shown, stored.opaque, 0)
    if alpha is None:
        return Image.fromarray(image)
    alpha = ranges.to_bytes(alpha, 0, stored.opaque)
    if image.ndim == 2:
        return Image.merge("LA", [Image.fromarray(x) for x in (image, alpha)])
    return Image.fromarray(np.concatenate([image, alpha[..., None]], axis=-1))


def _as_they_are(stored, min_side, value_range):
    """All channels alike, uint8 `[height, width, channels]`."""
    values = np.asarray(stored.pixels(min_side))
    if stored.deep:
        values = ranges.to_bytes(values, *_low_and_high(stored, values, value_range))

    def finished(plane):
        plane = _reduced(plane, min_side)
        return plane if stored.turn is None else plane.transpose(stored.turn)

    return each_channel(finished, values)


def _low_and_high(stored, values, value_range):
    """What becomes 0 and 255: a file's own where nothing is given."""
    if value_range in (None, ranges.FILE):
        return stored.window or ranges.of_values(values)
    return value_range


def _colours(values):
    """The colours `[h, w]` or `[h, w, 3]`, and the opacity `[h, w]` or None."""
    channels = values.shape[2] if values.ndim == 3 else 1
    if channels == 4:
        return values[..., :3], values[..., 3]
    if values.ndim == 3 and channels < 3:
        return values[..., 0], values[..., 1] if channels == 2 else None
    return values, None


def _reduced(image, min_side):
    """The image smaller by a whole number, averaged, its short side still at least `min_side`."""
    by = min(image.size) // min_side if min_side else 1
    if by < 2:
        return image
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK") or "transparency" in image.info:
        profile = image.info.get("icc_profile")
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        image.info["icc_profile"] = profile
    # Whole squares alone, or the last ones would be drawn out to the width of the others.
    width, height = (side // by * by for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.reduce(by, (left, top, left + width, top + height))


def _to_srgb(image, profile):
    """Colours of a profile as those of sRGB; a profile that is damaged or of grey is ignored."""
    if image.mode in ("P", "PA", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if alpha else image
    transform = _transform(profile, colours.mode) if colours.mode in ("RGB", "CMYK") else None
    if transform is None:
        return image
    key = image.info.get("transparency")
    converted = ImageCms.applyTransform(colours, transform)
    if alpha:
        converted.putalpha(alpha)
    elif key is not None and colours.mode == "RGB":  # the key is one of the colours as stored
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


@functools.lru_cache(64)
def _transform(profile, mode):
    """LittleCMS's transform of a profile to sRGB; None where it would change nothing."""
    with contextlib.suppress(Exception):  # a damaged profile is no reason to lose the picture
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
        if mode == "RGB":
            steps = np.linspace(0, 255, 9).astype(np.uint8)
            grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(9, 81, 3)
            shown = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
            if np.abs(shown.astype(int) - grid).max() <= SAME_COLOUR:
                return None
        return transform
    return None
