"""The host engine against PIL, colorsys, SciPy and loops; wrong formulas must be told apart.

Tolerances: the engine rounds once at the end, PIL to whole levels after every step, so a single
PIL operation may differ by its own rounding (stated where used); float oracles agree to 0.01.
"""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter

from simsiam_keras.augment import CIFAR, Recipe, host
from tests.augment.oracles import (
    AMOUNTS,
    AREA,
    ASPECT,
    JITTER,
    MULTI,
    PLAIN,
    SIGNIFICANCE,
    WRONG_JITTER,
    brightness,
    crop_box,
    each,
    far,
    jittered,
    luma,
    photos,
    pil_crop,
    sampled_crop,
    saturation,
    uniform,
)


def apply(layer, images, draws):
    return host.augment(layer, tf.cast(images, "float32"), tf.constant(draws)).numpy()


# Random resized crop


def boxes_of(height, width, n=400, area=AREA, aspect=ASPECT, seed=0):
    layer = host.RandomResizedCrop(8, area, aspect)
    draws = uniform(n, layer.draws, seed=seed)
    images = tf.zeros([1, height, width, 3])  # only the size is read
    boxes = layer.get_random_transformation_batch(n, images=images, labels=tf.constant(draws))
    return draws, boxes.numpy()


@pytest.mark.parametrize("height, width", [(32, 32), (41, 50), (90, 20), (12, 18)])
def test_the_boxes_are_torchvisions(height, width):
    draws, boxes = boxes_of(height, width)
    expected = np.array([crop_box(one, height, width) for one in draws])
    linear = np.array([crop_box(one, height, width, log=False) for one in draws])
    swapped = np.array([crop_box(one, width, height)[::-1] for one in draws])
    np.testing.assert_array_equal(boxes, expected)
    assert (boxes != linear).any(axis=1).mean() > 0.1
    assert (boxes != swapped).any(axis=1).mean() > 0.9


def test_the_central_crop_when_nothing_fits():
    _, boxes = boxes_of(10, 200, area=(0.9, 1.0))
    np.testing.assert_array_equal(boxes, np.tile([0, 93, 10, 13], (400, 1)))
    _, boxes = boxes_of(200, 10, area=(0.9, 1.0))
    np.testing.assert_array_equal(boxes, np.tile([93, 0, 13, 10], (400, 1)))


def test_area_and_log_aspect_and_corner_are_uniform():
    # Area up to 0.7 always fits, so nothing is drawn again; 2000 px make rounding negligible.
    _, boxes = boxes_of(2000, 2000, n=4000, area=(0.2, 0.7))
    top, left, h, w = boxes.T

    def p_value(x, low, high):
        return scipy.stats.kstest((x - low) / (high - low), "uniform").pvalue

    log_aspect = np.log(w / h)
    assert p_value(h * w / 2000**2, 0.2, 0.7) > SIGNIFICANCE
    assert p_value(log_aspect, *np.log(ASPECT)) > SIGNIFICANCE
    assert p_value(w / h, *ASPECT) < SIGNIFICANCE
    assert p_value(top / (2000 - h), 0, 1) > SIGNIFICANCE
    assert p_value(left / (2000 - w), 0, 1) > SIGNIFICANCE
    together = np.corrcoef([h * w, log_aspect, top / (2000 - h), left / (2000 - w)])
    assert abs(together - np.eye(4)).max() < 0.06  # four standard errors of 4000 draws


@pytest.mark.parametrize("crop", [host.crop_by_matrices, host.crop_by_slices])
@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (61, 47, 16), (9, 14, 24)])
def test_the_resized_crop_is_pils(crop, height, width, size):
    images = photos(24, height, width)
    _, boxes = boxes_of(height, width, n=24)
    views = crop(tf.cast(images, "float32"), tf.constant(boxes), size)
    # PIL rounds after the rows and after the columns: half a level each.
    assert far(views, each(lambda x, b: pil_crop(x, b, size), images, boxes)) <= 1.01
    wrong = {
        "nearest": lambda x, b: pil_crop(x, b, size, Image.Resampling.NEAREST),
        "bicubic": lambda x, b: pil_crop(x, b, size, Image.Resampling.BICUBIC),
        "aligned corners": lambda x, b: sampled_crop(x, b, size, corners=True),
        "mirrored": lambda x, b: np.asarray(pil_crop(x, b, size))[:, ::-1],
        "transposed": lambda x, b: np.asarray(pil_crop(x, b, size)).swapaxes(0, 1),
    }
    if size < height:
        wrong["aliased"] = lambda x, b: sampled_crop(x, b, size, corners=False)
    for name, formula in wrong.items():
        assert far(views, each(formula, images, boxes)) > 5, name


