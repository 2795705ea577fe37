"""Verification: pairs, their similarity, AUC and thresholds, each against wrong formulas."""

import itertools
import math

import numpy as np
import pytest

from simsiam_keras.evaluation.verification import (
    best_threshold,
    pair_similarity,
    roc_auc,
    sample_pairs,
    verify,
)

# Oracles, in loops over scalars.


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    length = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    return dot / length if length else 0.0


def area(s, same):
    """P(s_+ > s_-) + P(s_+ = s_-) / 2, over all pairs of a same and a different pair."""
    wins, n = 0.0, 0
    for i, j in itertools.product(range(len(s)), repeat=2):
        if same[i] and not same[j]:
            n += 1
            wins += 1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0
    return wins / n


def accuracy(s, same, t):
    return sum((a >= t) == b for a, b in zip(s, same, strict=True)) / len(s)


def highest_accuracy(s, same):
    """The best of every threshold that could matter: each similarity, and one above all."""
    return max(accuracy(s, same, t) for t in [*s, 2.0])


# The area.


def scores(m, levels, seed=0):
    """Similarities in steps, so that they tie, and higher for same pairs."""
    rng = np.random.default_rng(seed)
    same = rng.permutation(np.arange(m) % 3 == 0)
    s = np.clip(0.2 * same + rng.normal(0, 0.3, m), -1, 1)
    return np.round(s * levels) / levels, same


def ties_as_wins(s, same):
    s, same = np.asarray(s), np.asarray(same)
    return np.mean(s[same][:, None] >= s[~same])


def ties_as_losses(s, same):
    s, same = np.asarray(s), np.asarray(same)
    return np.mean(s[same][:, None] > s[~same])


def of_distances(s, same):
    return roc_auc(1 - np.asarray(s), same)


def of_decisions(s, same):
    return roc_auc(np.asarray(s) >= 0, same)


def check_area(auc, m, levels):
    s, same = scores(m, levels)
    assert auc(s, same) == pytest.approx(area(s, same), abs=1e-12)


@pytest.mark.parametrize("m, levels", [(7, 4), (30, 4), (60, 10), (60, 1000)])
def test_area_equals_the_double_loop(m, levels):
    check_area(roc_auc, m, levels)


@pytest.mark.parametrize("wrong", [ties_as_wins, ties_as_losses, of_distances, of_decisions])
@pytest.mark.parametrize("m, levels", [(30, 4), (60, 10)])
def test_wrong_areas_are_rejected(wrong, m, levels):
    with pytest.raises(AssertionError):
        check_area(wrong, m, levels)


# Worked by hand: the first same pair beats three, the second beats the last two.
FIVE = [0.9, 0.8, 0.7, 0.6, 0.5], [True, False, True, False, False]


def test_five_pairs_by_hand():
    assert roc_auc(*FIVE) == pytest.approx(5 / 6)
    # Four of five are right with t between .8 and .9 (one same pair refused), and between .6 and .7
    # (one different pair accepted): the lower is taken.
    t, right = best_threshold(*FIVE)
    assert (t, right) == (pytest.approx(0.65), 0.8)


def test_five_pairs_with_a_tie_by_hand():
    # The tie at .7 is half a win: (3 + 1 + 1 + 1/2) / 6.
    assert roc_auc([0.9, 0.7, 0.7, 0.6, 0.5], FIVE[1]) == pytest.approx(5.5 / 6)


# The threshold.


def without_the_ends(s, same):
    steps = np.unique(s)
    middles = (steps[1:] + steps[:-1]) / 2
    right = [accuracy(s, same, t) for t in middles]
    return middles[np.argmax(right)], max(right)


def strictly_above(s, same):
    t = max(s, key=lambda t: np.mean((s > t) == same))
    return t, np.mean((s > t) == same)


def of_equal_errors(s, same):
    steps = np.unique(s)
    t = min(steps, key=lambda t: abs(np.mean(s[same] < t) - np.mean(s[~same] >= t)))
    return t, accuracy(s, same, t)


def check_threshold(best):
    for seed in range(20):
        s, same = scores(12, 4, seed)
        t, right = best(s, same)
        assert right == pytest.approx(highest_accuracy(s, same))
        assert right == pytest.approx(accuracy(s, same, t))  # a threshold that gives it


def test_no_threshold_is_better():
    check_threshold(best_threshold)


@pytest.mark.parametrize("wrong", [without_the_ends, strictly_above, of_equal_errors])
def test_wrong_thresholds_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_threshold(wrong)


def test_threshold_lies_half_way_and_at_the_ends():
    assert best_threshold([0.25, 0.75, -0.5], [False, True, False]) == (0.5, 1.0)
    assert best_threshold([0.5] * 4, [True, True, True, False]) == (-1.0, 0.75)
    assert best_threshold([0.5] * 4, [True, False, False, False]) == (2.0, 0.75)
    assert best_threshold([0.5] * 4, [True, True, False, False]) == (-1.0, 0.5)
    assert best_threshold([-1.0, 0.0], [True, False])[1] == 0.5


