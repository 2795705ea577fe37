"""Sources: real files of every kind, known pixels, and what is refused."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from simsiam_keras.data import base, decoding, folders, sources
from simsiam_keras.data import images as codec

REPO = Path(__file__).resolve().parents[2]
SHARED = REPO.parent / "shared" / "data"
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def archive(name):
    if not (SHARED / name).exists():
        pytest.skip(f"needs CIFAR-10 as {SHARED / name}")
    return tarfile.open(SHARED / name)


@pytest.fixture(scope="module")
def cifar_tfds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    with archive("cifar10_tfds.tar.xz") as tar:
        members = [m for m in tar if "train.tfrecord" not in m.name]
        tar.extractall(folder, members, filter="data")
    return folder


@pytest.fixture(scope="module")
def cifar_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    with archive("cifar10_folder.tar.gz") as tar:
        wanted = (m for m in tar if m.isfile() and "/test/" in m.name)
        tar.extractall(folder, (m for m in wanted if "/000" in m.name), filter="data")
    return folder / "cifar10_images"


def solid(color, size=(6, 4), mode="RGB"):
    return Image.new(mode, size, color)


def fill(folder, count, size=(6, 4), ending="png"):
    """Images whose pixels are all their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        solid((i, i, i), size).save(folder / f"{i:03}.{ending}")
    return folder


def split_image(left, right, size=(16, 8)):
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# Decoding: known pixels.


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_honours_the_exif_orientation(orientation):
    exif = Image.Exif()
    exif[codec.ORIENTATION] = orientation
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    data = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    image = codec.decode(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(image, expected)
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


@pytest.mark.parametrize("min_side, side", [(None, 128), (100, 128), (64, 64), (20, 32), (1, 16)])
def test_decode_shrinks_a_jpeg_but_not_below_min_side(min_side, side):
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


# Digits.


def test_digits_are_scaled_and_divided_once_for_all():
    train, test, everything = (sources.load("digits", split=s) for s in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1437, 360, 1797)
    assert train.image_shape == (8, 8, 3)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    assert everything.images.min() == 0 and everything.images.max() == 255
    # scikit-learn's first digit is a 0 whose row 0 is 0 0 5 13 9 1 0 0, of 16
    row = [0, 0, 80, 207, 143, 16, 0, 0]
    assert everything.images[0, 0].tolist() == [[v] * 3 for v in row]
    assert everything.class_names == tuple("0123456789")
    both = [i.tobytes() for s in (train, test) for i in s.images]
    assert sorted(both) == sorted(i.tobytes() for i in everything.images)
    counts = np.bincount(test.labels)
    assert counts.min() >= 34 and counts.max() <= 38
    assert train.fingerprint == sources.load("digits").fingerprint != test.fingerprint
    assert train.describe() == "digits: 1,437 images, 8x8, 10 classes, in memory"


def test_digits_have_no_other_split():
    with pytest.raises(sources.NoSuchSplit, match="train, test, all.*Received: split=val"):
        sources.load("digits", split="val")


# npz.


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


GREY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "images, expected",
    [
        (GREY, GREY[..., None] * np.ones(3, np.uint8)),
        (GREY[..., None], GREY[..., None] * np.ones(3, np.uint8)),
        (GREY.reshape(2, 2, 2, 3), GREY.reshape(2, 2, 2, 3)),
        (np.full((2, 1, 1, 4), (255, 0, 0, 128), np.uint8), np.full((2, 1, 1, 3), (255, 127, 127))),
        (np.full((2, 1, 1), 0.5, np.float32), np.full((2, 1, 1, 3), 128)),
        (np.ones((2, 1, 1, 3)), np.full((2, 1, 1, 3), 255)),
    ],
)
def test_npz_layouts(tmp_path, images, expected):
    source = sources.load(write_npz(tmp_path / "a.npz", images=images))
    assert source.images.dtype == np.uint8
    assert np.array_equal(source.images, expected)
    assert np.array_equal(source.read(1), expected[1])
    assert source.labels is None and source.class_names is None
    assert "no labels" in source.describe()


