import math

import numpy as np
import pytest

from simsiam_keras.evaluation.knn import (
    effective_k,
    knn_accuracy,
    knn_predict,
    nearest_neighbours,
)
from tests.memory import resident


def oracle(bank, bank_labels, queries, k, temperature, weighted=True, normalized=True):
    """Wu et al. 2018, section 3.4, in loops: the predicted label of each query."""

    def similarity(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        if not normalized:
            return dot
        return dot / length if length else 0.0

    predicted = []
    for query in queries:
        scores = [similarity(query, key) for key in bank]
        nearest = sorted(range(len(bank)), key=lambda i: -scores[i])[:k]
        votes = {}
        for i in nearest:
            weight = math.exp(scores[i] / temperature) if weighted else 1.0
            votes[bank_labels[i]] = votes.get(bank_labels[i], 0.0) + weight
        predicted.append(max(sorted(votes), key=votes.get))
    return np.array(predicted)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = np.array([2, 3, 11, 40])[rng.integers(0, 4, 180)]
    centers = dict(zip((2, 3, 11, 40), rng.normal(size=(4, 6)), strict=True))
    # Lengths differ by a factor of ten, or not normalizing would not matter.
    features = np.stack([centers[y] for y in labels]) + rng.normal(size=(180, 6))
    features = (features * rng.uniform(0.3, 3, (180, 1))).astype("float32")
    return features[:130], labels[:130], features[130:], labels[130:]


@pytest.mark.parametrize("k", [1, 5, 40, 130])
@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("chunks", [(1024, 16384), (7, 130), (50, 9), (1, 1)])
def test_knn_is_the_papers_formula(data, k, temperature, chunks):
    bank, bank_labels, queries, query_labels = data
    expected = oracle(bank, bank_labels, queries, k, temperature)
    if chunks == (1, 1):
        queries, query_labels, expected = queries[:5], query_labels[:5], expected[:5]
    predicted = knn_predict(bank, bank_labels, queries, k, temperature, *chunks)
    np.testing.assert_array_equal(predicted, expected)
    accuracy = knn_accuracy(bank, bank_labels, queries, query_labels, k, temperature, *chunks)
    assert accuracy == np.mean(expected == query_labels)


@pytest.mark.parametrize(
    "temperature, wrong",
    [
        (0.1, {"weighted": False}),
        (0.1, {"temperature": 1.0}),
        (0.1, {"k": 1}),
        (1.0, {"normalized": False}),
    ],
    ids=["unweighted vote", "wrong temperature", "wrong k", "not normalized"],
)
def test_the_data_tell_wrong_formulas_apart(data, temperature, wrong):
    bank, bank_labels, queries, _ = data
    right = knn_predict(bank, bank_labels, queries, 40, temperature)
    other = oracle(bank, bank_labels, queries, **{"k": 40, "temperature": temperature, **wrong})
    assert np.mean(right != other) > 0.02


def test_nearest_neighbours_are_sorted_cosine_similarities(data):
    bank, _, queries, _ = data
    similarity, index = nearest_neighbours(bank, queries, 12, 16, 25)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, bank)]
    expected = unit[0] @ unit[1].T
    np.testing.assert_allclose(similarity, -np.sort(-expected)[:, :12], atol=1e-6)
    np.testing.assert_allclose(similarity, np.take_along_axis(expected, index, 1), atol=1e-6)


def test_equal_votes_go_to_the_lowest_label():
    bank = np.array([[1, 0], [1, 0], [0, 1]])
    assert knn_predict(bank, [9, 4, 1], [[2, 0]], k=2).tolist() == [4]
    assert knn_predict(bank, [9, 4, 4], [[2, 0]], k=2).tolist() == [4]


@pytest.mark.parametrize("bank_chunk", [1, 2, 3, 16])
def test_equal_similarities_are_taken_in_bank_order(bank_chunk):
    bank = np.ones((8, 2))
    _, index = nearest_neighbours(bank, bank[:2], 3, bank_chunk=bank_chunk)
    np.testing.assert_array_equal(index, [[0, 1, 2]] * 2)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e15])
def test_scale_does_not_matter(data, scale):
    bank, bank_labels, queries, _ = data
    expected = knn_predict(bank, bank_labels, queries, 20)
    scale = np.float32(scale)
    np.testing.assert_array_equal(
        knn_predict(bank * scale, bank_labels, queries / scale, 20), expected
    )


def test_order_does_not_matter(data):
    bank, bank_labels, queries, _ = data
    rng = np.random.default_rng(1)
    b, q = rng.permutation(len(bank)), rng.permutation(len(queries))
    expected = knn_predict(bank, bank_labels, queries, 20)
    np.testing.assert_array_equal(
        knn_predict(bank[b], bank_labels[b], queries[q], 20, bank_chunk=33), expected[q]
    )


