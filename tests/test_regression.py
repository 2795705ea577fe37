"""BYOL's regression."""

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import losses
from tests import golden, oracle
from tests.gradients import gradients_of_arrays
from tests.test_losses import TOLERANCE, draw, numpy
from tests.tiny import mean_of


def plain_squares(p, z):
    return ops.sum(ops.square(losses.at_least_float32(p) - losses.at_least_float32(z)), axis=-1)


WRONG_REGRESSIONS = {
    "unnormalized": plain_squares,
    "cosine": losses.negative_cosine_similarity,
    "half": lambda p, z: losses.regression(p, z) / 2,
    "root": lambda p, z: ops.sqrt(losses.regression(p, z)),
    "mean": lambda p, z: losses.regression(p, z) / p.shape[-1],
    "plus": lambda p, z: losses.regression(p, -z),
}


def check_regression(f, n, d, dtype):
    p, z = draw(n, d, dtype, seed=1), draw(n, d, dtype, seed=2)
    actual = f(p, z)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    expected = oracle.regression(numpy(p), numpy(z))
    np.testing.assert_allclose(numpy(actual), expected, atol=2 * TOLERANCE, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("n, d", [(1, 2), (2, 7), (5, 64)])
def test_regression_equals_equation_2(n, d, dtype):
    check_regression(losses.regression, n, d, dtype)


@pytest.mark.parametrize("n, d", [(2, 7), (5, 64)])
@pytest.mark.parametrize("name", WRONG_REGRESSIONS)
def test_wrong_regressions_are_rejected(name, n, d):
    with pytest.raises(AssertionError):
        check_regression(WRONG_REGRESSIONS[name], n, d, "float32")


def test_regression_spans_0_to_4_and_is_2_plus_twice_the_distance():
    p, z = draw(64, 3, seed=3), draw(64, 3, seed=4)
    assert (numpy(losses.regression(p, 2.0 * p)) < TOLERANCE).all()
    np.testing.assert_allclose(numpy(losses.regression(p, -p)), 4, atol=2 * TOLERANCE)
    D = numpy(losses.negative_cosine_similarity(p, z))
    np.testing.assert_allclose(numpy(losses.regression(p, z)), 2 + 2 * D, atol=2 * TOLERANCE)
    assert (numpy(losses.regression(p, z + p)) >= 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_regression_at_zero_vectors_is_finite(dtype):
    p, z = (np.array(numpy(draw(3, 4, seed=s)), "float32") for s in (1, 2))
    p[0] = p[1] = z[1] = 0

    def f(p, z):
        return losses.regression(ops.cast(p, dtype), ops.cast(z, dtype))

    values = numpy(f(ops.convert_to_tensor(p), ops.convert_to_tensor(z)))
    np.testing.assert_allclose(values[:2], [1, 0], atol=TOLERANCE)
    for gradient in gradients_of_arrays(lambda p, z: ops.sum(f(p, z)), p, z):
        if dtype == "float16":  # about 1e6 at a zero vector: infinite, and never NaN
            assert not np.isnan(gradient).any() and np.isfinite(gradient[2]).all()
        else:
            assert np.isfinite(gradient).all()


def check_regression_class(loss):
    p, z = (np.array(numpy(draw(6, 8, seed=s)), "float32") for s in (1, 2))
    expected = oracle.regression(p, z).mean()
    np.testing.assert_allclose(float(loss(z, p)), expected, atol=2 * TOLERANCE)
    (dp,) = gradients_of_arrays(lambda p: loss(z, p), p)
    # 2 - 2 cos: twice that of the negative cosine.
    np.testing.assert_allclose(dp, 2 * oracle.distance_gradient(p, z) / 6, atol=TOLERANCE)


def test_regression_class_is_the_mean():
    check_regression_class(mean_of(losses.regression))


@pytest.mark.parametrize(
    "wrong",
    [
        mean_of(losses.regression, reduction="sum"),
        mean_of(losses.negative_cosine_similarity),
    ],
)
def test_other_regression_classes_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_regression_class(wrong)


def test_regression_equals_torchs_mean_squared_error():
    inputs, values = golden.load("losses")
    p, z = (ops.convert_to_tensor(inputs[k].astype("float32")) for k in ("z1", "z2"))
    actual = numpy(losses.regression(p, z))
    np.testing.assert_allclose(actual, values["regression"], atol=2 * TOLERANCE)
