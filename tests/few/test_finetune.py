"""Networks trained on few labels: what changes, what does not, and what they begin with."""

import time

import keras
import numpy as np
import pytest

from simsiam_keras.evaluation import logistic
from simsiam_keras.few import cells, draws, finetune
from tests.few import small


def kernels(weights):
    return [w for w in weights if np.ndim(w) == 4]


def network(encoder, **changed):
    options = dict(classes=3, flip=True, min_crop=0.5, learn_statistics=True, batch_size=6, seed=0)
    return finetune.Network(encoder, **{**options, **changed})


@pytest.fixture(scope="module")
def trained():
    """A network after a fit, and its encoder with the weights that it had before."""
    encoder = small.encoder()
    before = encoder.get_weights()
    net = network(encoder, batch_size=12)
    net.fit(before, None, *small.pictures(12, 0), steps=80, rate=3e-3, seed=0)
    return net, encoder, before


def test_a_fit_learns_and_leaves_the_encoder_as_it_was(trained):
    net, encoder, before = trained
    for a, b in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(kernels(net.encoder.get_weights()), kernels(before), strict=True):
        assert np.abs(a - b).max() > 1e-4
    images, labels = small.pictures(20, 1)
    assert np.mean(net.predict(images) == labels) > 0.7


def test_a_fit_depends_on_its_start_and_seed_alone(trained):
    net, _, before = trained
    data = small.pictures(3, 0)

    def fit(seed, rate=1e-3):
        net.fit(before, None, *data, steps=3, rate=rate, seed=seed)
        return net.logits(data[0])

    first = fit(0)
    fit(0, rate=0.1)  # what came in between leaves no trace
    np.testing.assert_allclose(fit(0), first, atol=1e-4)
    assert np.abs(fit(1) - first).max() > 1e-3


def test_batch_normalization_is_learned_or_kept():
    def changed(learn):
        encoder = small.encoder()
        net = network(encoder, learn_statistics=learn)
        before = encoder.get_weights()
        net.fit(before, None, *small.pictures(4, 0), steps=2, rate=1e-3, seed=0)
        names = [w.path for w in encoder.weights]
        pairs = zip(names, before, net.encoder.get_weights(), strict=True)
        return {name for name, a, b in pairs if np.abs(a - b).max() > 0}

    assert any("moving_mean" in name for name in changed(True))
    kept = changed(False)
    assert kept and not any("norm/" in name for name in kept)


def test_a_step_has_as_many_views_whatever_the_number_of_images():
    orders = finetune.orders(4, np.random.default_rng(0), 6)
    rows = np.concatenate([next(orders) for _ in range(4)])
    assert len(rows) == 24
    for first in range(0, 24, 4):
        assert sorted(rows[first : first + 4]) == [0, 1, 2, 3]


def test_a_random_encoder_is_random():
    encoder = small.encoder()
    made, again, other = (finetune.random_like(encoder, seed) for seed in (1, 1, 2))
    for old, a, b, c in zip(
        *(kernels(m.get_weights()) for m in (encoder, made, again, other)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert min(np.abs(a - old).max(), np.abs(a - c).max()) > 1e-3
        assert a.std() == pytest.approx(old.std(), rel=0.35)


def test_a_random_encoder_keeps_the_preprocessing():
    images = keras.Input((4, 4, 3))
    normalization = keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(50, 9, (20, 4, 4, 3)))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(normalization(images)))
    made = finetune.random_like(keras.Model(images, x), 0)
    found = next(x for x in made.layers if isinstance(x, keras.layers.Normalization))
    np.testing.assert_allclose(found.get_weights()[0], normalization.get_weights()[0])
    x = np.full((1, 4, 4, 3), 50.0, "float32")
    np.testing.assert_allclose(found(x), normalization(x), atol=1e-5)


def test_the_head_begins_as_the_linear_classifier():
    random = np.random.default_rng(0)
    features, labels = random.normal(3, 2, (40, 7)).astype("float32"), np.arange(40) % 3
    scaled = logistic.scaling(features)
    fitted = logistic.fit(scaled(features), labels, 0)
    kernel, bias = fitted.layer(scaled, 3)
    expected = scaled(features) @ fitted.weights + fitted.bias
    np.testing.assert_allclose(features @ kernel + bias, expected, atol=1e-4)
    without_mean = features @ kernel + fitted.bias
    assert np.abs(without_mean - expected).max() > 0.01


def test_rates_are_tried_where_labels_can_be_held_out():
    labels = np.repeat([0, 1, 2], [30, 30, 4])
    tuning = cells.Tuning((0.1, 0.2, 0.3), epochs=2, steps=10, seed=0)
    few, more = (draws.draw(labels, n, 0, 0) for n in (1, 5))
    assert tuning.tried(few, labels) == (0.2,)
    assert tuning.tried(more, labels) == (0.2,)  # the third class has four
    assert tuning.tried(draws.draw(labels[:60], 5, 0, 0), labels) == (0.1, 0.2, 0.3)
    assert tuning.steps_of(3, 32) == 10 and tuning.steps_of(1000, 32) == 63
    assert tuning.total(few, labels, 32) == 10
    assert tuning.total(draws.draw(labels[:60], 5, 0, 0), labels, 32) == 4 * 10


# If predictions do not depend on the test labels, each image is right for exactly one of them.


def right_for_each_label(measure, tmp_path):
    found = []
    for label in range(small.CLASSES):
        draw = draws.draw(small.pictures(5, 0)[1], 5, 0, 0)
        cell = cells.Cell("row", draw, tmp_path / str(label), {})
        measure(cell, label)
        found.append(cells.right_of(cell.measured()))
    return np.sum(found, 0)


def flat(images):
    return images.reshape(len(images), -1).astype("float32")


def linear_data(label):
    images, labels = small.pictures(5, 0)
    test = small.pictures(10, 1)[0]
    return flat(images), labels, flat(test), np.full(len(test), label)


def test_test_labels_never_reach_a_linear_classifier(tmp_path):
    def measure(cell, label):
        data = linear_data(label)
        cells.linear(cell, logistic.scaling(data[0]), data, seed=0)

    assert set(right_for_each_label(measure, tmp_path / "a")) == {1}

    def leaks(cell, label):
        train, labels, test, test_labels = linear_data(label)
        train, labels = np.concatenate([train, test]), np.concatenate([labels, test_labels])
        fitted = logistic.fit(logistic.scaling(train)(train), labels, 0)
        right = fitted.predict(logistic.scaling(train)(test)) == test_labels
        cell.keep(right, time.perf_counter())

    assert set(right_for_each_label(leaks, tmp_path / "b")) != {1}


def test_test_labels_never_reach_a_network(tmp_path):
    encoder = small.encoder()
    net = network(encoder)
    tuning = cells.Tuning((1e-3, 3e-3), epochs=1, steps=4, seed=0)

    def measure(cell, label):
        images, labels = small.pictures(5, 0)
        test = small.pictures(10, 1)[0]
        data = images, labels, test, np.full(len(test), label)
        features = encoder.predict(images, verbose=0)
        cells.network(cell, net, encoder.get_weights(), data, features, tuning, None)
        assert cell.measured()["rates_tried"] == [1e-3, 3e-3]

    assert set(right_for_each_label(measure, tmp_path)) == {1}