def test_npz_splits(tmp_path):
    spec = write_npz(
        tmp_path / "a.npz",
        train_images=np.zeros((3, 2, 2), np.uint8),
        train_labels=np.array([0, 1, 1], np.int32),
        test_images=np.ones((2, 2, 2), np.uint8),
        class_names=np.array(["cat", "dog"]),
    )
    train, test = sources.load(spec), sources.load(spec, split="test")
    assert (len(train), len(test)) == (3, 2)
    assert train.labels.tolist() == [0, 1, 1] and train.labels.dtype == np.int64
    assert train.class_names == ("cat", "dog") and test.labels is None
    assert sources.splits(spec) == ("train", "test")
    with pytest.raises(sources.NoSuchSplit, match="train, test.*Received: split=val"):
        sources.load(spec, split="val")


def test_npz_fingerprint_follows_images_and_labels(tmp_path):
    changed = GREY.copy()
    changed[1, 2, 3] += 1
    variants = [
        {"images": GREY},
        {"images": changed},
        {"images": GREY, "labels": np.array([0, 1])},
        {"images": GREY, "labels": np.array([1, 0])},
    ]
    specs = [write_npz(tmp_path / f"{i}.npz", **v) for i, v in enumerate(variants)]
    prints = [sources.load(spec).fingerprint for spec in specs]
    assert len(set(prints)) == 4
    assert prints[0] == sources.load(specs[0]).fingerprint
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x": GREY}, r"arrays: x.*Received: split=train"),
        ({"images": GREY[:1]}, "at least 2 images.*1 image"),
        ({"images": GREY[0]}, r"`images` must be \[n, h, w\].*shape=\(3, 4\)"),
        ({"images": GREY.reshape(2, 3, 2, 2)}, r"1, 3 or 4 channels.*\(2, 3, 2, 2\)"),
        ({"images": GREY.astype(np.int64)}, "must be uint8.*dtype=int64"),
        ({"images": GREY.astype(np.float32)}, r"within \[0, 1\].*0.0 to 23.0"),
        ({"images": np.full((2, 1, 1), np.nan)}, r"within \[0, 1\].*nan"),
        ({"images": GREY, "labels": np.arange(3)}, r"`labels` must be integers.*shape=\(3,\)"),
        ({"images": GREY, "labels": np.array([0.0, 1])}, "`labels` must be integers.*float64"),
        ({"images": GREY, "labels": np.array([-1, 0])}, "`labels` must be >= 0.*minimum=-1"),
        (
            {"images": GREY, "labels": np.array([0, 2]), "class_names": np.array(["a", "b"])},
            "`class_names` must name every label.*2 names, largest label=2",
        ),
    ],
)
def test_npz_refusals(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        sources.load(write_npz(tmp_path / "a.npz", **arrays))


def test_npz_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        sources.load(f"npz:{tmp_path}/missing.npz")
    (tmp_path / "text.npz").write_text("text")
    np.save(tmp_path / "one.npy", GREY)
    for name in ("text.npz", "one.npy"):
        with pytest.raises(ValueError, match="must be a .npz file"):
            sources.load(f"npz:{tmp_path}/{name}")


# Folders.


def test_flat_folder_is_unlabelled_and_in_memory(tmp_path):
    fill(tmp_path, 3)
    solid((9, 9, 9)).save(tmp_path / "Z.JPG", quality=100)
    solid((9, 9, 9)).save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "__MACOSX").mkdir()
    solid((9, 9, 9)).save(tmp_path / "__MACOSX" / "a.png")
    source = sources.load(f"folder:{tmp_path}")
    assert isinstance(source, sources.ArraySource)
    assert (len(source), source.image_shape) == (4, (4, 6, 3))
    assert source.labels is None and source.class_names is None
    assert [int(source.read(i)[0, 0, 0]) for i in range(4)] == [0, 1, 2, 9]


