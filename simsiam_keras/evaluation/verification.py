"""Verification: whether two images are of the same class, told from their features alone.

Legend: s the cosine similarity of a pair of feature vectors, t the threshold, above or at which a
pair is called the same.
"""

import numpy as np

from simsiam_keras.evaluation.checks import check_features, check_labels

_ROWS = 1024


def verify(train_features, train_labels, test_features, test_labels, count=6000, seed=0):
    """Tells pairs of one class from pairs of two by the cosine similarity of their features.

    The threshold is chosen on pairs of the training images and applied to pairs of the test images.
    Chosen on the test pairs themselves, as is often quoted, it gives `accuracy_best_threshold`,
    which is never lower and no measure of how well new pairs would be told apart. Half of the pairs
    are the same: features that tell nothing have accuracies of about 1/2.

    Args:
        train_features: array or memory map `[n, d]`; may be of any scale.
        train_labels: array `[n]`.
        test_features: array or memory map `[m, d]`.
        test_labels: array `[m]`.
        count: pairs of either part, see `sample_pairs`; default 6,000, as many as Labeled Faces in
            the Wild has.
        seed: integer >= 0; default 0.

    Returns:
        A dict: `roc_auc`, `accuracy`, `accuracy_best_threshold`, `threshold` (of the training
        pairs), `best_threshold` (of the test pairs), `train_pairs` and `test_pairs` (how many).

    Raises:
        ValueError: if features are no finite matrices of one width, labels are not one for each,
            or a part does not have pairs of both kinds.
        ImportError: if scikit-learn is missing.

    Reference:
        Huang et al., Labeled Faces in the Wild, 2007, http://vis-www.cs.umass.edu/lfw/lfw.pdf
    """
    if np.shape(train_features)[1:] != np.shape(test_features)[1:]:
        raise ValueError(
            "`test_features` must be as wide as `train_features`. Received shapes: "
            f"{np.shape(test_features)} and {np.shape(train_features)}"
        )
    train_labels = check_labels(train_labels, train_features, "train_labels")
    test_labels = check_labels(test_labels, test_features, "test_labels")
    train, test = (sample_pairs(labels, count, seed) for labels in (train_labels, test_labels))
    s = pair_similarity(train_features, train)
    threshold, _ = best_threshold(s, _same(train_labels, train))
    s, same = pair_similarity(test_features, test), _same(test_labels, test)
    best, accuracy = best_threshold(s, same)
    return {
        "roc_auc": roc_auc(s, same),
        "accuracy": float(np.mean((s >= threshold) == same)),
        "accuracy_best_threshold": accuracy,
        "threshold": threshold,
        "best_threshold": best,
        "train_pairs": len(train),
        "test_pairs": len(test),
    }