@pytest.mark.parametrize("measure", [roc_auc, best_threshold])
@pytest.mark.parametrize("same", [[True, True], [False, False]])
def test_one_kind_of_pairs_is_refused(measure, same):
    with pytest.raises(ValueError, match=f"both kinds. Received: {sum(same)} of 2 pairs"):
        measure([0.5, 0.6], same)


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


LABELS = np.array([2, 3, 5, 9])[np.random.default_rng(0).integers(0, 4, 90)]


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


# Pairs.


def every_pair(labels):
    """The set of the same pairs and that of the different ones."""
    kinds = {True: set(), False: set()}
    for i, j in itertools.combinations(range(len(labels)), 2):
        kinds[bool(labels[i] == labels[j])].add((i, j))
    return kinds


def check_pairs(sample, labels, count):
    kinds = every_pair(labels)
    half = min(count // 2, *map(len, kinds.values()))
    pairs = sample(labels, count, 0)
    assert pairs.shape == (2 * half, 2) and pairs.dtype == np.int64
    same, different = ([tuple(p) for p in part.tolist()] for part in np.split(pairs, 2))
    for part, kind in ((same, kinds[True]), (different, kinds[False])):
        assert len(set(part)) == half and set(part) <= kind  # i < j, so (j, i) is no other pair


SMALL = np.array([7, 0, 0, 4, 7, 0, 4, 0])


@pytest.mark.parametrize(
    "labels, count",
    [(SMALL, 2), (SMALL, 8), (SMALL, 16), (SMALL, 1000), (LABELS, 500), (LABELS, 10**6)],
)
def test_pairs_are_half_and_half_and_come_once(labels, count):
    check_pairs(sample_pairs, labels, count)


def drawn_with_replacement(labels, count, seed):
    rng = np.random.default_rng(seed)
    kinds = every_pair(labels)
    return np.concatenate([rng.choice(sorted(kinds[kind]), count // 2) for kind in (True, False)])


def ordered(labels, count, seed):
    rng = np.random.default_rng(seed)
    kinds = every_pair(labels)
    both_ways = [sorted(kinds[kind]) + [(j, i) for i, j in kinds[kind]] for kind in (True, False)]
    return np.concatenate([rng.permutation(pairs)[: count // 2] for pairs in both_ways])


def with_itself(labels, count, seed):
    pairs = sample_pairs(labels, count, seed)
    pairs[0] = pairs[0, 0]
    return pairs


def unbalanced(labels, count, seed):
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.combinations(range(len(labels)), 2)))
    return rng.permutation(pairs)[:count]


@pytest.mark.parametrize("wrong", [drawn_with_replacement, ordered, with_itself, unbalanced])
def test_wrong_pairs_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_pairs(wrong, SMALL, 16)


def check_uniform(sample):
    seeds, count = 600, 8
    found = np.concatenate([sample(SMALL, count, seed) for seed in range(seeds)])
    found = [tuple(p) for p in found.tolist()]
    for kind in every_pair(SMALL).values():
        expected = seeds * (count // 2) / len(kind)
        for pair in kind:
            assert abs(found.count(pair) - expected) < 5 * math.sqrt(expected)


def image_first(labels, count, seed):
    """A random image, then a partner of it: pairs of rare classes come too often."""
    rng, pairs = np.random.default_rng(seed), []
    for kind in (True, False):
        for _ in range(count // 2):
            i = rng.integers(len(labels))
            fits = (labels == labels[i]) == kind
            fits[i] = False
            pairs.append(sorted((i, rng.choice(np.flatnonzero(fits)))))
    return np.array(pairs)


def test_every_pair_of_a_kind_is_as_likely():
    check_uniform(sample_pairs)
    with pytest.raises(AssertionError):
        check_uniform(image_first)


def test_pairs_repeat_with_the_seed_and_scale_to_many_images():
    labels = np.random.default_rng(0).integers(0, 1000, 200_000)
    a, b, c = (sample_pairs(labels, 6000, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert len(a) == 6000 and np.any(a != c)
    assert np.sum(labels[a[:, 0]] == labels[a[:, 1]]) == 3000 and np.all(a[:, 0] < a[:, 1])


def test_labels_may_be_names():
    names = np.char.add("class ", SMALL.astype(str))
    np.testing.assert_array_equal(sample_pairs(names, 8, 3), sample_pairs(SMALL, 8, 3))


@pytest.mark.parametrize(
    "labels, count, message",
    [
        (SMALL, 0, "`count` must be even and at least 2. Received: count=0"),
        (SMALL, 7, "Received: count=7"),
        ([1, 2, 3], 2, r"two classes, one of them twice. Received: 3 class\(es\) in 3 labels"),
        ([1, 1, 1], 2, r"Received: 1 class\(es\) in 3 labels"),
        ([], 2, r"Received: 0 class\(es\) in 0 labels"),
    ],
)
def test_sampling_refusals(labels, count, message):
    with pytest.raises(ValueError, match=message):
        sample_pairs(labels, count)


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
