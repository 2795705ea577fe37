"""The device engine against PIL, colorsys, SciPy, loops and the host engine, on every backend.

Tolerances: PIL rounds to whole levels after every step and the engine never, so a single PIL
operation may differ by its own rounding (stated where used); float oracles agree to 0.01.
"""

import dataclasses
import functools
import importlib.util
import inspect
import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from keras import ops
from PIL import Image, ImageEnhance, ImageFilter

from simsiam_keras import heads, runs
from simsiam_keras.augment import CIFAR, DIGITS, Recipe, device
from simsiam_keras.methods.base import JointEmbedding
from simsiam_keras.methods.simsiam import SimSiam
from tests.augment.oracles import (
    AMOUNTS,
    ASPECT,
    BRIGHTNESS,
    CONTRAST,
    HUE,
    JITTER,
    MULTI,
    PLAIN,
    SATURATION,
    SIGNIFICANCE,
    WRONG_JITTER,
    brightness,
    crop_box,
    each,
    far,
    hue,
    jittered,
    luma,
    photos,
    pil_crop,
    sampled_crop,
    saturation,
    uniform,
)
from tests.conftest import ROOT

BLURRED = Recipe(size=16, blur=0.5, blur_sigma=(1.0, 2.0))
HAS_HOST = all(importlib.util.find_spec(name) for name in ("tensorflow", "keras_cv"))


def recipe(**changes):
    """A recipe that does nothing, with changes."""
    return Recipe(**{**vars(PLAIN), **changes})