def sample_pairs(labels, count, seed=0):
    """Draws pairs of images, half of them of one class, half of two; none twice.

    Uniform over the pairs of either kind, so that large classes come more often. There are fewer
    than `count` where one kind has fewer than half of them; then both have as many as that kind.

    Args:
        labels: array `[n]`; at least two different labels, and one that comes twice.
        count: an even number of pairs, at least 2.
        seed: integer >= 0; default 0.

    Returns:
        int64 `[m, 2]` with m <= `count`, even: image numbers i < j, first those of the same class.

    Raises:
        ValueError: if `count` is out of its range, or a kind of pairs does not exist.

    Example:
    >>> sample_pairs([0, 0, 1], count=2).tolist()[0]
    [0, 1]
    """
    if count < 2 or count % 2:
        raise ValueError(f"`count` must be even and at least 2. Received: count={count}")
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    # Sorted by class, image p forms a pair of one class with every image from the first of its
    # class to itself, and a pair of two with every one before.
    first = np.searchsorted(labels[order], labels[order])
    same, different = np.arange(len(order)) - first, first
    most = min(count // 2, same.sum(), different.sum())
    if most == 0:
        raise ValueError(
            "`labels` must hold two classes, one of them twice. Received: "
            f"{len(np.unique(labels))} class(es) in {len(labels)} labels"
        )
    random = np.random.default_rng(seed)
    pairs = [
        _draw(same, first, most, random),
        _draw(different, np.zeros_like(first), most, random),
    ]
    return np.sort(order[np.concatenate(pairs)], axis=1)


def pair_similarity(features, pairs):
    """Cosine similarity of pairs of rows, `s = (f_i / ||f_i||) . (f_j / ||f_j||)`.

    In [-1, 1]; 0 when either is zero.

    Args:
        features: array or memory map `[n, d]`.
        pairs: integers `[m, 2]`.

    Returns:
        float64 `[m]`.

    Raises:
        ValueError: if the features are not a finite matrix.

    Example:
    >>> pair_similarity([[3.0, 0.0], [5.0, 0.0], [0.0, 2.0]], [[0, 1], [0, 2]])
    array([1., 0.])
    """
    features = np.asarray(features)
    check_features(features, "features")
    pairs = np.asarray(pairs)
    s = np.empty(len(pairs))
    for start in range(0, len(pairs), _ROWS):
        a, b = (features[i].astype("float64") for i in pairs[start : start + _ROWS].T)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        products = np.einsum("md,md->m", a, b)
        s[start : start + _ROWS] = np.divide(
            products, lengths, out=np.zeros_like(products), where=lengths > 0
        )
    return np.clip(s, -1, 1)


def roc_auc(s, same):
    """Area under the ROC curve: how likely a same pair is more similar than a different one.

    `P(s_+ > s_-) + P(s_+ = s_-) / 2`. In [0, 1]: 1 when a threshold separates the two kinds, 1/2
    when similarity tells nothing, as when all features are equal, 0 when it is the wrong way round.

    Args:
        s: similarities, `[m]`.
        same: booleans `[m]`; both values must occur.

    Returns:
        The area, a float.

    Raises:
        ValueError: if a kind of pairs is missing.
        ImportError: if scikit-learn is missing.
    """
    _check_kinds(same)
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError as error:
        raise ImportError("Verification needs scikit-learn: install it.") from error
    return float(roc_auc_score(same, s))


def best_threshold(s, same):
    """The threshold that calls most pairs rightly, `s >= t` meaning the same.

    Of thresholds half way between neighbouring similarities, of -1, which calls every pair the
    same, and of 2, which calls none so; the lowest, where several are as good.

    Args:
        s: similarities in [-1, 1], `[m]`.
        same: booleans `[m]`; both values must occur.

    Returns:
        `(t, accuracy)`, two floats; the accuracy is at least that of the more frequent answer.

    Raises:
        ValueError: if a kind of pairs is missing.

    Example:
    >>> best_threshold([0.9, 0.5, 0.1], [True, True, False])
    (0.3, 1.0)
    """
    s, same = np.asarray(s), np.asarray(same, bool)
    _check_kinds(same)
    steps = np.unique(s)
    thresholds = np.concatenate([[-1.0], (steps[1:] + steps[:-1]) / 2, [2.0]])
    kept = same.sum() - np.searchsorted(np.sort(s[same]), thresholds)
    refused = np.searchsorted(np.sort(s[~same]), thresholds)
    best = np.argmax(kept + refused)
    return float(thresholds[best]), float((kept + refused)[best] / len(s))


def _same(labels, pairs):
    return labels[pairs[:, 0]] == labels[pairs[:, 1]]


def _draw(counts, offset, size, random):
    """Different pairs (p, q), `[size, 2]`; q is one of `counts[p]` numbers from `offset[p]` on."""
    ends = np.cumsum(counts)
    number = random.choice(ends[-1], size, replace=False)
    p = np.searchsorted(ends, number, side="right")
    return np.stack([p, number - (ends[p] - counts[p]) + offset[p]], axis=1)


def _check_kinds(same):
    if not 0 < np.sum(same) < len(same):
        raise ValueError(
            "`same` must hold pairs of both kinds. Received: "
            f"{np.sum(same)} of {len(same)} pairs are the same"
        )
