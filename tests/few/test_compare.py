"""Which row is better: the standard error of a difference over draws and test images."""

import numpy as np
import pytest

from simsiam_keras.few import compare


def table(draws, images, better=0.0, seed=0, by_draw=0.0):
    """Two rows that agree on most images; the first is better by a share of them."""
    random = np.random.default_rng(seed)
    easy = random.normal(size=images)
    skill = by_draw * random.normal(size=(draws, 1))
    noise = random.normal(size=(2, draws, images))
    a = easy + better + skill * random.normal(size=(draws, 1)) + noise[0] > 0
    return a.astype(int), (easy + noise[1] > 0).astype(int)


def test_one_draw_has_the_error_of_paired_test_images():
    a, b = table(1, 500)
    found, error = compare.difference(a, b)
    only_a, only_b = ((a > b).sum(), (b > a).sum())  # as McNemar counts
    assert found == pytest.approx((only_a - only_b) / 500)
    expected = np.sqrt(only_a + only_b - (only_a - only_b) ** 2 / 500) / 500
    assert error == pytest.approx(expected, rel=0.01)


def test_the_error_covers_both_samples():
    """Of rows that are alike no more than a twentieth are told apart; by draws alone, many."""

    def told_apart(error_of):
        count = 0
        for seed in range(300):
            a, b = table(3, 100, seed=seed)
            found, _ = compare.difference(a, b)
            count += abs(found) > 2 * error_of(a, b)
        return count / 300

    def of_draws_alone(a, b):
        return np.std((a - b).mean(1), ddof=1) / np.sqrt(3)

    assert told_apart(lambda a, b: compare.difference(a, b)[1]) < 0.06
    assert told_apart(of_draws_alone) > 0.1


def test_a_clear_difference_is_one_and_has_a_sign():
    a, b = table(3, 300, better=1.0)
    assert compare.compared(a, b) == "better" and compare.compared(b, a) == "worse"
    assert compare.compared(a, a) == "alike"


def test_the_words():
    a, b = table(3, 300, better=1.0)
    right = {("trained", 1): a, ("pixels", 1): b, ("trained", "all"): b, ("pixels", "all"): b}
    titles = {"pixels": "raw pixels", "trained": "after self-supervision"}
    best, best_of_all, against = compare.sentences(right, titles, [1, "all"])
    assert (
        best
        == f"With 1 label per class the best is after self-supervision, {100 * a.mean():.1f} %."
    )
    assert best_of_all.endswith("not told apart from it: after self-supervision.")
    assert against == (
        "After self-supervision against raw pixels: better than it with 1 per class; "
        "not told apart from it with all labels."
    )
