"""SwAV's codes and its loss."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import losses
from simsiam_keras.sinkhorn import sinkhorn
from tests import golden, oracle
from tests.compiled import compiled, of_unknown_size
from tests.gradients import gradients_of_arrays
from tests.test_losses import TOLERANCE, draw, numpy
from tests.tiny import mean_of


def cosines(n, k, dtype="float32", d=6, lean=0.0):
    """Cosines `[n, k]` of n outputs with k prototypes, of which all lean to the first."""
    z = numpy(losses.l2_normalize(draw(n, d, seed=1)))
    prototypes = numpy(losses.l2_normalize(draw(k, d, seed=2)))
    scores = np.clip(z @ prototypes.T, -1, 1).astype("float32")
    scores[:, 0] = np.clip(scores[:, 0] + lean, -1, 1)
    return ops.cast(ops.convert_to_tensor(scores), dtype)


GRID = [
    (n, k, epsilon, iterations)
    for n, k in ((2, 3), (8, 4), (5, 16))
    for epsilon in (0.03, 0.05, 0.5)
    for iterations in (1, 3, 10)
]


def linear_sinkhorn(scores, epsilon=0.05, iterations=3, axes=(0, 1)):
    """Divides by the sums along the axes in turn, then the rows by theirs."""
    q = ops.exp(losses.at_least_float32(scores) / epsilon)
    for _ in range(iterations):
        for axis in axes:
            q = q / ops.sum(q, axis=axis, keepdims=True)
    return q / ops.sum(q, axis=1, keepdims=True)


WRONG_SINKHORNS = {
    "columns last": lambda s, e, i: ops.transpose(sinkhorn(ops.transpose(s), e, i)),
    "rows before columns": lambda s, e, i: linear_sinkhorn(s, e, i, axes=(1, 0)),
    "rows only": lambda s, e, i: linear_sinkhorn(s, e, i, axes=(1,)),
    "columns once": lambda s, e, i: linear_sinkhorn(s, e, 1, axes=(0,)),
    "no epsilon": lambda s, e, i: linear_sinkhorn(s, 1.0, i),
    "times epsilon": lambda s, e, i: linear_sinkhorn(s, 1 / e, i),
    "one iteration": lambda s, e, i: sinkhorn(s, e, 1),
    "one more": lambda s, e, i: sinkhorn(s, e, i + 1),
    "rows scaled first": lambda s, e, i: sinkhorn(s - ops.max(s, axis=1, keepdims=True), e, i),
}


def check_sinkhorn(f, n, k, epsilon, iterations, dtype="float32"):
    scores = cosines(n, k, dtype)
    codes = f(scores, epsilon, iterations)
    assert keras.backend.standardize_dtype(codes.dtype) == "float32"
    expected = oracle.sinkhorn(numpy(scores), epsilon, iterations)
    # Float32's rounding of a score over epsilon, at most 33, is 2e-6 of an exponential.
    np.testing.assert_allclose(numpy(codes), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n, k, epsilon, iterations", [(1, 1, 0.05, 3), (1, 5, 0.05, 3), *GRID])
def test_sinkhorn_equals_the_pseudo_code(n, k, epsilon, iterations):
    check_sinkhorn(sinkhorn, n, k, epsilon, iterations)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sinkhorn_of_half_precision_scores_is_float32(dtype):
    check_sinkhorn(sinkhorn, 8, 4, 0.05, 3, dtype)


@pytest.mark.parametrize("n, k, epsilon", [(8, 4, 0.05), (5, 16, 0.03)])
@pytest.mark.parametrize("name", WRONG_SINKHORNS)
def test_wrong_sinkhorns_are_rejected(name, n, k, epsilon):
    with pytest.raises(AssertionError):
        check_sinkhorn(WRONG_SINKHORNS[name], n, k, epsilon, 3)


def check_rows_and_columns(f, lean):
    scores = cosines(24, 6, lean=lean)
    rows = numpy(f(scores, 0.05, 3))
    np.testing.assert_allclose(rows.sum(1), 1, atol=TOLERANCE)
    assert (rows >= 0).all()
    columns = numpy(f(scores, 0.05, 1000)).sum(0)
    np.testing.assert_allclose(columns, 24 / 6, atol=1e-3)


@pytest.mark.parametrize("lean", [0.0, 0.5])
def test_rows_sum_to_one_and_columns_come_to_share_alike(lean):
    check_rows_and_columns(sinkhorn, lean)


@pytest.mark.parametrize("name", ["columns last", "rows only"])
def test_codes_that_do_not_share_alike_are_rejected(name):
    with pytest.raises(AssertionError):
        check_rows_and_columns(WRONG_SINKHORNS[name], 0.5)


def test_three_iterations_use_a_prototype_that_softmax_leaves_alone():
    # What the codes are for: all samples lean to the first prototype, and must not all have it.
    scores = cosines(24, 6, lean=0.8)
    softmax = numpy(ops.softmax(scores / 0.05)).sum(0)
    columns = numpy(sinkhorn(scores)).sum(0)
    assert softmax[0] > 18 and softmax.min() < 0.1
    assert columns.max() < 7.5 and columns.min() > 2


@pytest.mark.parametrize("score", [-1.0, 0.0, 0.3, 1.0])
def test_equal_scores_give_uniform_codes(score):
    codes = numpy(sinkhorn(ops.full((7, 5), score, dtype="float32"), 0.02))
    np.testing.assert_allclose(codes, 1 / 5, atol=TOLERANCE)


def test_two_samples_and_two_prototypes_have_their_limit():
    # Scaling rows and columns keeps q11 q22 / (q12 q21) = exp((s11 + s22 - s12 - s21) / epsilon),
    # and with all sums 1 that is (x / (1 - x))^2.
    scores = np.array([[0.9, 0.2], [0.85, 0.1]], "float32")
    odds = np.exp((0.9 + 0.1 - 0.2 - 0.85) / 0.05 / 2)
    x = odds / (1 + odds)
    codes = numpy(sinkhorn(ops.convert_to_tensor(scores), 0.05, 300))
    np.testing.assert_allclose(codes, [[x, 1 - x], [1 - x, x]], atol=1e-5)


def test_codes_follow_the_order_of_samples_and_of_prototypes():
    scores = cosines(8, 5)
    codes = numpy(sinkhorn(scores))
    rows, columns = (np.random.default_rng(1).permutation(m) for m in (8, 5))
    permuted = sinkhorn(ops.take(ops.take(scores, rows, axis=0), columns, axis=1))
    np.testing.assert_allclose(numpy(permuted), codes[rows][:, columns], atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.02, 0.05])
def test_the_furthest_scores_are_finite(epsilon):
    # A prototype that is opposite to all samples, a sample that is opposite to all prototypes, and
    # half of the samples at one prototype.
    scores = np.full((512, 6), -1.0, "float32")
    scores[1:256, 0] = 1
    scores[256:, 1:5] = np.random.default_rng(0).uniform(-1, 1, size=(256, 4))
    codes = numpy(sinkhorn(ops.convert_to_tensor(scores), epsilon))
    assert np.isfinite(codes).all()
    np.testing.assert_allclose(codes.sum(1), 1, atol=TOLERANCE)
    # Exponentials of up to 100 here, whose float32 logarithms are rounded by 4e-6.
    np.testing.assert_allclose(codes, oracle.sinkhorn(scores, epsilon), atol=5e-5)
    (gradient,) = gradients_of_arrays(lambda s: ops.sum(ops.square(sinkhorn(s, epsilon))), scores)
    assert np.isfinite(gradient).all()


def codes_of_replicas(scores, summing=True):
    """The codes of two halves of a batch, by two threads that add what they hand to `total`."""
    barrier, sums = threading.Barrier(2, timeout=60), [None, None]

    def codes_of(replica):
        def total(x):
            sums[replica] = x
            barrier.wait()
            both = sums[0] + sums[1]
            barrier.wait()
            return both

        half = np.split(scores, 2)[replica]
        arguments = {"total": total} if summing else {}
        return numpy(sinkhorn(ops.convert_to_tensor(half), **arguments))

    with ThreadPoolExecutor(2) as pool:
        return np.concatenate(list(pool.map(codes_of, range(2))))


def check_halves(codes_of_halves):
    scores = ops.convert_to_numpy(cosines(10, 4, lean=0.3))
    np.testing.assert_allclose(
        codes_of_halves(scores), numpy(sinkhorn(ops.convert_to_tensor(scores))), atol=1e-5
    )


def test_two_halves_that_share_their_sums_equal_the_whole():
    check_halves(codes_of_replicas)


def test_two_halves_that_do_not_are_rejected():
    with pytest.raises(AssertionError):
        check_halves(lambda scores: codes_of_replicas(scores, summing=False))


def test_sinkhorn_is_the_same_compiled_and_for_any_batch_size():
    scores = ops.convert_to_numpy(cosines(8, 5))
    expected = numpy(sinkhorn(ops.convert_to_tensor(scores)))
    for run in (compiled, of_unknown_size):
        np.testing.assert_allclose(numpy(run(sinkhorn, scores)), expected, atol=1e-5)


def test_sinkhorn_refuses_what_makes_no_sense():
    scores = cosines(4, 3)
    with pytest.raises(ValueError, match="`epsilon` must be at least 0.02.*epsilon=0.01"):
        sinkhorn(scores, 0.01)
    with pytest.raises(ValueError, match="`iterations` must be at least 1. Received: iterations=0"):
        sinkhorn(scores, iterations=0)


# The loss


WRONG_PREDICTIONS = {
    "no temperature": lambda s, q, t: losses.swapped_prediction(s, q, 1.0),
    "times temperature": lambda s, q, t: losses.swapped_prediction(s, q, 1 / t),
    "plus": lambda s, q, t: -losses.swapped_prediction(s, q, t),
    "exchanged": lambda s, q, t: losses.swapped_prediction(q, s, t),
    "softmax of the codes": lambda s, q, t: losses.cross_entropy_similarity(s / t, q),
    "mean over prototypes": lambda s, q, t: losses.swapped_prediction(s, q, t) / s.shape[1],
    "softmax over the batch": lambda s, q, t: -ops.sum(q * ops.log_softmax(s / t, axis=0), 1),
    "hard codes": lambda s, q, t: losses.swapped_prediction(
        s, ops.one_hot(ops.argmax(q, axis=1), q.shape[1]), t
    ),
}


def check_prediction(f, n, k, temperature, dtype="float32"):
    scores = cosines(n, k, dtype)
    codes = ops.cast(sinkhorn(ops.flip(cosines(n, k), axis=0), 0.2), dtype)
    actual = f(scores, codes, temperature)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    assert tuple(actual.shape) == (n,)
    expected = oracle.swapped_prediction(numpy(scores), numpy(codes), temperature)
    np.testing.assert_allclose(numpy(actual), expected, atol=TOLERANCE * (1 + 1 / temperature))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 2.0])
@pytest.mark.parametrize("n, k", [(1, 1), (2, 3), (5, 32)])
def test_swapped_prediction_equals_equation_2(n, k, temperature, dtype):
    check_prediction(losses.swapped_prediction, n, k, temperature, dtype)


@pytest.mark.parametrize("n, k", [(2, 3), (5, 32)])
@pytest.mark.parametrize("temperature", [0.1, 2.0])
@pytest.mark.parametrize("name", WRONG_PREDICTIONS)
def test_wrong_predictions_are_rejected(name, n, k, temperature):
    with pytest.raises(AssertionError):
        check_prediction(WRONG_PREDICTIONS[name], n, k, temperature)


def test_swapped_prediction_has_its_closed_forms():
    f, codes = losses.swapped_prediction, sinkhorn(cosines(6, 4), 0.2)
    np.testing.assert_allclose(numpy(f(ops.ones((6, 4)), codes)), np.log(4), atol=2e-6)
    q = numpy(codes)
    entropy = -(q * np.log(q)).sum(1)
    least = f(0.1 * ops.log(codes) + 0.3, codes, 0.1)
    np.testing.assert_allclose(numpy(least), entropy, atol=1e-5)
    assert (numpy(f(cosines(6, 4), codes, 0.1)) > entropy).all()


def check_prediction_class(loss):
    scores = ops.convert_to_numpy(cosines(6, 4))
    codes = ops.convert_to_numpy(sinkhorn(cosines(6, 4, lean=0.3), 0.2))
    expected = oracle.swapped_prediction(scores, codes, 0.1).mean()
    np.testing.assert_allclose(float(loss(codes, scores)), expected, atol=1e-5)
    (gradient,) = gradients_of_arrays(lambda s: loss(codes, s), scores)
    softmax = np.array([oracle.softmax(s / 0.1) for s in scores])
    np.testing.assert_allclose(gradient, (softmax - codes) / 0.1 / 6, atol=1e-5)


def test_swapped_prediction_class_is_the_mean():
    check_prediction_class(mean_of(losses.swapped_prediction))


@pytest.mark.parametrize(
    "wrong",
    [
        mean_of(lambda scores, codes: losses.swapped_prediction(scores, codes, 0.2)),
        mean_of(losses.swapped_prediction, reduction="sum"),
        mean_of(losses.cross_entropy_similarity),
    ],
)
def test_other_prediction_classes_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_prediction_class(wrong)


def test_swapped_prediction_equals_torchs_cross_entropy():
    inputs, values = golden.load("losses")
    scores, codes = (
        ops.convert_to_tensor(inputs[k].astype("float32")) for k in ("scores", "codes")
    )
    for temperature, expected in values["swapped_prediction"].items():
        actual = numpy(losses.swapped_prediction(scores, codes, float(temperature)))
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE * (1 + 1 / float(temperature)))


def test_a_temperature_that_is_not_positive_is_refused():
    for t in (0, -1):
        message = f"`temperature` must be > 0. Received: temperature={t}"
        with pytest.raises(ValueError, match=message):
            losses.swapped_prediction(cosines(2, 3), sinkhorn(cosines(2, 3)), t)
