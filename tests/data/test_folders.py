"""Folders of pictures: labels, splits, sizes, and pictures that are damaged."""

import os

import numpy as np
import pytest
from PIL import Image

from simsiam_keras.data import base, decoding, folders, sources
from tests.data.pictures import RED, fill, solid


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


@pytest.mark.parametrize("part", ["train[:20%]", "train[:3]", "train+test"])
def test_a_slice_of_a_split_is_not_all_of_it(part, tmp_path):
    for name in ("train", "test"):
        fill(tmp_path / name / "ant", 1)
    with pytest.raises(sources.NoSuchSplit, match="one of test, train for"):
        sources.load(f"folder:{tmp_path}", split=part)


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
        fill(tmp_path / name, 1)
    (tmp_path / "nothing" / "here").mkdir(parents=True)  # no split: it holds no image
    assert folders.splits(tmp_path) == expected


def test_train_may_be_a_class(tmp_path):
    fill(tmp_path / "train", 1)
    fill(tmp_path / "bus", 1)
    assert sources.load(f"folder:{tmp_path}").class_names == ("bus", "train")


def test_folder_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*missing"):
        sources.load(f"folder:{tmp_path}/missing")
    with pytest.raises(ValueError, match="holds no image; accepted endings are .avif, .bmp, .dcm"):
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


def test_what_does_not_fit_is_decoded_when_read(tmp_path, monkeypatch):
    fill(tmp_path, 3)
    inside = sources.load(f"folder:{tmp_path}")
    monkeypatch.setattr(decoding, "DECODED_BYTES", 3 * 4 * 6 * 3 - 1)
    outside = sources.load(f"folder:{tmp_path}")
    assert isinstance(inside, sources.ArraySource) and isinstance(outside, sources.EncodedSource)
    assert outside.image_shape == inside.image_shape == (4, 6, 3)
    assert outside.fingerprint == inside.fingerprint
    assert all(np.array_equal(inside.read(i), outside.read(i)) for i in range(3))


def test_large_images_are_kept_decoded_only_where_they_are_few(tmp_path, monkeypatch):
    fill(tmp_path, 3)
    monkeypatch.setattr(decoding, "LARGE_BYTES", 3 * 4 * 6 * 3 - 1)
    assert isinstance(sources.load(f"folder:{tmp_path}"), sources.ArraySource)
    monkeypatch.setattr(decoding, "LARGE", 4 * 6 - 1)
    assert isinstance(sources.load(f"folder:{tmp_path}"), sources.EncodedSource)
    monkeypatch.setattr(decoding, "LARGE_BYTES", 3 * 4 * 6 * 3)
    assert isinstance(sources.load(f"folder:{tmp_path}"), sources.ArraySource)


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
    fill(tmp_path, 3)
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    source = sources.load(f"folder:{tmp_path}")
    assert len(source) == 3 and [name for name, _ in source.found.damaged] == ["link.png"]
    (tmp_path / "other.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="2 of 5 images.*link.png"):
        sources.load(f"folder:{tmp_path}")


@pytest.mark.parametrize("n, most", [(2, 1), (99, 1), (100, 1), (199, 1), (200, 2), (350, 3)])
def test_how_many_may_be_damaged(n, most):
    def good(damaged, skipped=0):
        class Skipped(ValueError):
            skipped = True

        results = [ValueError("cut off")] * damaged + [Skipped("too thin")] * skipped
        results += [(4, 6, 3)] * (n + skipped - len(results))
        return decoding._good("some", [b""] * len(results), results)

    numbers, left_out, damaged = good(most, skipped=n)
    assert list(numbers) == list(range(most + n, 2 * n))  # what is skipped is no damage
    assert damaged == list(range(most)) and left_out == list(range(most, most + n))
    with pytest.raises(ValueError, match=f"{most + 1} of {n} images"):
        good(most + 1)


def test_what_is_left_out_is_named_where_too_little_is_left(tmp_path):
    fill(tmp_path, 1)
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(ValueError, match=r"1 image\(s\), without 1 \(text.jpg: .*"):
        sources.load(f"folder:{tmp_path}")
