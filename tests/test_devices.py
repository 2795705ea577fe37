"""How many images an encoder sees at a time, and that nobody notices."""

import numpy as np
import pytest

from simsiam_keras import devices, views
from simsiam_keras.augment import Recipe


def encode(images):
    """Two features of each image that depend on nothing else."""
    encode.seen.append(len(images))
    return images[:, 0, 0, :2]


@pytest.mark.parametrize("n, expected", [(0, [0]), (1, [1]), (3, [3]), (4, [2, 2]), (7, [3, 2, 2])])
def test_pieces_are_the_whole(n, expected, monkeypatch):
    monkeypatch.setattr(devices, "PIXELS", 3 * 8 * 6 + 5)
    monkeypatch.setattr(devices, "on_accelerator", lambda: False)
    images, encode.seen = np.random.default_rng(0).normal(size=(n, 8, 6, 3)), []
    found = devices.in_pieces(encode, images)
    assert encode.seen == expected
    np.testing.assert_array_equal(found, encode(images).astype("float32"))


def test_one_image_larger_than_that_is_a_piece(monkeypatch):
    monkeypatch.setattr(devices, "PIXELS", 10)
    monkeypatch.setattr(devices, "on_accelerator", lambda: False)
    assert devices.images_at_a_time((5, 8, 8, 3)) == 1
    monkeypatch.setattr(devices, "on_accelerator", lambda: True)
    assert devices.images_at_a_time((5, 8, 8, 3)) == 5


def test_views_of_a_few_images_at_a_time_are_views_of_the_same_images(monkeypatch):
    recipe = Recipe(size=8, crop_area=(0.2, 1.0), jitter=(0.0, 0.0, 0.0, 0.0), grayscale=0.0)
    colours = np.arange(7, dtype="uint8")[:, None, None, None] * 30
    batch = {
        "images": np.broadcast_to(colours, (7, 12, 18, 3)),
    }
    batch["images"] = batch["images"] + np.arange(18, dtype="uint8")[None, None, :, None]
    monkeypatch.setattr(devices, "on_accelerator", lambda: False)
    whole = views.made_of(views.device(recipe, 3), batch)
    expected = views.device(recipe, 3)(**batch, training=True)
    for view, other in zip(whole, expected, strict=True):
        np.testing.assert_array_equal(view, views.uint8(other))
    monkeypatch.setattr(devices, "PIXELS", 3 * 12 * 18)
    engine = views.device(recipe, 3)
    made = views.made_of(engine, batch)
    assert int(engine.step) == 3  # of 3, 2 and 2 images, each with draws of its own
    assert [view.shape for view in made] == [view.shape for view in whole] == [(7, 8, 8, 3)] * 2
    for view in made:
        lowest = view.min((1, 2, 3)).astype(int)
        assert (lowest // 30 == np.arange(7)).all()  # each of its own image
    assert any((a[3:] != b[3:]).any() for a, b in zip(made, whole, strict=True))
