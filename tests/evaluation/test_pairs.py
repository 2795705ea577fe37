"""Sampled pairs: half and half, once, and each as likely."""

import itertools
import math

import numpy as np
import pytest

from simsiam_keras.evaluation.verification import (
    sample_pairs,
)
from tests.evaluation.oracles import LABELS, every_pair


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
