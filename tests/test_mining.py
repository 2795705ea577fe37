"""The supervised losses over a labelled batch."""

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import losses, mining
from tests import golden, oracle
from tests.compiled import compiled, of_unknown_size
from tests.gradients import gradients_of_arrays
from tests.test_losses import TOLERANCE, draw, numpy
from tests.test_siamese_losses import D_AN, D_AP, D_PAIRS, HALF, SAME, rows

# A labelled batch: classes of three, two and one, around centres.
LABELS = np.array([0, 1, 0, 2, 1, 0])


def batch(d=3, dtype="float32"):
    centres = np.random.default_rng(9).normal(size=(3, 16))[:, :d]
    z = ops.add(draw(6, d, seed=9), centres[LABELS].astype("float32"))
    return ops.cast(z, dtype), ops.convert_to_tensor(LABELS)


def masks(labels):
    y = ops.convert_to_numpy(labels)
    same, itself = y[:, None] == y[None], np.eye(len(y), dtype="bool")
    return same, itself


def mined(z, labels, positive_of, negative_of, margin, itself=False, power=1, f=losses.triplet):
    """Batch hard by given reductions, with the anchor among its positives if `itself`."""
    D = mining.pairwise_distances(z) ** power
    same, diagonal = masks(labels)
    positive = same if itself else same & ~diagonal
    away = {ops.max: -np.inf, ops.min: np.inf}
    p = positive_of(ops.where(positive, D, away[positive_of]), axis=1)
    n = negative_of(ops.where(~same, D, away[negative_of]), axis=1)
    values = f(p, n, margin)
    return ops.where(positive.any(1) & (~same).any(1), values, 0.0)


def nonzero_only(z, labels, margin):
    """The paper's batch all != 0."""
    D = mining.pairwise_distances(z)
    values = ops.maximum(D[:, :, None] - D[:, None, :] + margin, 0.0)
    same, diagonal = masks(labels)
    valid = (same & ~diagonal)[:, :, None] & ~same[:, None, :]
    values = ops.where(valid, values, 0.0)
    count = ops.sum(ops.cast(values > 0, "float32"), axis=(1, 2))
    return ops.sum(values, axis=(1, 2)) / ops.maximum(count, 1.0)


def hard(z, labels, margin):
    return mining.triplet_batch(z, labels, margin, mining="hard")


def every(z, labels, margin):
    return mining.triplet_batch(z, labels, margin, mining="all")


def all_by_sums(z, labels, margin, itself=False, sign=1, power=1):
    D = mining.pairwise_distances(z) ** power
    same, diagonal = masks(labels)
    positive = same if itself else same & ~diagonal
    valid = ops.cast(positive[:, :, None] & ~same[:, None, :], "float32")
    values = ops.maximum(sign * (D[:, :, None] - D[:, None, :]) + margin, 0.0) * valid
    return ops.sum(values, axis=(1, 2)) / ops.maximum(ops.sum(valid, axis=(1, 2)), 1.0)


def with_itself(z, labels, margin):
    D = mining.pairwise_distances(z)
    same = ops.convert_to_tensor(masks(labels)[0])
    return ops.mean(losses.contrastive(D, same, margin), axis=1)


def squared_distances(z, labels, margin):
    same, diagonal = masks(labels)
    values = losses.contrastive(mining.pairwise_distances(z) ** 2, same, margin)
    return ops.sum(ops.where(diagonal, 0.0, values), axis=1) / (len(same) - 1)


CHECKED = {
    "contrastive": (mining.contrastive_batch, oracle.contrastive_batch),
    "hard": (hard, oracle.triplet_hard),
    "all": (every, oracle.triplet_all),
}
WRONG = [
    ("contrastive", "itself", with_itself),
    ("contrastive", "squares", squared_distances),
    ("contrastive", "sum", lambda z, y, m: 5 * mining.contrastive_batch(z, y, m)),
    ("contrastive", "no margin", lambda z, y, m: mining.contrastive_batch(z, y, 1e-6)),
    (
        "contrastive",
        "unlike",
        lambda z, y, m: mining.contrastive_batch(z, ops.arange(len(z)), m),
    ),
    (
        "contrastive",
        "alike",
        lambda z, y, m: mining.contrastive_batch(z, ops.zeros(len(z), "int32"), m),
    ),
    (
        "hard",
        "sign",
        lambda z, y, m: mined(z, y, ops.max, ops.min, m, f=lambda p, n, m: losses.triplet(n, p, m)),
    ),
    ("hard", "no margin", lambda z, y, m: hard(z, y, 1e-6)),
    ("hard", "min and max exchanged", lambda z, y, m: mined(z, y, ops.min, ops.max, m)),
    ("hard", "nearest positive", lambda z, y, m: mined(z, y, ops.min, ops.min, m)),
    ("hard", "furthest negative", lambda z, y, m: mined(z, y, ops.max, ops.max, m)),
    ("hard", "itself", lambda z, y, m: mined(z, y, ops.max, ops.min, m, itself=True)),
    ("hard", "squares", lambda z, y, m: mined(z, y, ops.max, ops.min, m, power=2)),
    ("hard", "all", every),
    ("all", "sign", lambda z, y, m: all_by_sums(z, y, m, sign=-1)),
    ("all", "no margin", lambda z, y, m: every(z, y, 1e-6)),
    ("all", "itself", lambda z, y, m: all_by_sums(z, y, m, itself=True)),
    ("all", "squares", lambda z, y, m: all_by_sums(z, y, m, power=2)),
    ("all", "zeros left out", nonzero_only),
    ("all", "hard", hard),
]