def compiled(function, xla=False):
    """Compiled on JAX, where op by op is slow, and on TensorFlow if asked for."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow" and xla:
        import tensorflow as tf

        return tf.function(function, jit_compile=True, reduce_retracing=True)
    return function


def tensor(x, dtype="float32"):
    return ops.convert_to_tensor(np.asarray(x, dtype))


def numpy(x):
    return ops.convert_to_numpy(x)


def on_planes(operation, images, *arguments):
    """Apply an operation of `[n, 3, h, w]` tensors to `[n, h, w, 3]` arrays."""
    planes = tensor(np.moveaxis(images, 3, 1))
    result = compiled(operation)(planes, *(tensor(x) for x in arguments))
    return np.moveaxis(numpy(result), 1, 3)


def augment(images, draws, recipe):
    function = compiled(lambda x, u: device.augment(x, u, recipe), xla=True)
    return numpy(function(tensor(images, images.dtype), tensor(draws)))


@functools.cache
def jitted(layer, training):
    function = functools.partial(layer.stateless_call, training=training)
    return compiled(lambda state, images: function([], state, images))


def call(layer, images, training=False):
    """The layer's two views; on JAX compiled, for op by op its first call takes many seconds."""
    if keras.backend.backend() != "jax":
        return [numpy(view) for view in layer(images, training=training)]
    state = [variable.value for variable in layer.non_trainable_variables]
    views, state = jitted(layer, training)(state, images)
    for variable, value in zip(layer.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return [numpy(view) for view in views]


def views_of(recipe, images, seed=0, steps=1):
    """`[2, steps * n, size, size, 3]`: the two views of the images in the first steps."""
    layer = device.TwoViews(recipe, seed)
    results = [np.stack(call(layer, images, training=True)) for _ in range(steps)]
    return np.concatenate(results, axis=1)


def host_views_of(recipe, images, seed=0, steps=1):
    from simsiam_keras.augment import host

    views = host.TwoViews(recipe)
    results = [np.stack(views(images, [seed, step])) for step in range(steps)]
    return np.concatenate(results, axis=1).astype("float32")


ENGINES = [
    views_of,
    pytest.param(
        host_views_of, marks=pytest.mark.skipif(not HAS_HOST, reason="needs tensorflow, keras_cv")
    ),
]
both_engines = pytest.mark.parametrize("engine", ENGINES, ids=["device", "host"])


def same(x, y):
    """p-value that two samples come from one distribution."""
    return scipy.stats.ks_2samp(x, y).pvalue


def flat(x, low=0.0, high=1.0):
    """p-value that a sample is uniform in [low, high)."""
    return scipy.stats.kstest((np.asarray(x) - low) / (high - low), "uniform").pvalue


def rate(changed, probability):
    """p-value that so many of a sample have a probability."""
    return scipy.stats.binomtest(int(np.sum(changed)), changed.size, probability).pvalue


# Where the operations do not matter: fewer of them compile faster.
SHORT = recipe(crop_area=(0.2, 1.0), jitter=(0.4, 0.0, 0.0, 0.0), flip=0.5)


# Draws


@pytest.mark.parametrize(
    "key, counter, expected",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_its_known_answers(key, counter, expected):
    # Random123 1.14, tests/kat_vectors, threefry2x32 20.
    def tensors(words):
        return [tensor([np.uint32(word).view("int32")], "int32") for word in words]

    for keys in (key, (key[0], tensors(key)[1][0])):
        words = device.threefry(keys, tensors(counter))
        assert tuple(int(numpy(word).view("uint32")[0]) for word in words) == expected


def draws_of(seed, step, n=512, count=31, first=0):
    function = compiled(lambda step: device.uniform(seed, step, n, count, first))
    return numpy(function(tensor(step, "int32")))


def test_draws_are_uniform_and_independent():
    draws = draws_of(2**32 - 1, 7, n=20_000, count=5)
    assert draws.shape == (20_000, 5) and 0 <= draws.min() and draws.max() < 1
    np.testing.assert_array_equal(draws * 2**24, np.round(draws * 2**24))
    for column in draws.T:
        assert flat(column) > SIGNIFICANCE
    neighbours = np.concatenate(
        [draws, draws_of(2**32 - 1, 8, 20_000, 5), draws[[-1, *range(19_999)]]], 1
    )
    correlation = np.corrcoef(neighbours.T) - np.eye(15)
    assert abs(correlation).max() < 4.5 / np.sqrt(20_000)
    pairs = np.histogram2d(draws[:, 0], draws[:, 1], bins=16)[0]
    assert scipy.stats.chisquare(pairs.ravel()).pvalue > SIGNIFICANCE


def test_draws_belong_to_seed_step_row_and_column():
    draws = draws_of(3, 5)
    np.testing.assert_array_equal(draws, draws_of(3, 5))
    np.testing.assert_array_equal(draws[100:200], draws_of(3, 5, n=100, first=100))
    # The sum of seed and step is not enough, nor are the words interchangeable.
    for other in (draws_of(3, 6), draws_of(4, 5), draws_of(4, 4), draws_of(5, 3)):
        assert np.isin(draws, other).mean() < 0.01


# Random resized crop


def boxes_of(height, width, n=400, draws=None, **changes):
    draws = uniform(n, 22) if draws is None else draws
    changed = recipe(**{"crop_area": (0.2, 1.0), "crop_aspect": ASPECT, **changes})
    function = compiled(lambda u: device.crop_boxes(u, (height, width), changed))
    return draws, np.concatenate([numpy(x) for x in function(tensor(draws))], axis=1)


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
    _, boxes = boxes_of(10, 200, crop_area=(0.9, 1.0))
    np.testing.assert_array_equal(boxes, np.tile([0, 93, 10, 13], (400, 1)))
    _, boxes = boxes_of(200, 10, crop_area=(0.9, 1.0))
    np.testing.assert_array_equal(boxes, np.tile([93, 0, 13, 10], (400, 1)))


def test_area_and_log_aspect_and_corner_are_uniform():
    # Area up to 0.7 always fits, so nothing is drawn again; 2000 px make rounding negligible.
    draws = draws_of(0, 0, n=4000, count=22)
    _, boxes = boxes_of(2000, 2000, draws=draws, crop_area=(0.2, 0.7))
    top, left, h, w = boxes.T
    log_aspect = np.log(w / h)
    assert flat(h * w / 2000**2, 0.2, 0.7) > SIGNIFICANCE
    assert flat(log_aspect, *np.log(ASPECT)) > SIGNIFICANCE
    assert flat(w / h, *ASPECT) < SIGNIFICANCE
    assert flat(top / (2000 - h)) > SIGNIFICANCE
    assert flat(left / (2000 - w)) > SIGNIFICANCE
    together = np.corrcoef([h * w, log_aspect, top / (2000 - h), left / (2000 - w)])
    assert abs(together - np.eye(4)).max() < 0.06  # four standard errors of 4000 draws


def cropped(images, boxes, size, flipped=None):
    boxes = [tensor(column[:, None]) for column in np.asarray(boxes).T]
    flipped = None if flipped is None else tensor(flipped, "bool")[:, None]
    function = compiled(lambda x: device.crop(x, boxes, size, flipped))
    return np.moveaxis(numpy(function(tensor(images, images.dtype))), 1, 3)


@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (61, 47, 16), (9, 14, 24)])
def test_the_resized_crop_is_pils(height, width, size):
    images = photos(24, height, width)
    _, boxes = boxes_of(height, width, n=24)
    views = cropped(images, boxes, size)
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
    for size in (4, 32):
        np.testing.assert_allclose(cropped(images, [[5, 5, 10, 10]], size), 100, atol=1e-3)


