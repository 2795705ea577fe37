"""The losses of SimCLR and BYOL, and the mean over the global batch."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import losses
from tests import golden, oracle
from tests.compiled import compiled, of_unknown_size
from tests.gradients import gradients_of_arrays
from tests.test_losses import TOLERANCE, draw, numpy

GRID = [
    (n, d, temperature, dtype)
    for n in (2, 5)
    for d in (3, 32)
    for temperature in (0.1, 0.5, 2.0)
    for dtype in ("float32", "bfloat16", "float16")
]


def views(n, d, dtype="float32"):
    """Two views that agree in part, as a network's do."""
    z = draw(n, d, dtype, seed=1)
    return z, z + draw(n, d, dtype, seed=2)


def logits(z, others, temperature, normalize=losses.l2_normalize):
    """`[2n, 2n]` similarities of all outputs, and the `[2n]` ones with the other view."""
    a = ops.concatenate([normalize(x) for x in (z, others)])
    s = ops.matmul(a, ops.transpose(a)) / temperature
    n = z.shape[0]
    return s, ops.concatenate([ops.diagonal(s, n), ops.diagonal(s, -n)])


def of_both_views(anchors):
    return ops.mean(ops.reshape(anchors, (2, -1)), axis=0)


def without(s, *offsets):
    """Sum of exp(s) over each row without the diagonals at these offsets."""
    keep = np.ones(s.shape, "float32")
    for k in offsets:
        keep -= np.eye(s.shape[0], k=k, dtype="float32")
    return ops.sum(ops.exp(s) * ops.convert_to_tensor(keep), axis=1)


def itself_in_the_denominator(z, others, temperature):
    s, positive = logits(z, others, temperature)
    return of_both_views(ops.log(without(s)) - positive)


def positive_not_in_the_denominator(z, others, temperature):
    s, positive = logits(z, others, temperature)
    n = z.shape[0]
    return of_both_views(ops.log(without(s, 0, n, -n)) - positive)


def anchors_of_one_view(z, others, temperature):
    s, positive = logits(z, others, temperature)
    return (ops.log(without(s, 0)) - positive)[: z.shape[0]]


def without_temperature(z, others, temperature):
    return losses.nt_xent(z, others, 1.0)


def times_temperature(z, others, temperature):
    return losses.nt_xent(z, others, 1 / temperature)


def unnormalized(z, others, temperature):
    s, positive = logits(z, others, temperature, normalize=losses.at_least_float32)
    return of_both_views(ops.log(without(s, 0)) - positive)


def negatives_of_the_other_view_only(z, others, temperature):
    s = ops.matmul(losses.l2_normalize(z), ops.transpose(losses.l2_normalize(others))) / temperature
    both = ops.logsumexp(s, axis=0) + ops.logsumexp(s, axis=1)
    return both / 2 - ops.diagonal(s)


def sum_of_both_views(z, others, temperature):
    return 2 * losses.nt_xent(z, others, temperature)


def positives_of_another_sample(z, others, temperature):
    return losses.nt_xent(z, ops.roll(others, 1, axis=0), temperature)


WRONG_NT_XENTS = [
    itself_in_the_denominator,
    positive_not_in_the_denominator,
    anchors_of_one_view,
    without_temperature,
    times_temperature,
    unnormalized,
    negatives_of_the_other_view_only,
    sum_of_both_views,
    positives_of_another_sample,
]


