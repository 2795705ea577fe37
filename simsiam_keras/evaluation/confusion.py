"""What a classifier takes for what: confusion, accuracy of each class, and of the first five."""

import numpy as np


def confusion(labels, predicted, classes):
    """Counts of each class taken for each.

    Args:
        labels: numbers of the true classes `[n]`.
        predicted: numbers of the classes predicted `[n]`.
        classes: how many there are.

    Returns:
        int64 `[classes, classes]`, rows true, columns predicted.
    """
    pairs = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def per_class(matrix):
    """The share of each class that is predicted right; NaN of a class without an image.

    Args:
        matrix: from `confusion`.

    Returns:
        float64 `[classes]`.
    """
    counts = matrix.sum(axis=1)
    return np.where(counts > 0, np.diag(matrix) / np.maximum(counts, 1), np.nan)


def top_k_accuracy(logits, labels, k=5):
    """The share of rows whose true class is among the k of the highest logits.

    A class that ties with the true one counts as above it if its number is lower.

    Args:
        logits: `[n, classes]`.
        labels: numbers of the true classes `[n]`.
        k: default 5.

    Returns:
        A float within [0, 1].
    """
    labels = np.asarray(labels)
    true = np.take_along_axis(logits, labels[:, None], 1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    above = (logits > true) | ((logits == true) & before)
    return float(np.mean(above.sum(axis=1) < k))
