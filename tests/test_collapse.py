import math

import numpy as np
import pytest

from simsiam_keras import diagnose
from simsiam_keras.evaluation import collapse, spectrum
from tests import oracle

TOLERANCE = 1e-8  # both sides compute in float64; RankMe's epsilon alone adds 1e-6


def draw(n, d, seed=0, offset=0.0):
    """Rows of unequal length and unequal spread along the axes, away from the origin if asked."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)) * np.linspace(0.3, 2, d)
    return ((x + offset) * random.uniform(0.5, 3, (n, 1))).astype("float32")


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def squared_distances(z):
    i, j = np.triu_indices(len(z), k=1)
    return np.square(z[i] - z[j]).sum(axis=1)


def singular_values(x):
    return np.linalg.svd(np.asarray(x, "float64"), compute_uv=False)


def entropy_rank(p):
    p = p[p > 0]
    return np.exp(-(p * np.log(p)).sum())


def shares(s):
    return s / s.sum()


FUNCTIONS = {
    "effective_rank": (collapse.effective_rank, oracle.effective_rank),
    "alignment": (collapse.alignment, oracle.alignment),
    "uniformity": (collapse.uniformity, oracle.uniformity),
    "largest_eigenvalue_share": (
        collapse.largest_eigenvalue_share,
        oracle.largest_eigenvalue_share,
    ),
}
WRONG = {
    "effective_rank": {
        "centred": lambda x: collapse.effective_rank(x - x.mean(axis=0)),
        "of the eigenvalues": lambda x: entropy_rank(shares(singular_values(x) ** 2)),
        "without epsilon": lambda x: entropy_rank(shares(singular_values(x))),
        "two to the entropy": lambda x: 2 ** np.log(collapse.effective_rank(x)),
        "the entropy": lambda x: np.log(collapse.effective_rank(x)),
        "the stable rank": lambda x: (singular_values(x) ** 2).sum() / singular_values(x)[0] ** 2,
        "of unit rows": lambda x: collapse.effective_rank(unit(x)),
    },
    "alignment": {
        "alpha = 1": lambda a, b: np.sqrt(np.square(unit(a) - unit(b)).sum(axis=1)).mean(),
        "not normalized": lambda a, b: np.square(a - b).sum(axis=1).mean(),
        "mean over channels": lambda a, b: np.square(unit(a) - unit(b)).mean(),
        "sum over images": lambda a, b: np.square(unit(a) - unit(b)).sum(),
        "1 - cosine": lambda a, b: 1 - (unit(a) * unit(b)).sum(axis=1).mean(),
    },
    "uniformity": {
        "with i = j": lambda z: np.log(
            np.exp(-2 * np.square(unit(z)[:, None] - unit(z)).sum(axis=2)).mean()
        ),
        "t = 1": lambda z: np.log(np.exp(-squared_distances(unit(z))).mean()),
        "no logarithm": lambda z: np.exp(-2 * squared_distances(unit(z))).mean(),
        "logarithm inside": lambda z: (-2 * squared_distances(unit(z))).mean(),
        "distance": lambda z: np.log(np.exp(-2 * np.sqrt(squared_distances(unit(z)))).mean()),
        "not normalized": lambda z: np.log(np.exp(-2 * squared_distances(z)).mean()),
        "sum over pairs": lambda z: np.log(np.exp(-2 * squared_distances(unit(z))).sum()),
    },
    "largest_eigenvalue_share": {
        "not centred": lambda x: shares(singular_values(x) ** 2)[0],
        "of singular values": lambda x: shares(singular_values(x - x.mean(axis=0)))[0],
        "of one channel": lambda x: x.var(axis=0).max() / x.var(axis=0).sum(),
        "of the smallest": lambda x: shares(singular_values(x - x.mean(axis=0)) ** 2)[-1],
        "of the correlation": lambda x: collapse.largest_eigenvalue_share(x / x.std(axis=0)),
    },
}
GRID = [(n, d, offset) for n in (3, 9) for d in (3, 8) for offset in (0.0, 2.0)]
ALL_WRONG = [(name, wrong) for name in WRONG for wrong in WRONG[name]]


def check_against_the_oracle(name, function, n, d, offset):
    x = [draw(n, d, seed, offset) for seed in (1, 2)][: 2 if name == "alignment" else 1]
    _, expected = FUNCTIONS[name]
    np.testing.assert_allclose(function(*x), expected(*x), rtol=TOLERANCE)


@pytest.mark.parametrize("n, d, offset", GRID)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_measures_equal_the_papers(name, n, d, offset):
    check_against_the_oracle(name, FUNCTIONS[name][0], n, d, offset)


@pytest.mark.parametrize("n, d, offset", [case for case in GRID if case[2]])
@pytest.mark.parametrize("name, wrong", ALL_WRONG)
def test_wrong_measures_are_rejected(name, wrong, n, d, offset):
    with pytest.raises(AssertionError):
        check_against_the_oracle(name, WRONG[name][wrong], n, d, offset)


@pytest.mark.parametrize("n, d", [(1, 5), (3, 5), (5, 5), (5, 200)])
def test_orthogonal_rows_of_one_length_have_rank_n(n, d):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    assert collapse.effective_rank(7 * rotation[:n]) == pytest.approx(n, rel=1e-5)


def test_rank_of_singular_values_in_a_known_ratio():
    # Shares 1/2, 1/4, 1/4: entropy 1.5 log 2.
    assert collapse.effective_rank(np.diag([2.0, 1.0, 1.0])) == pytest.approx(2**1.5, rel=1e-5)


@pytest.mark.parametrize("n, d", [(200, 64), (64, 2048)])
def test_multiples_of_one_row_have_rank_1(n, d):
    x = np.outer(np.linspace(-3, 5, n), draw(1, d)[0]).astype("float32")
    assert 1 <= collapse.effective_rank(x) < 1.01
    assert collapse.effective_rank(np.ones((n, d))) == pytest.approx(1, abs=0.01)


def test_zero_vectors_have_rank_0():
    assert collapse.effective_rank(np.zeros((4, 3))) == 0


def test_rank_is_that_of_the_larger_directions():
    # Eight strong directions and 56 that are a thousandth of them.
    x = draw(200, 64) @ np.diag([1.0] * 8 + [1e-3] * 56)
    assert 6 < collapse.effective_rank(x) < 9


@pytest.mark.parametrize("angle", [0, 30, 90, 135, 180])
def test_alignment_is_a_function_of_the_angle(angle):
    a = math.radians(angle)
    z1, z2 = [[2.0, 0.0]], [[3 * math.cos(a), 3 * math.sin(a)]]
    assert collapse.alignment(z1, z2) == pytest.approx(2 - 2 * math.cos(a), abs=1e-12)


def test_alignment_with_zero_vectors():
    assert collapse.alignment([[0.0, 0.0], [0.0, 0.0]], [[5.0, 0.0], [0.0, 0.0]]) == 0.5


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_uniformity_reaches_its_lower_end_on_a_simplex(n):
    simplex = np.eye(n) - 1 / n
    lowest = -4 * n / (n - 1)
    assert collapse.uniformity(simplex) == pytest.approx(lowest, abs=1e-9)
    assert collapse.uniformity(draw(n, n)) > lowest


def test_uniformity_of_equal_outputs_is_0_and_of_random_ones_near_minus_4():
    assert collapse.uniformity(np.ones((6, 3)) * [[1], [2], [3], [4], [5], [6]]) == pytest.approx(0)
    random = np.random.default_rng(0).normal(size=(200, 512))
    assert collapse.uniformity(random) == pytest.approx(-4, abs=0.05)


def test_share_of_a_line_of_equal_rows_and_of_all_directions():
    line = np.outer([1.0, 2.0, 7.0, 7.5], [1.0, -2.0, 0.5]) + [5.0, 5.0, 5.0]
    assert collapse.largest_eigenvalue_share(line) == pytest.approx(1)
    assert collapse.largest_eigenvalue_share(np.full((5, 3), 0.1)) == pytest.approx(1)
    corners = np.concatenate([np.eye(4), -np.eye(4)])
    assert collapse.largest_eigenvalue_share(corners) == pytest.approx(1 / 4)


ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
CHANGES = {
    "scale": lambda x: 1000 * x,
    "rotation": lambda x: x @ ROTATION,
    "order": lambda x: x[::-1],
    "offset": lambda x: x + 5,
    "length of a row": lambda x: x * np.linspace(1, 4, len(x))[:, None],
}
INVARIANT = {
    "effective_rank": {"scale", "rotation", "order"},
    "alignment": {"scale", "rotation", "order", "length of a row"},
    "uniformity": {"scale", "rotation", "order", "length of a row"},
    "largest_eigenvalue_share": {"scale", "rotation", "order", "offset"},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_measures_change_with_what_they_measure_only(name, change):
    function = FUNCTIONS[name][0]
    x = [draw(9, 6, seed).astype("float64") for seed in (1, 2)]
    x = x[: 2 if name == "alignment" else 1]
    same = np.isclose(function(*x), function(*map(CHANGES[change], x)), rtol=1e-5)
    assert same == (change in INVARIANT[name])


def test_measures_carry_the_names_that_are_recorded():
    z1, z2, features = draw(9, 6, 1), draw(9, 6, 2), draw(9, 4, 3)
    measured = collapse.measure(features, z1, z2)
    assert list(measured) == list(diagnose.MEASURES)
    assert measured["feature_rank"] == collapse.effective_rank(features)
    assert measured["output_rank"] == collapse.effective_rank(z1)
    assert measured["uniformity"] == collapse.uniformity(z1)
    assert measured["eigenvalue_share"] == collapse.largest_eigenvalue_share(z1)
    assert measured["alpha_req"] == spectrum.alpha_req(features)
    assert measured["lidar"] == spectrum.lidar(np.stack([z1, z2], axis=1))
    assert all(type(value) is float for value in measured.values())


def test_further_views_are_for_lidar_alone():
    features, z1, z2, *more = (draw(9, 6, seed) for seed in range(5))
    two, four = collapse.measure(features, z1, z2), collapse.measure(features, z1, z2, *more)
    assert {name for name in two if two[name] != four[name]} == {"lidar"}
    assert four["lidar"] == spectrum.lidar(np.stack([z1, z2, *more], axis=1))


def test_what_a_collapse_has_no_number_for_is_left_out():
    flat = np.ones((9, 6))
    measured = collapse.measure(flat, flat, flat)
    assert set(diagnose.MEASURES) - set(measured) == {"alpha_req"} and measured["lidar"] == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: collapse.effective_rank(np.ones(3)), "`x` must be a non-empty"),
        (lambda: collapse.effective_rank(np.ones((0, 3))), "`x` must be a non-empty"),
        (lambda: collapse.effective_rank([[1.0, np.nan]]), "`x` must be finite"),
        (lambda: collapse.alignment(np.ones((2, 3)), np.ones((3, 3))), "must have one shape"),
        (lambda: collapse.alignment([[1.0]], [[np.inf]]), "`z2` must be finite"),
        (lambda: collapse.uniformity(np.ones((1, 3))), "`z` must have at least 2 rows"),
        (lambda: collapse.largest_eigenvalue_share(np.ones((1, 3))), "`x` must have at least 2"),
    ],
)
def test_bad_input_is_named(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
