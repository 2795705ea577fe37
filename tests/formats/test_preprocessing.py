"""The resize and crop inside of files, against what evaluation has Pillow do."""

import numpy as np
import pytest

from simsiam_keras.data.images import resize_and_crop
from simsiam_keras.formats import preprocessing
from tests.tiny import pixels

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TARGETS = [(32, 1.0), (28, 0.875), (7, 0.9), (1, 1.0)]
# Larger and smaller, long, odd, exact, and of sides whose resized length is a tie.
SIZES = [(37, 50), (20, 90), (56, 75), (75, 56), (32, 32), (31, 33), (5, 9), (300, 451), (2, 3)]
SIZES += [(64, 97), (8, 13), (1, 1), (1, 40)]


def by_onnx(size, crop, channels=3, opset=18):
    model = preprocessing.onnx_graph(size, crop, channels, opset, 8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return lambda images: session.run(None, {"images": images})[0]


def by_tensorflow(size, crop, channels=3):
    import tensorflow as tf

    spec = tf.TensorSpec((None, None, None, channels), "uint8")
    prepare = tf.function(preprocessing.tensorflow(size, crop), input_signature=[spec])
    return lambda images: prepare(images).numpy()


def by_pillow(images, size, crop):
    return np.stack([resize_and_crop(image, size, crop) for image in images]).astype("float32")


@pytest.mark.parametrize("make", [by_onnx, by_tensorflow])
@pytest.mark.parametrize("size, crop", TARGETS)
def test_every_pixel_is_pillows(make, size, crop):
    prepare = make(size, crop)
    for height, width in SIZES:
        images = pixels(2, height, width, 3, seed=height)
        found = prepare(images)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, by_pillow(images, size, crop), f"{height} x {width}")


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels):
    images = pixels(1, 41, 29, channels)
    expected = by_pillow(images, 16, 0.8)
    for make in (by_onnx, by_tensorflow):
        np.testing.assert_array_equal(make(16, 0.8, channels)(images), expected)


@pytest.mark.parametrize("opset", [13, 15, 18, 20])
def test_operator_sets(opset):
    images = pixels(1, 41, 29, 3)
    np.testing.assert_array_equal(by_onnx(16, 0.8, opset=opset)(images), by_pillow(images, 16, 0.8))


@pytest.mark.parametrize("make", [by_onnx, by_tensorflow])
def test_a_photograph_of_megapixels(make):
    images = pixels(1, 1201, 1801, 3)  # more taps than float32 can add up exactly
    difference = np.abs(make(32, 1.0)(images) - by_pillow(images, 32, 1.0))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


# What others do, and what this must not be taken for.


def nearest(images, size, crop):
    rows, columns = (np.arange(size) * side // size for side in images.shape[1:3])
    return images[:, rows][:, :, columns].astype("float32")


def without_antialiasing(images, size, crop):
    import tensorflow as tf

    short, target = min(images.shape[1:3]), round(size / crop)
    sides = [max(target, round(side * target / short)) for side in images.shape[1:3]]
    found = np.round(tf.image.resize(images, sides).numpy())
    top, left = ((side - size) // 2 for side in sides)
    return found[:, top : top + size, left : left + size]


def crop_without_scaling(images, size, crop):
    top, left = ((side - size) // 2 for side in images.shape[1:3])
    return images[:, top : top + size, left : left + size].astype("float32")


@pytest.mark.parametrize("wrong", [nearest, without_antialiasing, crop_without_scaling])
def test_other_resizes_are_told_from_it(wrong):
    images = pixels(2, 75, 56, 3)
    assert np.abs(wrong(images, 28, 0.875) - by_pillow(images, 28, 0.875)).max() > 20
    assert np.abs(by_onnx(28, 0.875)(images) - by_pillow(images, 28, 0.875)).max() == 0
