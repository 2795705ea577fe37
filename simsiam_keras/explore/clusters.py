"""Groups of similar images without labels."""

import math

import numpy as np

from simsiam_keras.evaluation.knn import unit

MOST = 30  # clusters, beyond which no legend can be read
RULE = "the root of a tenth of the images, at least 2 and at most 30"


def number(n):
    """How many clusters n images get where nobody says: `RULE`.

    Example:
    >>> number(431), number(2199), number(100_000), number(3)
    (7, 15, 30, 2)
    """
    return min(n, max(2, min(MOST, round(math.sqrt(n / 10)))))


def of(vectors, count, seed=0):
    """k-means of directions, the largest cluster first.

    Args:
        vectors: `[n, d]`.
        count: clusters, at least 1 and at most n.
        seed: of the beginning; default 0.

    Returns:
        int64 `[n]` within [0, count), of which a cluster without image is left out.

    Reference:
        Sculley, Web-scale k-means clustering, WWW 2010
    """
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(count, random_state=seed, n_init=5, batch_size=1024)
    found = fitted.fit_predict(unit(vectors))
    values, where, sizes = np.unique(found, return_inverse=True, return_counts=True)
    place = np.empty(len(values), np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(values))
    return place[where]


def names(cluster, labels, class_names):
    """What clusters are called: their number, and the class that most of their images have.

    Args:
        cluster: int64 `[n]`.
        labels: int64 `[n]`, -1 unlabelled, or None.
        class_names: list of str, or None.

    Returns:
        A list of str.
    """
    return [
        f"{i + 1}" + _mostly(labels[cluster == i] if labels is not None else (), class_names)
        for i in range(cluster.max() + 1)
    ]


def _mostly(labels, class_names):
    labels = np.asarray(labels, np.int64)
    labels = labels[labels >= 0]
    if not len(labels):
        return ""
    counts = np.bincount(labels)
    most = int(counts.argmax())
    name = class_names[most] if class_names else most
    return f": {name} {100 * counts[most] / len(labels):.0f} %"
