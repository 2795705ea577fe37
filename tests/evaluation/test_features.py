import functools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from simsiam_keras.data.base import ArraySource, Source
from simsiam_keras.evaluation import features, features_to_file
from tests.conftest import ROOT
from tests.memory import resident

SIZE, D = 4, 1024
WEIGHTS = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, D))


class Generated(Source):
    """Images that are made when they are read, as many as one likes."""

    def __init__(self, n):
        super().__init__("generated", None, None, None, "0")
        self.n = n

    def __len__(self):
        return self.n

    def read(self, index, min_side=None):
        pixels = np.arange(1, SIZE * SIZE * 3 + 1) * (index + 1) % 251
        return pixels.astype(np.uint8).reshape(SIZE, SIZE, 3)


def encode(images):
    return images.reshape(len(images), -1) @ WEIGHTS  # float64: the file is float32 all the same


def streamed_is_exact(write, path, n, batch_size):
    source = Generated(n)
    expected = features(encode, source, SIZE, batch_size=batch_size)
    write(path, encode, source, SIZE, batch_size=batch_size)
    found = np.load(path)
    assert found.dtype == expected.dtype == "float32" and found.shape == (n, D)
    np.testing.assert_array_equal(found, expected)


def without_the_last_batch(path, encode, source, size, batch_size):
    file = np.lib.format.open_memmap(path, "w+", "float32", (len(source), D))
    for first in range(0, len(source) - batch_size + 1, batch_size):
        images = np.stack([source.read(i) for i in range(first, first + batch_size)])
        file[first : first + batch_size] = encode(images)


def in_float64(path, encode, source, size, batch_size):
    np.save(path, encode(np.stack([source.read(i) for i in range(len(source))])))


@pytest.mark.parametrize(("n", "batch_size"), [(7, 3), (6, 3), (2, 256), (5, 1)])
def test_a_streamed_file_holds_the_features(tmp_path, n, batch_size):
    streamed_is_exact(features_to_file, tmp_path / "features.npy", n, batch_size)
    assert [path.name for path in tmp_path.iterdir()] == ["features.npy"]


@pytest.mark.parametrize("wrong", [without_the_last_batch, in_float64])
def test_the_comparison_refuses_wrong_files(tmp_path, wrong):
    with pytest.raises(AssertionError):
        streamed_is_exact(wrong, tmp_path / "features.npy", 7, 3)


def test_the_result_is_a_map_of_the_file_that_cannot_be_written(tmp_path):
    found = features_to_file(tmp_path / "features.npy", encode, Generated(5), SIZE)
    assert isinstance(found, np.memmap) and not found.flags.writeable


def test_progress_is_told(tmp_path):
    done = []
    arguments = dict(encode=encode, source=Generated(7), size=SIZE, batch_size=3)
    features(**arguments, on_batch=done.append)
    features_to_file(tmp_path / "features.npy", **arguments, on_batch=done.append)
    assert done == [3, 3, 1] * 2


class Interrupted:
    """An encoder whose process is stopped at the third batch."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return encode(images)


def test_an_interruption_leaves_nothing_and_repeats(tmp_path):
    path = tmp_path / "features.npy"
    with pytest.raises(KeyboardInterrupt):
        features_to_file(path, Interrupted(), Generated(12), SIZE, batch_size=3)
    assert list(tmp_path.iterdir()) == []
    streamed_is_exact(features_to_file, path, 12, 3)


def test_an_interruption_leaves_the_old_file(tmp_path):
    path = tmp_path / "features.npy"
    streamed_is_exact(features_to_file, path, 4, 3)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        features_to_file(path, Interrupted(), Generated(12), SIZE, batch_size=3)
    assert path.read_bytes() == before


KILLED = """
import os, signal, sys
from tests.evaluation.test_features import SIZE, Generated, encode, features_to_file
batches = []
def on_batch(n):
    batches.append(n)
    if len(batches) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
features_to_file(sys.argv[1], encode, Generated(12), SIZE, batch_size=3, on_batch=on_batch)
"""


@pytest.mark.slow
def test_what_a_killed_process_leaves_is_written_over(tmp_path):
    path = tmp_path / "features.npy"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, capture_output=True)
    assert done.returncode == -9, done.stderr
    (rest,) = tmp_path.iterdir()
    assert rest != path and rest.name.startswith(".")
    streamed_is_exact(features_to_file, path, 12, 3)
    assert list(tmp_path.iterdir()) == [path]


def traced_peak(function):
    """The most megabytes that Python and NumPy had allocated at once."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    path, batch_size = tmp_path / "features.npy", 32

    def grown(compute):
        few, many = (
            traced_peak(lambda n=n: compute(encode, Generated(n), SIZE, batch_size=batch_size))
            for n in (128, 2048)
        )
        return many - few

    assert grown(functools.partial(features_to_file, path)) < 1
    assert 0.9 < grown(features) / (2048 * D * 4 / 1e6) < 1.1


MEASURED = """
import sys
from tests.evaluation.test_features import SIZE, Generated, encode, features, features_to_file
from tests.memory import resident
n, path = int(sys.argv[1]), sys.argv[2]
before = resident("VmRSS")
arguments = dict(encode=encode, source=Generated(n), size=SIZE)
found = features_to_file(path, **arguments) if path else features(**arguments)
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
def test_a_process_that_streams_does_not_grow(tmp_path):
    def peak(n, path):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(n), path], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    resident()  # skips where this cannot be measured
    path = str(tmp_path / "features.npy")
    megabytes = 50_000 * D * 4 / 1e6
    assert peak(50_000, path) - peak(2_000, path) < 0.1 * megabytes
    assert peak(50_000, "") - peak(2_000, "") > 0.9 * megabytes


def test_order_and_values_are_those_of_the_images():
    images = np.arange(6, dtype="uint8").repeat(SIZE * SIZE * 3).reshape(6, SIZE, SIZE, 3)
    found = features(lambda x: x[:, 0, 0, :2] * 2.0, ArraySource("a", images), SIZE, batch_size=4)
    np.testing.assert_array_equal(found, 2 * np.arange(6).repeat(2).reshape(6, 2))
