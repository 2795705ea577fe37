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


def check_labels(labels, features, name):
    """Checks that there is one label for each feature vector.

    Args:
        labels: array `[n]`.
        features: array `[n, d]`.
        name: the argument's name, for the error.

    Returns:
        The labels as a NumPy array `[n]`.

    Raises:
        ValueError: if the labels are not a vector of the features' length.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(features),):
        raise ValueError(
            f"`{name}` must hold one label for each of the {len(features)} feature vectors. "
            f"Received: shape={labels.shape}"
        )
    return labels
