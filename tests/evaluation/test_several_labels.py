"""Several labels for an image: average precision, votes and logistic regression, by other means."""

import numpy as np
import pytest
from keras import ops

from simsiam_keras import monitors
from simsiam_keras.evaluation import knn, linear, precision

RNG = np.random.default_rng(0)


def average_precision(labels, scores):
    """By counting, for one label without equal scores: the mean precision at each positive."""
    order = np.argsort(-scores)
    hits = labels[order]
    return np.mean([hits[: i + 1].mean() for i in np.flatnonzero(hits)])


def area_under_roc(labels, scores):
    """A measure that is often taken for it."""
    pairs = scores[labels == 1][:, None] > scores[labels == 0]
    return pairs.mean()


def over_all_labels(labels, scores, each=average_precision):
    known = np.flatnonzero(labels.any(axis=0))
    return np.mean([each(labels[:, c], scores[:, c]) for c in known])


def test_average_precision_is_counted():
    labels, scores = RNG.integers(0, 2, (40, 5)), RNG.normal(size=(40, 5))
    labels[:, 3] = 0  # nobody's label does not count
    found = precision.mean_average_precision(labels, scores)
    assert found == pytest.approx(over_all_labels(labels, scores))
    assert found != pytest.approx(over_all_labels(labels, scores, area_under_roc), abs=1e-3)
    assert precision.mean_average_precision([[1], [0], [1]], [[3], [2], [1]]) == pytest.approx(
        5 / 6
    )


def test_what_has_no_average_precision():
    with pytest.raises(ValueError, match="`labels` must have a 1. Received: 3 images"):
        precision.mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"\(3, 1\) and \(3, 2\)"):
        precision.mean_average_precision(np.ones((3, 2)), np.zeros((3, 1)))


def test_the_rarest_label_is_held_out_by():
    labels = np.array([[1, 1, 0]] * 5 + [[1, 0, 0]] * 10 + [[0, 0, 0]] * 5)
    assert precision.strata(labels).tolist() == [1] * 5 + [0] * 10 + [-1] * 5
    kept, held = monitors.held_out(labels)
    assert labels[held].sum(axis=0).tolist() == [3, 1, 0] and len(held) == 4
    assert sorted([*kept, *held]) == list(range(20))


def votes_by_a_loop(bank, labels, queries, k, tau):
    found = []
    for query in queries:
        s = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-s)[:k]
        weight = np.exp(s[nearest] / tau)
        found.append((weight[:, None] * labels[nearest]).sum(0) / weight.sum())
    return np.array(found)


def unweighted(bank, labels, queries, k, tau):
    return votes_by_a_loop(bank, labels, queries, k, 1e6)


def test_votes_are_those_of_a_loop():
    bank, queries = RNG.normal(size=(50, 6)), RNG.normal(size=(9, 6))
    labels = RNG.integers(0, 2, (50, 4))
    found = knn.knn_votes(bank, labels, queries, 7, 0.1, query_chunk=4)
    arguments = (bank, labels, queries, 7, 0.1)
    np.testing.assert_allclose(found, votes_by_a_loop(*arguments), atol=1e-5)
    assert np.abs(found - unweighted(*arguments)).max() > 0.1
    measured = knn.knn_measure(bank, labels, queries, np.ones((9, 4), int), 7)
    assert measured == {"mean_average_precision": 1.0}
    plain = knn.knn_measure(bank, labels[:, 0], queries, np.ones(9, int), 7)
    assert list(plain) == ["knn_accuracy"]


def test_one_label_as_a_matrix_votes_as_one():
    bank, queries = RNG.normal(size=(60, 6)), RNG.normal(size=(20, 6))
    labels = RNG.integers(0, 3, 60)
    votes = knn.knn_votes(bank, np.eye(3, dtype=int)[labels], queries, 10, 0.1)
    assert np.array_equal(votes.argmax(1), knn.knn_predict(bank, labels, queries, 10, 0.1))


def separable(n):
    x = RNG.normal(size=(n, 3)).astype("float32")
    return x, (x @ np.array([[1, 0.5], [0, -1], [0, 0]]) > 0).astype(int)


def test_a_probe_of_several_labels():
    (x, y), (u, v) = separable(400), separable(200)
    probe = linear.linear_probe(x, y, u, v, epochs=20, learning_rates=(0.1, 10.0))
    assert probe.linear_accuracy is None and probe.mean_average_precision > 0.98
    assert probe.classes.tolist() == [0, 1] and "Logistic regression of each" in probe.protocol
    logits = u @ probe.weights + probe.bias
    expected = precision.mean_average_precision(v, logits)
    assert probe.mean_average_precision == pytest.approx(expected)
    assert ((logits > 0) == v).mean() > 0.95  # it is the sigmoid's threshold, not the softmax's


def test_its_gradient_is_that_of_the_binary_cross_entropy():
    x, y = separable(8)
    w, b = RNG.normal(size=(3, 1, 2)).astype("float32"), RNG.normal(size=(1, 2)).astype("float32")

    def loss(w, b):
        p = 1 / (1 + np.exp(-(np.einsum("nd,dhc->nhc", x, w) + b)))[:, 0]
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() / len(x)

    gradients = [ops.convert_to_numpy(g) for g in linear._gradients(x, y, w, b)]
    for variable, gradient in zip((w, b), gradients, strict=True):
        for at in np.ndindex(variable.shape):
            step = np.zeros_like(variable)
            step[at] = 1e-2
            moved = [(w + s * step, b) if variable is w else (w, b + s * step) for s in (1, -1)]
            numeric = (loss(*moved[0]) - loss(*moved[1])) / 2e-2
            assert gradient[at] == pytest.approx(numeric, abs=1e-3)


@pytest.mark.parametrize(
    "bank, queries, cause",
    [
        ([0, 0, 0], [0], "same label"),
        ([0, 1, 2], None, "single image"),
        ([0, 1, 2], [0], ""),
        ([0, 0, 1], None, ""),
        ([[0, 0], [0, 0]], None, "same label"),
        ([[1, 0], [0, 1], [0, 1], [0, 0]], [[0, 0]], "none of its images has a label"),
        ([[1, 0], [0, 1], [0, 1], [0, 0]], None, ""),
    ],
)
def test_what_cannot_be_measured_is_said(bank, queries, cause):
    found = monitors.not_measurable(np.array(bank), None if queries is None else np.array(queries))
    assert (cause in found) and bool(found) == bool(cause)


def test_labels_that_are_not_0_and_1_are_refused():
    with pytest.raises(ValueError, match="`bank_labels` must be 0 and 1"):
        knn.knn_votes(np.eye(2), [[2, 0], [0, 1]], np.eye(2))
    with pytest.raises(ValueError, match="as many labels for an image"):
        linear.linear_probe(np.eye(2), [[1, 0], [0, 1]], np.eye(2), [[1], [0]])
