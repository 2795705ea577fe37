"""The host engine in tf.data: repeatable in parallel, and one trace for photos of every size."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_keras.augment import CIFAR, host
from tests.augment.engines import SHORT, SHORT_MULTI
from tests.augment.oracles import MULTI, far, photos


@pytest.fixture(scope="module")
def views():
    return host.Views(CIFAR)


def test_the_same_seed_gives_the_same_views(views):
    images = photos(16, 32, 32)
    x1, x2 = views(images, [1, 2])
    for again in (views, host.Views(CIFAR)):
        again = again(images, tf.constant([1, 2], "int64"))
        np.testing.assert_array_equal(x1, again[0])
        np.testing.assert_array_equal(x2, again[1])


def test_full_views_are_what_they_are_without_small_ones():
    images, alone = photos(16, 12, 12), dataclasses.replace(SHORT_MULTI, small_views=0)
    found = host.Views(SHORT_MULTI)(images, [1, 2])
    for x, y in zip(found[:2], host.Views(alone)(images, [1, 2]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_mixed_precision_policy_changes_nothing(views):
    images = photos(16, 32, 32)
    policy = keras.mixed_precision.dtype_policy()
    try:
        keras.mixed_precision.set_dtype_policy("mixed_float16")
        results = host.Views(CIFAR)(images, [1, 2])
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    np.testing.assert_array_equal(results, views(images, [1, 2]))


def test_tf_data_equals_eager_in_parallel_and_with_a_remainder():
    images, views = photos(40, 32, 32), host.Views(SHORT)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(16).enumerate()
    dataset = dataset.map(
        lambda i, x: (x, *views(x, tf.stack([7, i]))), num_parallel_calls=tf.data.AUTOTUNE
    )
    assert [tuple(spec.shape) for spec in dataset.element_spec[1:]] == [(None, 8, 8, 3)] * 2
    for _ in range(2):
        for i, (x, x1, x2) in enumerate(dataset):
            expected = views(x, [7, i])
            np.testing.assert_array_equal(x1, expected[0])
            np.testing.assert_array_equal(x2, expected[1])
            assert x1.dtype == x2.dtype == tf.uint8


@pytest.mark.parametrize("recipe", [SHORT_MULTI, pytest.param(MULTI, marks=pytest.mark.slow)])
def test_photos_of_any_size_one_by_one(recipe):
    sizes = [(70, 90), (33, 40), (200, 31), (8, 8)]
    pictures = [photos(1, *size, seed=i) for i, size in enumerate(sizes)]
    views = host.Views(recipe)
    spec = tf.TensorSpec([1, None, None, 3], tf.uint8)
    dataset = tf.data.Dataset.from_generator(lambda: iter(pictures), output_signature=spec)
    dataset = dataset.enumerate().map(lambda i, x: views(x, tf.stack([0, i])))
    shapes = [(1, side, side, 3) for side in (recipe.size, recipe.size, 6, 6)]
    assert [tuple(spec.shape) for spec in dataset.element_spec] == shapes
    for i, (picture, result) in enumerate(zip(pictures, dataset, strict=True)):
        for x, y in zip(result, views(picture, [0, i]), strict=True):
            # Eager small photos go through the matrices: equal up to the final rounding.
            assert far(x, y) <= 1
    # One trace, hence one XLA program, for all sizes.
    for each in (views, views.small):
        assert each.compiled.experimental_get_tracing_count() == 1


def test_without_a_seed_each_call_draws_anew():
    views = host.Views("cifar", size=16)
    images = photos(4, 32, 32)
    data = tf.data.Dataset.from_tensor_slices(np.concatenate([images, images])).batch(4).map(views)

    def drawn():
        tf.random.set_seed(3)
        return [np.stack(pair) for pair in data]

    (first, second), again = drawn(), drawn()
    assert first.shape == (2, 4, 16, 16, 3) and first.dtype == "uint8"
    assert not np.array_equal(first, second)  # of the same images
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(second, again[1])


def test_one_image_gives_views_without_a_batch():
    views, image = host.Views("cifar", size=16), photos(1, 40, 32)[0]
    data = tf.data.Dataset.from_tensors(image).map(views)
    x1, x2 = next(iter(data))
    assert x1.shape == x2.shape == (16, 16, 3)
    np.testing.assert_array_equal(views(image, [1, 2])[0], views(image[None], [1, 2])[0][0])