def test_class_folders_label_and_deeper_ones_belong_to_them(tmp_path):
    fill(tmp_path / "dog", 2)
    fill(tmp_path / "cat" / "2021" / "may", 1)
    fill(tmp_path / "cat", 2)
    (tmp_path / ".git").mkdir()
    source = sources.load(f"folder:{tmp_path}")
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.labels.dtype == np.int64
    assert source.describe().endswith("5 images, 4x6, 2 classes, in memory")


def test_images_beside_class_folders_leave_no_labels(tmp_path):
    fill(tmp_path, 1)
    fill(tmp_path / "cat", 2)
    source = sources.load(f"folder:{tmp_path}")
    assert len(source) == 3 and source.labels is None


def test_a_single_class_folder_is_no_label(tmp_path):
    fill(tmp_path / "holiday", 2)
    assert sources.load(f"folder:{tmp_path}").labels is None


def test_split_folders_share_their_class_numbers(tmp_path):
    for name in ("ant", "bee", "cow"):
        fill(tmp_path / "train" / name, 1)
    for name in ("ant", "cow"):  # without bee: cow must stay number 2
        fill(tmp_path / "test" / name, 1)
    spec = f"folder:{tmp_path}"
    assert sources.splits(spec) == ("test", "train")
    assert sources.load(spec).labels.tolist() == [0, 1, 2]
    test = sources.load(spec, split="test")
    assert test.labels.tolist() == [0, 2]
    assert test.class_names == ("ant", "bee", "cow")
    with pytest.raises(sources.NoSuchSplit, match="one of test, train for.*split=val"):
        sources.load(spec, split="val")


def test_an_undivided_folder_has_no_test_split(tmp_path):
    fill(tmp_path, 2)
    assert sources.splits(f"folder:{tmp_path}") == ("train", "all")
    assert len(sources.load(f"folder:{tmp_path}", split="all")) == 2
    with pytest.raises(sources.NoSuchSplit, match="train, all"):
        sources.load(f"folder:{tmp_path}", split="test")


@pytest.mark.parametrize(
    "names, expected",
    [
        (("train/a", "train/b"), ("train",)),
        (("train",), ("train",)),
        (("train", "test"), ("test", "train")),
        (("train/a", "unlabeled"), ("train", "unlabeled")),
        (("bus", "train"), ("train", "all")),
        (("a", "b"), ("train", "all")),
        (("a", "val"), ("val", "train", "all")),
    ],
)
def test_which_folders_are_splits(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    assert folders.splits(tmp_path) == expected


def test_train_may_be_a_class(tmp_path):
    fill(tmp_path / "train", 1)
    fill(tmp_path / "bus", 1)
    assert sources.load(f"folder:{tmp_path}").class_names == ("bus", "train")


def test_folder_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*missing"):
        sources.load(f"folder:{tmp_path}/missing")
    with pytest.raises(ValueError, match="holds no image; accepted endings are .bmp, .gif, .jpeg"):
        sources.load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="must have a path after the colon"):
        sources.load("folder:")
    fill(tmp_path, 1)
    with pytest.raises(ValueError, match="at least 2 images.*1 image"):
        sources.load(f"folder:{tmp_path}")


def test_folder_fingerprint_follows_names_and_sizes(tmp_path):
    fill(tmp_path / "a", 2)
    first = sources.load(f"folder:{tmp_path}/a").fingerprint
    (tmp_path / "a").rename(tmp_path / "b")
    assert sources.load(f"folder:{tmp_path}/b").fingerprint == first
    (tmp_path / "b" / "001.png").rename(tmp_path / "b" / "002.png")
    assert sources.load(f"folder:{tmp_path}/b").fingerprint != first


def test_various_sizes_are_decoded_when_read(tmp_path):
    fill(tmp_path, 2)
    solid(RED, (3, 5)).save(tmp_path / "9.png")
    source = sources.load(f"folder:{tmp_path}")
    assert isinstance(source, sources.EncodedSource)
    assert source.image_shape is None
    assert [source.read(i).shape for i in range(3)] == [(4, 6, 3), (4, 6, 3), (5, 3, 3)]
    assert "various sizes" in source.describe() and "on the fly" in source.describe()