def check_batch(f, kind, margin, d=3, dtype="float32"):
    z, labels = batch(d=d, dtype=dtype)
    actual = f(z, labels, margin)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    assert tuple(actual.shape) == (6,)
    expected = CHECKED[kind][1](numpy(z), LABELS, margin)
    np.testing.assert_allclose(numpy(actual), expected, atol=3 * TOLERANCE, rtol=0)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("d", [2, 3, 16])
@pytest.mark.parametrize("margin", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("kind", CHECKED)
def test_a_labelled_batch_equals_the_definitions(kind, margin, d, dtype):
    check_batch(CHECKED[kind][0], kind, margin, d, dtype)


@pytest.mark.parametrize("kind, name, wrong", WRONG, ids=[f"{k}, {name}" for k, name, _ in WRONG])
@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_wrong_batches_are_rejected(kind, name, wrong, margin):
    with pytest.raises(AssertionError):
        check_batch(wrong, kind, margin)


def test_the_helpers_of_the_wrong_formulas_are_right_without_their_mistake():
    check_batch(lambda z, y, m: mined(z, y, ops.max, ops.min, m), "hard", 0.5)
    check_batch(lambda z, y, m: all_by_sums(z, y, m), "all", 0.5)


def test_the_fixture_has_open_and_closed_hinges():
    # One that had only one kind, or anchors at equal distances, would let wrong formulas pass.
    D = numpy(mining.pairwise_distances(batch()[0]))
    same, itself = masks(LABELS)
    valid = (same & ~itself)[:, :, None] & ~same[:, None, :]
    for margin in (0.5, 1.0):
        gaps = D[:, :, None] - D[:, None, :] + margin
        open_, closed = ((valid & far).any((1, 2)) for far in (gaps > 0.05, gaps < -0.05))
        assert (open_ & closed).any()  # of one anchor
        assert (D[~same] < margin - 0.05).any() and (D[~same] > margin + 0.05).any()
    assert np.ptp(D[~itself]) > 1
    assert D[3][~same[3]].min() < 0.45  # the anchor without a positive, were it its own


def test_the_mean_over_samples_is_the_mean_over_pairs():
    z, labels = batch()
    D = numpy(mining.pairwise_distances(z))
    pairs = [
        oracle.contrastive(D[i, j], int(LABELS[i] == LABELS[j]), 1.0)
        for i in range(6)
        for j in range(6)
        if i != j
    ]
    mean = losses.BatchMean()(mining.contrastive_batch(z, labels))
    np.testing.assert_allclose(float(mean), np.mean(pairs), atol=3 * TOLERANCE)


@pytest.mark.parametrize("kind", CHECKED)
def test_values_ignore_scale_and_names_of_classes_and_follow_the_order(kind):
    f, (z, labels) = CHECKED[kind][0], batch()
    values = numpy(f(z, labels, 0.5))
    scales = np.random.default_rng(2).uniform(0.05, 40, size=(6, 1)).astype("float32")
    # Names that float32 could not tell apart.
    names = ops.convert_to_tensor((np.array([7, 5, 6])[LABELS] + 2**30).astype("int32"))
    np.testing.assert_allclose(
        numpy(f(ops.multiply(scales, z), names, 0.5)), values, atol=3 * TOLERANCE
    )
    order = np.random.default_rng(1).permutation(6)
    permuted = f(ops.take(z, order, axis=0), ops.take(labels, order, axis=0), 0.5)
    np.testing.assert_allclose(numpy(permuted), values[order], atol=3 * TOLERANCE)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one class", "no pairs"])
@pytest.mark.parametrize("mine", mining.MINING)
def test_anchors_without_a_triplet_give_zero_and_no_gradient(mine, labels):
    z = np.array(numpy(draw(4, 3, seed=1)), "float32")
    f = lambda z: mining.triplet_batch(z, ops.convert_to_tensor(np.array(labels)), 0.5, mine)  # noqa: E731
    np.testing.assert_array_equal(numpy(f(ops.convert_to_tensor(z))), 0)
    (gradient,) = gradients_of_arrays(lambda z: ops.sum(f(z)), z)
    np.testing.assert_array_equal(gradient, 0)


def test_one_sample_gives_zero():
    z, labels = draw(1, 3), ops.zeros(1, "int32")
    for f, _ in CHECKED.values():
        np.testing.assert_array_equal(numpy(f(z, labels, 0.5)), [0])


def test_collapsed_outputs_give_the_margin():
    z, labels = ops.ones((6, 4)), ops.convert_to_tensor(LABELS)
    for f in (hard, every):
        values = numpy(f(z, labels, 0.3))
        np.testing.assert_allclose(values, [0.3, 0.3, 0.3, 0, 0.3, 0.3], atol=TOLERANCE)
    unlike = np.array([3, 4, 3, 5, 4, 3])  # samples of other classes, at distance 0
    values = numpy(mining.contrastive_batch(z, labels, 0.3))
    np.testing.assert_allclose(values, 0.09 * unlike / 5, atol=3 * TOLERANCE)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kind", CHECKED)
def test_duplicates_and_zero_vectors_have_a_finite_gradient(kind, dtype):
    z = np.array(numpy(draw(6, 4, seed=1)), "float32")
    z[2] = z[0]  # of one class
    z[4] = z[3]  # of two
    z[5] = 0

    def f(z):
        labels = ops.convert_to_tensor(LABELS)
        return ops.sum(CHECKED[kind][0](ops.cast(z, dtype), labels, 0.5))

    (gradient,) = gradients_of_arrays(f, z)
    if dtype == "float16":  # about 1e6 at a zero vector: infinite, and never NaN
        assert not np.isnan(gradient).any() and np.isfinite(gradient[:5]).all()
    else:
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", CHECKED)
def test_the_gradient_is_that_of_the_definition(kind):
    f, definition = CHECKED[kind]
    z = np.array(numpy(batch()[0]), "float32")
    (gradient,) = gradients_of_arrays(
        lambda z: ops.sum(f(z, ops.convert_to_tensor(LABELS), 0.5)), z
    )
    expected = oracle.finite_differences(lambda x: sum(definition(x, LABELS, 0.5)), z)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.mark.parametrize("kind", CHECKED)
def test_batches_are_the_same_compiled_and_of_any_size(kind):
    f = lambda z, y: CHECKED[kind][0](z, y, 0.5)  # noqa: E731
    z = np.array(numpy(batch()[0]), "float32")
    expected = numpy(f(ops.convert_to_tensor(z), ops.convert_to_tensor(LABELS)))
    for run in (compiled, of_unknown_size):
        np.testing.assert_allclose(numpy(run(f, z, LABELS)), expected, atol=3 * TOLERANCE)


def test_distances_and_triplets_equal_torchs():
    inputs, values = golden.load("losses")
    a, p, n = (ops.convert_to_tensor(inputs[k].astype("float32")) for k in ("z1", "z2", "z3"))
    D = numpy(mining.pairwise_distances(a))
    np.testing.assert_allclose(D, values["pairwise_distances"], atol=2 * TOLERANCE)
    for margin, expected in values["triplet"].items():
        actual = losses.triplet(losses.distances(a, p), losses.distances(a, n), float(margin))
        np.testing.assert_allclose(numpy(actual), expected, atol=2 * TOLERANCE)


def test_what_makes_no_sense_is_refused():
    z, labels = batch()
    for call in (
        lambda m: losses.contrastive(rows(D_PAIRS), rows(SAME), m),
        lambda m: losses.triplet(rows(D_AP), rows(D_AN), m),
        *(lambda m, f=f: f(z, labels, m) for f, _ in CHECKED.values()),
    ):
        with pytest.raises(ValueError, match="`margin` must be > 0. Received: margin=0"):
            call(0)
    with pytest.raises(ValueError, match=r"`mining` must be one of \('all', 'hard'\).*'easy'"):
        mining.triplet_batch(z, labels, mining="easy")
