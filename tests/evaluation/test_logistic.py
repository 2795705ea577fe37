"""The linear classifier on features whose best accuracy is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from simsiam_keras.evaluation import logistic


def blobs(n, spread, width=20, classes=4, seed=0):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(classes, width))
    labels = random.permutation(np.arange(n) % classes)
    features = centres[labels] + spread * random.normal(size=(n, width))
    return features.astype("float32"), labels + 10


def accuracy(train, labels, test, test_labels):
    scaled = logistic.scaling(train)
    return np.mean(logistic.fit(scaled(train), labels).predict(scaled(test)) == test_labels)


@pytest.mark.parametrize("n", [4, 40, 400])
def test_separable_classes_are_told_apart(n):
    assert accuracy(*blobs(n, 0.01), *blobs(400, 0.01, seed=1)) == 1.0


@pytest.mark.parametrize("n", [4, 40, 400])
def test_labels_by_lot_are_chance(n):
    train, labels = blobs(n, 1.0)
    labels = np.random.default_rng(5).permutation(labels)
    test, test_labels = blobs(4000, 1.0, seed=1)
    random = np.random.default_rng(6).permutation(test_labels)
    assert abs(accuracy(train, labels, test, random) - 0.25) < 0.035


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("n, width", [(60, 20), (40, 300)])
def test_it_is_scikit_learns_of_the_chosen_strength(n, width, classes):
    train, labels = blobs(n, 2.0, width, classes)
    test, _ = blobs(200, 2.0, width, classes, seed=1)
    scaled = logistic.scaling(train)
    fitted = logistic.fit(scaled(train), labels)
    right = LogisticRegression(C=fitted.strength, max_iter=2000, tol=1e-8)
    right.fit(scaled(train), labels)
    ours = scaled(test) @ fitted.weights + fitted.bias
    ours = ours[:, 1] - ours[:, 0] if classes == 2 else ours
    expected = right.decision_function(scaled(test))
    np.testing.assert_allclose(ours, expected, atol=0.02 * np.abs(expected).max())
    wrong = LogisticRegression(C=10 * fitted.strength, max_iter=2000).fit(scaled(train), labels)
    wrong = wrong.decision_function(scaled(test))
    assert np.abs(ours - wrong).max() > 0.02 * np.abs(expected).max()


def test_the_strength_is_chosen_by_what_is_held_out():
    train, labels = blobs(200, 0.3)
    scaled = logistic.scaling(train)
    clear = logistic.fit(scaled(train), labels).strength
    by_lot = logistic.fit(scaled(train), np.random.default_rng(0).permutation(labels)).strength
    assert clear > by_lot == logistic.STRENGTHS[0]


def test_one_label_of_each_class_has_the_fixed_strength():
    train, labels = blobs(4, 0.5)
    assert logistic.folds(labels, 0) == []
    assert logistic.fit(logistic.scaling(train)(train), labels).strength == logistic.FIXED


def test_folds_hold_every_label_out_once_and_keep_every_class():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 7, 20])
    held = logistic.folds(labels, 0)
    assert len(held) == 5
    np.testing.assert_array_equal(np.sum(held, 0), labels > 0)
    for out in held:
        assert set(labels[~out]) == {0, 1, 2, 3}
        assert [(out & (labels == c)).sum() for c in (2, 3)] in ([1, 4], [2, 4])


def test_many_labels_are_held_out_once():
    labels = np.arange(logistic.LARGE + 4) % 4
    (out,) = logistic.folds(labels, 0)
    assert out.mean() == pytest.approx(0.2, abs=0.01)


def test_scaling_makes_lengths_and_units_alike():
    train = np.random.default_rng(0).normal(size=(500, 30)) * np.logspace(-3, 3, 30) + 7
    train = np.concatenate([train, np.full((500, 2), 5.0)], 1).astype("float32")
    scaled = logistic.scaling(train)(train)
    assert (scaled**2).sum(1).mean() == pytest.approx(1, rel=0.01)
    assert not scaled[:, 30:].any()
    units = np.logspace(0, 3, 32).astype("float32")
    again = logistic.scaling(train * units)(train * units)
    np.testing.assert_allclose(scaled, again, atol=2e-3)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        logistic.fit(np.zeros((3, 2), "float32"), np.zeros(3))
