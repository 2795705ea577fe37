"""Losses that hold samples apart: SimCLR's, and those of the supervised twins.

Distances are Euclidean, between outputs of unit length, so that they lie in [0, 2] and a margin
means the same whatever the network.
"""

from keras import ops

from simsiam_keras.family import SiameseFlags, SiameseTripletFlags, SimCLRFlags
from simsiam_keras.losses.base import EPSILON, at_least_float32, check_temperature, l2_normalize


def nt_xent(z, others, temperature=SimCLRFlags.temperature, first=0, all_z=None, all_others=None):
    """SimCLR's normalized temperature-scaled cross-entropy over the global batch, per sample.

    With s(a, b) the cosine and A the 2N outputs of both views of all N samples,

        l(a, b) = -log(exp(s(a, b) / temperature) / sum_{c in A, c != a} exp(s(a, c) / temperature))

    sample i has the value `(l(z_i, others_i) + l(others_i, z_i)) / 2`, so that the mean over the
    samples of all replicas is the paper's loss, a mean over 2N anchors. It lies in
    [0, log(1 + (2N - 2) exp(2 / temperature))]: log(2N - 1) when all outputs are equal or zero, 0
    for N = 1. No argument is held constant; where outputs are gathered from other replicas, their
    gradient must come back.

    Args:
        z: outputs of one view of this replica's samples, `[n, d]`.
        others: those of the other view, `[n, d]`.
        temperature: the paper's tau, default .5.
        first: row of `all_z` that holds the first row of `z`, an integer or a scalar tensor.
        all_z: outputs of one view of all replicas, in order, `[N, d]`; default None: there is one
            replica, `all_z = z` and `first = 0`.
        all_others: those of the other view, `[N, d]`.

    Returns:
        `[n]` values, float32 or wider; reduce them with `BatchMean`.

    Raises:
        ValueError: if `temperature` is not positive, or only one of `all_z` and `all_others` is
            given.

    Example:
    >>> import numpy as np
    >>> same = np.ones([4, 3], "float32")
    >>> [round(float(v), 4) for v in nt_xent(same, same)]  # log(7)
    [1.9459, 1.9459, 1.9459, 1.9459]

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
        equation 1 and algorithm 1, https://arxiv.org/abs/2002.05709
    """
    check_temperature(temperature)
    if (all_z is None) != (all_others is None):
        missing = "all_z" if all_z is None else "all_others"
        raise ValueError(
            f"`all_z` and `all_others` must be given together. Received: {missing}=None"
        )
    # Once: from two, the gradient of a float16 zero vector would be inf - inf.
    z, others = l2_normalize(z), l2_normalize(others)
    if all_z is None:
        all_z, all_others, first = z, others, 0
    else:
        all_z, all_others = l2_normalize(all_z), l2_normalize(all_others)
    rows = ops.add(ops.arange(ops.shape(z)[0], dtype="int32"), first)
    itself = ops.equal(rows[:, None], ops.arange(ops.shape(all_z)[0], dtype="int32"))  # [n, N]

    def log_denominator(a, same_view, other_view):
        same = ops.matmul(a, ops.transpose(same_view)) / temperature
        other = ops.matmul(a, ops.transpose(other_view)) / temperature
        same = ops.where(itself, -float("inf"), same)
        return ops.logsumexp(ops.concatenate([same, other], axis=1), axis=1)

    positive = ops.sum(z * others, axis=-1) / temperature
    both = log_denominator(z, all_z, all_others) + log_denominator(others, all_others, all_z)
    return both / 2 - positive


def contrastive(distance, same, margin=SiameseFlags.margin):
    """Contrastive loss of pairs, `Y D^2 + (1 - Y) max(margin - D, 0)^2`.

    At least 0; pairs of the same class are pulled together, others pushed apart up to the margin.

    Args:
        distance: D, any shape.
        same: Y, 1 or True for two samples of the same class and 0 for others, of the same shape.
        margin: default 1; distances of unit vectors reach 2.

    Returns:
        Values of the shape of `distance`, float32 or wider.

    Raises:
        ValueError: if `margin` is not positive.

    Example:
    >>> import numpy as np
    >>> distance = np.array([0.5, 0.25, 1.5])
    >>> [float(v) for v in contrastive(distance, np.array([1, 0, 0]))]
    [0.25, 0.5625, 0.0]

    Reference:
        Hadsell, Chopra & LeCun, Dimensionality Reduction by Learning an Invariant Mapping, 2006,
        equation 4 (whose Y is 0 for similar pairs, with a factor 1/2),
        http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf
    """
    check_margin(margin)
    distance = at_least_float32(distance)
    apart = ops.square(ops.maximum(margin - distance, 0.0))
    return ops.where(ops.cast(same, "bool"), ops.square(distance), apart)


def triplet(d_ap, d_an, margin=SiameseTripletFlags.margin):
    """Triplet loss, `max(d(a, p) - d(a, n) + margin, 0)`.

    At least 0; 0 where the negative is further from the anchor than the positive by the margin, and
    equal to the margin where all three outputs are the same.

    Args:
        d_ap: distances of anchors to positives, any shape.
        d_an: distances of the same anchors to negatives, of the same shape.
        margin: default .2.

    Returns:
        Values of the shape of the distances, float32 or wider.

    Raises:
        ValueError: if `margin` is not positive.

    Example:
    >>> import numpy as np
    >>> [float(v) for v in triplet(np.array([0.75, 0.25]), np.array([0.5, 1.5]), margin=0.5)]
    [0.75, 0.0]

    Reference:
        Schroff, Kalenichenko & Philbin, FaceNet, equation 3 (of squared distances),
        https://arxiv.org/abs/1503.03832
    """
    check_margin(margin)
    return ops.maximum(at_least_float32(d_ap) - at_least_float32(d_an) + margin, 0.0)


def distances(a, b):
    """Euclidean distances of unit vectors, `sqrt(||a / ||a|| - b / ||b|| ||^2 + 1e-12)`.

    They lie in [1e-6, 2]; a zero vector is at distance 1 from every other one. The gradient is
    finite everywhere and 0 between parallel vectors.

    Args:
        a: outputs, `[..., d]`.
        b: outputs, `[..., d]`, of a shape that broadcasts with that of `a`.

    Returns:
        Distances `[...]`, float32 or wider.
    """
    return gap(l2_normalize(a), l2_normalize(b))


def gap(a, b):
    """Distances of vectors that have unit length."""
    # Not as 2 - 2 cos: its rounding is that of the 2, of which the root makes 3e-4 near 0, where
    # gradients then come out up to 500 times too large.
    return ops.sqrt(ops.sum(ops.square(a - b), axis=-1) + EPSILON)


def check_margin(margin):
    """Raises where a margin is not above 0."""
    if margin <= 0:
        raise ValueError(f"`margin` must be > 0. Received: margin={margin}")
