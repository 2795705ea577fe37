"""Random resized crop and flip of either engine against torchvision's and PIL's."""

import itertools

import numpy as np
import pytest
from PIL import Image

from simsiam_keras.augment import threefry
from tests.augment.engines import recipe
from tests.augment.oracles import (
    AREA,
    ASPECT,
    SIGNIFICANCE,
    crop_box,
    each,
    far,
    flat,
    photos,
    pil_crop,
    rate,
    same,
    sampled_crop,
    uniform,
    unrelated,
)
from tests.tiny import numpy


@pytest.mark.parametrize("height, width", [(32, 32), (41, 50), (90, 20), (12, 18)])
def test_the_boxes_are_torchvisions(height, width, engine):
    draws = uniform(400, 22)
    boxes = engine.boxes(draws, height, width, crop_area=AREA, crop_aspect=ASPECT)
    expected = np.array([crop_box(one, height, width) for one in draws])
    linear = np.array([crop_box(one, height, width, log=False) for one in draws])
    swapped = np.array([crop_box(one, width, height)[::-1] for one in draws])
    np.testing.assert_array_equal(boxes, expected)
    assert (boxes != linear).any(axis=1).mean() > 0.1
    assert (boxes != swapped).any(axis=1).mean() > 0.9


def test_the_central_crop_when_nothing_fits(engine):
    large = {"crop_area": (0.9, 1.0), "crop_aspect": ASPECT}
    boxes = engine.boxes(uniform(400, 22), 10, 200, **large)
    np.testing.assert_array_equal(boxes, np.tile([0, 93, 10, 13], (400, 1)))
    boxes = engine.boxes(uniform(400, 22), 200, 10, **large)
    np.testing.assert_array_equal(boxes, np.tile([93, 0, 13, 10], (400, 1)))


def test_area_and_log_aspect_and_corner_are_uniform(engine):
    # Area up to 0.7 always fits, so nothing is drawn again; 2000 px make rounding negligible.
    draws = numpy(threefry.uniform(0, 0, 4000, 22))
    boxes = engine.boxes(draws, 2000, 2000, crop_area=(0.2, 0.7), crop_aspect=ASPECT)
    top, left, h, w = boxes.T
    log_aspect = np.log(w / h)
    assert flat(h * w / 2000**2, 0.2, 0.7) > SIGNIFICANCE
    assert flat(log_aspect, *np.log(ASPECT)) > SIGNIFICANCE
    assert flat(w / h, *ASPECT) < SIGNIFICANCE
    assert flat(top / (2000 - h)) > SIGNIFICANCE
    assert flat(left / (2000 - w)) > SIGNIFICANCE
    together = np.corrcoef([h * w, log_aspect, top / (2000 - h), left / (2000 - w)])
    assert abs(together - np.eye(4)).max() < 0.06  # four standard errors of 4000 draws


@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (61, 47, 16), (9, 14, 24)])
def test_the_resized_crop_is_pils(height, width, size, engine):
    images = photos(24, height, width)
    boxes = [crop_box(one, height, width) for one in uniform(24, 22)]
    wrong = {
        "nearest": lambda x, b: pil_crop(x, b, size, Image.Resampling.NEAREST),
        "bicubic": lambda x, b: pil_crop(x, b, size, Image.Resampling.BICUBIC),
        "aligned corners": lambda x, b: sampled_crop(x, b, size, corners=True),
        "mirrored": lambda x, b: np.asarray(pil_crop(x, b, size))[:, ::-1],
        "transposed": lambda x, b: np.asarray(pil_crop(x, b, size)).swapaxes(0, 1),
    }
    if size < height:
        wrong["aliased"] = lambda x, b: sampled_crop(x, b, size, corners=False)
    for crop in engine.crops:
        views = crop(images, boxes, size)
        # PIL rounds after the rows and after the columns: half a level each.
        assert far(views, each(lambda x, b: pil_crop(x, b, size), images, boxes)) <= 1.01
        for name, formula in wrong.items():
            assert far(views, each(formula, images, boxes)) > 5, name


def test_nothing_outside_the_crop_is_read(engine):
    images = np.full((1, 20, 20, 3), 255, "uint8")
    images[:, 5:15, 5:15] = 100
    for crop in engine.crops:
        for size in (4, 32):
            views = crop(images, [[5, 5, 10, 10]], size)
            np.testing.assert_allclose(views, 100, atol=1e-3)


