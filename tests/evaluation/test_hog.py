"""HOG against what it must be of a single edge, and wrong formulas that it must not be."""

import importlib.util
import sys

import numpy as np
import pytest

from simsiam_keras.evaluation import hog

needs_skimage = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason=f"needs {hog.INSTALL}"
)
SIDE = 32


def edge():
    """An edge that stands upright: dark on the left, bright on the right."""
    image = np.zeros((SIDE, SIDE, 3), "uint8")
    image[:, SIDE // 2 - 1 :] = 200
    return image


def energy(features):
    """The sum of squares in each orientation, of one image."""
    return (features.reshape(-1, hog.ORIENTATIONS) ** 2).sum(0)


@needs_skimage
def test_an_edge_has_its_energy_in_one_orientation():
    (features,) = hog.hog(edge()[None])
    found = energy(features)
    assert found.argmax() == 0 and found[0] == pytest.approx(found.sum())
    # L2-Hys: a block has length 1 where it has the edge, as two of three columns do, else 0.
    blocks = (features.reshape(3, 3, -1) ** 2).sum(-1)
    assert set(np.round(blocks, 3).ravel()) == {0.0, 1.0} and blocks.sum() == pytest.approx(6)


@needs_skimage
def test_a_quarter_turn_moves_it_to_the_orientation_across():
    upright, lying = (energy(hog.hog(image[None])[0]) for image in (edge(), edge().swapaxes(0, 1)))
    # 90 degrees are 4.5 bins of 20: the fifth, [80, 100), holds the lying edge's gradients.
    assert upright.argmax() == 0 and lying.argmax() == 4
    assert lying[0] == 0


@needs_skimage
def test_brightness_and_contrast_do_not_count_but_the_picture_does():
    image = np.random.default_rng(0).integers(0, 120, (SIDE, SIDE, 3)).astype("uint8")
    same, brighter = hog.hog(np.stack([image, 2 * image + 10]))
    np.testing.assert_allclose(same, brighter, atol=1e-3)
    assert np.abs(same - hog.hog(image[None, ::-1])[0]).max() > 0.05


@needs_skimage
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_channels_and_sizes(channels):
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 40, channels)).astype("uint8")
    features = hog.hog(images)
    assert features.shape == (2, 4 * 4 * 36) and features.dtype == "float32"
    assert not hog.hog(np.full_like(images, 9)).any()


def test_where_it_is_missing_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    assert "requirements-worth.txt" in hog.missing()
    with pytest.raises(ImportError, match="requirements-worth.txt"):
        hog.hog(edge()[None])
