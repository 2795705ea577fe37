"""Several labels for an image: mean average precision, and what stands for the one label."""

import numpy as np


def mean_average_precision(labels, scores):
    """The mean over labels of the average precision with which their images are ranked.

    `AP = sum_i (R_i - R_{i-1}) P_i`, precision and recall at each threshold. In (0, 1]; scores that
    tell nothing have about the share of a label's images. A label that no image has, which has no
    average precision, does not count.

    Args:
        labels: 0 and 1, `[m, classes]`.
        scores: `[m, classes]`, higher for images that rather have the label.

    Returns:
        A float.

    Raises:
        ValueError: if no image has a label, or the shapes differ.
        ImportError: if scikit-learn is missing.

    Example:
    >>> mean_average_precision([[1, 0], [0, 0]], [[0.9, 0.5], [0.1, 0.2]])
    1.0

    Reference:
        https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(
            "`scores` must be [images, classes] as `labels`. Received shapes: "
            f"{scores.shape} and {labels.shape}"
        )
    known = labels.any(axis=0)
    if not known.any():
        raise ValueError(f"`labels` must have a 1. Received: {len(labels)} images without a label")
    try:
        from sklearn.metrics import average_precision_score
    except ImportError as error:
        raise ImportError("Mean average precision needs scikit-learn: install it.") from error
    return float(average_precision_score(labels[:, known], scores[:, known], average="macro"))


def strata(labels):
    """What images are held out by: their labels, or of several the rarest.

    Args:
        labels: `[n]`, or 0 and 1 `[n, classes]`.

    Returns:
        `[n]`; -1 for an image that has none of several labels.

    Example:
    >>> strata(np.array([[1, 0], [1, 1], [0, 0]])).tolist()
    [0, 1, -1]
    """
    labels = np.asarray(labels)
    if labels.ndim == 1:
        return labels
    counts = np.where(labels == 1, labels.sum(axis=0), len(labels) + 1)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), -1)
