"""Which pairs and triplets of a labelled batch the supervised losses take.

They are formed within the batch that a function is given: under `tf.distribute` within a replica's
part, of which the mean over replicas is taken; on JAX within the global batch.
"""

from keras import ops

from simsiam_keras.family import SiameseFlags, SiameseTripletFlags
from simsiam_keras.losses.base import l2_normalize
from simsiam_keras.losses.contrastive import contrastive, gap, triplet


def pairwise_distances(z):
    """Distances of each output to each, `D_ij = distances(z_i, z_j)`.

    Holds n * n * d numbers, 34 MB at n = 256 and d = 128.

    Args:
        z: outputs, `[n, d]`.

    Returns:
        Distances `[n, n]`, float32 or wider; 1e-6 on the diagonal and between equal rows.
    """
    z = l2_normalize(z)  # once: from two, a float16 zero vector's gradient would be inf - inf
    return gap(z[:, None], z[None])


def contrastive_batch(z, labels, margin=SiameseFlags.margin):
    """Contrastive loss of each sample with all others of a labelled batch.

    The value of sample i is the mean over j != i of `contrastive(D_ij, y_i = y_j)`; the mean over
    samples is that over all pairs. It is 0 for n = 1.

    Args:
        z: outputs, `[n, d]`.
        labels: y, integers `[n]`.
        margin: default 1; distances of unit vectors reach 2.

    Returns:
        `[n]` values, float32 or wider; reduce them with `losses.BatchMean`.

    Raises:
        ValueError: if `margin` is not positive.

    Example:
    >>> import numpy as np
    >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> labels = np.array([0, 0, 1])  # by pair 2, 1 and 0
    >>> [round(float(v), 3) for v in contrastive_batch(z, labels)]
    [1.5, 1.0, 0.5]

    Reference:
        Hadsell, Chopra & LeCun, 2006, equation 4; see `contrastive`
    """
    same, itself = _pairs(labels)
    values = contrastive(pairwise_distances(z), same, margin)
    return _mean(values, ~itself)


def triplet_batch(z, labels, margin=SiameseTripletFlags.margin, mining=SiameseTripletFlags.mining):
    """Triplet loss of each sample, as anchor, with others of a labelled batch.

    A positive p is another sample of the anchor's class, a negative n one of another class.

    - `"all"`: the mean of `triplet(D_ap, D_an)` over all (p, n) of the anchor. Triplets whose loss
      is 0 count in it, as in the paper's "batch all" and unlike its "batch all != 0". It holds
      n * n * n numbers, 67 MB at n = 256.
    - `"hard"`: `triplet(max_p D_ap, min_n D_an)`, the furthest positive and the nearest negative.
      From random weights it may end where all outputs are the same and the loss is the margin.

    An anchor without a positive or without a negative has the value 0, and counts in the mean over
    anchors. Where classes are equally large, that mean is the mean over all triplets.

    Args:
        z: outputs, `[n, d]`.
        labels: integers `[n]`.
        margin: default .2.
        mining: a key of `MINING`; default `"all"`.

    Returns:
        `[n]` values, float32 or wider; reduce them with `losses.BatchMean`.

    Raises:
        ValueError: if `margin` is not positive or `mining` is unknown.

    Example:
    >>> import numpy as np
    >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> [round(float(v), 3) for v in triplet_batch(z, np.array([0, 0, 1]), margin=1.0)]
    [0.414, 1.0, 0.0]

    Reference:
        Hermans, Beyer & Leibe, In Defense of the Triplet Loss for Person Re-Identification,
        equations 5 and 6, https://arxiv.org/abs/1703.07737
    """
    if mining not in MINING:
        raise ValueError(f"`mining` must be one of {tuple(MINING)}. Received: mining={mining!r}")
    same, itself = _pairs(labels)
    return MINING[mining](pairwise_distances(z), same & ~itself, ~same, margin)


def _hard(D, positive, negative, margin):
    # Where there is none, an infinite distance on the side that makes the loss 0.
    furthest = ops.max(ops.where(positive, D, -float("inf")), axis=1)
    nearest = ops.min(ops.where(negative, D, float("inf")), axis=1)
    return triplet(furthest, nearest, margin)


def _all(D, positive, negative, margin):
    values = triplet(D[:, :, None], D[:, None, :], margin)  # [anchor, positive, negative]
    valid = positive[:, :, None] & negative[:, None, :]
    return _mean(values, valid)


MINING = {"all": _all, "hard": _hard}


def _pairs(labels):
    """Whether two samples are of the same class, and whether they are the same sample, `[n, n]`."""
    number = ops.arange(ops.shape(labels)[0])
    same = ops.equal(labels[:, None], labels[None])
    return same, ops.equal(number[:, None], number[None])


def _mean(values, chosen):
    """The mean of each row's chosen values; 0 where there is none."""
    chosen = ops.cast(chosen, values.dtype)
    axes = tuple(range(1, len(values.shape)))
    return ops.sum(values * chosen, axis=axes) / ops.maximum(ops.sum(chosen, axis=axes), 1)