def test_nothing_outside_the_crop_is_read():
    images = np.full((1, 20, 20, 3), 255, "uint8")
    images[:, 5:15, 5:15] = 100
    box = tf.constant([[5.0, 5.0, 10.0, 10.0]])
    for crop in (host.crop_by_matrices, host.crop_by_slices):
        for size in (4, 32):
            np.testing.assert_allclose(crop(tf.cast(images, "float32"), box, size), 100, atol=1e-3)


# Colour jitter

STRENGTH = 0.4


def jitter_alone(operation, amounts, images):
    """Run the layer with one operation, at exactly the given amounts."""
    strengths = [0.0] * 4
    strengths[operation] = strength = 0.5 if operation == host.HUE else STRENGTH
    layer = host.ColorJitter(strengths, probability=1.0)
    middle = 0 if operation == host.HUE else 1
    amounts = (np.asarray(amounts, "float32") - middle + strength) / (2 * strength)
    draws = np.stack([np.zeros_like(amounts), np.zeros_like(amounts), amounts], axis=1)
    return apply(layer, images, draws)


@pytest.mark.parametrize("operation", range(4), ids=[f.__name__ for f in JITTER])
def test_each_jitter_operation_is_torchvisions(operation):
    images = photos(5, 12, 10, seed=3)
    images[..., 0] //= 2  # so that the channels' means differ
    images[:, 0] = [[255, 0, 0]] * 5 + [[0, 255, 255]] * 3 + [[0, 0, 0], [255, 255, 255]]
    amounts = AMOUNTS[operation]
    views = jitter_alone(operation, amounts, images)
    assert far(views, each(JITTER[operation], images, amounts)) <= 0.01
    for name, formula in WRONG_JITTER[operation].items():
        assert far(views, each(formula, images, amounts)) > 1, name


@pytest.mark.parametrize(
    "operation, enhancer",
    [
        (host.BRIGHTNESS, ImageEnhance.Brightness),
        (host.CONTRAST, ImageEnhance.Contrast),
        (host.SATURATION, ImageEnhance.Color),
    ],
)
def test_each_blend_is_pils(operation, enhancer):
    images, amounts = photos(5, 32, 32, seed=4), AMOUNTS[operation]
    views = jitter_alone(operation, amounts, images)
    expected = each(lambda x, f: enhancer(Image.fromarray(x)).enhance(f), images, amounts)
    # PIL truncates the blend (1) and rounds its grey (0.5), of which |1 - f| <= 0.4 enters.
    assert far(views, expected) <= 1.21


def test_the_jitter_is_its_operations_in_each_images_own_order():
    layer = host.ColorJitter((0.4, 0.4, 0.4, 0.1), 0.8)
    images, draws = photos(48, 8, 8, seed=5), uniform(48, layer.draws, seed=5)
    views = apply(layer, images, draws)
    assert far(views, jittered(draws, images)) <= 0.01
    assert far(views, jittered(draws, images, sequence=range(4))) > 5
    assert far(views, jittered(draws, images, probability=1.0)) > 5
    additive = [WRONG_JITTER[0]["additive, as keras_cv"], *JITTER[1:]]
    assert far(views, jittered(draws, images, chain=additive)) > 5


