"""The checks that every evaluation makes on its features and labels."""

import numpy as np

from simsiam_keras.evaluation.blocks import blocks

_ROWS = 8192


def check_features(features, name):
    """Checks that features are a non-empty, finite matrix.

    Args:
        features: array or memory map `[n, d]`, n >= 1, d >= 1; read in pieces.
        name: the argument's name, for the error.

    Raises:
        ValueError: if the features are not a matrix, are empty, or hold NaN or infinity.
    """
    shape = np.shape(features)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"`{name}` must be a non-empty [n, d] array. Received: shape={shape}")
    for first, rows in blocks(features, _ROWS):
        if not np.isfinite(rows).all():
            raise ValueError(
                f"`{name}` must be finite. Received: NaN or infinity in rows "
                f"{first} to {first + len(rows) - 1}"
            )


def check_labels(labels, features, name, several=False):
    """Checks that there is one label for each feature vector, or one row of several.

    Args:
        labels: array `[n]`, or 0 and 1 `[n, classes]`.
        features: array `[n, d]`.
        name: the argument's name, for the error.
        several: whether a matrix is taken as well; default False.

    Returns:
        The labels as a NumPy array.

    Raises:
        ValueError: if the labels are not of the features' length, or a matrix has other values.
    """
    labels = np.asarray(labels)
    if several and labels.ndim == 2 and len(labels) == len(features):
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f"`{name}` must be 0 and 1 where an image has several labels")
        return labels
    if labels.shape != (len(features),):
        raise ValueError(
            f"`{name}` must hold one label for each of the {len(features)} feature vectors. "
            f"Received: shape={labels.shape}"
        )
    return labels