def test_the_flip_mirrors_columns():
    images = photos(4, 9, 7)
    boxes = boxes_of(9, 7, n=4)[1]
    plain = cropped(images, boxes, 6)
    views = cropped(images, boxes, 6, flipped=[True, True, False, False])
    np.testing.assert_array_equal(views[:2], plain[:2, :, ::-1])
    np.testing.assert_array_equal(views[2:], plain[2:])


# Colour jitter


def jitter_alone(operation, amounts, images):
    """Run the jitter with one operation, at exactly the given amounts."""
    strengths = [0.0] * 4
    strengths[operation] = strength = 0.5 if operation == HUE else 0.4
    middle = 0 if operation == HUE else 1
    amounts = (np.asarray(amounts, "float32") - middle + strength) / (2 * strength)
    draws = np.stack([np.zeros_like(amounts), np.zeros_like(amounts), amounts], axis=1)
    alone = recipe(jitter=tuple(strengths), jitter_probability=1.0)
    return on_planes(lambda x, u: device.jitter(x, u, alone), images, draws)


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
        (BRIGHTNESS, ImageEnhance.Brightness),
        (CONTRAST, ImageEnhance.Contrast),
        (SATURATION, ImageEnhance.Color),
    ],
)
def test_each_blend_is_pils(operation, enhancer):
    images, amounts = photos(5, 32, 32, seed=4), AMOUNTS[operation]
    views = jitter_alone(operation, amounts, images)
    expected = each(lambda x, f: enhancer(Image.fromarray(x)).enhance(f), images, amounts)
    # PIL truncates the blend (1) and rounds its grey (0.5), of which |1 - f| <= 0.4 enters.
    assert far(views, expected) <= 1.21


def test_the_jitter_is_its_operations_in_each_images_own_order():
    images, draws = photos(96, 8, 8, seed=5), uniform(96, 9, seed=5)
    views = on_planes(lambda x, u: device.jitter(x, u, CIFAR), images, draws)
    assert far(views, jittered(draws, images)) <= 0.01
    assert far(views, jittered(draws, images, sequence=range(4))) > 5
    assert far(views, jittered(draws, images, probability=1.0)) > 5
    additive = [WRONG_JITTER[BRIGHTNESS]["additive, as keras_cv"], *JITTER[1:]]
    assert far(views, jittered(draws, images, chain=additive)) > 5


def test_orders_and_amounts_are_uniform():
    n, strengths = 24_000, (0.4, 1.2, 0.4, 0.1)
    wide = recipe(jitter=strengths, jitter_probability=0.8)
    draws = tensor(draws_of(1, 2, n=n, count=9))
    order, amount = (numpy(x) for x in compiled(lambda u: device.jitter_amounts(u, wide))(draws))
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
def test_an_operation_of_strength_zero_is_left_out(second):
    strengths = {SATURATION: (0.4, 0.0, 0.4, 0.0), HUE: (0.4, 0.0, 0.0, 0.1)}[second]
    part = recipe(jitter=strengths, jitter_probability=1.0)
    images, draws = photos(6, 8, 8), uniform(6, 5)
    expected = []
    for row, image in zip(draws.astype("float64"), images.astype("float64"), strict=True):
        chain = [brightness, saturation if second == SATURATION else hue]
        for operation, u in zip(chain if row[1] < row[2] else chain[::-1], row[3:], strict=True):
            image = operation(image, 0.2 * u - 0.1 if operation is hue else 0.6 + 0.8 * u)
        expected.append(image)
    assert far(on_planes(lambda x, u: device.jitter(x, u, part), images, draws), expected) <= 0.01


# Grayscale, blur, the whole


def test_grayscale_is_pils():
    images = photos(6, 8, 8)
    draws = np.concatenate([uniform(6, 22), [[0.0], [0.1], [0.19], [0.21], [0.5], [0.99]]], axis=1)
    views = augment(images, draws, recipe(grayscale=0.2))
    grey = each(lambda x: Image.fromarray(x).convert("L").convert("RGB"), images)
    assert far(views[:3], grey[:3]) <= 0.51  # PIL's rounding
    assert far(views[3:], images[3:]) == 0
    assert far(views[:3], images[:3].mean(-1, keepdims=True)) > 5


