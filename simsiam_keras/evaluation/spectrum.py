"""Eigenvalues that are said to foretell, without labels, what features are worth.

RankMe, `collapse.effective_rank`, is the third of them. How far each can be trusted is measured in
benchmarks/results/label_free.md.
"""

import numpy as np

from simsiam_keras.evaluation.checks import check_features

LAST = 100  # index of the last eigenvalue that alpha is fitted to
DELTA = 1e-4  # LiDAR's, added to the covariance within an image
EPSILON = 1e-7  # RankMe's and LiDAR's, added to a share of the spectrum
NOTHING = 1e-12  # of the largest eigenvalue, below which float32 has rounded: squares of 1e-6


def alpha_req(features):
    """Rate at which the spectrum of features decays, alpha-ReQ: the exponent of a power law.

    `lambda_k ~ k^-alpha`, lambda_1 >= lambda_2 >= ... the eigenvalues of the covariance, by least
    squares of `log lambda_k` against `log k` with weights 1 / k, so that each factor of k counts
    alike. Fitted to `K // 10 < k <= K`, K = min(100, n - 1, d): to 11..100 as in the authors' own
    library, since the first directions follow no law and the last ones are sampling noise; where
    there are fewer, to their last nine tenths.

    At least 0, which is a flat spectrum; about 1 is said to be best, more is a spectrum that
    collapses, less one that keeps noise. Scale, offset and rotation do not matter. The covariance
    of n images has n - 1 eigenvalues and a tail that is too steep: compare equal n only.

    Args:
        features: `[n, d]`, n >= 2.

    Returns:
        The exponent, a float; NaN where fewer than two eigenvalues that are not zero can be fitted,
        as when the features lie on a line.

    Raises:
        ValueError: if features are not a matrix, are empty or not finite, or n = 1.

    Example:
    >>> basis = np.concatenate([np.eye(8), -np.eye(8)])
    >>> round(alpha_req(basis / np.arange(1, 9)), 3)  # eigenvalues k^-2
    2.0

    Reference:
        Agrawal et al., alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by
        measuring eigenspectrum decay, 2022, section 3, https://arxiv.org/abs/2202.05808
    """
    check_features(features, "features")
    x = np.asarray(features, "float64")
    n, d = x.shape
    if n < 2:
        raise ValueError(f"`features` must have at least 2 rows. Received: shape={x.shape}")
    x = x - x.mean(axis=0)
    gram = x @ x.T if n <= d else x.T @ x
    last = min(LAST, n - 1, d)
    eigenvalues = np.linalg.eigvalsh(gram)[::-1][:last]
    k = np.arange(1, last + 1)
    fitted = (k > last // 10) & (eigenvalues > NOTHING * eigenvalues[0])
    if fitted.sum() < 2:
        return float("nan")
    return -_slope(np.log(k[fitted]), np.log(eigenvalues[fitted]), 1 / k[fitted])


def lidar(embeddings, delta=DELTA):
    """Number of directions in which images differ and their views do not, LiDAR.

    `exp(-sum_k p_k log p_k)` with `p_k = lambda_k / sum(lambda) + 1e-7`, lambda the eigenvalues of
    `W^-1/2 B W^-1/2`: B is the covariance between images, of the means of their views, and W that
    within them, `mean (e - mean_i)(e - mean_i)^T + delta I`. RankMe counts every direction in which
    outputs differ, also those that a crop or a colour decides.

    In [1, min(n - 1, d)], but for 1e-3 that epsilon adds, and 0 where all images have one mean.
    Rotation and offset do not matter; scale does not where delta is small against W.

    W comes from n (q - 1) differences. Where d is more, delta alone is its value in the other
    directions, B's share of these is divided by it, and the rank becomes that of the sample: let
    `n (q - 1)` be at least d.

    Args:
        embeddings: outputs of the projector, `[n, q, d]`: q >= 2 views of each of n >= 2 images.
        delta: what keeps W invertible, above 0; default 1e-4, the paper's.

    Returns:
        The rank, a float.

    Raises:
        ValueError: if embeddings are not finite or of another shape, or delta is not positive.

    Example:
    >>> means = np.concatenate([np.eye(3), -np.eye(3)])[:, None]  # 3 directions tell 6 images apart
    >>> views = np.concatenate([means + 0.1, means - 0.1], axis=1)
    >>> round(lidar(views), 3)
    2.022

    Reference:
        Thilak et al., LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL
        Architectures, 2023, section 4, https://arxiv.org/abs/2312.04000
    """
    e = np.asarray(embeddings, "float64")
    if e.ndim != 3 or e.shape[0] < 2 or e.shape[1] < 2 or e.shape[2] < 1:
        raise ValueError(
            "`embeddings` must be [n, q, d] with at least 2 images and 2 views. Received: "
            f"shape={e.shape}"
        )
    if not np.isfinite(e).all():
        raise ValueError("`embeddings` must be finite. Received: NaN or infinity")
    if not delta > 0:
        raise ValueError(f"`delta` must be > 0. Received: delta={delta}")
    n, q, d = e.shape
    means = e.mean(axis=1)
    inner = (e - means[:, None]).reshape(n * q, d)
    within = inner.T @ inner / (n * q) + delta * np.eye(d)
    between = means - means.mean(axis=0)
    # Of the whitened B's eigenvalues all that are not zero, and n x n: no root of a matrix.
    whitened = between @ np.linalg.solve(within, between.T) / n
    eigenvalues = np.zeros(d)
    eigenvalues[: min(n, d)] = np.linalg.eigvalsh((whitened + whitened.T) / 2)[::-1][:d]
    return _smooth_rank(np.maximum(eigenvalues, 0))


def _smooth_rank(eigenvalues):
    """The exponential of the entropy of shares of a spectrum."""
    if not eigenvalues.any():
        return 0.0
    p = eigenvalues / eigenvalues.sum() + EPSILON
    return float(np.exp(-(p * np.log(p)).sum()))


def _slope(x, y, weights):
    """The slope of a weighted least-squares line."""
    weights = weights / weights.sum()
    x, y = x - weights @ x, y - weights @ y
    return float((weights * x) @ y / ((weights * x) @ x))
