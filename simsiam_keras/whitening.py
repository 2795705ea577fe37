"""A last linear layer in closed form: what differs between two views of an image counts less."""

import keras
import numpy as np

from simsiam_keras.errors import RunFailed

IMAGES = 10_000  # whose pairs of views are looked at, at the most
NAME = "view_whitening"


def scatter(encode, pairs):
    """The mean of the features of views, and how far those of one image scatter.

    Args:
        encode: function of uint8 images to features `[n, d]`.
        pairs: an iterable of `(x1, x2)`, two views of the same n images each.

    Returns:
        `(mean, within)`: `[d]`, and the covariance within images `[d, d]`, both float64.

    Raises:
        RunFailed: if a feature is not finite.
    """
    n, total, within = 0, 0.0, 0.0
    for x1, x2 in pairs:
        f1, f2 = (np.asarray(encode(x), "float64") for x in (x1, x2))
        difference = f1 - f2
        n, total = n + len(difference), total + (f1 + f2).sum(0)
        within = within + difference.T @ difference
    if not np.isfinite(within).all():
        raise RunFailed("features of views are NaN or infinite: --view_whitening=0 leaves them so")
    return total / (2 * n), within / (2 * n)


def transform(within, shrinkage):
    """W = (I + S / (shrinkage * s))^(-1/2), with s the largest eigenvalue of S.

    A direction in which views of an image do not differ keeps its length; none is made longer.

    Args:
        within: S, `[d, d]`, symmetric and positive semidefinite.
        shrinkage: above 0; W goes to I where it is large.

    Returns:
        W, `[d, d]`.

    Reference:
        Within-class covariance normalization, here with each image as its own class: Hatch et al.,
        Within-class covariance normalization for SVM-based speaker recognition, 2006.
    """
    values, vectors = np.linalg.eigh(within)
    share = np.clip(values, 0, None) / max(values[-1], np.finfo("float64").tiny)
    return vectors / np.sqrt(1 + share / shrinkage) @ vectors.T


def whitened(encoder, encode, pairs, shrinkage):
    """An encoder followed by what `transform` makes of pairs of views, f -> (f - mean) W.

    Args:
        encoder: a functional `keras.Model`, images to features `[n, d]`.
        encode: as in `scatter`, its features.
        pairs: as in `scatter`.
        shrinkage: as in `transform`.

    Returns:
        A functional `keras.Model` with the layers of `encoder` and a dense one.
    """
    mean, within = scatter(encode, pairs)
    weights = transform(within, shrinkage)
    layer = keras.layers.Dense(len(mean), name=NAME, dtype="float32")
    model = keras.Model(encoder.inputs, layer(encoder.outputs[0]), name=encoder.name)
    layer.set_weights([weights.astype("float32"), (-mean @ weights).astype("float32")])
    return model
