"""Draws of labels: exactly n of every class, other ones each time, the same for a seed."""

import numpy as np
import pytest

from simsiam_keras.few import draws

LABELS = np.random.default_rng(0).permutation(np.repeat([3, 5, 9], [40, 30, 4]))


@pytest.mark.parametrize("n", [1, 3, 4])
def test_every_class_has_exactly_n(n):
    rows = draws.draw(LABELS, n, 0, seed=0).rows
    assert len(set(rows.tolist())) == len(rows)
    assert np.unique(LABELS[rows], return_counts=True)[1].tolist() == [n, n, n]


def test_a_class_with_fewer_gives_what_it_has():
    rows = draws.draw(LABELS, 10, 0, seed=0).rows
    assert np.unique(LABELS[rows], return_counts=True)[1].tolist() == [10, 10, 4]
    assert draws.smaller(LABELS, [4, 10, 35, "all"]) == {10: 1, 35: 2}


def test_all_is_all_once():
    found = draws.draws(LABELS, [1, "all"], 3, seed=0)
    assert [(draw.per_class, draw.number) for draw in found] == [(1, 0), (1, 1), (1, 2), ("all", 0)]
    np.testing.assert_array_equal(found[-1].rows, np.arange(len(LABELS)))


def test_a_seed_reproduces_and_draws_and_seeds_differ():
    rows = [draws.draw(LABELS, 4, *how).rows.tolist() for how in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert rows[0] == rows[1]
    assert len({tuple(each) for each in rows}) == 3


def test_a_smaller_draw_is_part_of_a_larger():
    small, large = (set(draws.draw(LABELS, n, 2, 0).rows.tolist()) for n in (3, 10))
    assert small < large


def test_draws_are_uniform():
    """Every image of a class is drawn about as often; a draw of the first n is told apart."""

    def deviates(draw):
        counts = np.zeros(len(LABELS))
        for number in range(400):
            counts[draw(number)] += 1
        return np.abs(counts[LABELS == 3] - 100).max() > 50  # 400 draws of 10 of 40

    assert not deviates(lambda number: draws.draw(LABELS, 10, number, 0).rows)
    assert deviates(lambda number: np.flatnonzero(LABELS == 3)[:10])


def test_numbers_are_read_in_order_and_once():
    assert draws.parsed("all, 10,1,1") == [1, 10, "all"]
    assert draws.parsed("5") == [5]
    assert draws.beyond(LABELS, [1, 39, 40, 50, "all"]) == [40, 50]


@pytest.mark.parametrize("text", ["", "0", "-1", "1,,2", "1.5", "every", "٣"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="labels_per_class"):
        draws.parsed(text)
