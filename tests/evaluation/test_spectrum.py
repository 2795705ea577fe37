"""alpha-ReQ and LiDAR against their definitions, in loops and in closed form."""

import math

import numpy as np
import pytest

from simsiam_keras.evaluation import collapse, spectrum
from simsiam_keras.evaluation.spectrum import DELTA, alpha_req, lidar

TOLERANCE = 1e-7


def draw(n, d, seed=0, decay=0.5):
    """Features whose directions differ in spread, turned so that no axis is one of them."""
    random = np.random.default_rng(seed)
    turned = np.linalg.qr(random.normal(size=(d, d)))[0]
    return (random.normal(size=(n, d)) * np.arange(1, d + 1) ** -decay) @ turned + 3


def embeddings(n, q, d, seed=0, within=0.3):
    """Views that differ most where images differ least."""
    random = np.random.default_rng(seed)
    turned = np.linalg.qr(random.normal(size=(d, d)))[0]
    images = random.normal(size=(n, 1, d)) * np.linspace(2, 0.2, d)
    views = random.normal(size=(n, q, d)) * np.linspace(0.2, 1, d) * within
    return (images + views) @ turned + 1


def covariance(x):
    """`(1/n) sum_i (x_i - mean) (x_i - mean)^T`, by loops."""
    x = np.asarray(x, "float64")
    mean = sum(x) / len(x)
    total = np.zeros([x.shape[1]] * 2)
    for row in x:
        total += np.outer(row - mean, row - mean)
    return total / len(x)


def power_law(x, first=None, last=100, weight=lambda k: 1 / k, of=lambda x: x):
    """The exponent by the normal equations of a line, one eigenvalue after the other."""
    x = np.asarray(x, "float64")
    eigenvalues = sorted(np.linalg.eigvalsh(covariance(x)), reverse=True)
    last = min(last, len(x) - 1, x.shape[1])
    first = last // 10 + 1 if first is None else first
    s = sx = sy = sxx = sxy = 0.0
    for k in range(first, last + 1):
        u, v, w = math.log(k), math.log(of(eigenvalues[k - 1])), weight(k)
        s, sx, sy, sxx, sxy = s + w, sx + w * u, sy + w * v, sxx + w * u * u, sxy + w * u * v
    return -(s * sxy - sx * sy) / (s * sxx - sx * sx)


WRONG_ALPHA = {
    "with the first tenth": lambda x: power_law(x, first=1),
    "without weights": lambda x: power_law(x, weight=lambda k: 1.0),
    "of singular values": lambda x: power_law(x, of=math.sqrt),
    "of the second moment": lambda x: power_law(np.concatenate([x, -x])),
    "to the end": lambda x: power_law(x, last=10**9),
    "a rate per index": lambda x: np.polyfit(
        np.arange(11, 101), np.log(np.linalg.eigvalsh(covariance(x))[::-1][10:100]), 1
    )[0],
}


def check_alpha(function, n, d, decay):
    x = draw(n, d, decay=decay)
    np.testing.assert_allclose(function(x), power_law(x), rtol=TOLERANCE)


@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("n, d", [(300, 150), (150, 300), (40, 9), (7, 30)])
def test_alpha_is_the_slope_of_the_loops(n, d, decay):
    check_alpha(alpha_req, n, d, decay)


