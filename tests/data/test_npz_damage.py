"""A .npz file with a damage at any byte is the file that it was, or refused in one sentence."""

import functools
import io

import numpy as np
import pytest

from simsiam_keras.data import sources
from tests.faults import fuzz

RNG = np.random.default_rng(0)
ARRAYS = {
    "train_images": RNG.integers(0, 256, (4, 3, 3, 3), dtype=np.uint8),
    "train_labels": np.array([[0], [1], [1], [0]], np.uint8),
    "class_names": np.array(["cat", "dog"]),
}


@functools.cache
def whole(compressed):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **ARRAYS)
    return file.getvalue()


def bit(data, at):
    data[at] ^= 1 << at % 8


def none(data, at):
    data[at] = 0


def full(data, at):
    data[at] = 0xFF


def cut(data, at):
    del data[at:]


def lost(data, at):
    del data[at]


def twice(data, at):
    data.insert(at, data[at])


DAMAGES = (bit, none, full, cut, lost, twice)


def survives(path, content):
    """Loads a damaged file, and holds it to be whole or refused; whether it was refused."""
    path.write_bytes(content)
    source = fuzz.outcome(lambda: sources.load(f"npz:{path}"), path.name)
    if source is None:
        return True
    assert np.array_equal(source.images, ARRAYS["train_images"])
    assert source.labels.tolist() == [0, 1, 1, 0] and source.class_names == ("cat", "dog")
    return False


def refusals(path, compressed, every):
    data, refused = whole(compressed), []
    for damage in DAMAGES:
        for at in range(0, len(data), every):
            content = bytearray(data)
            damage(content, at)
            refused.append(survives(path, bytes(content)))
    return refused


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "compressed"])
def test_a_damage_anywhere_is_one_sentence(tmp_path, compressed):
    refused = refusals(tmp_path / "some.npz", compressed, every=19)
    assert len(refused) > 200 and 0.5 < np.mean(refused) < 1  # not all of its bytes mean something


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "compressed"])
def test_a_damage_at_every_byte_is_one_sentence(tmp_path, compressed):
    assert len(refusals(tmp_path / "some.npz", compressed, every=1)) > 4000


def test_another_content_is_seen(tmp_path):
    file = io.BytesIO()
    np.savez(file, **{**ARRAYS, "train_labels": np.array([1, 1, 1, 0])})
    with pytest.raises(AssertionError):
        survives(tmp_path / "some.npz", file.getvalue())
