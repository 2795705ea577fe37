"""Verification: pairs, their similarity, AUC and thresholds, each against wrong formulas."""

import numpy as np
import pytest

from simsiam_keras.evaluation.verification import (
    pair_similarity,
    sample_pairs,
    verify,
)
from tests.evaluation.oracles import LABELS, accuracy, area, cosine, every_pair, highest_accuracy

# Similarity.


def features_of(labels, d=6, spread=1.0, seed=0, dtype="float32"):
    """Clusters of vectors whose lengths differ by a factor of ten."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(max(labels) + 1, d))
    x = centers[labels] + spread * rng.normal(size=(len(labels), d))
    return (x * rng.uniform(0.3, 3, (len(labels), 1))).astype(dtype)


def dot(features, pairs):
    return np.sum(features[pairs[:, 0]] * features[pairs[:, 1]], axis=1)


def negative_distance(features, pairs):
    return -np.linalg.norm(features[pairs[:, 0]] - features[pairs[:, 1]], axis=1)


def normalized_over_the_images(features, pairs):
    return dot(features / np.linalg.norm(features, axis=0), pairs)


def cosine_distance(features, pairs):
    return 1 - pair_similarity(features, pairs)


def check_similarity(similarity, dtype="float32", tolerance=1e-6):
    x, pairs = features_of(LABELS, dtype=dtype), sample_pairs(LABELS, 2600)
    expected = [cosine(x[i], x[j]) for i, j in pairs]
    np.testing.assert_allclose(similarity(x, pairs), expected, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_similarity_is_the_cosine(dtype):
    check_similarity(pair_similarity, dtype, 1e-12)  # float64 inside, whatever comes in


@pytest.mark.parametrize(
    "wrong", [dot, negative_distance, normalized_over_the_images, cosine_distance]
)
def test_wrong_similarities_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_similarity(wrong)


def test_similarity_of_zero_and_of_opposite_vectors():
    x = np.array([[0.0, 0.0], [1.0, 2.0], [-3.0, -6.0], [1e-30, 2e-30]])
    s = pair_similarity(x, [[0, 1], [0, 0], [1, 2], [1, 3]])
    assert s[:2].tolist() == [0, 0] and s[2:] == pytest.approx([-1, 1])
    assert s.min() >= -1 and s.max() <= 1


def test_large_half_precision_features_do_not_overflow():
    x = np.full((2, 64), 60000, "float16")
    assert pair_similarity(x, [[0, 1]]) == pytest.approx(1)


# The whole.

OTHERS = np.random.default_rng(1).permutation(LABELS)


def data(spread=1.0):
    return features_of(LABELS, spread=spread), LABELS, features_of(OTHERS, spread=spread, seed=1)


def own_threshold(train, train_labels, test, test_labels, count):
    """The accuracy at the threshold of the test pairs, where the training pairs' is asked for."""
    found = verify(train, train_labels, test, test_labels, count)
    return {**found, "accuracy": found["accuracy_best_threshold"]}


def parts_exchanged(train, train_labels, test, test_labels, count):
    return verify(test, test_labels, train, train_labels, count)


def check_whole(verify):
    train, labels, test = data()
    test = test - 0.3  # another distribution, or both thresholds could be the same
    found = verify(train, labels, test, OTHERS, 400)
    s, same = {}, {}
    for name, x, y in (("train", train, labels), ("test", test, OTHERS)):
        pairs = sample_pairs(y, 400).tolist()
        s[name] = np.array([cosine(x[i], x[j]) for i, j in pairs])
        same[name] = np.array([y[i] == y[j] for i, j in pairs])
        assert found[f"{name}_pairs"] == 400
    t, best = found["threshold"], found["best_threshold"]
    train_accuracy = accuracy(s["train"], same["train"], t)
    assert train_accuracy == pytest.approx(highest_accuracy(s["train"], same["train"]))
    assert found["accuracy"] == pytest.approx(accuracy(s["test"], same["test"], t))
    highest = highest_accuracy(s["test"], same["test"])
    assert found["accuracy_best_threshold"] == pytest.approx(highest)
    assert accuracy(s["test"], same["test"], best) == pytest.approx(highest)
    assert found["roc_auc"] == pytest.approx(area(s["test"], same["test"]))
    assert 0.5 < found["accuracy"] < highest < 1


def test_verification_equals_the_loops():
    check_whole(verify)


@pytest.mark.parametrize("wrong", [own_threshold, parts_exchanged])
def test_wrong_verifications_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_whole(wrong)


def test_perfect_separation():
    train, labels, test = data(spread=0.01)
    found = verify(train, labels, test, OTHERS, 400)
    assert found["roc_auc"] == found["accuracy"] == found["accuracy_best_threshold"] == 1


def test_equal_features_tell_nothing():
    train, test = np.full((90, 5), 0.3, "float32"), np.full((90, 5), 0.7, "float32")
    found = verify(train, LABELS, test, OTHERS)
    assert found["roc_auc"] == found["accuracy"] == found["accuracy_best_threshold"] == 0.5
    assert found["test_pairs"] == 2 * len(every_pair(OTHERS)[True]) < 6000
    zero = verify(0 * train, LABELS, 0 * test, OTHERS)
    assert zero["roc_auc"] == zero["accuracy"] == 0.5


def test_scale_rotation_and_order_do_not_matter():
    train, labels, test = (x.astype("float64") if x.dtype != int else x for x in data())
    expected = verify(train, labels, test, OTHERS, 10**6)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    lengths = np.random.default_rng(4).uniform(0.1, 10, (90, 1))
    order = np.random.default_rng(5).permutation(90)
    found = verify(
        (train * lengths @ rotation)[order], labels[order], test @ rotation, OTHERS, 10**6
    )
    for name in ("roc_auc", "accuracy", "accuracy_best_threshold", "test_pairs"):
        # Not exactly: all same pairs are there, a sample of the different ones.
        assert found[name] == pytest.approx(expected[name], abs=0.02)
    exactly = verify(train * lengths @ rotation, labels, 1e3 * test @ rotation, OTHERS, 400)
    assert exactly == pytest.approx(verify(train, labels, test, OTHERS, 400))


def test_features_may_be_a_memory_map(tmp_path):
    train, labels, test = data()
    np.save(tmp_path / "x.npy", test)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert verify(train, labels, mapped, OTHERS) == verify(train, labels, test, OTHERS)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"test_features": np.ones((3, 4))}, r"as wide as.*shapes: \(3, 4\) and \(3, 2\)"),
        ({"train_labels": [0, 0]}, "`train_labels` must hold one label for each of the 3"),
        ({"test_labels": np.eye(3)}, "`test_labels` must hold one label"),
        ({"train_features": np.full((3, 2), np.nan)}, "`features` must be finite"),
        ({"test_labels": [0, 1, 2]}, "`labels` must hold two classes"),
        ({"count": 3}, "`count` must be even"),
    ],
)
def test_refusals(change, message):
    arguments = dict(
        train_features=np.eye(3, 2),
        train_labels=[0, 0, 1],
        test_features=np.eye(3, 2),
        test_labels=[0, 0, 1],
    )
    with pytest.raises(ValueError, match=message):
        verify(**{**arguments, **change})
