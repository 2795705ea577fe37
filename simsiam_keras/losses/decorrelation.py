"""Losses that keep each channel of the outputs spread, and different from the others."""

from keras import ops

from simsiam_keras.family import VICRegFlags
from simsiam_keras.losses.base import at_least_float32

# Inside the square root of the variance, as in the paper (section 4.1): a finite gradient at 0.
VARIANCE_EPSILON = 1e-4


def vicreg(
    z,
    others,
    sim_coeff=VICRegFlags.sim_coeff,
    std_coeff=VICRegFlags.std_coeff,
    cov_coeff=VICRegFlags.cov_coeff,
    all_z=None,
    all_others=None,
):
    """VICReg's invariance, variance and covariance, per sample.

    With Z and Z' the outputs of both views of all samples, v `variance_hinge` and c
    `covariance_penalty`, sample i has the value

        sim_coeff ||z_i - z'_i||^2 / d + std_coeff (v(Z) + v(Z')) / 2 + cov_coeff (c(Z) + c(Z'))

    whose mean over the samples of all replicas is the loss: the last two terms are those of the
    batch, the same in each value. It is at least 0, and `.99 std_coeff` where all outputs are
    equal. As in the authors' code, the variance is halved, where the paper's equation 6 adds both
    views', and the squared distance divided by d, where equation 5 is not. No argument is held
    constant; where outputs are gathered from other replicas, their gradient must come back.

    Args:
        z: outputs of one view of this replica's samples, `[n, d]`.
        others: those of the other view, `[n, d]`.
        sim_coeff: weight of the invariance, default the paper's, 25.
        std_coeff: weight of the variance, default the paper's, 25.
        cov_coeff: weight of the covariance, default the paper's, 1.
        all_z: outputs of one view of all replicas, `[N, d]`; default None: there is one replica,
            `all_z = z`.
        all_others: those of the other view, `[N, d]`.

    Returns:
        `[n]` values, float32 or wider; reduce them with `BatchMean`.

    Raises:
        ValueError: if only one of `all_z` and `all_others` is given, or there is one sample.

    Example:
    >>> import numpy as np
    >>> z = np.array([[2.0, 2.0], [-2.0, -2.0]])  # spread, but two channels with covariance 8
    >>> [round(float(v), 4) for v in vicreg(z, z)]  # (8^2 + 8^2) / 2 of each view
    [128.0, 128.0]

    Reference:
        Bardes, Ponce & LeCun, VICReg, equations 1 to 6, https://arxiv.org/abs/2105.04906;
        https://github.com/facebookresearch/vicreg, main_vicreg.py
    """
    if (all_z is None) != (all_others is None):
        missing = "all_z" if all_z is None else "all_others"
        raise ValueError(
            f"`all_z` and `all_others` must be given together. Received: {missing}=None"
        )
    z, others = at_least_float32(z), at_least_float32(others)
    views = (z, others) if all_z is None else (all_z, all_others)
    invariance = ops.mean(ops.square(z - others), axis=-1)
    variance = sum(variance_hinge(view) for view in views) / 2
    covariance = sum(covariance_penalty(view) for view in views)
    return sim_coeff * invariance + std_coeff * variance + cov_coeff * covariance


def variance_hinge(z):
    """How far the channels are from a deviation of 1, `mean_j max(0, 1 - sqrt(Var(z_j) + 1e-4))`.

    It lies in [0, .99]: 0 where every channel has a variance of 1 at least, .99 where the outputs
    are all equal. The variance is the unbiased one, over n - 1.

    Args:
        z: outputs, `[n, d]`.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: if n is 1.
    """
    z, degrees = _centred(z)
    variance = ops.sum(ops.square(z), axis=0) / degrees
    return ops.mean(ops.relu(1.0 - ops.sqrt(variance + VARIANCE_EPSILON)))


def covariance_penalty(z):
    """The squared covariances of different channels, `sum_{j != k} Cov(z)_jk^2 / d`.

    At least 0, as it is where the channels are uncorrelated or d is 1.

    Args:
        z: outputs, `[n, d]`.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: if n is 1.
    """
    z, degrees = _centred(z)
    covariance = ops.matmul(ops.transpose(z), z) / degrees
    channels = ops.arange(ops.shape(z)[1], dtype="int32")  # no static shape when gathered
    itself = ops.equal(channels[:, None], channels)
    squared = ops.where(itself, 0.0, ops.square(covariance))
    return ops.sum(ops.mean(squared, axis=0))


def _centred(z):
    """Outputs without their mean over the samples, and n - 1."""
    if z.shape[0] == 1:
        raise ValueError(
            "`VICReg` needs at least 2 images in a batch, which its variances are over. "
            "Received: 1 image"
        )
    z = at_least_float32(z)
    degrees = ops.cast(ops.shape(z)[0], z.dtype) - 1.0
    return ops.subtract(z, ops.mean(z, axis=0)), degrees
