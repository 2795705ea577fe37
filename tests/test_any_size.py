"""Encoders of images of any size against those made for each size."""

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import encoders
from tests.tiny import noise, numpy, pixels, randomized


def bottleneck(size):
    """ResNet-50's block, once in each stage."""
    block = encoders._bottleneck_block
    return encoders.resnet((1, 1, 1, 1), block, (size, size, 3), "cifar", 2, False)


@pytest.mark.parametrize(
    "make, sizes",
    [
        (lambda size: encoders.resnet10((size, size, 3), width=2), (16, 9)),
        (lambda size: encoders.resnet18((size, size, 3), width=2), (65, 40)),
        (bottleneck, (8, 12)),
    ],
    ids=["resnet10", "imagenet stem", "bottleneck"],
)
def test_an_encoder_of_any_size_is_the_one_made_for_each(make, sizes):
    free, fresh = randomized(make(None)), randomized(make(None))
    assert free.input_shape == (None, None, None, 3)
    start = free.get_weights()
    for size, other in (sizes, sizes[::-1]):
        reference, images = make(size), noise(size)
        assert free.output_shape == reference.output_shape
        for model in (free, reference):
            model.set_weights(start)
        # Other weights, or images scaled to another size, are something else.
        wrong = numpy(fresh(images)), numpy(free(ops.image.resize(images, (other, other))))
        for training in (False, True):
            features, expected = (numpy(f(images, training=training)) for f in (free, reference))
            scale = np.abs(expected).max()
            np.testing.assert_allclose(features, expected, rtol=0, atol=1e-6 * scale)
            for x in wrong:
                assert np.abs(features - x).max() > 1e-2 * scale
        # Batch normalization in training has moved the running statistics alike.
        for v, expected in zip(free.variables, reference.variables, strict=True):
            np.testing.assert_allclose(numpy(v), numpy(expected), rtol=1e-6, atol=1e-6)
    assert any((numpy(v) != x).any() for v, x in zip(free.variables, start, strict=True))


@pytest.mark.parametrize("stem", encoders.STEMS)
def test_images_may_be_oblong(stem):
    free = randomized(encoders.resnet10((None, None, 3), stem, width=2))
    for shape in ((13, 20, 3), (24, 11, 3)):
        images, made = pixels(2, *shape), encoders.resnet10(shape, stem, width=2)
        made.set_weights(free.get_weights())
        expected = numpy(made(images))
        atol = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(numpy(free(images)), expected, rtol=0, atol=atol)


def test_an_encoder_of_any_size_is_saved(tmp_path):
    free = randomized(encoders.resnet10((None, None, 3), width=2))
    free.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    for size in (12, 9):
        images = noise(size)
        features = numpy(free(images))
        np.testing.assert_array_equal(numpy(loaded(images)), features)
        np.testing.assert_allclose(loaded.predict(images, verbose=0), features, rtol=1e-4)


@pytest.mark.parametrize("size, alike", [(64, True), (71, False)])
def test_an_application_of_any_size(size, alike):
    free, reference = (encoders.application("MobileNetV3Small", (s, s, 3)) for s in (None, size))
    reference.set_weights(free.get_weights())
    images = noise(size)
    features, expected = numpy(free(images)), numpy(reference(images))
    # One made for an odd side pads it by one pixel more.
    assert (np.abs(features - expected).max() < 1e-3 * np.abs(expected).max()) == alike
    assert np.abs(features[0] - features[1]).max() > 1e-2 * np.abs(expected).max()