def check_nt_xent(f, n, d, temperature, dtype="float32"):
    z, others = views(n, d, dtype)
    actual = f(z, others, temperature)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    assert tuple(actual.shape) == (n,)
    expected = oracle.nt_xent(numpy(z), numpy(others), temperature)
    # A cosine's rounding, over the temperature, and that of a logarithm of about log(2n).
    atol = TOLERANCE * (1 + 1 / temperature)
    np.testing.assert_allclose(numpy(actual), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("n, d, temperature, dtype", [(1, 4, 0.5, "float32"), *GRID])
def test_nt_xent_equals_algorithm_1(n, d, temperature, dtype):
    check_nt_xent(losses.nt_xent, n, d, temperature, dtype)


@pytest.mark.parametrize("n, d", [(2, 3), (5, 32)])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("wrong", WRONG_NT_XENTS)
def test_wrong_nt_xents_are_rejected(wrong, n, d, temperature):
    with pytest.raises(AssertionError):
        check_nt_xent(wrong, n, d, temperature)


def test_its_mean_is_that_of_all_anchors():
    z, others = views(6, 8)
    anchors = oracle.nt_xent_of_anchors(numpy(z), numpy(others), 0.2)
    mean = losses.BatchMean()(losses.nt_xent(z, others, 0.2))
    np.testing.assert_allclose(float(mean), sum(anchors) / 12, atol=6 * TOLERANCE)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 10.0])
@pytest.mark.parametrize("n", [1, 2, 16])
def test_equal_outputs_give_the_logarithm_of_the_number_of_others(n, temperature):
    for z in (ops.ones((n, 6)), ops.zeros((n, 6))):
        values = numpy(losses.nt_xent(z, 3.0 * z, temperature))
        # exp(100 +- 1e-5) of float32 cosines at the smallest temperature.
        np.testing.assert_allclose(values, np.log(2 * n - 1), atol=2e-5)


def test_opposite_samples_have_their_closed_form():
    # Both views of one sample at e, both of the other at -e: one term of 1 and two of -1.
    z = ops.convert_to_tensor(np.array([[2.0, 0], [-3.0, 0]], "float32"))
    for t in (0.1, 0.5, 1.0):
        values = numpy(losses.nt_xent(z, 5.0 * z, t))
        np.testing.assert_allclose(values, np.log(1 + 2 * np.exp(-2 / t)), atol=1e-5)
        # Anchor e: its positive -e, and -e and e of the other sample.
        values = numpy(losses.nt_xent(z, -z, t))
        np.testing.assert_allclose(values, np.log(2 + np.exp(2 / t)), atol=1e-5)


def test_nt_xent_ignores_the_scale_and_which_view_is_first_and_follows_the_order():
    z, others = views(6, 8)
    values = numpy(losses.nt_xent(z, others))
    scales = np.random.default_rng(3).uniform(0.05, 40, size=(6, 1)).astype("float32")
    np.testing.assert_allclose(
        numpy(losses.nt_xent(ops.multiply(scales, z), others)), values, atol=5e-6
    )
    np.testing.assert_allclose(numpy(losses.nt_xent(others, z)), values, atol=5e-6)
    order = np.random.default_rng(1).permutation(6)
    both = losses.nt_xent(ops.take(z, order, axis=0), ops.take(others, order, axis=0))
    np.testing.assert_allclose(numpy(both), values[order], atol=5e-6)
    one = losses.nt_xent(z, ops.take(others, order, axis=0))
    assert np.abs(numpy(one) - values[order]).max() > 0.1


def check_parts(f):
    """The values of three replicas' parts of a batch are those of the whole batch."""
    z, others = views(6, 8)
    expected = numpy(losses.nt_xent(z, others, 0.2))
    for number, first in ((int, 0), (int, 2), (ops.convert_to_tensor, 4)):
        rows = slice(first, first + 2)
        values = f(z[rows], others[rows], number(first), z, others)
        np.testing.assert_allclose(numpy(values), expected[rows], atol=6 * TOLERANCE)


def test_parts_of_the_global_batch_equal_the_whole():
    check_parts(lambda z, o, first, all_z, all_o: losses.nt_xent(z, o, 0.2, first, all_z, all_o))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda z, o, first, all_z, all_o: losses.nt_xent(z, o, 0.2),
        lambda z, o, first, all_z, all_o: losses.nt_xent(z, o, 0.2, 0, all_z, all_o),
        lambda z, o, first, all_z, all_o: losses.nt_xent(z, o, 0.2, first, all_o, all_z),
    ],
    ids=["local", "first", "views exchanged"],
)
def test_wrong_parts_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_parts(wrong)


