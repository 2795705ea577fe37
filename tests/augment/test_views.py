"""What either engine makes of a recipe: which views, from which draws, in which order."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.ndimage

from simsiam_keras.augment import CIFAR
from tests.augment.engines import BLURRED, SHORT, SHORT_MULTI, recipe
from tests.augment.oracles import (
    PLAIN,
    SIGNIFICANCE,
    crop_box,
    each,
    far,
    jittered,
    luma,
    photos,
    rate,
    unrelated,
)


def test_a_plain_recipe_returns_the_images(engine):
    images = photos(3, 8, 8)
    for view in engine.views(PLAIN, images):
        np.testing.assert_array_equal(view, images)


def test_the_order_is_crop_jitter_grayscale_blur_flip(engine):
    # Contrast, so that clipping tells the orders apart.
    images = np.clip(1.6 * photos(16, 24, 24, seed=8).astype("float32") - 60, 0, 255)
    images = images.astype("uint8")
    results = np.concatenate(engine.views(BLURRED, images, seed=5))
    draws = np.concatenate(engine.draws(BLURRED, 16, seed=5))
    assert draws.shape == (32, 35)
    crop, jitter, grey, blur, flip = np.split(draws, [22, 31, 32, 34], axis=1)
    images = np.concatenate([images, images])
    crops = engine.crop(images, [crop_box(one, 24, 24) for one in crop], 16)

    def blurred(x, d):
        s = 1 + d[1]
        kernel = scipy.ndimage.gaussian_filter(x, (s, s, 0), mode="nearest", truncate=6.0 / s)
        return kernel if d[0] < 0.5 else x

    def finished(x):
        x = each(lambda y, d: luma(y)[..., None] * np.ones(3) if d[0] < 0.2 else y, x, grey)
        return each(lambda y, d: y[:, ::-1] if d[0] < 0.5 else y, x, flip)

    right = finished(each(blurred, jittered(jitter, crops), blur))
    wrong = finished(jittered(jitter, each(blurred, crops, blur)))
    assert far(results, right) <= engine.whole
    assert far(results, wrong) > 8


@pytest.mark.parametrize(
    "only, changed",
    [
        (recipe(flip=0.3), lambda v, x: (v == x[:, ::-1]).all(axis=(1, 2, 3))),
        (recipe(grayscale=0.3), lambda v, x: (v.max(-1) == v.min(-1)).all(axis=(1, 2))),
        (
            recipe(jitter=(0.4, 0.4, 0.4, 0.1), jitter_probability=0.3),
            lambda v, x: (v != x).any(axis=(1, 2, 3)),
        ),
        (
            recipe(blur=0.3, blur_sigma=(1.0, 2.0)),
            lambda v, x: (v != x).any(axis=(1, 2, 3)),
        ),
    ],
    ids=["flip", "grayscale", "jitter", "blur"],
)
def test_rates_and_independence_of_the_two_views(only, changed, engine):
    image = photos(1, 8, 8)
    views = engine.views(only, np.repeat(image, 3000, axis=0), seed=3)
    first, second = (changed(np.round(view), image[0]) for view in views)
    for view in (first, second):
        assert rate(view, 0.3) > SIGNIFICANCE
    assert unrelated(first, second) > SIGNIFICANCE
    assert unrelated(first[::2], first[1::2]) > SIGNIFICANCE


def test_the_views_follow_seed_and_step(engine):
    images = photos(16, 12, 12)
    (x1, x2), again = (engine.views(SHORT, images, seed=1, steps=steps) for steps in (1, 2))
    np.testing.assert_array_equal([view[:16] for view in again], [x1, x2])
    later = [view[16:] for view in again]
    for other in (x2, *later, *engine.views(SHORT, images, seed=2)):
        assert (x1 != other).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_view_has_draws_of_its_own(count, engine):
    images = photos(16, 12, 12)
    found = engine.views(SHORT, images, seed=3, views=count)
    draws = engine.draws(SHORT, 16, seed=3, views=count)
    assert len(found) == len(draws) == count
    for view, own in zip(found, draws, strict=True):
        assert far(view, engine.augment(images, own, SHORT)) <= engine.rounding
    for a, b in itertools.combinations(found, 2):
        assert (a != b).any(axis=(1, 2, 3)).all()


def test_small_views_follow_with_draws_of_their_own(engine):
    images = photos(16, 12, 12)
    found = engine.views(SHORT_MULTI, images, seed=3)
    draws = engine.draws(SHORT_MULTI, 16, seed=3)
    assert [x.shape for x in found] == [(16, 8, 8, 3)] * 2 + [(16, 6, 6, 3)] * 2
    for i, view in enumerate(found):
        which = SHORT_MULTI if i < 2 else SHORT_MULTI.small
        expected = [engine.augment(images, own, which) for own in draws]
        assert far(view, expected[i]) <= engine.rounding
        assert all(far(view, expected[j]) > 50 for j in range(4) if j != i)


def test_small_views_follow_seed_and_step(engine):
    images = photos(16, 12, 12)
    two, again, other = (
        engine.views(SHORT_MULTI, images, seed=seed, steps=steps)
        for seed, steps in ((1, 2), (1, 1), (2, 1))
    )
    for i in range(4):
        first, second = two[i][:16], two[i][16:]
        np.testing.assert_array_equal(again[i], first)
        for changed in (second, other[i]):
            assert (first != changed).any(axis=(1, 2, 3)).all()


def test_a_recipe_by_its_name_and_at_another_size(engine):
    assert engine.Views("cifar").recipe == CIFAR
    larger = dataclasses.replace(PLAIN, size=12)
    assert engine.Views(PLAIN, size=12).recipe == larger
    images = photos(2, 12, 12)
    for view in engine.views(PLAIN, images, size=12):
        np.testing.assert_array_equal(view, images)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"recipe": "cfar"}, "`recipe` must be a Recipe or one of cifar, .* Received: recipe=cfar"),
        ({"recipe": CIFAR, "size": 0}, "`size` must be .* .1, 8192.. Received: size=0"),
        ({"recipe": CIFAR, "views": 0}, "`views` must be at least 1. Received: views=0"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message, engine):
    with pytest.raises(ValueError, match=message):
        engine.Views(**arguments)


@pytest.mark.parametrize("shape", [(32, 32), (4, 32, 32, 1)])
def test_a_batch_of_another_shape_is_refused(shape, engine):
    with pytest.raises(ValueError, match="`images` must be .n, h, w, 3.* Received: shape="):
        engine.views(CIFAR, np.zeros(shape, "uint8"))