def test_the_flip_mirrors_columns(engine):
    images = photos(4, 9, 7)
    half = recipe(size=6, crop_area=AREA, crop_aspect=ASPECT, flip=0.5)
    crop, flip = uniform(4, 22), np.array([[0.2], [0.4], [0.6], [0.8]], "float32")
    plain = engine.augment(images, np.concatenate([crop, np.ones_like(flip)], axis=1), half)
    views = engine.augment(images, np.concatenate([crop, flip], axis=1), half)
    np.testing.assert_array_equal(views[:2], plain[:2, :, ::-1])
    np.testing.assert_array_equal(views[2:], plain[2:])
    boxes = [crop_box(one, 9, 7) for one in crop]
    np.testing.assert_allclose(plain, engine.crop(images, boxes, 6), atol=1e-3)


# The distribution of thousands of views


def decoded(views):
    """(top, left, h, w, flipped) of views of `ramps()`; a resized ramp is one, but at borders."""
    size = views.shape[1]
    low, high = views[:, 5, 5, :2], views[:, 10, 10, :2]
    slope, middle = (high - low) / 5 * size / 16, (high + low) / 2 / 16
    w, h = np.abs(np.round(slope)).T
    left, top = np.round(middle - np.stack([w, h], 1) / 2 + 0.5).T
    return top, left, h, w, slope[:, 0] < 0


def ramps(n):
    """Images whose red is 16 x and whose green is 16 y, `[n, 16, 16, 3]`."""
    y, x = np.mgrid[:16, :16] * 16
    return np.repeat(np.stack([x, y, 0 * x], axis=2)[None], n, axis=0).astype("uint8")


def test_crops_and_flips_have_torchvisions_distribution(engine):
    only = recipe(size=16, crop_area=AREA, crop_aspect=ASPECT, flip=0.3)
    first, second = engine.views(only, ramps(1000), steps=2)
    *found, flipped = decoded(np.concatenate([first, second]))

    def p_values(**changes):
        draws = uniform(4000, 22, seed=9)
        top, left, h, w = np.array([crop_box(one, 16, 16, **changes) for one in draws]).T
        y, x = found[2:]
        pairs = [(y * x, h * w), (x / y, w / h), (found[0], top), (found[1], left)]
        return [same(*pair) for pair in pairs]

    assert rate(flipped, 0.3) > SIGNIFICANCE
    assert min(p_values()) > SIGNIFICANCE
    assert min(p_values(aspect=(0.6, 5 / 3))) < SIGNIFICANCE
    assert same(found[2] * found[3], found[2] * found[2]) < SIGNIFICANCE
    boxes = np.stack([*found, flipped], axis=1).reshape(2, 2000, 5)
    # Views of one image, and images of one batch, and steps, share their box by chance alone.
    for other in (boxes[1], np.roll(boxes[0], 1, axis=0), np.roll(boxes[0], 1000, axis=0)):
        assert (boxes[0] == other).all(axis=1).mean() < 0.02
        assert abs(np.corrcoef(boxes[0, :, 3], other[:, 3])[0, 1]) < 0.1


def test_small_crops_have_their_area_and_share_no_draw_with_full_ones(engine):
    changes = {"small_views": 2, "small_size": 16, "small_crop_area": (0.3, 0.5)}
    only = recipe(size=16, crop_area=(0.5, 1.0), crop_aspect=ASPECT, flip=0.3, **changes)
    views = engine.views(only, ramps(1000), steps=2)
    assert len(views) == 4
    found = [np.stack(decoded(view), axis=1) for view in views]
    area = np.array([f[:, 2] * f[:, 3] for f in found]) / 256
    # Whole pixels: sides are rounded by up to half a pixel.
    assert 0.25 < area[2:].min() < area[2:].max() < 0.57 and 0.44 < area[:2].min()

    def p_value(low, high):
        draws = uniform(4000, 22, seed=9)
        draws[:, :10] = (low - 0.2 + (high - low) * draws[:, :10]) / 0.8  # crop_box's is [.2, 1]
        boxes = np.array([crop_box(one, 16, 16) for one in draws])
        return same(area[2:].ravel(), boxes[:, 2] * boxes[:, 3] / 256)

    assert p_value(0.3, 0.5) > SIGNIFICANCE
    assert p_value(0.3, 0.45) < SIGNIFICANCE
    assert p_value(0.35, 0.5) < SIGNIFICANCE
    assert rate(np.concatenate([f[:, 4] for f in found[2:]]), 0.3) > SIGNIFICANCE
    # Corner and aspect do not tell of the area; what two views share of them is shared draws.
    log_aspect, corner = (
        np.array([value(f) for f in found])
        for value in (lambda f: np.log(f[:, 3] / f[:, 2]), lambda f: f[:, 0] / (17 - f[:, 2]))
    )
    for i, j in itertools.combinations(range(4), 2):
        for numbers in (area, log_aspect, corner):
            assert abs(np.corrcoef(numbers[i], numbers[j])[0, 1]) < 0.1
        assert unrelated(found[i][:, 4], found[j][:, 4]) > SIGNIFICANCE