@pytest.mark.parametrize("name", WRONG_ALPHA)
def test_wrong_alphas_are_rejected(name):
    with pytest.raises(AssertionError):
        check_alpha(WRONG_ALPHA[name], 300, 150, 0.5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
def test_alpha_of_an_exact_power_law(alpha):
    axes = np.concatenate([np.eye(120), -np.eye(120)])
    assert alpha_req(axes * np.arange(1, 121) ** (-alpha / 2)) == pytest.approx(alpha, abs=1e-9)


def test_alpha_leaves_zeros_and_rounding_out():
    x = draw(300, 150)
    padded = np.concatenate([x, np.zeros([300, 40])], axis=1)  # channels that are never active
    assert alpha_req(padded.astype("float32")) == pytest.approx(alpha_req(x), rel=1e-4)
    few = np.concatenate([draw(60, 20), np.zeros([60, 80])], axis=1)
    assert alpha_req(few) == pytest.approx(power_law(draw(60, 20), first=6), rel=1e-6)


@pytest.mark.parametrize("x", [np.ones([9, 4]), np.outer(np.arange(9.0), np.ones(4)), draw(9, 1)])
def test_alpha_of_a_point_or_a_line_does_not_exist(x):
    assert math.isnan(alpha_req(x))


def lidar_by_loops(e, delta=DELTA, epsilon=1e-7):
    """`Sigma_w^-1/2 Sigma_b Sigma_w^-1/2`, its eigenvalues, their entropy. arXiv 2312.04000."""
    n, q, d = np.shape(e)
    means = [sum(e[i][j] for j in range(q)) / q for i in range(n)]
    grand = sum(means) / n
    between, within = np.zeros((d, d)), delta * np.eye(d)
    for i in range(n):
        between += np.outer(means[i] - grand, means[i] - grand) / n
        for j in range(q):
            within += np.outer(e[i][j] - means[i], e[i][j] - means[i]) / (n * q)
    values, vectors = np.linalg.eigh(within)
    root = sum(np.outer(v, v) / math.sqrt(a) for a, v in zip(values, vectors.T, strict=True))
    eigenvalues = [max(0.0, a) for a in np.linalg.eigvalsh(root @ between @ root)]
    entropy = 0.0
    for a in eigenvalues:
        p = a / sum(eigenvalues) + epsilon
        entropy -= p * math.log(p)
    return math.exp(entropy)


def not_whitened(e):
    return collapse.effective_rank(np.linalg.cholesky(covariance(e.mean(axis=1))))


WRONG_LIDAR = {
    "the rank of the means": not_whitened,
    "without delta": lambda e: lidar_by_loops(e, delta=0),
    "a hundred times delta": lambda e: lidar_by_loops(e, delta=100 * DELTA),
    "within and between exchanged": lambda e: lidar_by_loops(np.swapaxes(e, 0, 1)),
    "of the first view": lambda e: lidar_by_loops(np.stack([e[:, 0], e[:, 1]], axis=1)),
    "RankMe of all views": lambda e: collapse.effective_rank(e.reshape(-1, e.shape[-1])),
    "without epsilon": lambda e: lidar_by_loops(e, epsilon=1e-300),
    "the entropy": lambda e: math.log(lidar_by_loops(e)),
}


def check_lidar(function, n, q, d, seed=0):
    e = embeddings(n, q, d, seed)
    np.testing.assert_allclose(function(e), lidar_by_loops(e), rtol=TOLERANCE)


@pytest.mark.parametrize("n, q, d", [(20, 4, 6), (6, 3, 10), (5, 2, 12), (2, 2, 3), (30, 2, 1)])
def test_lidar_is_that_of_the_loops(n, q, d):
    check_lidar(lidar, n, q, d)


@pytest.mark.parametrize("name", WRONG_LIDAR)
def test_wrong_lidars_are_rejected(name):
    with pytest.raises(AssertionError):
        check_lidar(WRONG_LIDAR[name], 20, 4, 6)


def test_lidar_counts_what_images_differ_in_and_views_do_not():
    # Six axes; along three of them views differ as much as images do.
    axes = np.concatenate([np.eye(6), -np.eye(6)])[:, None]
    shift = np.diag([0, 0, 0, 1.0, 1.0, 1.0])
    e = np.concatenate([axes + s * shift[k] for k in (3, 4, 5) for s in (-1, 1)], axis=1)
    # Between, 1/6 of each axis; within, delta of three axes and 1/3 + delta of the others.
    shares = np.array([1 / DELTA] * 3 + [1 / (1 / 3 + DELTA)] * 3)
    shares /= shares.sum()
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert lidar(e) == pytest.approx(expected, rel=1e-4) and expected == pytest.approx(3, abs=0.02)
    assert collapse.effective_rank(e.mean(axis=1)) == pytest.approx(6, rel=1e-4)


@pytest.mark.parametrize("d", [2, 5])
def test_lidar_of_alike_directions_is_their_number(d):
    means = np.concatenate([np.eye(d), -np.eye(d)])[:, None]
    assert lidar(np.concatenate([means, means], axis=1)) == pytest.approx(d, rel=1e-4)


def test_lidar_of_a_collapse():
    assert lidar(np.ones([6, 3, 4])) == 0
    line = np.arange(8.0)[:, None, None] * np.ones([8, 2, 5])
    assert lidar(line) == pytest.approx(1, abs=1e-4)


def test_with_more_directions_than_differences_it_is_the_sample_that_is_counted():
    """Why `n (q - 1)` is to be at least d: here one direction tells the images apart."""
    one = np.random.default_rng(0).normal(size=(50, 1, 1)) * np.eye(200)[0]

    def rank(q):
        return lidar(one + 0.1 * np.random.default_rng(1).normal(size=(50, q, 200)))

    assert rank(2) > 10 and rank(8) < 5 and rank(40) < 2


ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
CHANGES = {
    "scale": lambda x: 1000 * x,
    "rotation": lambda x: x @ ROTATION,
    "order": lambda x: x[::-1],
    "offset": lambda x: x + 5,
    "one axis": lambda x: x * np.array([5, 1, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_them_and_what_does_not(change):
    x, e = draw(30, 6), embeddings(20, 4, 6)
    other = CHANGES[change]
    assert np.isclose(alpha_req(other(x)), alpha_req(x), rtol=1e-6) == (change != "one axis")
    same = np.isclose(lidar(other(e)), lidar(e), rtol=1e-6)
    assert same == (change in ("rotation", "order", "offset"))
    # Where delta is small against the differences of views, whitening undoes any linear change.
    tiny = [lidar(x, delta=1e-12) for x in (e, other(e))]
    assert np.isclose(*tiny, rtol=1e-6)
    assert lidar(e[:, ::-1]) == pytest.approx(lidar(e), rel=1e-9)


def test_more_views_come_nearer_to_the_truth():
    truth = lidar(embeddings(400, 200, 8, seed=5))
    few, many = (abs(lidar(embeddings(400, q, 8, seed=5)) - truth) for q in (2, 20))
    assert many < few


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: alpha_req(np.ones(3)), "`features` must be a non-empty"),
        (lambda: alpha_req([[1.0, np.nan]]), "`features` must be finite"),
        (lambda: alpha_req(np.ones((1, 3))), "`features` must have at least 2 rows"),
        (lambda: lidar(np.ones((4, 3))), r"`embeddings` must be \[n, q, d\]"),
        (lambda: lidar(np.ones((4, 1, 3))), "at least 2 images and 2 views"),
        (lambda: lidar(np.ones((1, 4, 3))), "at least 2 images and 2 views"),
        (lambda: lidar(np.full((4, 2, 3), np.inf)), "`embeddings` must be finite"),
        (lambda: lidar(np.ones((4, 2, 3)), delta=0), "`delta` must be > 0"),
    ],
)
def test_bad_input_is_named(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_constants_are_the_papers():
    assert (spectrum.DELTA, spectrum.EPSILON, spectrum.LAST) == (1e-4, 1e-7, 100)