def test_the_blur_is_gaussian():
    half = recipe(blur=0.5, blur_sigma=(0.1, 2.0))
    images = photos(8, 24, 24, seed=6)
    draws = np.stack([[0.0] * 7 + [0.6], np.linspace(0, 1, 8)], axis=1)
    sigma = 0.1 + 1.9 * draws[:, 1]
    views = on_planes(lambda x, u: device.blur(x, u, half), images, draws)

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


def test_a_blur_wider_than_the_image_replicates_its_borders():
    images = photos(4, 5, 5)
    wide = recipe(blur=1.0, blur_sigma=(2.0, 4.0))
    views = on_planes(lambda x, u: device.blur(x, u, wide), images, np.full((4, 2), 0.5))
    expected = each(
        lambda x: scipy.ndimage.gaussian_filter(
            x.astype("float64"), (3, 3, 0), mode="nearest", truncate=4
        ),
        images,
    )
    assert far(views, expected) <= 0.01


def test_the_order_is_crop_jitter_grayscale_blur_flip():
    assert device.widths(BLURRED) == {"crop": 22, "jitter": 9, "grayscale": 1, "blur": 2, "flip": 1}
    images, draws = photos(80, 24, 24, seed=8), uniform(80, 35, seed=8)
    # Contrast, so that clipping tells the orders apart.
    images = np.clip(1.6 * images.astype("float32") - 60, 0, 255).astype("uint8")
    results = augment(images, draws, BLURRED)
    crop, jitter, grey, blur, flip = np.split(draws, [22, 31, 32, 34], axis=1)
    crops = cropped(images, [crop_box(one, 24, 24) for one in crop], 16)

    def blurred(x, d):
        s = 1 + d[1]
        kernel = scipy.ndimage.gaussian_filter(x, (s, s, 0), mode="nearest", truncate=6.0 / s)
        return kernel if d[0] < 0.5 else x

    def finished(x):
        x = each(lambda y, d: luma(y)[..., None] * np.ones(3) if d[0] < 0.2 else y, x, grey)
        return each(lambda y, d: y[:, ::-1] if d[0] < 0.5 else y, x, flip)

    right = finished(each(blurred, jittered(jitter, crops), blur))
    wrong = finished(jittered(jitter, each(blurred, crops, blur)))
    assert far(results, right) <= 0.02
    assert far(results, wrong) > 8


@pytest.mark.skipif(not HAS_HOST, reason="needs tensorflow and keras_cv")
@pytest.mark.parametrize("which", [CIFAR, DIGITS, BLURRED], ids=["cifar", "digits", "blurred"])
def test_the_same_draws_give_the_host_engines_views(which):
    from simsiam_keras.augment import host

    images, views = photos(64, 30, 36), host.TwoViews(which)
    expected = np.concatenate(views(images, [3, 4]))
    draws = np.concatenate(views.draw(128, [3, 4]), axis=1)
    results = augment(np.concatenate([images, images]), draws, which)
    # The host's one rounding, and keras_cv's grey weights.
    assert far(results, expected) <= 0.54
    assert far(results, np.roll(expected, 1, axis=0)) > 50


@pytest.mark.skipif(not HAS_HOST, reason="needs tensorflow and keras_cv")
def test_the_same_draws_give_the_host_engines_small_views():
    from simsiam_keras.augment import host

    images, views = photos(64, 30, 36), host.TwoViews(MULTI)
    expected = np.concatenate(views(images, [3, 4])[2:])
    draws = np.concatenate(views.draw(4 * 64, [3, 4]), axis=1)[2 * 64 :]
    both = np.concatenate([images, images])
    results = augment(both, draws, MULTI.small)
    assert results.shape == (128, 6, 6, 3)
    # The host's one rounding, and keras_cv's grey weights.
    assert far(results, expected) <= 0.54
    assert far(results, np.roll(expected, 1, axis=0)) > 50
    full_area = dataclasses.replace(MULTI.small, crop_area=MULTI.crop_area)
    assert far(augment(both, draws, full_area), expected) > 50


# The distribution of thousands of views, on both engines


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


