"""What is taken for what, beside loops."""

import numpy as np
import pytest

from simsiam_keras import plots
from simsiam_keras.evaluation import confusion


def test_confusion_is_counted():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, 90), rng.integers(0, 4, 90)
    expected = np.zeros((4, 4), int)
    for t, p in zip(true, predicted, strict=True):
        expected[t, p] += 1
    found = confusion.confusion(true, predicted, 4)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found.T, expected)
    for c, share in enumerate(confusion.per_class(found)):
        assert share == pytest.approx(np.mean(predicted[true == c] == c))


def test_a_class_without_an_image_has_no_share():
    shares = confusion.per_class(confusion.confusion([0, 0], [0, 2], 3))
    assert shares[0] == 0.5 and np.isnan(shares[1:]).all()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_first_k_are_those_of_a_sort(k):
    rng = np.random.default_rng(k)
    logits, labels = rng.integers(0, 6, (200, 8)).astype("float32"), rng.integers(0, 8, 200)
    right = 0
    for row, label in zip(logits, labels, strict=True):
        order = sorted(range(8), key=lambda c: (-row[c], c))
        right += label in order[:k]
    assert confusion.top_k_accuracy(logits, labels, k) == right / 200


def test_no_class_is_right_in_the_first_all():
    assert confusion.top_k_accuracy(np.zeros((3, 4)), [0, 1, 3], 4) == 1
    assert confusion.top_k_accuracy(np.zeros((3, 4)), [0, 1, 3], 1) == 1 / 3


@pytest.mark.parametrize("n", [2, 12, 60])
def test_any_number_of_classes_and_name_is_drawn(n, tmp_path):
    names = ["$x$", "_a", "\udcff", "a rather long name"] + [f"class {i}" for i in range(n)]
    matrix = np.arange(n * n).reshape(n, n)
    plots.confusion(matrix, names[:n], tmp_path / "c.png", "title")
    assert (tmp_path / "c.png").stat().st_size > 2000
