"""Batch statistics from one read: those of Keras, and their gradient."""

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import moments


def layer_with_mean(mean, channels=3):
    layer = keras.layers.BatchNormalization(epsilon=1e-5)
    layer.build((None, None, None, channels))
    layer.moving_mean.assign(np.full(channels, mean))
    return layer


def images(mean, seed=0):
    x = np.random.default_rng(seed).normal(mean, [0.5, 1.0, 2.0], (6, 5, 4, 3))
    return x.astype("float32")


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_they_are_mean_and_variance(mean):
    x = images(mean)
    found = moments.moments(layer_with_mean(mean + 1), x)
    exact = x.astype("float64").mean((0, 1, 2)), x.astype("float64").var((0, 1, 2))
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), b, rtol=1e-4)


def test_without_the_moving_mean_far_images_would_lose_their_variance():
    x = images(3000.0)
    exact = x.astype("float64").var((0, 1, 2))
    near = ops.convert_to_numpy(moments.moments(layer_with_mean(3000.0), x)[1])
    far = ops.convert_to_numpy(moments.moments(layer_with_mean(0.0), x)[1])
    assert np.abs(near / exact - 1).max() < 1e-3 < np.abs(far / exact - 1).max()
    constant = moments.moments(layer_with_mean(0.0), np.full((4, 2, 2, 3), 0.1, "float32"))
    assert ops.convert_to_numpy(constant[1]).min() >= 0


def test_a_layer_normalizes_and_learns_as_before():
    import tensorflow as tf

    def gradients(read_once):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4, 4, 3))
        x = keras.layers.Conv2D(5, 3)(inputs)
        model = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(x))
        if read_once:
            moments.read_once(model)
        target = np.random.default_rng(1).normal(size=(6, 2, 2, 5))
        with tf.GradientTape() as tape:
            y = model(images(0.5)[:, :4], training=True)
            loss = tf.reduce_sum(y * target)
        grads = tape.gradient(loss, model.trainable_variables)
        norm = model.get_layer("norm")
        return [np.asarray(v) for v in (*grads, y, norm.moving_mean, norm.moving_variance)]

    for ours, keras_own in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=2e-3, atol=2e-4)


def test_the_layers_are_saved_as_what_they_were(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    moments.read_once(model)
    model.save(tmp_path / "m.keras")
    (layer,) = keras.saving.load_model(tmp_path / "m.keras").layers
    assert type(layer) is keras.layers.BatchNormalization and "_moments" not in vars(layer)


def test_a_mask_is_refused():
    with pytest.raises(ValueError, match="take no mask"):
        moments.moments(layer_with_mean(0.0), images(0), mask=np.ones((6, 5)))
