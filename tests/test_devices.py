"""How many images an encoder sees at a time, and that nobody notices."""

import numpy as np
import pytest

from simsiam_keras import devices


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
