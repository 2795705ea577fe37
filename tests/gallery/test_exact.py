"""Exact search beside loops; an index beside exact search."""

import numpy as np
import pytest

from simsiam_keras.evaluation.knn import unit
from simsiam_keras.gallery import exact, index, vectors


def by_loops(bank, queries, k):
    found = []
    for query in queries:
        cosines = [
            float(query @ row / (np.linalg.norm(query) * np.linalg.norm(row))) for row in bank
        ]
        found.append(sorted(range(len(bank)), key=lambda i: (-cosines[i], i))[:k])
    return np.array(found)


def drawn(n=57, m=6, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype("float32"), rng.normal(size=(m, d)).astype("float32")


@pytest.mark.parametrize("k", [1, 4, 57, 80])
@pytest.mark.parametrize("parts", [1, 3, 57])
def test_it_finds_what_loops_find(k, parts):
    bank, queries = drawn()
    bank *= np.linspace(0.1, 9, 57, dtype="float32")[:, None]  # lengths, which do not count
    similarities, numbers = exact.neighbours(iter(np.array_split(bank, parts)), queries, k)
    np.testing.assert_array_equal(numbers, by_loops(bank, queries, k))
    assert (np.diff(similarities, axis=1) <= 0).all() and similarities.max() <= 1 + 1e-6
    inner = np.argsort(-(queries @ bank.T), axis=1)[:, :k]  # a wrong formula
    assert k == 80 or not np.array_equal(numbers, inner)


def test_of_equal_ones_the_first_comes_first():
    bank = np.repeat(np.eye(3, dtype="float32"), 4, axis=0)
    _, numbers = exact.neighbours(iter(np.array_split(bank, 5)), np.eye(3)[1:2], 3)
    assert numbers.tolist() == [[4, 5, 6]]
    _, numbers = exact.neighbours(bank, np.eye(3)[1:2], 6)
    assert numbers.tolist() == [[4, 5, 6, 7, 0, 1]]


def test_a_zero_vector_is_like_nothing():
    bank = np.array([[0, 0], [1, 0], [-1, 0]], "float32")
    similarities, numbers = exact.neighbours(bank, np.array([[2.0, 0]]), 3)
    assert numbers.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(similarities, [[1, 0, -1]], atol=1e-6)


def written(path, values):
    n, d = values.shape
    about = vectors.About("npz:a", "", None, False, d, "sha256:0", 8, 1.0, None, 3)
    nothing = np.full(n, -1)
    rows = vectors.Rows(list(map(str, range(n))), ["all"] * n, None, nothing, nothing, [None] * n)
    vectors.write(path, about, rows, values)
    return vectors.Reader(path)


@pytest.mark.parametrize("kind", index.KINDS)
def test_an_index_is_kept_checked_and_refused_when_it_is_old(kind, tmp_path):
    pytest.importorskip("faiss")
    path = tmp_path / "vectors.parquet"
    bank, queries = drawn(n=3000, d=8)
    reader, said = written(path, bank), []
    built = index.found(path, kind, reader, False, said.append)
    recall = index.recall_of(built, reader)
    assert 0.85 < recall <= 1 and f"finds {100 * recall:.1f} %" in said[-1]
    similarities, numbers = index.search(built, queries, 5)
    true, _ = exact.neighbours(bank, queries, 5)
    assert (similarities <= true + 1e-5).all()  # never better than the best
    cosines = unit(queries) @ unit(bank).T
    np.testing.assert_allclose(similarities, np.take_along_axis(cosines, numbers, 1), atol=1e-5)
    before = index.path_of(path, kind).stat().st_mtime_ns
    index.found(path, kind, reader, False, said.append)
    assert index.path_of(path, kind).stat().st_mtime_ns == before
    reader = written(path, bank[:-1])
    with pytest.raises(ValueError, match="has changed since .* was built of it; give --rebuild"):
        index.found(path, kind, reader, False, said.append)
    rebuilt = index.found(path, kind, reader, True, said.append)
    assert rebuilt.ntotal == 2999
    index.path_of(path, kind).write_bytes(b"no index")
    with pytest.raises(ValueError, match="is damaged; give --rebuild_index"):
        index.found(path, kind, reader, False, said.append)


def test_recall_tells_a_bad_index_from_a_good_one(tmp_path):
    faiss = pytest.importorskip("faiss")
    bank, _ = drawn(n=2000, d=16)
    reader = written(tmp_path / "vectors.parquet", bank)
    coarse = faiss.IndexFlatIP(16)
    made = faiss.IndexIVFFlat(coarse, 16, 50, faiss.METRIC_INNER_PRODUCT)
    made.train(unit(bank))
    made.add(unit(bank))
    made.nprobe = 50
    assert index.recall_of(made, reader) > 0.99
    made.nprobe = 1
    assert index.recall_of(made, reader) < 0.7
