"""The small twin against loops, and wrong twins, which must be told apart."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import encoders
from tests import oracle
from tests.tiny import numpy, pixels

# ImageNet's channel means and deviations on [0, 1].
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def twin_in_loops(images, kernel, bias):
    """Normalization, mean over the channels, 3x3 convolution, ReLU, 2x2 maximum, flattened."""
    grey = np.zeros(images.shape[:3] + (1,))
    for i, y, x in np.ndindex(images.shape[:3]):
        for c in range(3):
            grey[i, y, x, 0] += (images[i, y, x, c] / 255 - MEAN[c]) / STD[c] / 3
    maps = oracle.conv2d(grey, kernel, stride=1, padding=1)
    n, height, width, filters = maps.shape
    features = np.zeros((n, height // 2, width // 2, filters))
    for i, y, x, o in np.ndindex(features.shape):
        window = [maps[i, 2 * y + r, 2 * x + s, o] + bias[o] for r in (0, 1) for s in (0, 1)]
        features[i, y, x, o] = max(0.0, *window)
    return features.reshape(n, -1)


def check_twin(make, height=6, width=7):
    model = make((height, width, 3), 3)
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 3, 1, 3)), rng.normal(-1, 1, size=3)
    model.set_weights([*model.get_weights()[:-2], kernel, bias])
    images = rng.integers(0, 256, size=(2, height, width, 3)).astype("uint8")
    expected = twin_in_loops(images, kernel, bias)
    assert 0.1 < (expected == 0).mean() < 0.9  # the ReLU is seen on either side
    actual = numpy(model(images))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("height, width", [(6, 7), (2, 2), (5, 4)])
def test_the_twin_is_convolution_relu_and_maximum(height, width):
    check_twin(encoders.twin, height, width)


def other_twin(padding="same", pool=keras.layers.MaxPooling2D, luma=False, relu="relu"):
    def make(input_shape, width):
        images = keras.Input(input_shape)
        x = encoders._normalization(3)(images)
        weights = np.array([0.299, 0.587, 0.114] if luma else [1 / 3] * 3, "float32")
        x = ops.sum(x * weights, axis=-1, keepdims=True)
        x = keras.layers.Conv2D(width, 3, padding=padding)(x)
        x = pool(2)(keras.layers.Activation(relu)(x))
        return keras.Model(images, keras.layers.Flatten()(x))

    return make


def channels_first(input_shape, width):
    model = other_twin()(input_shape, width)
    maps = keras.layers.Permute((3, 1, 2))(model.layers[-2].output)
    return keras.Model(model.input, keras.layers.Flatten()(maps))


def test_the_stand_in_of_the_wrong_twins_is_right_itself():
    check_twin(other_twin())


@pytest.mark.parametrize(
    "wrong",
    [
        other_twin(padding="valid"),
        other_twin(pool=keras.layers.AveragePooling2D),
        other_twin(luma=True),
        other_twin(relu="leaky_relu"),
        channels_first,
    ],
    ids=["unpadded", "average pooling", "luma", "leaky", "channels first"],
)
def test_wrong_twins_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_twin(wrong)


def test_the_default_twin_is_the_seeds():
    model = encoders.twin()
    assert model.output_shape == (None, 8 * 8 * 64) and model.name == "encoder"
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 9 * 64 + 64
    kernel, bias = (numpy(v) for v in model.trainable_variables)
    # U(-1/3, 1/3), as torch.nn.Conv2d of nine inputs.
    for w in (kernel, bias):
        assert 0.3 < np.abs(w).max() <= 1 / 3
        assert abs(w.std() - 1 / 3 / np.sqrt(3)) < 5 * 0.19 / np.sqrt(2 * w.size)


def test_the_twin_of_one_channel():
    model = encoders.twin((6, 6, 1), width=2)
    images = np.random.default_rng(0).uniform(0, 255, size=(2, 6, 6, 1)).astype("float32")
    kernel = numpy(model.get_layer("conv").kernel)
    x = oracle.conv2d((images - 127.5) / 64, kernel, stride=1, padding=1)
    x = np.maximum(0, x + numpy(model.get_layer("conv").bias))
    expected = x.reshape(2, 3, 2, 3, 2, 2).max((2, 4)).reshape(2, -1)
    np.testing.assert_allclose(numpy(model(images)), expected, rtol=1e-4, atol=1e-5)


def test_the_twin_is_saved_whole(tmp_path):
    model = encoders.twin((8, 8, 3), width=4)
    images = pixels(2, 8, 8, 3)
    model.save(tmp_path / "twin.keras")
    loaded = keras.saving.load_model(tmp_path / "twin.keras")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_the_twin_in_half_precision():
    images = pixels(2, 8, 8, 3)
    whole = encoders.twin((8, 8, 3), width=4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = encoders.twin((8, 8, 3), width=4)
    half.set_weights(whole.get_weights())
    a, b = (numpy(ops.cast(m(images), "float32")) for m in (whole, half))
    # Eight bits of mantissa, sums of nine products of values up to 3.
    np.testing.assert_allclose(b, a, atol=0.05)
    assert np.abs(a).max() > 0.5 and np.abs(a - b).max() > 0


@pytest.mark.parametrize("shape", [(None, None, 3), (16, None, 3), (None, 16, 3)])
def test_the_twin_refuses_an_unknown_size(shape):
    message = (
        f"`input_shape` must have a known height .* Received: input_shape={re.escape(str(shape))}"
    )
    with pytest.raises(ValueError, match=message):
        encoders.twin(shape)


def test_the_twin_refuses_a_width_of_0():
    with pytest.raises(ValueError, match="`width` must be at least 1. Received: width=0"):
        encoders.twin(width=0)
