"""The linear probe, and logits of images that it was not trained on."""

import numpy as np

from simsiam_keras.classifier import calibration, probe
from simsiam_keras.evaluation import logistic


def features(n=60, d=40, seed=0):
    random = np.random.default_rng(seed)
    numbers = np.arange(n) % 3
    return random.normal(2, 3, (n, d)).astype("float32") + 1.2 * np.eye(3, d)[numbers], numbers


def test_the_probe_is_a_logistic_regression_of_the_rows():
    x, numbers = features()
    rows = np.arange(10, 60)
    kernel, bias = probe.of(x, numbers, 0, rows).layer
    scaled = logistic.scaling(x)
    fitted = logistic.fit(scaled(x[rows]), numbers[rows], 0)
    expected = scaled(x) @ fitted.weights + fitted.bias
    np.testing.assert_allclose(x @ kernel + bias, expected, atol=1e-4)


def test_logits_out_of_fold_are_of_images_that_were_held_out():
    """Of features that tell nothing labels cannot be known; a probe knows those it was shown."""
    x = np.random.default_rng(1).normal(size=(90, 200)).astype("float32")
    numbers = np.arange(90) % 3
    made = probe.of(x, numbers, 0)
    found, order = made.out_of_fold()
    assert np.bincount(order).tolist() == [30, 30, 30]
    assert (found.argmax(-1) == order).mean() < 0.5
    assert calibration.probabilities(found, calibration.temperature(found, order)).max() < 0.9
    own = x @ made.layer[0] + made.layer[1]
    assert (own.argmax(-1) == numbers).mean() > 0.95


def test_an_only_image_of_its_class_is_not_held_out():
    x, numbers = features()
    numbers = np.where(numbers == 2, 1, numbers)
    numbers[5] = 2
    found, order = probe.of(x, numbers, 0).out_of_fold()
    assert found.shape == (59, 3) and np.bincount(order).tolist() == [20, 39]
