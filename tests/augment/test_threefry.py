"""The counter-based draws: known answers, independence, and what a draw depends on."""

import numpy as np
import pytest
import scipy.stats

from simsiam_keras.augment import threefry
from tests.augment.engines import compiled, tensor
from tests.augment.oracles import SIGNIFICANCE, flat
from tests.tiny import numpy


@pytest.mark.parametrize(
    "key, counter, expected",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_its_known_answers(key, counter, expected):
    # Random123 1.14, tests/kat_vectors, threefry2x32 20.
    def tensors(words):
        return [tensor([np.uint32(word).view("int32")], "int32") for word in words]

    for keys in (key, (key[0], tensors(key)[1][0])):
        words = threefry.threefry(keys, tensors(counter))
        assert tuple(int(numpy(word).view("uint32")[0]) for word in words) == expected


def draws_of(seed, step, n=512, count=31, first=0):
    function = compiled(lambda step: threefry.uniform(seed, step, n, count, first))
    return numpy(function(tensor(step, "int32")))


def test_draws_are_uniform_and_independent():
    draws = draws_of(2**32 - 1, 7, n=20_000, count=5)
    assert draws.shape == (20_000, 5) and 0 <= draws.min() and draws.max() < 1
    np.testing.assert_array_equal(draws * 2**24, np.round(draws * 2**24))
    for column in draws.T:
        assert flat(column) > SIGNIFICANCE
    neighbours = np.concatenate(
        [draws, draws_of(2**32 - 1, 8, 20_000, 5), draws[[-1, *range(19_999)]]], 1
    )
    correlation = np.corrcoef(neighbours.T) - np.eye(15)
    assert abs(correlation).max() < 4.5 / np.sqrt(20_000)
    pairs = np.histogram2d(draws[:, 0], draws[:, 1], bins=16)[0]
    assert scipy.stats.chisquare(pairs.ravel()).pvalue > SIGNIFICANCE


def test_draws_belong_to_seed_step_row_and_column():
    draws = draws_of(3, 5)
    np.testing.assert_array_equal(draws, draws_of(3, 5))
    np.testing.assert_array_equal(draws[100:200], draws_of(3, 5, n=100, first=100))
    # The sum of seed and step is not enough, nor are the words interchangeable.
    for other in (draws_of(3, 6), draws_of(4, 5), draws_of(4, 4), draws_of(5, 3)):
        assert np.isin(draws, other).mean() < 0.01
