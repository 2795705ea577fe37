"""The area under the ROC curve and the best threshold, against loops and wrong formulas."""

import numpy as np
import pytest

from simsiam_keras.evaluation.verification import (
    best_threshold,
    roc_auc,
)
from tests.evaluation.oracles import accuracy, area, highest_accuracy


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