def test_what_does_not_fit_is_decoded_when_read(tmp_path, monkeypatch):
    fill(tmp_path, 3)
    inside = sources.load(f"folder:{tmp_path}")
    monkeypatch.setattr(decoding, "DECODED_BYTES", 3 * 4 * 6 * 3 - 1)
    outside = sources.load(f"folder:{tmp_path}")
    assert isinstance(inside, sources.ArraySource) and isinstance(outside, sources.EncodedSource)
    assert outside.image_shape == inside.image_shape == (4, 6, 3)
    assert outside.fingerprint == inside.fingerprint
    assert all(np.array_equal(inside.read(i), outside.read(i)) for i in range(3))


# Damaged images.


def damage(folder, truncated=(), text=()):
    for number in truncated:
        file = folder / f"{number:03}.jpg"
        file.write_bytes(file.read_bytes()[:-30])
    for number in text:
        (folder / f"{number:03}.jpg").write_text("text")


def test_one_percent_damaged_is_named_and_left_out(tmp_path, caplog):
    fill(tmp_path / "a", 100, ending="jpg")
    fill(tmp_path / "b", 100, ending="jpg")
    damage(tmp_path / "a", truncated=[3])
    damage(tmp_path / "b", text=[5])
    source = sources.load(f"folder:{tmp_path}")
    assert len(source) == 198 and np.bincount(source.labels).tolist() == [99, 99]
    numbers = [round(float(image.mean())) for image in source.images]
    whole = list(range(100))
    assert numbers == [v for v in whole if v != 3] + [v for v in whole if v != 5]
    assert "2 of 200 images" in caplog.text and "left out" in caplog.text
    assert os.path.join("a", "003.jpg") in caplog.text
    assert os.path.join("b", "005.jpg") in caplog.text


def test_more_than_one_percent_damaged_is_refused(tmp_path):
    fill(tmp_path, 200, ending="jpg")
    damage(tmp_path, text=range(7))
    message = r"7 of 200 images.*000.jpg.*004.jpg.*; and 2 more\. That is more than 1 %"
    with pytest.raises(ValueError, match=message):
        sources.load(f"folder:{tmp_path}")


