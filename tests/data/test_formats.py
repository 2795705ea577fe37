"""Kinds of files: what each shows, in closed form, or the one sentence that leaves it out."""

import io
import os
import socket
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from simsiam_keras.data import images as codec
from simsiam_keras.data import ranges
from tests.conftest import ROOT
from tests.data.pictures import BLUE, RED, chunk, encoded, icc, npy, png16, solid, tiff

H, W = 5, 7
RANDOM = np.random.default_rng(0)
GREY12 = RANDOM.integers(0, 4096, (H, W)).astype("u2")
RGB16 = RANDOM.integers(0, 65536, (H, W, 3)).astype("u2")
RGB12 = RANDOM.integers(0, 4096, (H, W, 3)).astype("u2")
RGBA16 = RANDOM.integers(0, 65536, (H, W, 4)).astype("u2")
UNIT = RANDOM.random((H, W)).astype("f4")
RGB8 = RANDOM.integers(0, 256, (H, W, 3)).astype("u1")
RGBA8 = RANDOM.integers(0, 256, (H, W, 4)).astype("u1")


def scaled(values, low, high):
    """The rule, one value after another."""
    found = [round(255 * min(1, max(0, (v - low) / (high - low)))) for v in values.ravel().tolist()]
    return rgb(np.array(found, "u1").reshape(values.shape))


def rgb(values):
    return np.repeat(values[..., None], 3, -1) if values.ndim == 2 else values


def over_white(colours, alpha):
    """Of colours and opacity in [0, 1]."""
    return np.rint(255 * (colours * alpha[..., None] + 1 - alpha[..., None])).astype("u1")


def high_bytes(values):
    return rgb((values >> 8).astype("u1"))


def percentiles(values):
    return tuple(np.percentile(values, (0.1, 99.9)).tolist())


def pages(*images):
    return encoded(images[0], "TIFF", save_all=True, append_images=images[1:])


KEYED = RGB12.copy()
KEYED[0, 0] = (1, 2, 3)
KEYED_SHOWN = scaled(KEYED, 0, 4095)
KEYED_SHOWN[0, 0] = 255
HOLED = UNIT.copy()
HOLED[0, 0], HOLED[0, 1] = np.nan, np.inf
HOLED_SHOWN = scaled(np.nan_to_num(UNIT), 0, 1)
HOLED_SHOWN[0, 0], HOLED_SHOWN[0, 1] = 0, 255