@both_engines
def test_crops_and_flips_have_torchvisions_distribution(engine):
    only = recipe(size=16, crop_area=(0.2, 1.0), crop_aspect=ASPECT, flip=0.3)
    first, second = engine(only, ramps(1000), steps=2)
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


@both_engines
def test_small_crops_have_their_area_and_share_no_draw_with_full_ones(engine):
    changes = {"small_views": 2, "small_size": 16, "small_crop_area": (0.3, 0.5)}
    only = recipe(size=16, crop_area=(0.5, 1.0), crop_aspect=ASPECT, flip=0.3, **changes)
    views = engine(only, ramps(1000), steps=2)
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
        table = np.histogram2d(found[i][:, 4], found[j][:, 4], bins=2)[0]
        assert scipy.stats.chi2_contingency(table).pvalue > SIGNIFICANCE


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


@both_engines
def test_colours_have_torchvisions_distribution(engine):
    only = recipe(size=4, jitter=(0.4, 0.4, 0.4, 0.1), jitter_probability=0.8)
    found = colours(np.concatenate(engine(only, coloured(1000), steps=2)))

    def p_value(**changes):
        reference = jittered(uniform(2000, 9, seed=10), coloured(2000), **changes)
        return min(same(x, y) for x, y in zip(found, colours(reference), strict=True))

    assert p_value() > SIGNIFICANCE
    assert p_value(probability=1.0) < SIGNIFICANCE
    wrong = {
        "additive brightness": [WRONG_JITTER[BRIGHTNESS]["additive, as keras_cv"], *JITTER[1:]],
        "contrast about mid grey": [
            brightness,
            WRONG_JITTER[CONTRAST]["about mid grey"],
            *JITTER[2:],
        ],
        "keras_cv's saturation factor": [*JITTER[:2], lambda x, f: saturation(x, f - 0.6), hue],
        "half the hue": [*JITTER[:3], lambda x, shift: hue(x, shift / 2)],
    }
    for name, chain in wrong.items():
        assert p_value(chain=chain) < SIGNIFICANCE, name


@both_engines
def test_grey_and_blurred_views_have_their_rates_and_widths(engine):
    only = recipe(size=15, grayscale=0.3, blur=0.5, blur_sigma=(0.5, 2.0))
    images = np.zeros((1000, 15, 15, 3), "uint8")
    images[:, 7, 7] = 250, 200, 100
    views = np.concatenate(engine(only, images, steps=2))
    grey = views[:, 7, 7, 0] == views[:, 7, 7, 2]
    blurred = views[:, 7, 6, 1] > 0
    assert rate(grey, 0.3) > SIGNIFICANCE
    assert rate(blurred, 0.5) > SIGNIFICANCE
    assert scipy.stats.chi2_contingency(np.histogram2d(grey, blurred, 2)[0]).pvalue > SIGNIFICANCE

    def centres(low, high):
        sigma = low + (high - low) * uniform(4000)
        taps = np.exp(-0.5 * (np.arange(-6, 7) / sigma[:, None]) ** 2)
        centre = 200 / taps.sum(axis=1) ** 2
        return np.round(centre) if engine is host_views_of else centre

    found = views[~grey & blurred][:, 7, 7, 1]
    assert same(found, centres(0.5, 2.0)) > SIGNIFICANCE
    assert same(found, centres(0.5, 1.8)) < SIGNIFICANCE
    assert same(found, centres(0.1, 2.0)) < SIGNIFICANCE


# The layer


def test_a_plain_recipe_returns_the_images():
    images = photos(3, 8, 8)
    for view in call(device.TwoViews(PLAIN), images):
        np.testing.assert_array_equal(view, images)


