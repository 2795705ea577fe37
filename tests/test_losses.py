import inspect

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import losses
from tests import oracle
from tests.gradients import gradients_of_arrays

# Half the spacing of the dtype at 1, times a few roundings; inputs are rounded before the oracle
# sees them, and the package computes in float32 or wider, so that all three agree this closely.
TOLERANCE = 1e-6


def draw(n, d, dtype="float32", seed=0):
    """`[n, d]` normal values as they are after rounding to `dtype`."""
    x = np.random.default_rng(seed).normal(size=(n, d)).astype("float32")
    return ops.cast(ops.convert_to_tensor(x), dtype)


def numpy(x):
    return ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")


def plain_dot(p, z):
    return -ops.sum(ops.cast(p, "float32") * ops.cast(z, "float32"), axis=-1)


def mean_squared_error(p, z):
    difference = losses.l2_normalize(p) - losses.l2_normalize(z)
    return ops.sum(ops.square(difference), axis=-1)


def missing_minus(p, z):
    return -losses.negative_cosine_similarity(p, z)


def normalized_over_the_batch(p, z):
    return -ops.sum(losses.l2_normalize(p, axis=0) * losses.l2_normalize(z, axis=0), axis=-1)


def only_p_normalized(p, z):
    return -ops.sum(losses.l2_normalize(p) * ops.cast(z, "float32"), axis=-1)


WRONG_DISTANCES = [
    plain_dot,
    mean_squared_error,
    missing_minus,
    normalized_over_the_batch,
    only_p_normalized,
]
GRID = [(n, d, t) for n in (2, 5) for d in (2, 7, 64) for t in ("float32", "bfloat16", "float16")]


def check_against_the_oracle(D, n, d, dtype):
    p, z = draw(n, d, dtype, seed=1), draw(n, d, dtype, seed=2)
    expected = oracle.distance(numpy(p), numpy(z))
    actual = D(p, z)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    np.testing.assert_allclose(numpy(actual), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("n, d, dtype", [(1, 1, "float32"), (1, 64, "float32"), *GRID])
def test_distance_equals_equation_1(n, d, dtype):
    check_against_the_oracle(losses.negative_cosine_similarity, n, d, dtype)


@pytest.mark.parametrize("n, d, dtype", GRID)
@pytest.mark.parametrize("wrong", WRONG_DISTANCES)
def test_wrong_distances_are_rejected(wrong, n, d, dtype):
    with pytest.raises(AssertionError):
        check_against_the_oracle(wrong, n, d, dtype)


def check_invariance_to_scale(D):
    p, z = draw(6, 16, seed=1), draw(6, 16, seed=2)
    for scale in (0.05, 40.0, 1e4):
        np.testing.assert_allclose(numpy(D(scale * p, z)), numpy(D(p, z)), atol=TOLERANCE)
        np.testing.assert_allclose(numpy(D(p, scale * z)), numpy(D(p, z)), atol=TOLERANCE)


def test_distance_ignores_the_scale_of_either_argument():
    check_invariance_to_scale(losses.negative_cosine_similarity)


@pytest.mark.parametrize("wrong", [plain_dot, only_p_normalized])
def test_scale_dependent_distances_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_invariance_to_scale(wrong)


def test_distance_spans_minus_one_to_one():
    p = draw(64, 3, seed=3)
    D = losses.negative_cosine_similarity
    np.testing.assert_allclose(numpy(D(p, 2.0 * p)), -1, atol=TOLERANCE)
    np.testing.assert_allclose(numpy(D(p, -p)), 1, atol=TOLERANCE)
    values = numpy(D(p, draw(64, 3, seed=4)))
    assert values.min() >= -1 - TOLERANCE and values.max() <= 1 + TOLERANCE
    assert values.min() < -0.9 and values.max() > 0.9  # 64 directions in 3-d come near both ends


def test_distance_of_a_large_float16_vector_does_not_overflow():
    p = ops.full((1, 64), 1000.0, dtype="float16")  # the sum of squares is 6.4e7 > 65504
    np.testing.assert_allclose(numpy(losses.negative_cosine_similarity(p, p)), -1, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("zero", ["p", "z", "both"])
def test_zero_vectors_give_zero_and_a_finite_gradient(zero, dtype):
    p, z = (np.array(numpy(draw(3, 4, seed=s)), "float32") for s in (1, 2))
    if zero in ("p", "both"):
        p[1] = 0
    if zero in ("z", "both"):
        z[1] = 0

    def D(p, z):
        return losses.negative_cosine_similarity(ops.cast(p, dtype), ops.cast(z, dtype))

    values = numpy(D(ops.convert_to_tensor(p), ops.convert_to_tensor(z)))
    assert values[1] == 0 and np.isfinite(values).all()
    for gradient in gradients_of_arrays(lambda p, z: ops.sum(D(p, z)), p, z):
        if dtype == "float16":
            # About 1/sqrt(epsilon) = 1e6 here, beyond float16: infinite, which loss scaling skips
            # and recovers from, and never NaN.
            assert not np.isnan(gradient).any() and np.isfinite(gradient[[0, 2]]).all()
        else:
            assert np.isfinite(gradient).all()


def unit_by_norm(x):
    return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))