def test_labels_may_be_any_values(data):
    bank, bank_labels, queries, query_labels = data
    names = np.char.add("class ", bank_labels.astype(str))
    expected = knn_accuracy(bank, bank_labels, queries, query_labels, 20)
    query_names = np.char.add("class ", query_labels.astype(str))
    assert knn_accuracy(bank, names, queries, query_names, 20) == expected


def test_k_is_capped_to_the_bank(data):
    bank, bank_labels, queries, _ = data
    assert effective_k(200, 130) == 130
    assert nearest_neighbours(bank, queries, 200)[0].shape == (50, 130)
    np.testing.assert_array_equal(
        knn_predict(bank, bank_labels, queries, 200), knn_predict(bank, bank_labels, queries, 130)
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_bank_may_be_a_memory_map(data, tmp_path, dtype):
    bank, bank_labels, queries, _ = data
    bank = bank.astype(dtype)
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        knn_predict(mapped, bank_labels, queries, 20, bank_chunk=17),
        oracle(bank.astype("float32"), bank_labels, queries, 20, 0.1),
    )


def test_a_memory_map_gives_what_the_array_gives(data, tmp_path):
    bank, bank_labels, queries, query_labels = data
    np.save(tmp_path / "bank.npy", bank)
    np.save(tmp_path / "queries.npy", queries)
    files = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("bank", "queries")]
    for chunks in ((1024, 16384), (7, 11)):
        expected = nearest_neighbours(bank, queries, 9, *chunks)
        for a, b in zip(nearest_neighbours(*files, 9, *chunks), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        other = nearest_neighbours(files[0][::-1], files[1], 9, *chunks)
        assert not np.array_equal(other[1], expected[1])
    arguments = bank_labels, files[1], query_labels, 20
    assert knn_accuracy(files[0], *arguments) == knn_accuracy(bank, *arguments)


@pytest.mark.parametrize("mode, share", [("r", (-0.2, 0.2)), ("c", (0.8, 1.2))])
def test_little_of_a_mapped_bank_stays_in_memory(tmp_path, mode, share):
    # A private map ("c") is one that is not given back: what the other must not look like.
    path, n, d = tmp_path / "bank.npy", 128_000, 250
    np.lib.format.open_memmap(path, "w+", "float32", (n, d))[:5] = 1
    bank, queries = np.load(path, mmap_mode=mode), np.ones((2, d), "float32")
    nearest_neighbours(bank[:9], queries, 5)
    before = resident("RssFile")
    _, index = nearest_neighbours(bank, queries, 5, bank_chunk=4096)
    assert sorted(index[0].tolist()) == [0, 1, 2, 3, 4]
    low, high = (part * n * d * 4 / 1e6 for part in share)
    assert low < resident("RssFile") - before < high


def test_zero_vectors_vote_without_nan(data):
    bank, bank_labels, queries, _ = data
    bank = np.concatenate([np.zeros((3, 6), "float32"), bank])
    bank_labels = np.concatenate([[2, 2, 3], bank_labels])
    queries = np.concatenate([np.zeros((1, 6), "float32"), queries])
    similarity, _ = nearest_neighbours(bank, queries, 133)
    assert np.isfinite(similarity).all() and (similarity[0] == 0).all()
    np.testing.assert_array_equal(
        knn_predict(bank, bank_labels, queries, 20), oracle(bank, bank_labels, queries, 20, 0.1)
    )


def test_a_small_temperature_does_not_overflow(data):
    bank, bank_labels, queries, _ = data
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_array_equal(
            knn_predict(bank, bank_labels, queries, 20, 1e-4),
            knn_predict(bank, bank_labels, queries, 1),
        )


def test_a_perfect_bank_is_its_own_answer(data):
    bank, bank_labels, _, _ = data
    assert knn_accuracy(bank, bank_labels, bank, bank_labels, k=1) == 1.0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 0}, "`k` must be >= 1. Received: k=0"),
        ({"temperature": 0}, "`temperature` must be > 0. Received: temperature=0"),
        ({"query_chunk": 0}, "`query_chunk` must be >= 1"),
        ({"bank_chunk": 0}, "`bank_chunk` must be >= 1"),
        ({"bank": np.zeros((0, 2)), "bank_labels": []}, "`bank` must be a non-empty"),
        ({"bank": np.ones((2, 3))}, "`queries` must be as wide as `bank`"),
        ({"bank": np.full((2, 2), np.nan)}, "`bank` must be finite"),
        ({"bank_labels": [1]}, "`bank_labels` must hold one label for each of the 2"),
        ({"query_labels": [[1]]}, "`query_labels` must hold one label for each of the 1"),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = dict(bank=np.eye(2), bank_labels=[0, 1], queries=[[1, 0]], query_labels=[0])
    with pytest.raises(ValueError, match=message):
        knn_accuracy(**{**arguments, **change})
