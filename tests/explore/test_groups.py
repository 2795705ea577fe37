"""Groups of duplicates: the best is kept, copies are named, files are left alone."""

import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from simsiam_keras.evaluation.knn import unit
from simsiam_keras.explore import copies, groups, near
from simsiam_keras.explore.collection import Collection
from simsiam_keras.gallery import pictures

FORMULA = '=1+1,"x".jpg'


def photograph(seed, size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def found(tmp_path):
    """Three files of one picture and two of another, one of its own, and one that is gone."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photograph(1).save(folder / "b large.jpg", quality=95)
    photograph(1).save(folder / "a small.jpg", quality=30)  # as many pixels, fewer bytes
    shutil.copy(folder / "b large.jpg", folder / "c copy.jpg")
    photograph(2, (32, 24)).save(folder / "d.png")
    photograph(2, (64, 48)).save(folder / FORMULA, "JPEG")
    photograph(3).save(folder / "e.jpg")
    names = ["a small.jpg", "b large.jpg", "c copy.jpg", "d.png", FORMULA, "e.jpg", "gone.jpg"]
    first, second = [1, 0, 0, 0], [0, 1, 0, 0]
    vectors = [[*first[:2], 0.1, 0], first, first, second, [0, 1, 0.2, 0], [0, 0, 1, 0], second]
    return Collection(
        title=f"folder:{folder}",
        root=str(folder),
        names=names,
        splits=["all"] * 7,
        labels=None,
        class_names=None,
        vectors=np.array(vectors, "float32"),
        pictures=pictures.Files(folder, names),
        encoder="",
    )


def members(found, threshold=0.9):
    x = unit(found.vectors)
    return groups.of(found, x, near.groups(x, threshold))


def test_the_best_of_each_group_is_kept(found):
    by_file = {m.file: m for m in members(found)}
    assert {m.file for m in by_file.values() if m.keep} == {"b large.jpg", FORMULA}
    assert "e.jpg" not in by_file
    assert [m.group for m in members(found)] == [1, 1, 1, 2, 2, 2]
    assert by_file["a small.jpg"].similarity == pytest.approx(1 / np.sqrt(1.01), abs=1e-6)
    assert by_file["d.png"].similarity == pytest.approx(1 / np.sqrt(1.04), abs=1e-6)
    assert (by_file["d.png"].width, by_file["d.png"].height) == (32, 24)
    gone = by_file["gone.jpg"]
    assert (gone.width, gone.bytes, gone.keep, gone.exact) == (0, 0, False, False)


def test_exact_copies_are_those_of_the_same_bytes(found):
    assert [m.file for m in members(found) if m.exact] == ["c copy.jpg"]


def test_nothing_is_like_itself_alone(found):
    assert [m.file for m in members(found, 0.99999)] == ["b large.jpg", "c copy.jpg"] + [
        "d.png",
        "gone.jpg",
    ]


def test_the_table_can_be_read_back(found, tmp_path):
    expected = members(found)
    groups.write_csv(tmp_path / "groups.csv", expected)
    with open(tmp_path / "groups.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == groups.COLUMNS
    assert [row["file"] for row in rows] == [m.file for m in expected]
    assert [row["keep"] for row in rows] == ["yes", "no", "no"] * 2
    assert [int(row["bytes"]) for row in rows] == [m.bytes for m in expected]
    assert rows[1]["file"] == "c copy.jpg" and rows[1]["exact_copy"] == "yes"


def test_the_page_shows_the_groups_and_escapes_names(found, tmp_path):
    evil = "<img src=x onerror=alert(1)>.jpg"
    found.names[0] = evil  # which no file has
    path = tmp_path / "groups.html"
    assert groups.write_page(path, found, members(found), "0.9 <b>", 500) == 2
    text = path.read_text("utf-8")
    assert len(re.findall("<li", text)) == len(re.findall("<img", text)) == 6
    assert text.count('<li class="keep">') == 2 and "onerror=alert(1)&gt;" in text
    assert "<b>" not in text and "script-src 'none'" in text and "<script" not in text
    assert groups.write_page(path, found, members(found), "", 1) == 1
    assert "1 groups of 2, the largest" in path.read_text("utf-8")


def test_a_large_group_is_shown_in_part(found, tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "MOST", 2)
    path = tmp_path / "groups.html"
    assert groups.write_page(path, found, members(found), "", 500) == 2
    text = path.read_text("utf-8")
    assert text.count("<li") == 4 and text.count("And 1 more, in groups.csv") == 2


def test_a_page_without_groups_says_so(found, tmp_path):
    assert groups.write_page(tmp_path / "groups.html", found, [], "1", 500) == 0
    assert "No two files" in (tmp_path / "groups.html").read_text("utf-8")


def test_copies_are_what_they_are_called():
    image = np.asarray(photograph(5, (80, 60)))
    assert copies.halved(image).shape == (30, 40, 3)
    assert copies.cropped(image).shape == (58, 76, 3)
    np.testing.assert_array_equal(copies.cropped(image), image[1:59, 2:78])
    again = copies.saved_again(image)
    assert again.shape == image.shape
    assert 0 < np.abs(again.astype(int) - image).mean() < 10
