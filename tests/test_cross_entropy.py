"""SimSiam's other similarity, and the spread of the outputs."""

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import losses
from simsiam_keras.methods.base import output_std
from tests import oracle
from tests.gradients import gradients_of_arrays
from tests.test_losses import GRID, TOLERANCE, draw, numpy
from tests.tiny import mean_of


def probabilities_swapped(p, z):
    return losses.cross_entropy_similarity(z, p)


def plus_sign(p, z):
    return -losses.cross_entropy_similarity(p, z)


def softmax_over_the_batch(p, z):
    return -ops.sum(ops.softmax(z, axis=0) * ops.log_softmax(p, axis=0), axis=-1)


def mean_over_channels(p, z):
    return losses.cross_entropy_similarity(p, z) / p.shape[-1]


def kullback_leibler(p, z):
    return losses.cross_entropy_similarity(p, z) - losses.cross_entropy_similarity(z, z)


def of_unit_vectors(p, z):
    return losses.cross_entropy_similarity(losses.l2_normalize(p), losses.l2_normalize(z))


def check_cross_entropy(D, n, d, dtype):
    p, z = draw(n, d, dtype, seed=1), draw(n, d, dtype, seed=2)
    actual = D(p, z)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    # A float32 logarithm of about log(64), rounded.
    expected = oracle.cross_entropy(numpy(p), numpy(z))
    np.testing.assert_allclose(numpy(actual), expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("n, d, dtype", [(1, 1, "float32"), (1, 64, "float32"), *GRID])
def test_cross_entropy_equals_section_4_5(n, d, dtype):
    check_cross_entropy(losses.cross_entropy_similarity, n, d, dtype)


@pytest.mark.parametrize("n, d", [(2, 2), (5, 7), (5, 64)])
@pytest.mark.parametrize(
    "wrong",
    [
        probabilities_swapped,
        plus_sign,
        softmax_over_the_batch,
        mean_over_channels,
        kullback_leibler,
        of_unit_vectors,
    ],
)
def test_wrong_cross_entropies_are_rejected(wrong, n, d):
    with pytest.raises(AssertionError):
        check_cross_entropy(wrong, n, d, "float32")


def check_cross_entropy_gradient(loss):
    p, z = (np.array(numpy(draw(6, 8, seed=s)), "float32") for s in (1, 2))
    (dp,) = gradients_of_arrays(lambda p: loss(z, p), p)
    np.testing.assert_allclose(dp, oracle.cross_entropy_gradient(p, z) / 6, atol=TOLERANCE)


def test_gradient_of_the_cross_entropy_is_the_difference_of_probabilities():
    check_cross_entropy_gradient(mean_of(losses.cross_entropy_similarity))


@pytest.mark.parametrize(
    "wrong",
    [
        mean_of(losses.cross_entropy_similarity, reduction="sum"),
        mean_of(losses.negative_cosine_similarity),
    ],
)
def test_other_gradients_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_cross_entropy_gradient(wrong)


def test_cross_entropy_has_its_closed_forms():
    D, z = losses.cross_entropy_similarity, draw(5, 8, seed=2)
    q = np.array([oracle.softmax(row) for row in numpy(z)])
    entropy = -(q * np.log(q)).sum(1)
    np.testing.assert_allclose(numpy(D(z + 3.0, z)), entropy, atol=2e-6)  # the least over p
    assert (numpy(D(draw(5, 8, seed=3), z)) > entropy).all()
    np.testing.assert_allclose(numpy(D(ops.zeros((5, 8)), z)), np.log(8), atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_cross_entropy_of_far_apart_logits_is_finite(dtype):
    # Above 88, exp overflows float32; above 11, float16; log(exp(-1000)) is minus infinity.
    p = np.array([[1000.0, 0, 0, 0], [0, 0, 0, 0]], "float32")
    z = np.array([[0, 1000.0, 0, 0], [0, 0, 1000.0, 0]], "float32")

    def D(p, z):
        return losses.cross_entropy_similarity(ops.cast(p, dtype), ops.cast(z, dtype))

    values = numpy(D(ops.convert_to_tensor(p), ops.convert_to_tensor(z)))
    np.testing.assert_allclose(values, [1000, np.log(4)], atol=TOLERANCE)
    for gradient in gradients_of_arrays(lambda p, z: ops.sum(D(p, z)), p, z):
        assert np.isfinite(gradient).all()


def test_l2_normalize_gives_unit_vectors_along_the_axis():
    x = draw(4, 6, seed=5)
    rows, columns = numpy(losses.l2_normalize(x)), numpy(losses.l2_normalize(x, axis=0))
    np.testing.assert_allclose((rows**2).sum(1), 1, atol=TOLERANCE)
    np.testing.assert_allclose((columns**2).sum(0), 1, atol=TOLERANCE)
    np.testing.assert_allclose(rows, [oracle.unit(v) for v in numpy(x)], atol=TOLERANCE)


def check_output_std(std):
    for n, d in [(2, 3), (5, 8), (32, 16)]:
        z = draw(n, d, seed=n) + 0.5
        np.testing.assert_allclose(float(std(z)), oracle.output_std(numpy(z)), atol=1e-5)


def unnormalized_std(z):
    return np.sqrt(z.shape[-1]) * ops.mean(ops.std(z, axis=0))


def std_over_channels(z):
    return np.sqrt(z.shape[-1]) * ops.mean(ops.std(losses.l2_normalize(z), axis=1))


def std_without_the_root_of_d(z):
    return ops.mean(ops.std(losses.l2_normalize(z), axis=0))


def std_of_everything(z):
    return np.sqrt(z.shape[-1]) * ops.std(losses.l2_normalize(z))


def unbiased_std(z):
    return output_std(z) * np.sqrt(z.shape[0] / (z.shape[0] - 1))


def test_output_std_equals_section_4_1():
    check_output_std(output_std)


@pytest.mark.parametrize(
    "wrong",
    [
        unnormalized_std,
        std_over_channels,
        std_without_the_root_of_d,
        std_of_everything,
        unbiased_std,
    ],
)
def test_wrong_output_stds_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_output_std(wrong)


def test_output_std_is_zero_for_a_constant_and_for_one_sample():
    v = np.random.default_rng(0).normal(size=(1, 16)).astype("float32")
    scales = np.random.default_rng(1).uniform(0.5, 2, size=(50, 1)).astype("float32")
    # The same direction at any length: what is left is float32's rounding of unit vectors.
    assert float(output_std(ops.convert_to_tensor(scales * v))) < TOLERANCE
    assert float(output_std(ops.convert_to_tensor(v))) == 0
    assert float(output_std(ops.zeros((4, 16)))) == 0


@pytest.mark.parametrize("d", [8, 64, 512])
def test_output_std_of_uniform_directions_is_one(d):
    # n = 4096: a channel's deviation has a relative error of 1/sqrt(2n) = .011 and is biased by
    # -1/(4n); over d channels the mean's error is .011/sqrt(d) < .004, here with three of them.
    n = 4096
    tolerance = 3 / np.sqrt(2 * n * d) + 1 / n
    assert abs(float(output_std(draw(n, d, seed=d))) - 1) < tolerance


def test_output_std_of_two_opposite_clusters_has_its_closed_form():
    # Half the outputs at e_1, half at -e_1: channel 1 deviates by 1, the others by 0.
    z = np.zeros((10, 4), "float32")
    z[:5, 0], z[5:, 0] = 3, -0.2
    np.testing.assert_allclose(float(output_std(ops.convert_to_tensor(z))), 0.5, atol=TOLERANCE)


def test_output_std_ignores_scale():
    z = draw(32, 16, seed=1)
    scales = np.random.default_rng(1).uniform(0.1, 50, size=(32, 1)).astype("float32")
    np.testing.assert_allclose(
        float(output_std(ops.multiply(scales, z))), float(output_std(z)), atol=1e-5
    )