# The bytes, `value_range`, what is shown, what a wrong rule would show.
EXACT = {
    "12 bits in a 16-bit PNG": (
        png16(GREY12[..., None]),
        (0, 4095),
        scaled(GREY12, 0, 4095),
        scaled(GREY12, 0, 65535),
    ),
    "16-bit PNG by its own range": (
        png16(GREY12[..., None]),
        "file",
        scaled(GREY12, *percentiles(GREY12)),
        scaled(GREY12, GREY12.min(), GREY12.max()),
    ),
    "16-bit RGB PNG": (png16(RGB16), (0, 65535), scaled(RGB16, 0, 65535), high_bytes(RGB16)),
    "12 bits in a 16-bit RGB PNG": (
        png16(RGB12),
        (0, 4095),
        scaled(RGB12, 0, 4095),
        high_bytes(RGB12),
    ),
    "16-bit PNG with a transparent colour": (
        png16(KEYED, key=(1, 2, 3)),
        (0, 4095),
        KEYED_SHOWN,
        scaled(KEYED, 0, 4095),
    ),
    "16-bit TIFF": (tiff(GREY12), (0, 4095), scaled(GREY12, 0, 4095), high_bytes(GREY12)),
    "big-endian 16-bit TIFF": (
        tiff(GREY12, ">"),
        (0, 4095),
        scaled(GREY12, 0, 4095),
        scaled(GREY12.byteswap(), 0, 4095),
    ),
    "16-bit TIFF that is white at 0": (
        tiff(GREY12, photometric=0),
        (0, 4095),
        255 - scaled(GREY12, 0, 4095),
        scaled(GREY12, 0, 4095),
    ),
    "16-bit RGB TIFF": (tiff(RGB16), (0, 65535), scaled(RGB16, 0, 65535), high_bytes(RGB16)),
    "big-endian 16-bit RGB TIFF": (
        tiff(RGB12, ">"),
        (0, 4095),
        scaled(RGB12, 0, 4095),
        high_bytes(RGB12),
    ),
    "compressed 16-bit RGB TIFF": (
        tiff(RGB12, deflate=True),
        (0, 4095),
        scaled(RGB12, 0, 4095),
        high_bytes(RGB12),
    ),
    "compressed big-endian 16-bit RGB TIFF": (
        tiff(RGB12, ">", deflate=True),
        (0, 4095),
        scaled(RGB12, 0, 4095),
        high_bytes(RGB12),
    ),
    "signed 16-bit TIFF": (
        tiff(GREY12.astype("i2") - 1024),
        (-1024, 3071),
        scaled(GREY12, 0, 4095),
        scaled(GREY12 - np.uint16(1024), 0, 65535),
    ),
    "32-bit TIFF": (
        tiff(GREY12.astype("u4") << 20),
        (0, 4095 * 2**20),
        scaled(GREY12, 0, 4095),
        scaled((GREY12.astype("u4") << 20).view("i4"), 0, 4095 * 2**20),
    ),
    "float TIFF": (tiff(UNIT), (0, 1), scaled(UNIT, 0, 1), rgb(UNIT.astype("u1"))),
    "float TIFF by its own range": (
        tiff(UNIT - 7),
        None,
        scaled(UNIT - 7, *percentiles(UNIT - 7)),
        scaled(UNIT, 0, 1),
    ),
    "TIFF of three pages": (
        pages(*map(Image.fromarray, (RGB8, RGB8[::-1], RGB8[:, ::-1]))),
        None,
        RGB8,
        RGB8[:, ::-1],
    ),
    "8-bit TIFF, turned": (
        tiff(RGB8, orientation=6),
        None,
        RGB8.swapaxes(0, 1)[:, ::-1],
        RGB8.swapaxes(0, 1),
    ),
    "16-bit RGB TIFF, turned": (
        tiff(RGB12, orientation=6),
        (0, 4095),
        scaled(RGB12, 0, 4095).swapaxes(0, 1)[:, ::-1],
        scaled(RGB12, 0, 4095).swapaxes(0, 1),
    ),
    "npy": (npy(RGB8[..., 0]), None, rgb(RGB8[..., 0]), RGB8),
    "npy of one channel": (npy(RGB8[..., :1]), None, rgb(RGB8[..., 0]), RGB8),
    "npy of three channels": (npy(RGB8), "file", RGB8, RGB8[..., ::-1]),
    "npy in Fortran's order": (npy(np.asfortranarray(RGB8)), None, RGB8, RGB8[..., ::-1]),
    "npy of 12 bits": (
        npy(RGB12),
        (0, 4095),
        scaled(RGB12, 0, 4095),
        high_bytes(RGB12),
    ),
    "big-endian npy": (
        npy(GREY12.astype(">u2")),
        (0, 4095),
        scaled(GREY12, 0, 4095),
        scaled(GREY12.byteswap(), 0, 4095),
    ),
    "npy of floats with NaN and infinity": (
        npy(HOLED.astype("f8")),
        (0, 1),
        HOLED_SHOWN,
        scaled(UNIT, 0, 1),
    ),
    "npy of half floats": (
        npy(UNIT.astype("f2")),
        (0, 1),
        scaled(UNIT.astype("f2"), 0, 1),
        rgb(UNIT.astype("u1")),
    ),
    "npy of a mask": (
        npy(UNIT > 0.5),
        None,
        rgb(np.where(UNIT > 0.5, 255, 0).astype("u1")),
        rgb((UNIT > 0.5).astype("u1")),
    ),
    "npy of one value": (npy(np.full((H, W), 7.0)), None, np.zeros((H, W, 3)), np.full((H, W), 7)),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_shown(name):
    data, value_range, expected, wrong = EXACT[name]
    shown = codec.decode(data, value_range=value_range)
    assert shown.dtype == np.uint8 and shown.shape == codec.header_shape(data)
    assert np.array_equal(shown, expected)
    assert not np.array_equal(shown, wrong)


@pytest.mark.parametrize("ending", [".png", ".npy", ".tif"])
def test_a_path_shows_what_its_bytes_do(ending, tmp_path):
    data = {".png": png16(RGB12), ".npy": npy(RGB12), ".tif": tiff(RGB12)}[ending]
    path = tmp_path / f"x{ending}"
    path.write_bytes(data)
    assert np.array_equal(codec.decode(str(path)), codec.decode(data))


# The bytes, `value_range`, colours and opacity in [0, 1], which are rounded twice.
TRANSPARENT = {
    "16-bit RGBA PNG": (png16(RGBA16), RGBA16 / 65535),
    "16-bit grey and alpha PNG": (png16(RGBA16[..., :2]), RGBA16[..., [0, 0, 0, 1]] / 65535),
    "16-bit RGBA TIFF": (tiff(RGBA16), RGBA16 / 65535),
    "npy of 16 bits and four channels": (npy(RGBA16), RGBA16 / 65535),
    "npy of four channels": (npy(RGBA8), RGBA8 / 255),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_is_over_white(name):
    data, values = TRANSPARENT[name]
    shown = codec.decode(data, value_range=(0, 65535)).astype(int)
    expected = over_white(values[..., :3], values[..., 3]).astype(int)
    assert np.abs(shown - expected).max() <= 1
    assert np.abs(shown - np.rint(255 * values[..., :3])).max() > 1


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiff(compression):
    image = solid(RED, (32, 16))
    shown = codec.decode(encoded(image, "TIFF", compression=compression)).astype(int)
    np.testing.assert_allclose(shown, np.asarray(image), atol=3 if compression == "jpeg" else 0)


def test_fax():
    values = RANDOM.random((20, 40)) > 0.5
    shown = codec.decode(encoded(Image.fromarray(values), "TIFF", compression="group4"))
    assert np.array_equal(shown, rgb(np.where(values, 255, 0).astype("u1")))


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_photographs_of_phones(kind, orientation):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = solid(RED, (64, 32))
    image.paste(BLUE, (0, 0, 32, 32))
    exif = Image.Exif()
    exif[codec.ORIENTATION] = orientation
    image.info["exif"] = exif.tobytes()  # what pillow-heif writes
    options = {"exif": exif} if kind == "AVIF" else {}
    data = encoded(image, kind, quality=95, **options)
    shown = codec.decode(data).astype(int)
    assert shown.shape == codec.header_shape(data) == {1: (32, 64, 3), 6: (64, 32, 3)}[orientation]
    first, last = shown[0, 0], shown[-1, -1]
    assert np.abs(first - BLUE).max() < 20 and np.abs(last - RED).max() < 20


@pytest.mark.parametrize("name", ["floats in colour", "half floats", "doubles"])
def test_tiff_that_pillow_does_not_read(name):
    pytest.importorskip("tifffile")
    values = {
        "floats in colour": np.stack([UNIT, UNIT / 2, 1 - UNIT], -1),
        "half floats": UNIT.astype("f2"),
        "doubles": UNIT.astype("f8"),
    }[name]
    data = tiff(values)
    with pytest.raises(OSError):
        Image.open(io.BytesIO(data))
    shown = codec.decode(data, value_range=(0, 1))
    assert codec.header_shape(data) == shown.shape
    assert np.array_equal(shown, scaled(values, 0, 1))
    assert not np.array_equal(shown, scaled(values, 0, 2))


# DICOM.


def dicom(values, **tags):
    """A DICOM file of `[h, w]` or `[frames, h, w]`, uint16, or `[h, w, 3]`, uint8."""
    pydicom = pytest.importorskip("pydicom")
    colour = values.shape[-1] == 3
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = values.shape[:2] if colour else values.shape[-2:]
    data.SamplesPerPixel, data.PixelRepresentation = 3 if colour else 1, 0
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * values.dtype.itemsize
    data.BitsStored, data.HighBit = data.BitsAllocated, data.BitsAllocated - 1
    if values.ndim == 3 and not colour:
        data.NumberOfFrames = len(values)
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = values.tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


# values, tags, `value_range`, the range that follows, whether black is the largest
RADIOGRAPHS = {
    "12 bits": (GREY12, {}, (0, 4095), (0, 4095), False),
    "its own range": (GREY12, {}, None, percentiles(GREY12), False),
    "rescaled": (
        GREY12,
        {"RescaleSlope": 2, "RescaleIntercept": -1024},
        (-1000, 1000),
        (12, 1012),
        False,
    ),
    "its own window": (
        GREY12,
        {"WindowCenter": 1000.5, "WindowWidth": 401},
        "file",
        (800, 1200),
        False,
    ),
    "the first of its windows": (
        GREY12,
        {"WindowCenter": [1000.5, 2000], "WindowWidth": [401, 10]},
        "file",
        (800, 1200),
        False,
    ),
    "a window of rescaled values": (
        GREY12,
        {"RescaleSlope": 1, "RescaleIntercept": -24, "WindowCenter": 976.5, "WindowWidth": 401},
        None,
        (800, 1200),
        False,
    ),
    "a range that is given and a window": (
        GREY12,
        {"WindowCenter": 1000.5, "WindowWidth": 401},
        (0, 4095),
        (0, 4095),
        False,
    ),
    "white at 0": (
        GREY12,
        {"PhotometricInterpretation": "MONOCHROME1"},
        (0, 4095),
        (0, 4095),
        True,
    ),
    "the first of two frames": (np.stack([GREY12, GREY12 // 2]), {}, (0, 4095), (0, 4095), False),
}


@pytest.mark.parametrize("name", RADIOGRAPHS)
def test_radiographs(name):
    values, tags, value_range, (low, high), inverted = RADIOGRAPHS[name]
    data = dicom(values, **tags)
    shown = codec.decode(data, value_range=value_range)
    assert codec.header_shape(data) == shown.shape
    expected = scaled(values if values.ndim == 2 else values[0], low, high)
    assert np.array_equal(shown, 255 - expected if inverted else expected)
    assert not np.array_equal(shown, 255 - shown)
    assert not np.array_equal(shown, scaled(GREY12, 0, 65535))


def test_dicom_in_colour_and_in_8_bits():
    assert np.array_equal(codec.decode(dicom(RGB8)), RGB8)
    grey = np.ascontiguousarray(RGB8[..., 0])
    assert np.array_equal(codec.decode(dicom(grey)), rgb(grey))
    assert codec.own_range(dicom(grey)) is None and codec.own_range(dicom(GREY12)) is not None


# Colour profiles.

SRGB = np.array(
    [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)]
)
ADOBE = np.array(
    [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
)
P3 = np.array(
    [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]
)


def in_srgb(values, primaries, gamma):
    """IEC 61966-2-1 of what a matrix profile means."""
    linear = (values / 255) ** gamma @ primaries @ np.linalg.inv(SRGB)
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("primaries", [ADOBE, P3], ids=["Adobe RGB", "Display P3"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "RGBA", "16 bit"])
def test_wide_colours_become_those_of_srgb(primaries, kind):
    values = np.repeat(np.repeat(RANDOM.integers(60, 200, (3, 4, 3)).astype("u1"), 8, 0), 8, 1)
    options = {"icc_profile": icc(primaries, 2.2)}
    image, kind = Image.fromarray(values), {"16 bit": "PNG"}.get(kind, kind)
    if kind == "JPEG":
        options |= {"quality": 100, "subsampling": 0}
    if kind == "RGBA":
        image.putalpha(255)
        kind = "PNG"
    shown = codec.decode(encoded(image, kind, **options)).astype(float)
    expected = in_srgb(values, primaries, 2.2)
    assert np.abs(shown - expected).max() < (5 if kind == "JPEG" else 2)
    assert np.abs(values - expected).max() > 10  # and as they are, they would be wrong


@pytest.mark.parametrize("profile", ["srgb", "damaged", "grey"])
def test_a_profile_that_changes_nothing_costs_nothing(profile):
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = {"srgb": made, "damaged": made[:200], "grey": b"no profile"}[profile]
    assert np.array_equal(
        codec.decode(encoded(Image.fromarray(RGB8), "PNG", icc_profile=data)), RGB8
    )


@pytest.mark.parametrize("what", ["profile", "text before", "text after", "16 bits, text after"])
def test_a_png_with_a_long_profile_or_text(what):
    values, bits = (RGB12, (0, 4095)) if "16" in what else (RGB8, None)
    data = png16(RGB12) if "16" in what else encoded(Image.fromarray(RGB8), "PNG")
    text = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2_000_000)))
    if what == "profile":
        data = encoded(Image.fromarray(RGB8), "PNG", icc_profile=bytes(2_000_000))
    elif what == "text before":
        data = data[:33] + text + data[33:]
    else:
        data = data[:-12] + text + data[-12:]
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(data)).load()
    expected = scaled(values, *bits) if bits else values
    assert np.array_equal(codec.decode(data, value_range=bits), expected)
    assert codec.header_shape(data) == (H, W, 3)


# Ranges.


def test_a_hot_pixel_does_not_darken_the_rest():
    values = np.full((100, 100), 1000, "u2")
    values[::2] = 3000
    values[0, 0] = 65535
    shown = codec.decode(npy(values))
    assert shown[0, 0].tolist() == [255] * 3
    assert shown[2, 2].tolist() == [255] * 3 and shown[1, 1].tolist() == [0] * 3
    assert ranges.of_values(values) == (1000.0, 3000.0) != (values.min(), values.max())


def test_a_picture_almost_of_one_value_keeps_the_others():
    values = np.zeros((100, 100), "u2")
    values[0, :5] = 900
    assert ranges.of_values(values) == (0.0, 900.0)
    assert ranges.of_values(np.full((3, 3), 5.0)) == (5.0, 6.0)
    with pytest.raises(ValueError, match="finite"):
        ranges.of_values(np.full((3, 3), np.nan))


def test_the_range_of_a_set_is_that_of_its_files():
    low, high = png16(GREY12[..., None] // 4), png16(GREY12[..., None])
    items = [low, encoded(Image.fromarray(RGB8), "PNG"), b"damaged", high]
    found = ranges.of_set(items, codec.own_range)
    assert found == (percentiles(GREY12 // 4)[0], percentiles(GREY12)[1])
    items += [encoded(solid(RED), kind) for kind in ("JPEG", "GIF", "BMP", "WEBP")]
    assert ranges.of_set(items, codec.own_range) == found
    assert ranges.of_set([*items[1:3], *items[4:]], codec.own_range) is None
    assert ranges.of_set(items[::-1], codec.own_range) == found


@pytest.mark.parametrize("text", ["", "full", "1", "1,2,3", "2,1", "1,1", "nan,1", "0,inf"])
def test_a_value_range_that_is_none(text):
    with pytest.raises(ValueError, match=f"`value_range` must be .* Received: {text}$"):
        ranges.parse(text)


# What is left out, and why: quickly, in little memory.


def padded_png(width, height):
    """A PNG that says its size, with enough bytes to be believed."""
    data = png16(np.zeros((1, 1, 1), "u2"))
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return data[:8] + chunk(b"IHDR", size + data[24:29]) + data[33:] + bytes(100_000)


LEFT_OUT = {
    "too large": (padded_png(25000, 25000), "25000 x 25000 pixels are more than 400 million"),
    "thin": (
        encoded(Image.new("L", (65535, 1)), "PNG"),
        "65535 x 1 pixels are thinner than 1 to 50",
    ),
    "thinner": (encoded(Image.new("1", (1, 1000000)), "PNG"), "1 x 1000000 pixels are thinner"),
    "thin npy": (npy(np.zeros((1, 100), "u1")), "100 x 1 pixels are thinner"),
    "labels": (npy(np.zeros(9)), r"array of shape \[9\]; an image is"),
    "many channels": (npy(np.zeros((9, 9, 13), "u2")), r"shape \[9, 9, 13\]"),
    "complex": (npy(np.zeros((9, 9), complex)), "values of type complex128"),
    "objects": (npy(np.array([[{}]])), "Python objects, which are programs and not read"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("function", [codec.header_shape, codec.decode])
def test_what_is_left_out(name, function, tmp_path):
    data, sentence = LEFT_OUT[name]
    (tmp_path / "x.npy").write_bytes(data)
    for item in (data, str(tmp_path / "x.npy")):
        with pytest.raises(codec.Skipped, match=sentence) as error:
            function(item)
        assert error.value.skipped is True


MISSING = {
    "pillow_heif": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC needs pillow-heif"),
    "pydicom": (bytes(128) + b"DICM" + bytes(200), "DICOM needs pydicom: pip install pydicom"),
    "tifffile": (tiff(UNIT.astype("f2")), "TIFF .*; pip install tifffile"),
}


@pytest.mark.parametrize("library", MISSING)
def test_a_library_that_is_missing_is_named(library, monkeypatch):
    data, sentence = MISSING[library]
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.as_plugin", None)
    with pytest.raises(codec.Skipped, match=sentence):
        codec.header_shape(data)


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device", "link to a fifo"])
def test_what_is_no_file_is_never_opened(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    path = "x.png"
    began = time.perf_counter()
    if kind == "device":
        path = "/dev/zero"
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path)
    else:
        os.mkfifo("fifo")
        os.symlink("fifo", path) if "link" in kind else os.rename("fifo", path)
    for function in (codec.header_shape, codec.decode):
        with pytest.raises(codec.Skipped, match="no regular file"):
            function(path)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("kind", ["PPM", "TGA", "PCX", "EPS", "JPEG2000", "ICO"])
def test_rare_kinds_stay_closed_whatever_they_are_called(kind, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(solid(RED, (32, 32)), kind))
    with Image.open(path) as image:  # Pillow alone would
        assert image.size == (32, 32)
    with pytest.raises(OSError, match="no image of a known kind"):
        codec.decode(str(path))


@pytest.mark.parametrize("data", [b"II*\0" + bytes(40), b"\x93NUMPY" + bytes(40), bytes(200), b""])
def test_damage_is_no_reason_to_skip(data):
    with pytest.raises(Exception) as error:
        codec.decode(data)
    assert not getattr(error.value, "skipped", False)


BOUNDED = """
import resource, sys, time
from simsiam_keras.data import images
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
shape = images.decode(sys.argv[1], 128).shape
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(min(shape[:2]), (after - before) / 1000, time.perf_counter() - began)
"""


@pytest.mark.parametrize(("kind", "megabytes", "seconds"), [("JPEG", 100, 4), ("PNG", 400, 8)])
def test_a_large_picture_takes_bounded_memory_and_time(kind, megabytes, seconds, tmp_path):
    path = tmp_path / "x"
    Image.new("L", (13000, 13000), 200).save(path, kind)
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    side, memory, elapsed = map(float, done.stdout.split())
    assert 128 <= side < 256 and memory < megabytes and elapsed < seconds
    assert not done.stderr  # no warning that it may be an attack


LARGE = Image.new("L", (6000, 6000), 9)
WAITS = {
    "a PNG": (encoded(LARGE, "PNG"), 100, True),
    "a JPEG as a whole": (encoded(LARGE, "JPEG"), None, True),
    "a JPEG at a fraction": (encoded(LARGE, "JPEG"), 100, False),
    "a JPEG at half": (encoded(LARGE, "JPEG"), 3000, False),
    "a progressive JPEG": (encoded(LARGE, "JPEG", progressive=True), 100, True),
    "a small PNG": (encoded(solid(RED), "PNG"), None, False),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_is_large_waits_for_its_turn(name):
    data, min_side, waits = WAITS[name]
    thread = threading.Thread(target=codec.decode, args=(data, min_side))
    with codec._alone:
        thread.start()
        thread.join(1 if waits else 60)
        assert thread.is_alive() == waits
    thread.join(60)
    assert not thread.is_alive()
