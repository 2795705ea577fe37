"""Decoding of every kind of file: known pixels, orientation, damage."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from simsiam_keras.data import images as codec
from tests.data.pictures import BLUE, RED, WHITE, encoded, solid, split_image


def palette():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    return image


def palette_with_hole():
    image = palette()
    image.info["transparency"] = 1
    return encoded(image, "PNG", transparency=1)


def animation():
    return encoded(solid(RED), "GIF", save_all=True, append_images=[solid(BLUE), solid(BLUE)])


def grey16(values, **options):
    return encoded(Image.fromarray(np.array([values], np.uint16)), "PNG", **options)


def two_pixels(mode, *values):
    image = Image.new(mode, (2, 1))
    image.putdata(values)
    return image


# bytes, the first row of pixels, whether Pillow's plain convert("RGB") gets it wrong
EXACT = {
    "rgb png": (encoded(two_pixels("RGB", (1, 2, 3), BLUE), "PNG"), [(1, 2, 3), BLUE], False),
    "grey png": (encoded(two_pixels("L", 7, 255), "PNG"), [(7, 7, 7), WHITE], False),
    "1-bit png": (encoded(two_pixels("1", 0, 255), "PNG"), [(0, 0, 0), WHITE], False),
    "palette png": (encoded(palette(), "PNG"), [RED, BLUE], False),
    "palette bmp": (encoded(palette(), "BMP"), [RED, BLUE], False),
    "rgb bmp": (encoded(two_pixels("RGB", (9, 8, 7), RED), "BMP"), [(9, 8, 7), RED], False),
    "palette with hole": (palette_with_hole(), [RED, WHITE], True),
    "alpha": (
        encoded(two_pixels("RGBA", (255, 0, 0, 128), (0, 0, 0, 0)), "PNG"),
        [(255, 127, 127), WHITE],
        True,
    ),
    "grey alpha": (encoded(two_pixels("LA", (0, 0), (0, 255)), "PNG"), [WHITE, (0, 0, 0)], True),
    "transparent colour": (
        encoded(two_pixels("RGB", RED, BLUE), "PNG", transparency=RED),
        [WHITE, BLUE],
        True,
    ),
    "16-bit grey": (
        grey16([0, 128, 129, 25700, 65535]),
        [(v, v, v) for v in (0, 0, 1, 100, 255)],
        True,
    ),
    "animated gif": (animation(), [RED] * 6, False),
    "webp": (encoded(two_pixels("RGB", RED, BLUE), "WEBP", lossless=True), [RED, BLUE], False),
}


@pytest.mark.parametrize("name", EXACT)
def test_decode_gives_the_known_pixels(name):
    data, row, naive_is_wrong = EXACT[name]
    image = codec.decode(data)
    assert image.dtype == np.uint8
    assert image.shape == codec.header_shape(data)
    assert image[0].tolist() == [list(pixel) for pixel in row]
    naive = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(naive, image) != naive_is_wrong


def test_decode_cmyk_jpeg():
    data = encoded(solid((255, 0, 0, 0), (16, 16), "CMYK"), "JPEG", quality=95)
    np.testing.assert_allclose(codec.decode(data), np.full((16, 16, 3), (0, 255, 255)), atol=3)


# What a viewer does to the stored pixels, by EXIF 2.32, 4.6.4 A: row 0 and column 0 are at
UPRIGHT = {
    1: lambda x: x,  # top, left
    2: lambda x: x[:, ::-1],  # top, right
    3: lambda x: x[::-1, ::-1],  # bottom, right
    4: lambda x: x[::-1],  # bottom, left
    5: lambda x: x.swapaxes(0, 1),  # left, top
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda x: x.swapaxes(0, 1)[::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_decode_honours_the_exif_orientation(orientation):
    exif = Image.Exif()
    exif[codec.ORIENTATION] = orientation
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    data = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    image = codec.decode(data)
    assert np.array_equal(image, UPRIGHT[orientation](pixels))
    assert image.shape == codec.header_shape(data)
    assert np.array_equal(image, pixels) == (orientation == 1)


def test_decode_turns_a_phone_photo_upright():
    exif = Image.Exif()
    exif[codec.ORIENTATION] = 6
    data = encoded(split_image(RED, BLUE), "JPEG", quality=100, subsampling=0, exif=exif)
    image = codec.decode(data).astype(int)
    assert image.shape == (16, 8, 3)
    np.testing.assert_allclose(image[:7], np.broadcast_to(RED, (7, 8, 3)), atol=4)
    np.testing.assert_allclose(image[9:], np.broadcast_to(BLUE, (7, 8, 3)), atol=4)


@pytest.mark.parametrize("min_side, side", [(None, 128), (100, 128), (64, 64), (20, 32), (7, 8)])
def test_decode_shrinks_an_image_but_not_below_min_side(min_side, side):
    data = encoded(split_image(RED, BLUE, (2 * 128, 128)), "JPEG", quality=95)
    image = codec.decode(data, min_side)
    assert image.shape == (side, 2 * side, 3)
    np.testing.assert_allclose(image[:, : side - 4].mean((0, 1)), RED, atol=4)
    np.testing.assert_allclose(image[:, side + 4 :].mean((0, 1)), BLUE, atol=4)


def test_decode_refuses_what_is_no_image():
    with pytest.raises(OSError):
        codec.decode(b"text")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_costs_the_orientation_only():
    data = encoded(solid(RED), "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")
    assert np.array_equal(codec.decode(data), np.full((4, 6, 3), RED))
    assert codec.header_shape(data) == (4, 6, 3)


def test_damage_beside_the_orientation_costs_nothing():
    # Orientation 6, and a resolution unit that is text, which Pillow reads and cannot write.
    entries = struct.pack("<HHIIHHI4s", 0x0112, 3, 1, 6, 0x0128, 2, 3, b"ab")
    exif = b"Exif\x00\x00II*\x00" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    data = encoded(split_image(RED, BLUE), "PNG", exif=exif)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = codec.decode(data)
    assert image.shape == codec.header_shape(data) == (16, 8, 3)
    assert np.array_equal(image[0, 0], RED) and np.array_equal(image[-1, 0], BLUE)
