"""Thumbnails: which picture is where, what cannot be read, and how large they may be."""

import io

import numpy as np
import pytest
from PIL import Image

from simsiam_keras.data.base import ArraySource
from simsiam_keras.explore import sprites
from simsiam_keras.gallery import pictures


class Plain:
    """Pictures of one colour each, some of which cannot be read."""

    def __init__(self, colours, broken=()):
        self.colours, self.broken = colours, broken

    def read(self, number, side):
        if number in self.broken:
            raise OSError("cannot\nbe read")
        return np.full((side + 3, side + 9, 3), self.colours[number], np.uint8)


def colours(n):
    return np.random.default_rng(0).integers(0, 256, (n, 3))


def tile_of(sheets, number):
    """As the page cuts it out."""
    image = np.asarray(Image.open(io.BytesIO(sheets.jpegs[number // sheets.each])))
    place, side = number % sheets.each, sheets.side
    top, left = place // sheets.columns * side, place % sheets.columns * side
    return image[top : top + side, left : left + side]


@pytest.mark.parametrize("n, wide", [(1, 2048), (5, 2048), (9, 96), (10, 96), (23, 96)])
def test_every_picture_is_in_its_place(n, wide, monkeypatch):
    monkeypatch.setattr(sprites, "WIDE", wide)
    known, done = colours(n), []
    sheets = sprites.make(Plain(known), n, 32, lambda: done.append(1))
    assert len(sheets.jpegs) == -(-n // sheets.each) and len(done) == n
    for number in range(n):
        middle = tile_of(sheets, number)[8:-8, 8:-8].mean((0, 1))
        assert np.abs(middle - known[number]).max() < 6
    if n > 1:
        assert np.abs(tile_of(sheets, 1)[8:-8, 8:-8].mean((0, 1)) - known[0]).max() > 20


def test_what_cannot_be_read_is_grey_and_named():
    sheets = sprites.make(Plain(colours(4), broken=[2]), 4, 32)
    assert sheets.missing == {2: "cannot be read"}
    assert np.abs(tile_of(sheets, 2)[8:-8, 8:-8].astype(int) - sprites.GREY).max() < 6


def noise(n):
    random = np.random.default_rng(0).integers(0, 256, (n, 128, 128, 3), np.uint8)
    return pictures.OfSources([(ArraySource("noise", random), i) for i in range(n)])


def test_the_side_is_the_largest_that_fits():
    shown = noise(20)
    sizes = {side: sprites.make(shown, 20, side).size for side in sprites.SIDES}
    for side, smaller in zip(sprites.SIDES, sprites.SIDES[1:], strict=False):
        assert sizes[side] > sizes[smaller]
        chosen = sprites.best_side(shown, 20, 0.9 * sizes[side])
        assert chosen < side and sizes[chosen] <= 0.9 * sizes[side] * 1.1
    assert sprites.best_side(shown, 20, 2 * sizes[128]) == 128
    assert sprites.best_side(shown, 20, sizes[32] / 2) is None
    assert sprites.best_side(Plain(colours(3), broken=[0, 1, 2]), 3, 10) == 128


def test_any_channels_are_shown():
    for channels, expected in ((1, [7, 7, 7]), (2, [7, 7, 7]), (3, [7, 8, 9]), (5, [7, 8, 9])):
        image = np.full((2, 2, channels), range(7, 7 + channels), np.uint8)
        assert pictures.rgb(image)[0, 0].tolist() == expected


def test_files_below_the_folder_alone_are_read(tmp_path):
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    for path in (folder / "a" / "x.png", tmp_path / "secret.png"):
        Image.new("RGB", (20, 10), (1, 2, 3)).save(path)
    names = ["a/x.png", "../secret.png", str(tmp_path / "secret.png"), "a/../../secret.png"]
    files = pictures.Files(folder, names)
    assert files.read(0, 8).shape == (10, 20, 3) and files.shape(0) == (10, 20)
    for number in (1, 2, 3):
        with pytest.raises(ValueError, match="out of the folder"):
            files.read(number, 8)


def test_numbers_find_their_image():
    parts = {s: ArraySource(s, np.full((4, 2, 2, 3), i, np.uint8)) for i, s in enumerate("ab")}
    names, splits = ["image 3", "image 0", "7", "nothing"], ["b", "a", "a", "b"]
    shown = pictures.numbered(names, splits, parts.get)
    assert shown.read(0, 2)[0, 0, 0] == 1 and shown.read(1, 2)[0, 0, 0] == 0
    for number in (2, 3):
        with pytest.raises(IndexError):
            shown.read(number, 2)
