import numpy as np
import pytest

from simsiam_keras.evaluation.blocks import blocks
from tests.memory import resident

MB = 64


@pytest.fixture
def bank(tmp_path):
    """A file of `MB` megabytes; zeros, which take no place on the disk."""
    path = tmp_path / "bank.npy"
    np.lib.format.open_memmap(path, "w+", "float32", (MB * 1000, 250))
    return path


@pytest.mark.parametrize("size", [1, 4, 10, 100])
def test_blocks_are_the_rows_in_order(size):
    features = np.arange(30.0).reshape(10, 3)
    found = list(blocks(features, size))
    assert [first for first, _ in found] == list(range(0, 10, size))
    assert all(len(rows) == size for _, rows in found[:-1])
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in found]), features)


def most_of_the_file(iterator):
    """Megabytes of mapped files that were resident at once while the rows were read."""
    before = resident("RssFile")
    most = before
    for _, rows in iterator:
        assert rows.sum() == 0
        most = max(most, resident("RssFile"))
    return most - before


def plain_slices(features, size):
    return ((i, features[i : i + size]) for i in range(0, len(features), size))


@pytest.mark.parametrize("view", [lambda x: x, np.asarray, lambda x: np.asarray(x)[1000:, 1:]])
def test_a_memory_map_is_given_back_block_by_block(bank, view):
    features = view(np.load(bank, mmap_mode="r"))
    assert most_of_the_file(blocks(features, 4000)) < 0.2 * MB
    assert most_of_the_file(plain_slices(features, 4000)) > 0.8 * MB


def test_changes_to_a_private_map_are_kept(bank):
    features = np.load(bank, mmap_mode="c")
    features[:3] = 7
    assert sum(rows.sum() for _, rows in blocks(features, 2)) == 7 * 3 * 250
    assert features[:3].min() == 7
