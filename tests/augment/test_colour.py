"""Colour jitter and grayscale of either engine against torchvision's, PIL's and colorsys's.

Tolerances: PIL rounds to whole levels after every step, so a single PIL operation may differ by its
own rounding (stated where used); float oracles agree to 0.01.
"""

import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageEnhance

from simsiam_keras.augment import threefry
from tests.augment.engines import recipe
from tests.augment.oracles import (
    AMOUNTS,
    BRIGHTNESS,
    CONTRAST,
    HUE,
    JITTER,
    SATURATION,
    SIGNIFICANCE,
    WRONG_JITTER,
    brightness,
    each,
    far,
    flat,
    hue,
    jittered,
    luma,
    photos,
    rate,
    same,
    saturation,
    uniform,
)
from tests.tiny import numpy

STRENGTHS = (0.4, 0.4, 0.4, 0.1)  # of the recipes, and of the oracles


def jitter_alone(engine, operation, amounts, images):
    """Run the jitter with one operation, at exactly the given amounts."""
    strengths = [0.0] * 4
    strengths[operation] = strength = 0.5 if operation == HUE else 0.4
    middle = 0 if operation == HUE else 1
    amounts = (np.asarray(amounts, "float32") - middle + strength) / (2 * strength)
    draws = np.stack([np.zeros_like(amounts), np.zeros_like(amounts), amounts], axis=1)
    return engine.jitter(images, draws, tuple(strengths), probability=1.0)


@pytest.mark.parametrize("operation", range(4), ids=[f.__name__ for f in JITTER])
def test_each_jitter_operation_is_torchvisions(operation, engine):
    images = photos(5, 12, 10, seed=3)
    images[..., 0] //= 2  # so that the channels' means differ
    images[:, 0] = [[255, 0, 0]] * 5 + [[0, 255, 255]] * 3 + [[0, 0, 0], [255, 255, 255]]
    amounts = AMOUNTS[operation]
    views = jitter_alone(engine, operation, amounts, images)
    assert far(views, each(JITTER[operation], images, amounts)) <= 0.01
    for name, formula in WRONG_JITTER[operation].items():
        assert far(views, each(formula, images, amounts)) > 1, name


@pytest.mark.parametrize(
    "operation, enhancer",
    [
        (BRIGHTNESS, ImageEnhance.Brightness),
        (CONTRAST, ImageEnhance.Contrast),
        (SATURATION, ImageEnhance.Color),
    ],
)
def test_each_blend_is_pils(operation, enhancer, engine):
    images, amounts = photos(5, 32, 32, seed=4), AMOUNTS[operation]
    views = jitter_alone(engine, operation, amounts, images)
    expected = each(lambda x, f: enhancer(Image.fromarray(x)).enhance(f), images, amounts)
    # PIL truncates the blend (1) and rounds its grey (0.5), of which |1 - f| <= 0.4 enters.
    assert far(views, expected) <= 1.21


def test_the_jitter_is_its_operations_in_each_images_own_order(engine):
    images, draws = photos(48, 8, 8, seed=5), uniform(48, 9, seed=5)
    views = engine.jitter(images, draws, STRENGTHS, probability=0.8)
    assert far(views, jittered(draws, images)) <= 0.01
    assert far(views, jittered(draws, images, sequence=range(4))) > 5
    assert far(views, jittered(draws, images, probability=1.0)) > 5
    additive = [WRONG_JITTER[BRIGHTNESS]["additive, as keras_cv"], *JITTER[1:]]
    assert far(views, jittered(draws, images, chain=additive)) > 5


