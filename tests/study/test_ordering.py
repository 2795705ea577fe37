"""Statistics over seeds against loops, and against the formulas that they could be mistaken for."""

import math

import numpy as np
import pytest

from simsiam_keras.study import ordering

SAMPLES = [np.random.default_rng(seed).normal(80, 3, 2 + seed).tolist() for seed in range(5)]


def mean_std_loop(values):
    mean = 0.0
    for value in values:
        mean += value / len(values)
    squares = 0.0
    for value in values:
        squares += (value - mean) ** 2
    return mean, math.sqrt(squares / (len(values) - 1))


def matches(mean_std):
    return all(mean_std(x) == pytest.approx(mean_std_loop(x)) for x in SAMPLES)


def test_mean_std():
    assert matches(ordering.mean_std)
    assert ordering.mean_std([3.0]) == (3.0, None)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: (np.mean(x), np.std(x)),  # of the population
        lambda x: (np.median(x), np.std(x, ddof=1)),
        lambda x: (np.mean(x), np.std(x, ddof=1) / len(x) ** 0.5),  # standard error
    ],
)
def test_mean_std_oracle_rejects(wrong):
    assert not matches(wrong)


def standard_error_loop(a, b):
    total = 0.0
    for x in (a, b):
        total += mean_std_loop(x)[1] ** 2 / len(x)
    return math.sqrt(total)


def error_matches(standard_error):
    pairs = [(a, b) for a in SAMPLES for b in SAMPLES]
    return all(standard_error(a, b) == pytest.approx(standard_error_loop(a, b)) for a, b in pairs)


def test_standard_error():
    assert error_matches(ordering.standard_error)
    assert ordering.standard_error([1.0], [2.0]) == 0
    assert ordering.standard_error([1.0, 3.0], [2.0]) == 1


def _pooled(a, b):
    return math.sqrt(np.var([*a, *b], ddof=1) * (1 / len(a) + 1 / len(b)))


@pytest.mark.parametrize(
    "wrong",
    [
        _pooled,
        lambda a, b: np.sqrt(np.var(a) / len(a) + np.var(b) / len(b)),
        lambda a, b: np.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1)),  # of single runs
        lambda a, b: np.std(a, ddof=1) / len(a) ** 0.5 + np.std(b, ddof=1) / len(b) ** 0.5,
    ],
)
def test_standard_error_oracle_rejects(wrong):
    assert not error_matches(wrong)


# a, b, the paper's a and b, verdict. The standard error of ([89, 91], [84, 86]) is sqrt(2).
CASES = [
    ([89, 91], [84, 86], 68.1, 64.8, "agrees"),
    ([89, 91], [84, 86], 64.8, 68.1, "disagrees"),
    ([84, 86], [89, 91], 64.8, 68.1, "agrees"),
    ([89, 91], [88, 90], 68.1, 64.8, "undecided"),
    ([88, 90], [89, 91], 68.1, 64.8, "undecided"),
    ([90], [89.9], 68.1, 64.8, "agrees"),  # single seeds: no spread to hide in
    ([90], [90], 68.1, 64.8, "undecided"),
    ([90, 92], [92], 68.1, 64.8, "undecided"),  # a difference of one standard error is not above it
    ([90, 92], [92.1], 64.8, 68.1, "agrees"),
]


def verdicts(compare):
    return [compare(a, b, pa, pb) for a, b, pa, pb, _ in CASES]


def test_compare():
    assert verdicts(ordering.compare) == [verdict for *_, verdict in CASES]


def _one_sided(a, b, paper_a, paper_b):
    difference = np.mean(a) - np.mean(b)
    if difference <= ordering.standard_error(a, b):
        return "undecided"
    return "agrees" if paper_a > paper_b else "disagrees"


def _sign_alone(a, b, paper_a, paper_b):
    return "agrees" if (np.mean(a) > np.mean(b)) == (paper_a > paper_b) else "disagrees"


def _strict(a, b, paper_a, paper_b):
    if abs(np.mean(a) - np.mean(b)) < ordering.standard_error(a, b):
        return "undecided"
    return _sign_alone(a, b, paper_a, paper_b)


@pytest.mark.parametrize("wrong", [_one_sided, _sign_alone, _strict])
def test_compare_oracle_rejects(wrong):
    assert verdicts(wrong) != [verdict for *_, verdict in CASES]


def test_order_of_every_pair_that_the_paper_tells_apart():
    settings = [
        ("with", 67.7, [90.0, 90.2]),
        ("without", 0.1, [70.0, 70.4]),
        ("constant", 68.1, [91.0, 91.2]),  # .4 above `with` in the paper: no order
        ("fixed", 1.5, [60.0, 60.2]),  # below `without`: the other way round
        ("average", 55.0, [90.1, 90.3]),  # above `with` by less than the standard error
        ("unstable", None, [50.0, 50.1]),
        ("failed", 34.6, []),
    ]
    found = ordering.order(settings)
    assert set(found.agrees) == {
        *(("with", x) for x in ("without", "fixed")),
        *(("constant", x) for x in ("without", "fixed", "average")),
        *(("average", x) for x in ("without", "fixed")),
    }
    assert found.undecided == (("with", "average"),)
    assert found.disagrees == (("fixed", "without"),)
    assert found.unmeasured == 5
    assert found.short == "7 of 9, 1 undecided"
    assert ordering.sentence(found) == (
        "7 of 9 pairs are in the paper's order; 1 undecided (with > average); 1 the other way "
        "round (fixed > without); 5 not measured."
    )


@pytest.mark.parametrize(("paper", "pairs"), [(68.1, 0), (68.2, 1), (67.2, 1), (67.3, 0)])
def test_the_papers_smallest_difference_is_half_a_point(paper, pairs):
    found = ordering.order([("a", 67.7, [90.0]), ("b", paper, [91.0])])
    assert found.measured == pairs


def test_sentence_says_what_is_missing():
    one_seed = ordering.order([("a", 67.7, [90.0]), ("b", 0.1, [70.0])])
    assert "one seed, so a difference of any size counts" in ordering.sentence(one_seed)
    nothing = ordering.order([("a", 67.7, [90.0]), ("b", 0.1, [])])
    assert "no two settings" in ordering.sentence(nothing) and nothing.short == "–"
