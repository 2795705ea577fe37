"""Whether features and outputs have collapsed: to a point, or into few directions.

Collapse to a point shows in `z_std`. These measures also show the other kind, dimensional or
"local" collapse, where images still differ, but only along a few directions.
"""

import numpy as np

from simsiam_keras.evaluation import spectrum
from simsiam_keras.evaluation.checks import check_features

EPSILON = 1e-7  # RankMe's, for float32


def measure(features, z1, z2, *more):
    """Measures the features and outputs of n pairs of views.

    Args:
        features: the encoder's features of the first view, `[n, width]`.
        z1: outputs of the first view, `[n, d]`.
        z2: outputs of the second view, `[n, d]`.
        *more: outputs of further views of the same images, for LiDAR alone.

    Returns:
        A dict of floats: `feature_rank`, `output_rank`, `alignment`, `uniformity`,
        `eigenvalue_share`, `alpha_req` and `lidar`; of z1 where views are not compared, and of the
        features in `feature_rank` and `alpha_req`. What does not exist is left out: an exponent of
        collapsed features.

    Raises:
        ValueError: if an array is not a matrix, is empty or is not finite, n = 1, or the shapes
            of z1 and z2 differ.
    """
    measured = {
        "feature_rank": effective_rank(features),
        "output_rank": effective_rank(z1),
        "alignment": alignment(z1, z2),
        "uniformity": uniformity(z1),
        "eigenvalue_share": largest_eigenvalue_share(z1),
        "alpha_req": spectrum.alpha_req(features),
        "lidar": spectrum.lidar(np.stack([z1, z2, *more], axis=1)),
    }
    return {name: value for name, value in measured.items() if np.isfinite(value)}


def effective_rank(x):
    """Number of directions that vectors use, RankMe: the exponential of an entropy.

    `exp(-sum_k p_k log p_k)` with `p_k = s_k / sum(s) + 1e-7`, s the min(n, d) singular values of
    x. As in RankMe the rows are not centred, so a mean that is large against the spread counts as
    one direction and hides the others. In [1, min(n, d)], but for 1e-3 that epsilon adds: 1 when
    all rows are multiples of one, n for n <= d orthogonal rows of one length; 0 when x is zero.
    Scale and rotation do not matter.

    Args:
        x: `[n, d]`, n >= 1.

    Returns:
        The rank, a float.

    Raises:
        ValueError: if x is not a matrix, is empty, or is not finite.

    Example:
    >>> round(effective_rank(np.eye(3, 5)), 3), round(effective_rank(np.ones([3, 5])), 3)
    (3.0, 1.0)

    Reference:
        Garrido et al., RankMe, 2023, section 3, https://arxiv.org/abs/2210.02885
    """
    check_features(x, "x")
    s = np.sqrt(_gram_eigenvalues(np.asarray(x, "float64")))
    if not s.any():
        return 0.0
    p = s / s.sum() + EPSILON
    return float(np.exp(-(p * np.log(p)).sum()))


def alignment(z1, z2):
    """Distance between the two views of an image, `mean_i ||z1_i - z2_i||^2` of unit vectors.

    In [0, 4]: 0 when the views agree, 2 when their directions have nothing to do with each other,
    4 when they are opposite. It equals 2 - 2 cos, so a low value is half of the matter: a constant
    output has 0. A zero vector stays zero, at a distance of 1 from any other.

    Args:
        z1: outputs of the first view, `[n, d]`.
        z2: outputs of the second view, `[n, d]`.

    Returns:
        The distance, a float.

    Raises:
        ValueError: if an argument is not a matrix, is empty or is not finite, or the shapes differ.

    Example:
    >>> alignment([[3.0, 0.0]], [[0.0, 5.0]])
    2.0

    Reference:
        Wang & Isola, Understanding Contrastive Representation Learning through Alignment and
        Uniformity, 2020, section 4.1 with alpha = 2, https://arxiv.org/abs/2005.10242
    """
    check_features(z1, "z1")
    check_features(z2, "z2")
    if np.shape(z1) != np.shape(z2):
        raise ValueError(
            f"`z1` and `z2` must have one shape. Received: z1 {np.shape(z1)}, z2 {np.shape(z2)}"
        )
    return float(np.square(_unit(z1) - _unit(z2)).sum(axis=1).mean())


def uniformity(z):
    """How evenly outputs cover the sphere, `log mean_{i < j} exp(-2 ||z_i - z_j||^2)`.

    Of unit vectors, and of different images only. In [-4 n / (n - 1), 0], lower is more even: 0
    when all outputs are the same, the lower end for the corners of a regular simplex (two antipodal
    points: -8), about -4 for many independent directions of large d. A zero vector stays zero.

    Args:
        z: outputs, `[n, d]`, n >= 2.

    Returns:
        The logarithm, a float.

    Raises:
        ValueError: if z is not a matrix, is empty, or is not finite, or n = 1.

    Example:
    >>> round(uniformity([[1.0, 0.0], [0.0, 7.0]]), 6)
    -4.0

    Reference:
        Wang & Isola, section 4.1 with t = 2, https://arxiv.org/abs/2005.10242
    """
    check_features(z, "z")
    _check_pairs(z, "z")
    z = _unit(z)
    i, j = np.triu_indices(len(z), k=1)
    squared = np.square(z).sum(axis=1)
    distance = squared[i] + squared[j] - 2 * (z @ z.T)[i, j]
    return float(np.log(np.exp(-2 * np.maximum(distance, 0)).mean()))


def largest_eigenvalue_share(x):
    """Share of the variance that lies along one direction, `lambda_1 / sum_k lambda_k`.

    lambda are the eigenvalues of the covariance of the rows, which are centred. In [1 / min(n - 1,
    d), 1]: 1 when the vectors lie on a line, however much they differ along it, and when they are
    all the same, since no direction then tells them apart; 1 / d when they vary alike in every
    direction. Scale, offset and rotation do not matter.

    Args:
        x: `[n, d]`, n >= 2.

    Returns:
        The share, a float.

    Raises:
        ValueError: if x is not a matrix, is empty, or is not finite, or n = 1.

    Example:
    >>> largest_eigenvalue_share([[0.0, 1.0], [0.0, 3.0], [0.0, 9.0]])
    1.0

    Reference:
        Jing et al., Understanding Dimensional Collapse in Contrastive Self-supervised Learning,
        2021, section 3 (the spectrum of the covariance), https://arxiv.org/abs/2110.09348
    """
    check_features(x, "x")
    _check_pairs(x, "x")
    x = np.asarray(x, "float64")
    eigenvalues = _gram_eigenvalues(x - x.mean(axis=0))
    total = eigenvalues.sum()
    return float(eigenvalues[-1] / total) if total > 0 else 1.0


def _gram_eigenvalues(x):
    """Squared singular values, ascending; twenty times faster than an SVD of a wide x.

    Squaring loses singular values below 1e-8 of the largest, which EPSILON hides anyway.
    """
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    return np.maximum(np.linalg.eigvalsh(gram), 0)


def _check_pairs(x, name):
    if len(x) < 2:
        raise ValueError(f"`{name}` must have at least 2 rows. Received: shape={np.shape(x)}")


def _unit(x):
    x = np.asarray(x, "float64")
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