def test_orders_and_amounts_are_uniform(engine):
    n, strengths = 24_000, (0.4, 1.2, 0.4, 0.1)
    draws = numpy(threefry.uniform(1, 2, n, 9))
    order, amount = engine.jitter_amounts(draws, strengths, probability=0.8)
    counts = np.unique(order @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > SIGNIFICANCE
    still = (amount == np.where(order == HUE, 0, 1)).all(axis=1)
    assert rate(still, 0.2) > SIGNIFICANCE
    ranges = [(0.6, 1.4), (0.0, 2.2), (0.6, 1.4), (-0.1, 0.1)]
    for operation, (low, high) in enumerate(ranges):
        drawn = amount[(order == operation) & ~still[:, None]]
        assert flat(drawn, low, high) > SIGNIFICANCE


@pytest.mark.parametrize("second", [SATURATION, HUE])
def test_an_operation_of_strength_zero_is_left_out(second, engine):
    strengths = {SATURATION: (0.4, 0.0, 0.4, 0.0), HUE: (0.4, 0.0, 0.0, 0.1)}[second]
    images, draws = photos(6, 8, 8), uniform(6, 5)
    expected = []
    for row, image in zip(draws.astype("float64"), images.astype("float64"), strict=True):
        chain = [brightness, saturation if second == SATURATION else hue]
        for operation, u in zip(chain if row[1] < row[2] else chain[::-1], row[3:], strict=True):
            image = operation(image, 0.2 * u - 0.1 if operation is hue else 0.6 + 0.8 * u)
        expected.append(image)
    assert far(engine.jitter(images, draws, strengths, probability=1.0), expected) <= 0.01


def test_grayscale_is_pils(engine):
    images = photos(6, 8, 8)
    draws = np.concatenate([uniform(6, 22), [[0.0], [0.1], [0.19], [0.21], [0.5], [0.99]]], axis=1)
    views = engine.augment(images, draws, recipe(grayscale=0.2))
    grey = each(lambda x: Image.fromarray(x).convert("L").convert("RGB"), images)
    assert far(views[:3], grey[:3]) <= engine.grey
    assert far(views[3:], images[3:]) == 0
    assert far(views[:3], images[:3].mean(-1, keepdims=True)) > 5


def colours(views):
    """Five numbers of each view that the jitter moves, rounded alike so that equal ones tie."""
    views = views.astype("float64")
    grey = luma(views)
    r, g, b = np.moveaxis(views.mean(axis=(1, 2)), -1, 0)
    chroma = (views.max(-1) - views.min(-1)).mean(axis=(1, 2))
    numbers = [grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), chroma, r - b, g - (r + b) / 2]
    return np.round(numbers, 1)


def coloured(n):
    """One small dark image many times, all channels different."""
    image = np.clip(photos(1, 4, 4, seed=2) * [0.5, 0.3, 0.15] + [20, 0, 10], 0, 255)
    return np.repeat(image, n, axis=0).astype("uint8")


@pytest.fixture(scope="module")
def references():
    """Colours of the jitter by torchvision's definitions, and by wrong ones."""
    wrong = {
        "always": {"probability": 1.0},
        "additive brightness": [WRONG_JITTER[BRIGHTNESS]["additive, as keras_cv"], *JITTER[1:]],
        "contrast about mid grey": [
            brightness,
            WRONG_JITTER[CONTRAST]["about mid grey"],
            *JITTER[2:],
        ],
        "keras_cv's saturation factor": [*JITTER[:2], lambda x, f: saturation(x, f - 0.6), hue],
        "half the hue": [*JITTER[:3], lambda x, shift: hue(x, shift / 2)],
    }
    draws, images = uniform(2000, 9, seed=10), coloured(2000)
    changes = {k: v if isinstance(v, dict) else {"chain": v} for k, v in wrong.items()}
    return {
        name: colours(jittered(draws, images, **change))
        for name, change in {"right": {}, **changes}.items()
    }


def test_colours_have_torchvisions_distribution(references, engine):
    only = recipe(size=4, jitter=STRENGTHS, jitter_probability=0.8)
    found = colours(np.concatenate(engine.views(only, coloured(1000), steps=2)))
    for name, reference in references.items():
        p_value = min(same(x, y) for x, y in zip(found, reference, strict=True))
        assert (p_value > SIGNIFICANCE) == (name == "right"), name
