"""The blur of either engine against SciPy's Gaussian and PIL's."""

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageFilter

from tests.augment.engines import recipe
from tests.augment.oracles import (
    SIGNIFICANCE,
    each,
    far,
    photos,
    rate,
    same,
    uniform,
    unrelated,
)


def test_the_blur_is_gaussian(engine):
    images = photos(8, 24, 24, seed=6)
    draws = np.stack([[0.0] * 7 + [0.6], np.linspace(0, 1, 8)], axis=1)
    sigma = 0.1 + 1.9 * draws[:, 1]
    views = engine.blur(images, draws, (0.1, 2.0), probability=0.5)

    def blurred(scale=1.0, mode="nearest"):
        def formula(x, s):
            return scipy.ndimage.gaussian_filter(
                x.astype("float64"), (s * scale, s * scale, 0), mode=mode, truncate=8
            )

        return each(formula, images[:7], sigma[:7])

    # Cut at three sigma, a kernel loses 0.1 % of its weight at each end of each axis.
    assert far(views[:7], blurred()) <= 0.5
    assert far(views[7], images[7]) == 0
    for wrong in (blurred(scale=0.5), blurred(scale=1.2), blurred(mode="constant")):
        assert far(views[:7], wrong) > 5
    pil = each(
        lambda x, s: Image.fromarray(x).filter(ImageFilter.GaussianBlur(s)), images, sigma.tolist()
    )
    # PIL replaces the Gaussian by three boxes; the mean difference stays under a level.
    assert np.abs(views[:7] - pil[:7]).mean() < 1


@pytest.mark.parametrize("side", [5, 24])
def test_a_blur_wider_than_the_image_replicates_its_borders(side, engine):
    images = photos(4, side, side)
    views = engine.blur(images, np.full((4, 2), 0.5), (2.0, 4.0), probability=1.0)
    expected = each(
        lambda x: scipy.ndimage.gaussian_filter(
            x.astype("float64"), (3, 3, 0), mode="nearest", truncate=4
        ),
        images,
    )
    assert far(views, expected) <= 0.01


def test_grey_and_blurred_views_have_their_rates_and_widths(engine):
    only = recipe(size=15, grayscale=0.3, blur=0.5, blur_sigma=(0.5, 2.0))
    images = np.zeros((1000, 15, 15, 3), "uint8")
    images[:, 7, 7] = 250, 200, 100
    views = np.concatenate(engine.views(only, images, steps=2))
    grey = views[:, 7, 7, 0] == views[:, 7, 7, 2]
    blurred = views[:, 7, 6, 1] > 0
    assert rate(grey, 0.3) > SIGNIFICANCE
    assert rate(blurred, 0.5) > SIGNIFICANCE
    assert unrelated(grey, blurred) > SIGNIFICANCE

    def centres(low, high):
        sigma = low + (high - low) * uniform(4000)
        taps = np.exp(-0.5 * (np.arange(-6, 7) / sigma[:, None]) ** 2)
        centre = 200 / taps.sum(axis=1) ** 2
        return np.round(centre) if engine.whole_levels else centre

    found = views[~grey & blurred][:, 7, 7, 1]
    assert same(found, centres(0.5, 2.0)) > SIGNIFICANCE
    assert same(found, centres(0.5, 1.8)) < SIGNIFICANCE
    assert same(found, centres(0.1, 2.0)) < SIGNIFICANCE
