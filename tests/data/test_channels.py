"""Images of one channel, of three and of many: what each kind of file gives, or one sentence."""

import io

import numpy as np
import pytest
from PIL import Image

from simsiam_keras.data import batches, cache, found, pipeline, sources, subsets
from simsiam_keras.data import images as codec
from tests.data.pictures import encoded, npy, png16, tiff

H, W = 6, 9
RANDOM = np.random.default_rng(0)
GREY8 = RANDOM.integers(0, 256, (H, W)).astype("u1")
RGB8 = RANDOM.integers(0, 256, (H, W, 3)).astype("u1")
RGBA8 = RANDOM.integers(0, 256, (H, W, 4)).astype("u1")
RGBA16 = RANDOM.integers(0, 65536, (H, W, 4)).astype("u2")
UNIT13 = RANDOM.random((H, W, 13)).astype("f4")


def many(channels, height=H, width=W, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype("u1")


def luma(colours):
    """ITU-R 601 in whole numbers, pixel after pixel."""
    grey = [
        (19595 * r + 38470 * g + 7471 * b + 32768) // 65536
        for r, g, b in colours.reshape(-1, 3).tolist()
    ]
    return np.array(grey, "u1").reshape(*colours.shape[:2], 1)


def mean(colours):
    return np.rint(colours.mean(-1, keepdims=True)).astype("u1")


def scaled(values, low, high):
    found = [round(255 * min(1, max(0, (v - low) / (high - low)))) for v in values.ravel().tolist()]
    return np.array(found, "u1").reshape(values.shape)


def over_white(rgba):
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype("u1")


def pages(values, **options):
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def planes(values):
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


BIG = {"photometric": "minisblack"}
FULL16 = (0, 65535)

# The bytes, `channels`, `value_range`, what is shown, what a wrong rule would show.
SHOWN = {
    "grey PNG": (encoded(Image.fromarray(GREY8), "PNG"), 1, None, GREY8[..., None], None),
    "grey BMP": (encoded(Image.fromarray(GREY8), "BMP"), 1, None, GREY8[..., None], None),
    "grey npy": (npy(GREY8), 1, None, GREY8[..., None], None),
    "grey npy of one channel": (npy(GREY8[..., None]), 1, None, GREY8[..., None], None),
    "grey TIFF": (tiff(GREY8), 1, None, GREY8[..., None], None),
    "colour PNG as grey": (encoded(Image.fromarray(RGB8), "PNG"), 1, None, luma(RGB8), mean(RGB8)),
    "colour npy as grey": (npy(RGB8), 1, None, luma(RGB8), mean(RGB8)),
    "colour TIFF as grey": (tiff(RGB8), 1, None, luma(RGB8), mean(RGB8)),
    "16-bit colour as grey": (
        png16(RGBA16[..., :3]),
        1,
        FULL16,
        luma(scaled(RGBA16[..., :3], *FULL16)),
        mean(scaled(RGBA16[..., :3], *FULL16)),
    ),
    "RGBA PNG as it is": (encoded(Image.fromarray(RGBA8), "PNG"), 4, None, RGBA8, None),
    "16-bit RGBA PNG as it is": (png16(RGBA16), 4, FULL16, scaled(RGBA16, *FULL16), None),
    "grey and alpha as two": (
        encoded(Image.fromarray(RGBA8[..., :2], "LA"), "PNG"),
        2,
        None,
        RGBA8[..., :2],
        None,
    ),
    **{f"npy of {n}": (npy(many(n)), n, None, many(n), many(n)[..., ::-1]) for n in (2, 4, 8, 13)},
    **{f"npy of {n} planes": (npy(planes(many(n))), n, None, many(n), None) for n in (4, 8, 13)},
    "npy of 16 bits": (npy(RGBA16), 4, (0, 4095), scaled(RGBA16, 0, 4095), None),
    "npy of floats by their own range": (
        npy(UNIT13),
        13,
        "file",
        scaled(UNIT13, *np.percentile(UNIT13, (0.1, 99.9))),
        np.stack([scaled(b, *np.percentile(b, (0.1, 99.9))) for b in planes(UNIT13)], -1),
    ),
}
TIFFS = {
    "4": (lambda: tiff(RGBA8), 4, None, RGBA8),
    "4 of 16 bits": (lambda: tiff(RGBA16), 4, FULL16, scaled(RGBA16, *FULL16)),
    "13": (lambda: tiff(UNIT13, photometric=1), 13, (0, 1), scaled(UNIT13, 0, 1)),
    "13 by tifffile": (lambda: pages(UNIT13, **BIG), 13, (0, 1), scaled(UNIT13, 0, 1)),
    "13 in planes": (
        lambda: pages(planes(many(13)), planarconfig="separate", **BIG),
        13,
        None,
        many(13),
    ),
    "8 pages": (lambda: pages(planes(many(8)), **BIG), 8, None, many(8)),
    "8 pages without a word": (
        lambda: pages(planes(many(8)), metadata=None, **BIG),
        8,
        None,
        many(8),
    ),
    "8, compressed": (
        lambda: pages(many(8), planarconfig="contig", compression="zlib", **BIG),
        8,
        None,
        many(8),
    ),
    "8 of 8 x 8, which it says": (
        lambda: pages(many(8, 8, 8), planarconfig="contig", **BIG),
        8,
        None,
        many(8, 8, 8),
    ),
    "turned": (lambda: tiff(RGBA8, orientation=6), 4, None, np.rot90(RGBA8, -1)),
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown(name):
    data, channels, value_range, expected, wrong = SHOWN[name]
    shown = codec.decode(data, None, value_range, channels)
    assert shown.dtype == np.uint8 and shown.shape == codec.header_shape(data, channels)
    assert np.array_equal(shown, expected)
    assert wrong is None or not np.array_equal(shown, wrong)


@pytest.mark.parametrize("name", TIFFS)
def test_what_a_tiff_shows(name):
    pytest.importorskip("tifffile")
    make, channels, value_range, expected = TIFFS[name]
    shown = codec.decode(make(), None, value_range, channels)
    assert shown.shape == codec.header_shape(make(), channels)
    assert np.array_equal(shown, expected)


def test_grey_is_of_what_a_viewer_shows():
    data = encoded(Image.fromarray(RGBA8), "PNG")
    shown = codec.decode(data, channels=1).astype(int)
    assert np.abs(shown - luma(over_white(RGBA8)).astype(int)).max() <= 1
    assert np.abs(shown - luma(RGBA8[..., :3]).astype(int)).max() > 10
    keyed = encoded(Image.fromarray(np.full((H, W), 9, "u1")), "PNG", transparency=9)
    assert (codec.decode(keyed, channels=1) == 255).all()


def test_pillow_agrees_on_grey():
    expected = np.asarray(Image.fromarray(RGB8).convert("L"))[..., None]
    assert np.array_equal(codec.decode(npy(RGB8), channels=1), expected)


def test_many_channels_are_made_smaller_like_colours():
    values = many(3, 64, 48)
    expected = codec.decode(npy(values), 16)
    assert expected.shape == (21, 16, 3)
    doubled = np.concatenate([values, values[..., ::-1]], -1)
    shown = codec.decode(npy(doubled), 16, None, 6)
    assert np.array_equal(shown, np.concatenate([expected, expected[..., ::-1]], -1))
    resized = codec.resize_and_crop(doubled, 20, 0.8)
    assert np.array_equal(resized[..., :3], codec.resize_and_crop(values, 20, 0.8))
    assert np.array_equal(resized[..., 3:], resized[..., 2::-1])


REFUSED = {
    "13 where 3 are wanted": (
        npy(many(13, 20, 30)),
        3,
        r"\[20, 30, 13\].*; --channels=13 takes it",
    ),
    "13 where 1 is wanted": (npy(many(13, 20, 30)), 1, r"\[20, 30, 13\].*; --channels=13 takes it"),
    "2 where 3 are wanted": (npy(many(2)), 3, r"\[6, 9, 2\].*; --channels=2 takes it"),
    "13 planes where 3 are wanted": (
        npy(np.zeros((13, 20, 30), "u1")),
        3,
        r"\[13, 20, 30\].*; --channels=13 takes it",
    ),
    "3 planes where 3 are wanted": (
        npy(np.zeros((3, 20, 30), "u1")),
        3,
        r"\[3, 20, 30\]; an image is .* 4\]$",
    ),
    "3 where 4 are wanted": (npy(RGB8), 4, r"\[6, 9, 3\]; --channels=4 takes \[height, width, 4\]"),
    "grey where 4 are wanted": (npy(GREY8), 4, r"\[6, 9\]; --channels=4 takes"),
    "an array that may be read in two ways": (
        npy(many(8, 8, 8)),
        8,
        r"\[8, 8, 8\] may be \[8, height, width\] or .*one array of an .npz",
    ),
    "a PNG of 3 where 4 are wanted": (
        encoded(Image.fromarray(RGB8), "PNG"),
        4,
        r"it has 3 channel\(s\), not those of --channels=4",
    ),
    "a JPEG where 8 are wanted": (
        encoded(Image.fromarray(RGB8), "JPEG"),
        8,
        r"it has 3 channel\(s\), not those of --channels=8",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_channels_are_left_out(name):
    data, channels, sentence = REFUSED[name]
    for function in (codec.header_shape, codec.decode):
        with pytest.raises(codec.Skipped, match=sentence):
            function(data, channels=channels)


def folder_of(root, channels, n=6, varying=False, ending="npy"):
    for i in range(n):
        values = many(channels, H + 10 * i * varying, W, seed=i)
        path = root / f"{'ab'[i % 2]}" / f"{i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = npy(values) if ending == "npy" else encoded(Image.fromarray(values), ending.upper())
        path.write_bytes(data)
    return f"folder:{root}"


@pytest.mark.parametrize("varying", [False, True], ids=["one size", "sizes"])
@pytest.mark.parametrize(("stored", "channels"), [(3, 1), (4, 4), (8, 8), (13, 13), (4, 1)])
def test_folders(stored, channels, varying, tmp_path):
    spec = folder_of(tmp_path, stored, varying=varying)
    source = sources.load(spec, channels=channels)
    assert source.channels == channels and len(source) == 6
    assert source.image_shape == (None if varying else (H, W, channels))
    assert all(source.read(i).shape[2] == channels for i in range(6))
    said = "\n".join(found.lines(source.found))
    assert f"taken with {channels} channel(s)" in said
    assert found.as_json(source.found)["channels"] == channels
    for kept in (source, subsets.subset(source, [0, 3, 2], "three")):
        (images, labels), *_ = pipeline.evaluation_batches(kept, 4)
        assert images.shape == (len(kept), 4, 4, channels) and len(labels) == len(kept)
        assert images.std() > 0
    (images,) = next(pipeline.training_images(source, 4, 5))
    assert images.shape == (4, 5, 5, channels)


def test_grey_files_in_a_folder(tmp_path):
    for ending in ("png", "bmp", "tif"):
        for i in range(2):
            Image.fromarray(np.full((H, W), 40 * i, "u1")).save(tmp_path / f"{i}.{ending}")
    source = sources.load(f"folder:{tmp_path}", channels=1)
    assert source.images.shape == (6, H, W, 1) and set(np.unique(source.images)) == {0, 40}
    three = sources.load(f"folder:{tmp_path}")
    assert np.array_equal(three.images, source.images.repeat(3, -1))
    assert not any("channel" in line for line in found.lines(three.found))


def test_a_folder_of_two_kinds_takes_those_that_fit(tmp_path):
    folder_of(tmp_path, 4)
    Image.fromarray(RGB8).save(tmp_path / "a" / "x.png")
    source = sources.load(f"folder:{tmp_path}", channels=4)
    assert len(source) == 6
    assert source.found.skipped == (("a/x.png", "it has 3 channel(s), not those of --channels=4"),)
    with pytest.raises(ValueError, match=r"0 image\(s\), without 7 .*--channels=8"):
        sources.load(f"folder:{tmp_path}", channels=8)


def test_one_range_for_all_channels_of_a_set(tmp_path):
    for i in range(3):
        values = np.stack([np.full((H, W), 100 * (c + 1) + i) for c in range(8)], -1)
        (tmp_path / f"{i}.npy").write_bytes(npy(values.astype("u2")))
    source = sources.load(f"folder:{tmp_path}", channels=8)
    assert source.value_range == (100.0, 802.0)
    expected = [round(255 * 100 * c / 702) for c in range(8)]
    assert source.images[0, 0, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_the_cache_keeps_all_channels(kind, tmp_path):
    spec = folder_of(tmp_path / "data", 4, varying=True)
    plain = [sources.load(spec, channels=n).read(1, 4) for n in (4, 1, 3)]
    for _ in range(2):  # written, and read
        for n, expected in zip((4, 1, 3), plain, strict=True):
            source = sources.load(spec, channels=n)
            cache.keep_decoded(source, kind, str(tmp_path / "cache"), 4)
            assert np.array_equal(source.read(1, 4), expected)
            assert np.array_equal(source.read(1, 4), expected)


# Arrays.


def archive(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.mark.parametrize("channels", [2, 4, 8, 13])
@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_arrays(channels, kind, tmp_path):
    images = np.stack([many(channels, seed=i) for i in range(5)])
    stored = images if kind == "u1" else (images / np.float32(255)).astype("f4")
    source = sources.load(archive(tmp_path / "x.npz", images=stored), channels=channels)
    assert np.array_equal(source.images, images) and source.channels == channels
    name = {4: "RGBA"}.get(channels, f"{channels} channels")
    assert source.found.modes == ((name, 5),)


def test_arrays_become_grey(tmp_path):
    images = np.stack([many(3, seed=i) for i in range(5)])
    source = sources.load(archive(tmp_path / "x.npz", images=images), channels=1)
    assert np.array_equal(source.images, np.stack([luma(x) for x in images]))
    for grey in (images[..., 0], images[..., :1]):
        spec = archive(tmp_path / "y.npz", images=grey)
        assert np.array_equal(sources.load(spec, channels=1).images, images[..., :1])
        assert np.array_equal(sources.load(spec).images, images[..., :1].repeat(3, -1))
    rgba = np.stack([many(4, seed=i) for i in range(5)])
    source = sources.load(archive(tmp_path / "z.npz", images=rgba), channels=1)
    assert np.array_equal(source.images, np.stack([luma(over_white(x)) for x in rgba]))


@pytest.mark.parametrize(
    ("stored", "channels", "sentence"),
    [
        (13, 3, "1, 3 or 4 channels. Received: .* 13.; --channels=13 takes it as it is"),
        (13, 1, "1, 3 or 4 channels. Received: .* 13.; --channels=13 takes it as it is"),
        (30, 3, "1, 3 or 4 channels. Received: .* 30.$"),  # as [n, channels, h, w] would be
        (3, 4, r"\[n, h, w, 4\] with --channels=4. Received: .* 3.; --channels=3 takes"),
    ],
)
def test_arrays_of_other_channels_are_refused(stored, channels, sentence, tmp_path):
    spec = archive(tmp_path / "x.npz", images=np.zeros((3, 14, 15, stored), "u1"))
    with pytest.raises(ValueError, match=f"`images` must be .*{sentence}"):
        sources.load(spec, channels=channels)


def test_digits():
    one, three = sources.load("digits", channels=1), sources.load("digits")
    assert one.images.shape == (1437, 8, 8, 1) and three.channels == 3
    assert np.array_equal(one.images.repeat(3, -1), three.images)
    with pytest.raises(ValueError, match="with --channels=4"):
        sources.load("digits", channels=4)


def test_an_array_is_evaluated_as_it_is(tmp_path):
    images = np.stack([many(13, 6, 6, seed=i) for i in range(4)])
    source = sources.load(archive(tmp_path / "x.npz", images=images), channels=13)
    (read,) = batches.read_batches(source, np.arange(4), 6, 1.0, 4)
    assert np.array_equal(read, images)