def test_orders_and_amounts_are_uniform():
    layer = host.ColorJitter((0.4, 1.2, 0.4, 0.1), 0.8)
    n = 24_000
    numbers = layer.get_random_transformation_batch(
        n, labels=tf.random.stateless_uniform([n, layer.draws], [1, 2])
    )
    order, amount = numbers["order"].numpy(), numbers["amount"].numpy()
    counts = np.unique(order @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > SIGNIFICANCE
    still = (amount == np.where(order == host.HUE, 0, 1)).all(axis=1)
    assert scipy.stats.binomtest(int(still.sum()), n, 0.2).pvalue > SIGNIFICANCE
    ranges = [(0.6, 1.4), (0.0, 2.2), (0.6, 1.4), (-0.1, 0.1)]
    for operation, (low, high) in enumerate(ranges):
        drawn = amount[(order == operation) & ~still[:, None]]
        assert scipy.stats.kstest((drawn - low) / (high - low), "uniform").pvalue > SIGNIFICANCE


def test_an_operation_of_strength_zero_is_left_out():
    layer = host.ColorJitter((0.4, 0.0, 0.4, 0.0), 1.0)
    images, draws = photos(6, 8, 8), uniform(6, 5)
    expected = []
    for row, image in zip(draws, images.astype("float64"), strict=True):
        chain = [brightness, saturation] if row[1] < row[2] else [saturation, brightness]
        for operation, u in zip(chain, row[3:], strict=True):
            image = operation(image, 0.6 + 0.8 * u)
        expected.append(image)
    assert far(apply(layer, images, draws), expected) <= 0.01


# Grayscale, blur, flip


def test_grayscale_is_pils():
    images = photos(6, 16, 16)
    draws = np.array([0.0, 0.1, 0.19, 0.21, 0.5, 0.99], "float32")[:, None]
    views = apply(host.RandomGrayscale(0.2), images, draws)
    grey = each(lambda x: Image.fromarray(x).convert("L").convert("RGB"), images)
    # Half a level for PIL's rounding, 0.03 for keras_cv's 0.2989 in place of 0.299.
    assert far(views[:3], grey[:3]) <= 0.53
    assert far(views[3:], images[3:]) == 0
    assert far(views[:3], images[:3].mean(-1, keepdims=True)) > 5


def test_the_blur_is_gaussian():
    layer = host.GaussianBlur((0.1, 2.0), probability=0.5)
    images = photos(8, 20, 24, seed=6)
    draws = np.stack([[0.0] * 7 + [0.6], np.linspace(0, 1, 8)], axis=1).astype("float32")
    sigma = 0.1 + 1.9 * draws[:, 1]
    views = apply(layer, images, draws)

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


def test_the_flip_mirrors_columns():
    images = photos(4, 6, 6)
    views = apply(host.RandomFlip(0.5), images, np.array([[0.2], [0.4], [0.6], [0.8]], "float32"))
    assert far(views[:2], images[:2, :, ::-1]) == 0
    assert far(views[2:], images[2:]) == 0


# Two views


@pytest.fixture(scope="module")
def views():
    return host.TwoViews(CIFAR)


def rates(recipe, changed, n=3000):
    """How often each of the two views of n equal images is changed."""
    image = photos(1, 8, 8)
    views = host.TwoViews(recipe)(np.repeat(image, n, axis=0), [3, 4])
    return [changed(view.numpy(), image[0]) for view in views]


@pytest.mark.parametrize(
    "recipe, changed",
    [
        (
            Recipe(**{**vars(PLAIN), "flip": 0.3}),
            lambda v, x: (v == x[:, ::-1]).all(axis=(1, 2, 3)),
        ),
        (
            Recipe(**{**vars(PLAIN), "grayscale": 0.3}),
            lambda v, x: (v.max(-1) == v.min(-1)).all(axis=(1, 2)),
        ),
        (
            Recipe(**{**vars(PLAIN), "jitter": (0.4,) * 3 + (0.1,), "jitter_probability": 0.3}),
            lambda v, x: (v != x).any(axis=(1, 2, 3)),
        ),
        (
            Recipe(**{**vars(PLAIN), "blur": 0.3, "blur_sigma": (1.0, 2.0)}),
            lambda v, x: (v != x).any(axis=(1, 2, 3)),
        ),
    ],
    ids=["flip", "grayscale", "jitter", "blur"],
)
def test_rates_and_independence_of_the_two_views(recipe, changed):
    first, second = rates(recipe, changed)
    for view in (first, second):
        assert scipy.stats.binomtest(int(view.sum()), view.size, 0.3).pvalue > SIGNIFICANCE
    both = np.histogram2d(first, second, bins=2)[0]
    neighbours = np.histogram2d(first[::2], first[1::2], bins=2)[0]
    for table in (both, neighbours):
        assert scipy.stats.chi2_contingency(table).pvalue > SIGNIFICANCE


def test_a_plain_recipe_returns_the_images():
    images = photos(3, 8, 8)
    for view in host.TwoViews(PLAIN)(images, [0, 0]):
        np.testing.assert_array_equal(view, images)


def test_the_order_is_crop_jitter_grayscale_blur_flip():
    recipe = Recipe(size=16, blur=0.5, blur_sigma=(1.0, 2.0))
    views, images = host.TwoViews(recipe), photos(40, 24, 24, seed=8)
    # Contrast, so that clipping tells the orders apart.
    images = np.clip(1.6 * images.astype("float32") - 60, 0, 255).astype("uint8")
    results = np.concatenate(views(images, [5, 6]))
    crop, jitter, grey, blur, flip = (x.numpy() for x in views.draw(80, [5, 6]))
    images = np.concatenate([images, images])
    boxes = [crop_box(one, 24, 24) for one in crop]
    boxes = tf.constant(boxes, "float32")
    cropped = host.crop_by_matrices(tf.cast(images, "float32"), boxes, 16).numpy()

    def blurred(x, d):
        s = 1 + d[1]
        kernel = scipy.ndimage.gaussian_filter(x, (s, s, 0), mode="nearest", truncate=6.0 / s)
        return kernel if d[0] < 0.5 else x

    def finished(x):
        x = each(lambda y, d: luma(y)[..., None] * np.ones(3) if d[0] < 0.2 else y, x, grey)
        return each(lambda y, d: y[:, ::-1] if d[0] >= 1 - 0.5 else y, x, 1 - flip)

    right = finished(each(blurred, jittered(jitter, cropped), blur))
    wrong = finished(jittered(jitter, each(blurred, cropped, blur)))
    # The one rounding at the end, and keras_cv's grey weights.
    assert far(results, right) <= 0.53
    assert far(results, wrong) > 8


def test_the_same_seed_gives_the_same_views(views):
    images = photos(16, 32, 32)
    x1, x2 = views(images, [1, 2])
    for again in (views, host.TwoViews(CIFAR)):
        again = again(images, tf.constant([1, 2], "int64"))
        np.testing.assert_array_equal(x1, again[0])
        np.testing.assert_array_equal(x2, again[1])
    for other in (x2, *views(images, [1, 3]), *views(images, [2, 2])):
        assert (np.asarray(x1) != np.asarray(other)).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_view_has_draws_of_its_own(count):
    images, views = photos(16, 32, 32), host.TwoViews(CIFAR, views=count)
    each_view, (crop, *rest) = views(images, [1, 2]), views.draw(count * 16, [1, 2])
    assert len(each_view) == count
    for i, view in enumerate(each_view):
        own = slice(16 * i, 16 * i + 16)
        crops = host.augment(views.crop, tf.cast(images, "float32"), crop[own])
        expected = views.finish(crops, [draws[own] for draws in rest])
        assert far(view, expected.numpy()) <= 1  # compiled, where a tie may round the other way
    for a, b in itertools.combinations(each_view, 2):
        assert (a.numpy() != b.numpy()).any(axis=(1, 2, 3)).all()


def test_small_views_follow_with_draws_of_their_own():
    images, views = photos(16, 32, 32), host.TwoViews(MULTI)
    x1, x2, *small = views(images, [1, 2])
    assert [tuple(x.shape) for x in (x1, x2, *small)] == [(16, 16, 16, 3)] * 2 + [(16, 6, 6, 3)] * 2
    draws = views.draw(4 * 16, [1, 2])
    crop, rest = draws[0], draws[1:]
    alone = host.TwoViews(MULTI.small)
    for i, view in enumerate(small, start=2):
        own = slice(16 * i, 16 * i + 16)
        crops = host.augment(alone.crop, tf.cast(images, "float32"), crop[own])
        expected = alone.finish(crops, [x[own] for x in rest])
        assert far(view, expected.numpy()) <= 1  # compiled, where a tie may round the other way
    # The full views are what they are without small ones.
    for x, y in zip((x1, x2), host.TwoViews(without_small(MULTI))(images, [1, 2]), strict=True):
        np.testing.assert_array_equal(x, y)


def without_small(recipe):
    return dataclasses.replace(recipe, small_views=0)


def test_small_views_repeat_in_tf_data_whatever_the_photos_sizes():
    pictures = [photos(1, *size, seed=i) for i, size in enumerate([(70, 90), (33, 40), (8, 8)])]
    views = host.TwoViews(MULTI)
    spec = tf.TensorSpec([1, None, None, 3], tf.uint8)
    dataset = tf.data.Dataset.from_generator(lambda: iter(pictures), output_signature=spec)
    dataset = dataset.enumerate().map(lambda i, x: views(x, tf.stack([0, i])))
    shapes = [(1, 16, 16, 3)] * 2 + [(1, 6, 6, 3)] * 2
    assert [tuple(spec.shape) for spec in dataset.element_spec] == shapes
    for i, (picture, result) in enumerate(zip(pictures, dataset, strict=True)):
        for x, y in zip(result, views(picture, [0, i]), strict=True):
            assert far(x, y) <= 1  # small photos go through the matrices when eager
    assert views.small.compiled.experimental_get_tracing_count() == 1


def test_no_views_are_an_error():
    with pytest.raises(ValueError, match="`views` must be at least 1. Received: views=0"):
        host.TwoViews(CIFAR, views=0)


def test_a_mixed_precision_policy_changes_nothing(views):
    images = photos(16, 32, 32)
    policy = keras.mixed_precision.dtype_policy()
    try:
        keras.mixed_precision.set_dtype_policy("mixed_float16")
        results = host.TwoViews(CIFAR)(images, [1, 2])
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    np.testing.assert_array_equal(results, views(images, [1, 2]))


def test_tf_data_equals_eager_in_parallel_and_with_a_remainder(views):
    images = photos(40, 32, 32)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(16).enumerate()
    dataset = dataset.map(
        lambda i, x: (x, *views(x, tf.stack([7, i]))), num_parallel_calls=tf.data.AUTOTUNE
    )
    assert [tuple(spec.shape) for spec in dataset.element_spec[1:]] == [(None, 32, 32, 3)] * 2
    for _ in range(2):
        for i, (x, x1, x2) in enumerate(dataset):
            expected = views(x, [7, i])
            np.testing.assert_array_equal(x1, expected[0])
            np.testing.assert_array_equal(x2, expected[1])
            assert x1.dtype == x2.dtype == tf.uint8


def test_photos_of_any_size_one_by_one(views):
    sizes = [(70, 90), (33, 40), (200, 31), (8, 8)]
    pictures = [photos(1, *size, seed=i) for i, size in enumerate(sizes)]
    spec = tf.TensorSpec([1, None, None, 3], tf.uint8)
    dataset = tf.data.Dataset.from_generator(lambda: iter(pictures), output_signature=spec)
    dataset = dataset.enumerate().map(lambda i, x: views(x, tf.stack([0, i])))
    assert [tuple(spec.shape) for spec in dataset.element_spec] == [(1, 32, 32, 3)] * 2
    results = list(dataset)
    # One trace, hence one XLA program, for all sizes.
    assert views.compiled.experimental_get_tracing_count() == 1
    for i, (picture, result) in enumerate(zip(pictures, results, strict=True)):
        for x, y in zip(result, views(picture, [0, i]), strict=True):
            # Eager small photos go through the matrices: equal up to the final rounding.
            assert far(x, y) <= 1


@pytest.mark.parametrize("shape", [(32, 32, 3), (4, 32, 32, 1)])
def test_a_batch_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="`images` must be .n, h, w, 3.. Received: shape="):
        host.TwoViews(CIFAR)(np.zeros(shape, "uint8"), [0, 0])