def test_damage_found_late_does_not_stop_training(tmp_path, caplog):
    fill(tmp_path, 99, ending="jpg")
    solid(RED, (30, 30)).save(tmp_path / "big.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for number in (4, 98):  # large enough that the cut leaves the header whole
        Image.fromarray(noise).save(tmp_path / f"{number:03}.jpg")
    damage(tmp_path, truncated=[4, 98])
    (tmp_path / "050.jpg").write_text("text")  # its header is already wrong
    source = sources.load(f"folder:{tmp_path}")
    assert len(source) == 99 and isinstance(source, sources.EncodedSource)
    assert np.array_equal(source.read(4), source.read(5))
    last = len(source) - 2
    assert str(source.items[last]).endswith("098.jpg")
    assert source.read(last).shape == (30, 30, 3)
    source.read(4)
    assert source.failed == {4, last}
    assert caplog.text.count("Replaced by the next image") == 2


def test_a_lost_disk_is_an_error(tmp_path):
    items = [str(tmp_path / f"{i}.jpg") for i in range(12)]
    source = base.EncodedSource("gone", items, None, None, None, "0")
    with pytest.raises(ValueError, match="Ten images in a row.*0.jpg"):
        source.read(0)


def test_a_broken_link_is_counted_as_damaged(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="1 of 3 images.*link.png"):
        sources.load(f"folder:{tmp_path}")


# CIFAR-10 and TensorFlow data sets.


def test_tfds_reads_a_prepared_folder_offline(cifar_tfds, cifar_folder):
    prepared = sources.load("cifar10", str(cifar_tfds), "test")
    assert len(prepared) == 10_000 and prepared.image_shape == (32, 32, 3)
    assert isinstance(prepared, sources.ArraySource)
    assert prepared.class_names[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(prepared.labels).tolist() == [1000] * 10
    assert sources.splits("cifar10", str(cifar_tfds)) == ("train", "test")
    # The same pictures as files: one decoder, so the same pixels.
    files = sources.load(f"folder:{cifar_folder}", split="test")
    assert len(files) >= 50 and files.class_names == prepared.class_names
    known = {i.tobytes(): c for i, c in zip(prepared.images, prepared.labels, strict=True)}
    assert [known[i.tobytes()] for i in files.images] == files.labels.tolist()


def test_tfds_split_syntax(cifar_tfds):
    part = sources.load("cifar10", str(cifar_tfds), "test[10:30]")
    assert len(part) == 20
    with pytest.raises(sources.NoSuchSplit, match="one of train, test for cifar10.*split=tset"):
        sources.load("cifar10", str(cifar_tfds), "tset")


def test_tfds_that_does_not_fit_stays_encoded_or_is_refused(cifar_tfds, monkeypatch):
    load = sources.load
    inside = load("cifar10", str(cifar_tfds), "test[:20]")
    monkeypatch.setattr(decoding, "DECODED_BYTES", 1000)
    outside = load("cifar10", str(cifar_tfds), "test[:20]")
    assert isinstance(outside, sources.EncodedSource)
    assert outside.fingerprint == inside.fingerprint
    assert outside.labels.tolist() == inside.labels.tolist()
    assert all(np.array_equal(outside.read(i), inside.read(i)) for i in range(20))
    monkeypatch.setattr("simsiam_keras.data.tfds.memory_bytes", lambda: 1000)
    with pytest.raises(ValueError, match="half of the memory.*use `folder:PATH`"):
        load("cifar10", str(cifar_tfds), "test[:20]")


def test_tfds_unknown_names(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="Received: dataset=cifar11; did you mean .*cifar10"):
        sources.load("cifar11", str(tmp_path))
    with pytest.raises(ValueError, match=f"did you mean folder:{tmp_path}"):
        sources.load(str(tmp_path))
    with pytest.raises(ValueError, match="did you mean npz:a.npz"):
        sources.load("a.npz")
    with pytest.raises(ValueError, match="Received: dataset=cifar10/none; TFDS says: .*none"):
        sources.load("cifar10/none", str(tmp_path))


def test_tfds_that_cannot_be_prepared(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def fail(self, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(ValueError, match="could not download and prepare mnist.*no network"):
        sources.load("mnist", str(tmp_path))


def test_tfds_without_images(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from simsiam_keras.data import tfds as ours

    _, tfds = ours._modules("iris")
    with pytest.raises(ValueError, match="must have an image feature.*features: features, label"):
        ours._features(tfds, "iris", tfds.builder("iris").info.features)


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
from simsiam_keras import data
folder, file = sys.argv[1:]
for spec in ("digits", f"folder:{folder}", f"npz:{file}"):
    source = data.load(spec)
    images, labels = next(data.evaluation_batches(source, 8))
    (batch,) = next(data.training_images(source, 2, size=8))
    print(spec.split(":")[0], images.shape, batch.shape)
try:
    data.load("cifar10")
except ImportError as error:
    print(error)
"""


def test_files_need_no_tensorflow(tmp_path):
    fill(tmp_path / "images", 3)
    np.savez(tmp_path / "a.npz", images=GREY)
    arguments = [sys.executable, "-c", WITHOUT_TENSORFLOW, tmp_path / "images", tmp_path / "a.npz"]
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    done = subprocess.run(arguments, cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, refusal = done.stdout.splitlines()
    assert lines == [
        "digits (256, 8, 8, 3) (2, 8, 8, 3)",
        "folder (3, 8, 8, 3) (2, 8, 8, 3)",
        "npz (2, 8, 8, 3) (2, 8, 8, 3)",
    ]
    assert "needs tensorflow and tensorflow-datasets: install them" in refusal