def test_the_views_follow_seed_and_step():
    images = photos(16, 12, 12)
    (x1, x2), again = views_of(SHORT, images, seed=1), views_of(SHORT, images, seed=1, steps=2)
    np.testing.assert_array_equal(again[:, :16], [x1, x2])
    for other in (x2, *again[:, 16:], *views_of(SHORT, images, seed=2)):
        assert (x1 != other).any(axis=(1, 2, 3)).all()
    # A shorter batch has the same views of the same images.
    np.testing.assert_allclose(views_of(SHORT, images[:5], seed=1), [x1[:5], x2[:5]], atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_view_has_draws_of_its_own(count):
    images, layer = photos(16, 12, 12), device.TwoViews(BLURRED, seed=3, views=count)
    each_view, width = call(layer, images), sum(device.widths(BLURRED).values())
    draws = numpy(device.uniform(3, 0, 16, count * width))
    assert len(each_view) == count
    for view, own in zip(each_view, np.split(draws, count, axis=1), strict=True):
        np.testing.assert_allclose(view, augment(images, own, BLURRED), atol=1e-2)
    for a, b in itertools.combinations(each_view, 2):
        assert (a != b).any(axis=(1, 2, 3)).all()


def test_small_views_follow_with_draws_of_their_own():
    images, layer = photos(16, 12, 12), device.TwoViews(MULTI, seed=3)
    each_view, width = call(layer, images), sum(device.widths(MULTI).values())
    assert [x.shape for x in each_view] == [(16, 16, 16, 3)] * 2 + [(16, 6, 6, 3)] * 2
    draws = np.split(numpy(device.uniform(3, 0, 16, 4 * width)), 4, axis=1)
    full, small = (
        augment(np.concatenate([images] * 4), np.concatenate(draws), which).reshape(4, 16, *shape)
        for which, shape in ((MULTI, (16, 16, 3)), (MULTI.small, (6, 6, 3)))
    )
    for i, expected in enumerate([full, full, small, small]):
        np.testing.assert_allclose(each_view[i], expected[i], atol=1e-2)
        assert all(far(each_view[i], expected[j]) > 50 for j in range(4) if j != i)


def test_small_views_follow_seed_and_step():
    images, layer = photos(8, 12, 12), device.TwoViews(MULTI, seed=1)
    first, second = (call(layer, images, training=True) for _ in range(2))
    again = call(device.TwoViews(MULTI, seed=1), images)
    other = call(device.TwoViews(MULTI, seed=2), images)
    for i in range(4):
        np.testing.assert_array_equal(again[i], first[i])
        for changed in (second[i], other[i]):
            assert (first[i] != changed).any(axis=(1, 2, 3)).all()


# Small views of two batches, made by two replicas and by one; argv: mistake.
REPLICAS = """
import sys
import numpy as np, tensorflow as tf
from simsiam_keras import distribute
distribute.scope("none", 2)  # the CPU must be split before TensorFlow uses it
from simsiam_keras.augment.device import TwoViews
from tests.augment.oracles import MULTI

if sys.argv[1] == "same_rows":
    distribute.replica = lambda: 0
images = np.random.default_rng(0).integers(0, 255, (16, 16, 16, 3), dtype="uint8")
plain = TwoViews(MULTI, seed=3)
expected = [plain(images[i : i + 8], training=True) for i in (0, 8)]
with distribute.scope("mirrored", 2):
    layer = TwoViews(MULTI, seed=3)
    strategy = tf.distribute.get_strategy()
    batches = tf.data.Dataset.from_tensor_slices(images).batch(8, drop_remainder=True)
    step = tf.function(lambda x: strategy.run(lambda x: layer(x, training=True), (x,)))
    for views, batch in zip(expected, strategy.experimental_distribute_dataset(batches)):
        for one, two in zip(views, step(batch), strict=True):
            two = np.concatenate(strategy.experimental_local_results(two))
            np.testing.assert_allclose(two, one, atol=1e-3)
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="replicas are TensorFlow's")
@pytest.mark.parametrize("mistake", ["", "same_rows"])
def test_replicas_make_the_small_views_of_one_device(mistake):
    command = [sys.executable, "-c", REPLICAS, mistake]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode == 0) == (mistake == ""), done.stderr[-2000:]
    assert mistake == "" or "AssertionError" in done.stderr


def test_only_training_goes_on_to_the_next_step():
    layer, images = device.TwoViews(SHORT), photos(4, 8, 8)
    first = call(layer, images)[0]
    np.testing.assert_array_equal(call(layer, images)[0], first)
    np.testing.assert_array_equal(call(layer, images, training=True)[0], first)
    assert int(layer.step) == 1
    assert (call(layer, images)[0] != first).any()


def test_a_dtype_policy_changes_nothing():
    images = photos(8, 12, 12) + np.float32(0.3)
    expected = call(device.TwoViews(BLURRED), images)
    for policy in ("mixed_bfloat16", "float16"):
        keras.config.set_dtype_policy(policy)
        layer = device.TwoViews(BLURRED)
        assert layer.compute_dtype != "float32"
        for x, y in zip(call(layer, images), expected, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == "float32"


def test_config_holds_the_constructors_arguments():
    layer = device.TwoViews(MULTI, seed=7, views=4, name="views")
    config = layer.get_config()
    arguments = set(inspect.signature(device.TwoViews).parameters) - {"kwargs"}
    assert arguments <= set(config)
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (other.recipe, other.seed, other.views, other.name) == (MULTI, 7, 4, "views")
    # Of a layer saved before there were small views.
    older = {k: v for k, v in config["recipe"].items() if not k.startswith("small")}
    layer = device.TwoViews.from_config({**config, "recipe": older})
    assert layer.recipe.small is None and layer.recipe.size == MULTI.size


def test_no_views_are_an_error():
    with pytest.raises(ValueError, match="`views` must be at least 1. Received: views=0"):
        device.TwoViews(CIFAR, views=0)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match="`seed` must be an integer .* Received: seed="):
        device.TwoViews(CIFAR, seed=seed)


@pytest.mark.parametrize("shape", [(32, 32, 3), (4, 32, 32, 1)])
def test_a_batch_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="`images` must be .n, h, w, 3. .* Received: shape="):
        device.TwoViews(CIFAR)(np.zeros(shape, "uint8"))


# In fit


def tiny_encoder():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, strides=2)(keras.layers.Rescaling(1 / 64, offset=-2.0)(images))
    x = keras.layers.ReLU()(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def tiny(seed=5):
    return SimSiam(
        tiny_encoder(),
        projector=heads.projector(16),
        predictor=heads.predictor(4),
        augmenter=device.TwoViews(SHORT, seed),
    )


class Witness(JointEmbedding):
    """A method whose loss tells its views: the mean of the first and twice the second's."""

    def __init__(self, recipe, seed):
        super().__init__(tiny_encoder(), device.TwoViews(recipe, seed))
        self.scale = self.add_weight((), "ones")
        self.built = True

    def embed(self, views, training):
        return {"seen": ops.mean(views[0] + 2 * views[1]) * self.scale}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred["seen"]


@pytest.mark.parametrize("jit_compile", [True, False])
def test_fit_sees_the_views_of_every_step_and_of_a_remainder(jit_compile):
    if keras.backend.backend() == "torch" and jit_compile:
        pytest.skip("torch runs eagerly")
    if keras.backend.backend() == "jax" and not jit_compile:
        pytest.skip("JAX op by op compiles every op for itself")
    images, batches = photos(10, 12, 12), [slice(0, 4), slice(4, 8), slice(8, 10)]
    layer = device.TwoViews(SHORT, seed=4)
    seen = []
    for _ in range(2):
        pairs = [call(layer, images[b], training=True) for b in batches]
        sizes = [len(x1) for x1, _ in pairs]
        seen.append(np.average([np.mean(x1 + 2 * x2) for x1, x2 in pairs], weights=sizes))
    model = Witness(SHORT, seed=4)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=jit_compile)
    losses = model.fit(images, batch_size=4, shuffle=False, epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, seen, rtol=1e-5)
    assert abs(seen[0] - seen[1]) > 0.1
    assert int(model.augmenter.step) == 6


