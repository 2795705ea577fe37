"""Neighbours and groups against loops over all pairs."""

import itertools

import numpy as np
import pytest

from simsiam_keras.evaluation.knn import unit
from simsiam_keras.explore import near


def vectors(n, d=5, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def nearest_by_loop(x, k):
    found = []
    for i, row in enumerate(x):
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: -float(row @ x[j]))
        found.append(others[:k])
    return np.array(found)


@pytest.mark.parametrize("n, k", [(2, 1), (2, 5), (40, 3), (near.CHUNK + 7, 12)])
def test_nearest_is_what_a_loop_finds(n, k):
    x = vectors(n)
    similarity, index = near.nearest(x, k)
    expected = nearest_by_loop(x, k)
    np.testing.assert_array_equal(index, expected)
    own = np.take_along_axis(x @ x.T, index, 1)
    np.testing.assert_allclose(similarity, own, atol=1e-6)


def test_nearest_is_never_the_image_itself():
    x = np.repeat(vectors(3), 4, axis=0)  # of copies the search finds itself as well as others
    _, index = near.nearest(x, 3)
    assert not (index == np.arange(12)[:, None]).any()
    assert (index // 4 == (np.arange(12) // 4)[:, None]).all()


def groups_by_loop(x, threshold):
    """Union-find, one pair after the other."""
    parent = list(range(len(x)))

    def top(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in itertools.combinations(range(len(x)), 2):
        if x[i] @ x[j] >= threshold:
            parent[top(i)] = top(j)
    return [top(i) for i in range(len(x))]


def same_partition(a, b):
    return len({*zip(a, b, strict=True)}) == len(set(a)) == len(set(b))


@pytest.mark.parametrize("n, threshold", [(30, 0.75), (near.CHUNK + 90, 0.97)])
def test_groups_are_what_a_loop_joins(n, threshold):
    x = vectors(n, seed=1)
    done = []
    found = near.groups(x, threshold, done.append).tolist()
    assert sum(done) == n
    assert same_partition(found, groups_by_loop(x, threshold))
    for wrong in (threshold + 0.1, threshold - 0.1, -1, 2):
        assert not same_partition(found, groups_by_loop(x, wrong))


def test_groups_join_through_others_across_chunks():
    angles = np.deg2rad(np.arange(0, 90, 10))
    chain = np.stack([np.cos(angles), np.sin(angles)], 1).astype("float32")
    apart = np.tile(np.float32([[0, -1]]), (near.CHUNK, 1))
    x = np.concatenate([chain[::2], apart, chain[1::2]])
    found = near.groups(x, np.cos(np.deg2rad(10.5)))
    ends = [*range(5), *range(len(x) - 4, len(x))]
    assert len(set(found[ends])) == 1  # 10 degrees each, 80 in all
    assert len(set(near.groups(x, np.cos(np.deg2rad(9.5)))[ends])) == 9


def test_copies_are_joined_by_a_threshold_of_one():
    x = np.repeat(vectors(300, d=64), 2, axis=0)
    found = near.groups(x, 1.0)
    assert (found[::2] == found[1::2]).all() and len(set(found.tolist())) == 300


def test_a_zero_vector_is_like_nothing():
    x = unit(np.array([[0, 0], [1, 0], [1, 0]], "float32"))
    assert near.groups(x, 0.5).tolist().count(near.groups(x, 0.5)[0]) == 1