def test_a_norm_without_epsilon_is_rejected_at_zero():
    p, z = np.zeros((1, 4), "float32"), np.ones((1, 4), "float32")
    for normalize, finite in [(losses.l2_normalize, True), (unit_by_norm, False)]:
        (gradient,) = gradients_of_arrays(
            lambda p, f=normalize: ops.sum(f(p) * ops.convert_to_tensor(z)), p
        )
        assert np.isfinite(gradient).all() == finite


def check_gradient(D):
    p, z = (np.array(numpy(draw(5, 8, seed=s)), "float32") for s in (1, 2))
    dp, dz = gradients_of_arrays(lambda p, z: ops.sum(D(p, z)), p, z)
    np.testing.assert_allclose(dp, oracle.distance_gradient(p, z), atol=TOLERANCE)
    np.testing.assert_allclose(dz, oracle.distance_gradient(z, p), atol=TOLERANCE)


def test_gradient_equals_its_closed_form():
    check_gradient(losses.negative_cosine_similarity)


def norm_held_constant(p, z):
    def unit(x):
        return x / ops.stop_gradient(ops.norm(x, axis=-1, keepdims=True))

    return -ops.sum(unit(p) * unit(z), axis=-1)


def target_held_constant(p, z):
    return losses.negative_cosine_similarity(p, ops.stop_gradient(z))


@pytest.mark.parametrize("wrong", [*WRONG_DISTANCES, norm_held_constant, target_held_constant])
def test_wrong_gradients_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_gradient(wrong)


def test_the_closed_form_equals_finite_differences():
    p, z = numpy(draw(3, 5, seed=1)), numpy(draw(3, 5, seed=2))
    step, numeric = 1e-5, np.empty_like(p)
    for i, j in np.ndindex(p.shape):
        e = np.zeros_like(p)
        e[i, j] = step
        numeric[i, j] = sum(oracle.distance(p + e, z) - oracle.distance(p - e, z)) / (2 * step)
    # Central differences in float64: step^2 from the cut, 1e-16 / step from the rounding.
    np.testing.assert_allclose(oracle.distance_gradient(p, z), numeric, atol=1e-9)


def check_loss_class(loss):
    p, z = draw(7, 9, seed=1), draw(7, 9, seed=2)
    expected = oracle.distance(numpy(p), numpy(z)).mean()
    np.testing.assert_allclose(float(loss(z, p)), expected, atol=TOLERANCE)
    z_constant = np.array(numpy(z), "float32")
    (dp,) = gradients_of_arrays(lambda p: loss(z_constant, p), np.array(numpy(p), "float32"))
    np.testing.assert_allclose(dp, oracle.distance_gradient(numpy(p), numpy(z)) / 7, atol=TOLERANCE)


def test_loss_class_is_the_mean():
    check_loss_class(losses.NegativeCosineSimilarity())


def test_loss_class_with_another_reduction_is_rejected():
    with pytest.raises(AssertionError):
        check_loss_class(losses.NegativeCosineSimilarity(reduction="sum"))


def test_loss_class_computes_half_precision_outputs_in_float32():
    p, z = draw(7, 9, "float16", seed=1), draw(7, 9, "float16", seed=2)
    expected = oracle.distance(numpy(p), numpy(z)).mean()
    np.testing.assert_allclose(
        float(losses.NegativeCosineSimilarity()(z, p)), expected, atol=TOLERANCE
    )


def test_loss_config_round_trip():
    cls = losses.NegativeCosineSimilarity
    loss = cls(reduction="sum", name="D")
    config = loss.get_config()
    assert set(inspect.signature(cls).parameters) - {"dtype"} <= set(config)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is cls
    assert restored.get_config() == config
    p, z = draw(7, 9, seed=1), draw(7, 9, seed=2)
    assert float(restored(z, p)) == float(loss(z, p))


# Cross-entropy similarity