def test_simsiam_learns_from_images_alone_and_resumes_with_the_same_views(tmp_path):
    images, labels = photos(16, 12, 12), np.arange(16)
    model = tiny()
    model.compile(keras.optimizers.SGD(0.05))
    before = model.encoder.get_weights()[0]
    loss = model.fit(images, labels, batch_size=8, verbose=0).history["loss"]
    assert -1 <= loss[0] <= 1
    assert (model.encoder.get_weights()[0] != before).any()
    assert "step" in {v.name for v in model.non_trainable_variables}

    (tmp_path / "run").mkdir()
    runs.save_checkpoint(tmp_path / "run", model, 1)
    resumed = tiny()
    resumed.compile(keras.optimizers.SGD(0.05))
    assert runs.restore_checkpoint(tmp_path / "run", resumed) == 1
    assert int(resumed.augmenter.step) == 2
    expected = call(model.augmenter, images)
    np.testing.assert_array_equal(call(resumed.augmenter, images), expected)
    assert far(call(tiny().augmenter, images), expected) > 50


def test_a_saved_model_goes_on_with_the_next_views(tmp_path):
    images, model = photos(4, 12, 12), tiny()
    call(model.augmenter, images, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.augmenter.recipe == SHORT and loaded.augmenter.seed == 5
    assert int(loaded.augmenter.step) == 1
    np.testing.assert_array_equal(call(loaded.augmenter, images), call(model.augmenter, images))
