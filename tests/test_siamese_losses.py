"""The supervised siamese losses, by themselves and over a labelled batch."""

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import losses, mining
from tests import oracle
from tests.gradients import gradients_of_arrays
from tests.test_losses import TOLERANCE, draw, numpy

HALF = ("float32", "bfloat16", "float16")


def rows(values):
    """A `[n]` tensor of float32 values."""
    return ops.convert_to_tensor(np.array(values, "float32"))


# Pairs and triplets by themselves: hinges that are open and closed, on either side of 1, where a
# square and its root exchange their order.
D_PAIRS = [0.0, 0.1, 0.4, 0.9, 1.0, 1.3, 1.9, 0.1, 0.4, 0.9, 1.3, 1.9]
SAME = [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
D_AP = [0.1, 0.9, 0.5, 1.2, 0.3, 1.9, 0.0, 0.7]
D_AN = [0.9, 0.1, 0.6, 1.3, 1.9, 0.3, 0.0, 0.7]

WRONG_CONTRASTIVES = {
    "Y the other way round": lambda D, Y, m: losses.contrastive(D, 1 - Y, m),
    "no margin": lambda D, Y, m: losses.contrastive(D, Y, 1e-6),
    "margin of the square": lambda D, Y, m: ops.where(Y == 1, D**2, ops.maximum(m - D**2, 0.0)),
    "roots": lambda D, Y, m: ops.sqrt(losses.contrastive(D, Y, m)),
    "half": lambda D, Y, m: losses.contrastive(D, Y, m) / 2,
    "no hinge": lambda D, Y, m: ops.where(Y == 1, D**2, (m - D) ** 2),
    "pairs of a class only": lambda D, Y, m: ops.where(Y == 1, D**2, 0.0),
    "other pairs only": lambda D, Y, m: ops.where(Y == 1, 0.0, ops.maximum(m - D, 0.0) ** 2),
}
WRONG_TRIPLETS = {
    "the seed's printed sign": lambda p, n, m: losses.triplet(n, p, m),
    "no margin": lambda p, n, m: ops.maximum(p - n, 0.0),
    "minus margin": lambda p, n, m: ops.maximum(p - n - m, 0.0),
    "squares": lambda p, n, m: ops.maximum(p**2 - n**2 + m, 0.0),
    "no hinge": lambda p, n, m: p - n + m,
    "absolute": lambda p, n, m: ops.abs(p - n + m),
}


def check_contrastive(f, margin):
    D, Y = rows(D_PAIRS), ops.convert_to_tensor(np.array(SAME, "int32"))
    expected = [oracle.contrastive(d, y, margin) for d, y in zip(D_PAIRS, SAME, strict=True)]
    np.testing.assert_allclose(numpy(f(D, Y, margin)), expected, atol=TOLERANCE)


def check_triplet(f, margin):
    expected = [oracle.triplet(p, n, margin) for p, n in zip(D_AP, D_AN, strict=True)]
    assert min(expected) == 0 < max(expected)
    np.testing.assert_allclose(numpy(f(rows(D_AP), rows(D_AN), margin)), expected, atol=TOLERANCE)


@pytest.mark.parametrize("margin", [0.2, 1.0, 1.5])
def test_contrastive_and_triplet_equal_their_definitions(margin):
    check_contrastive(losses.contrastive, margin)
    check_triplet(losses.triplet, margin)


@pytest.mark.parametrize("margin", [0.2, 1.0, 1.5])
@pytest.mark.parametrize("name", WRONG_CONTRASTIVES)
def test_wrong_contrastives_are_rejected(name, margin):
    with pytest.raises(AssertionError):
        check_contrastive(WRONG_CONTRASTIVES[name], margin)


@pytest.mark.parametrize("margin", [0.2, 1.0, 1.5])
@pytest.mark.parametrize("name", WRONG_TRIPLETS)
def test_wrong_triplets_are_rejected(name, margin):
    with pytest.raises(AssertionError):
        check_triplet(WRONG_TRIPLETS[name], margin)


def test_the_default_margins_are_those_of_the_docstrings():
    check_contrastive(lambda D, Y, m: losses.contrastive(D, Y), 1.0)
    check_triplet(lambda p, n, m: losses.triplet(p, n), 0.2)


def test_same_may_be_boolean_and_distances_of_half_precision():
    D, Y = np.array(D_PAIRS, "float16"), np.array(SAME, "bool")
    actual = losses.contrastive(ops.convert_to_tensor(D), ops.convert_to_tensor(Y))
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    expected = [oracle.contrastive(float(d), int(y), 1.0) for d, y in zip(D, Y, strict=True)]
    np.testing.assert_allclose(numpy(actual), expected, atol=TOLERANCE)
    p, n = (np.array(d, "float16") for d in (D_AP, D_AN))
    actual = losses.triplet(ops.convert_to_tensor(p), ops.convert_to_tensor(n))
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    expected = [oracle.triplet(float(a), float(b), 0.2) for a, b in zip(p, n, strict=True)]
    np.testing.assert_allclose(numpy(actual), expected, atol=TOLERANCE)


def test_gradients_pull_the_positive_and_push_the_negative():
    p, n = (np.array(d, "float32") for d in (D_AP, D_AN))
    open_hinge = np.array(D_AP) - D_AN + 0.25 > 0
    dp, dn = gradients_of_arrays(lambda p, n: ops.sum(losses.triplet(p, n, 0.25)), p, n)
    np.testing.assert_array_equal(dp, open_hinge)
    np.testing.assert_array_equal(dn, -1.0 * open_hinge)
    D, Y = np.array(D_PAIRS, "float32"), np.array(SAME)
    (dD,) = gradients_of_arrays(  # noqa: N806 - the paper's name
        lambda D: ops.sum(losses.contrastive(D, ops.convert_to_tensor(Y), 1.1)), D
    )
    expected = np.where(Y == 1, 2 * D, -2 * np.maximum(1.1 - D, 0))
    np.testing.assert_allclose(dD, expected, atol=TOLERANCE)


# Distances


def by_cosines(z):
    cosine = ops.matmul(losses.l2_normalize(z), ops.transpose(losses.l2_normalize(z)))
    return ops.sqrt(ops.maximum(2 - 2 * cosine, 0.0) + losses.EPSILON)


def without_epsilon(z):
    z = losses.l2_normalize(z)
    return ops.sqrt(ops.sum(ops.square(z[:, None] - z[None]), axis=-1))


def of_raw_outputs(z):
    z = losses.at_least_float32(z)
    return ops.sqrt(ops.sum(ops.square(z[:, None] - z[None]), axis=-1) + losses.EPSILON)


def check_distances(f, n, d, dtype="float32"):
    z = draw(n, d, dtype, seed=3)
    D = f(z)
    assert keras.backend.standardize_dtype(D.dtype) == "float32"
    z = numpy(z)
    expected = [[oracle.euclidean(a, b) for b in z] for a in z]
    # 1e-6 on the diagonal, from the epsilon.
    np.testing.assert_allclose(numpy(D), expected, atol=2 * TOLERANCE, rtol=0)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("n, d", [(1, 3), (2, 1), (6, 2), (7, 64)])
def test_distances_are_those_of_unit_vectors(n, d, dtype):
    check_distances(mining.pairwise_distances, n, d, dtype)


@pytest.mark.parametrize("n, d", [(6, 2), (7, 64)])
@pytest.mark.parametrize(
    "wrong",
    [by_cosines, of_raw_outputs, lambda z: ops.square(mining.pairwise_distances(z))],
    ids=["by cosines", "raw", "squares"],
)
def test_wrong_distances_are_rejected(wrong, n, d):
    with pytest.raises(AssertionError):
        check_distances(wrong, n, d)


def test_explicit_rows_make_explicit_triplets():
    a, p, n = (draw(6, 5, seed=s) for s in (1, 2, 3))
    values = losses.triplet(losses.distances(a, p), losses.distances(a, n), 0.5)
    expected = [
        oracle.triplet(oracle.euclidean(x, y), oracle.euclidean(x, z), 0.5)
        for x, y, z in zip(*map(numpy, (a, p, n)), strict=True)
    ]
    assert min(expected) == 0 < max(expected)
    np.testing.assert_allclose(numpy(values), expected, atol=2 * TOLERANCE)


def check_gradient_near_zero(f):
    """A distance changes by no more than the outputs do: its gradient is at most about 1."""
    z = np.array(numpy(draw(20, 16, seed=5)), "float32")
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    z[:10] = z[10:] + 1e-4 * numpy(draw(10, 16, seed=6))  # 4e-4 away
    z[0], z[1], z[2] = z[10], 2 * z[11], 0  # equal, parallel, zero
    (gradient,) = gradients_of_arrays(lambda z: ops.sum(f(z)), z)
    assert np.isfinite(gradient).all()
    for i in (0, 1, *range(3, 10)):
        (gradient,) = gradients_of_arrays(lambda z, i=i: f(z)[i, i + 10], z)
        assert np.isfinite(gradient).all()
        assert np.linalg.norm(gradient, axis=1).max() < 1.1


def test_gradients_of_equal_and_nearly_equal_rows_are_finite_and_bounded():
    check_gradient_near_zero(mining.pairwise_distances)


@pytest.mark.parametrize("wrong", [without_epsilon, by_cosines])
def test_distances_with_other_gradients_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_gradient_near_zero(wrong)