def check_nt_xent_gradient(f):
    z, others = (np.array(numpy(x), "float32") for x in views(4, 5))
    dz, dothers = gradients_of_arrays(lambda a, b: ops.sum(f(a, b, 0.5)), z, others)
    for gradient, expected in (
        (dz, oracle.finite_differences(lambda x: sum(oracle.nt_xent(x, others, 0.5)), z)),
        (dothers, oracle.finite_differences(lambda x: sum(oracle.nt_xent(z, x, 0.5)), others)),
    ):
        np.testing.assert_allclose(gradient, expected, atol=5 * TOLERANCE)


def test_gradient_of_nt_xent_reaches_every_output():
    check_nt_xent_gradient(losses.nt_xent)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda z, others, t: losses.nt_xent(z, ops.stop_gradient(others), t),
        lambda z, others, t: losses.nt_xent(
            z, others, t, 0, ops.stop_gradient(z), ops.stop_gradient(others)
        ),
        *WRONG_NT_XENTS,
    ],
)
def test_wrong_nt_xent_gradients_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_nt_xent_gradient(wrong)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_nt_xent_of_zero_vectors_and_duplicates_has_a_finite_gradient(dtype):
    z, others = (np.array(numpy(x), "float32") for x in views(4, 5))
    z[1] = others[1] = others[2] = 0
    z[3] = others[3] = z[0]

    def f(z, others):
        return ops.sum(losses.nt_xent(ops.cast(z, dtype), ops.cast(others, dtype), 0.1))

    assert np.isfinite(float(f(*map(ops.convert_to_tensor, (z, others)))))
    for gradient in gradients_of_arrays(f, z, others):
        if dtype == "float16":  # about 1e6 at a zero vector: infinite, and never NaN
            assert not np.isnan(gradient).any() and np.isfinite(gradient[[0, 3]]).all()
        else:
            assert np.isfinite(gradient).all()


def test_nt_xent_of_a_large_float16_vector_does_not_overflow():
    z = ops.full((2, 64), 1000.0, dtype="float16")
    np.testing.assert_allclose(numpy(losses.nt_xent(z, z)), np.log(3), atol=5e-6)


def test_nt_xent_is_the_same_compiled_and_for_any_batch_size():
    z, others = (np.array(numpy(x), "float32") for x in views(6, 8))
    expected = numpy(losses.nt_xent(*map(ops.convert_to_tensor, (z, others))))
    for run in (compiled, of_unknown_size):
        np.testing.assert_allclose(numpy(run(losses.nt_xent, z, others)), expected, atol=5e-6)
    part = lambda z, o, first: losses.nt_xent(z[2:4], o[2:4], 0.5, first, z, o)  # noqa: E731
    values = numpy(compiled(part, z, others, np.int32(2)))
    np.testing.assert_allclose(values, expected[2:4], atol=5e-6)


def test_nt_xent_equals_torchs_cross_entropy():
    inputs, values = golden.load("losses")
    z, others = (ops.convert_to_tensor(inputs[k].astype("float32")) for k in ("z1", "z2"))
    for temperature, expected in values["nt_xent"].items():
        actual = numpy(losses.nt_xent(z, others, float(temperature)))
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE * (1 + 1 / float(temperature)))


def test_nt_xent_refuses_what_makes_no_sense():
    z = ops.ones((2, 3))
    with pytest.raises(ValueError, match="`temperature` must be > 0. Received: temperature=0"):
        losses.nt_xent(z, z, 0)
    with pytest.raises(ValueError, match="given together. Received: all_others=None"):
        losses.nt_xent(z, z, all_z=z)
    with pytest.raises(ValueError, match="given together. Received: all_z=None"):
        losses.nt_xent(z, z, all_others=z)


# The mean over the global batch


def test_batch_mean_config_round_trip():
    cls = losses.BatchMean
    loss = cls(reduction="sum", name="L")
    config = loss.get_config()
    assert set(inspect.signature(cls).parameters) - {"dtype"} <= set(config)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is cls
    assert restored.get_config() == config
    values = draw(7, 9, seed=1)
    assert float(restored(values)) == float(loss(values))
