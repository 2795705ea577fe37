"""Batches that hold as many images of one class as of another, for losses over pairs of labels."""

import numpy as np

from simsiam_keras.data.pipeline import steps_per_epoch

IMAGES_PER_CLASS = 4  # at least, where nobody says; the K of Hermans et al.


def balanced_order(labels, batch_size, classes, seed, epoch):
    """The images of an epoch, in batches of P classes with K images each: P x K sampling.

    The classes of a batch differ, and any two of them come equally often in an epoch, give or take
    one batch, however many images they have. The images of a class come in turn, shuffled again
    when all have been there, and twice in a batch only if there are fewer than K. A batch lists its
    classes in turn, `a b c a b c`: each of its k equal parts holds all of them where k divides K.
    An epoch has `n // batch_size` batches, as elsewhere; it may lack images of a large class.

    Args:
        labels: integers `[n]`, at least two of each class.
        batch_size: P times K, within [4, n].
        classes: P, or 0 for a default, see `classes_per_batch`.
        seed: integer >= 0.
        epoch: integer >= 0.

    Returns:
        int64 `[n // batch_size * batch_size]`, the same for the same arguments.

    Raises:
        ValueError: as `classes_per_batch`, and if there is not one full batch.

    Example:
    >>> labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    >>> labels[balanced_order(labels, batch_size=8, classes=2, seed=0, epoch=0)].reshape(4, 2)
    array([[0, 1],
           [0, 1],
           [0, 1],
           [0, 1]])

    Reference:
        Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017,
        section 2, https://arxiv.org/abs/1703.07737
    """
    classes = classes_per_batch(labels, batch_size, classes)
    labels = np.asarray(labels)
    random = np.random.default_rng([seed, epoch])
    known = np.unique(labels)
    images = {
        c: _turns(np.flatnonzero(labels == c), batch_size // classes, random)
        for c in known.tolist()
    }
    drawn = _turns(known, classes, random)
    batches = [
        np.stack([next(images[c]) for c in next(drawn).tolist()], axis=1).ravel()
        for _ in range(steps_per_epoch(len(labels), batch_size))
    ]
    return np.concatenate(batches).astype(np.int64)


def classes_per_batch(labels, batch_size, classes=0):
    """The number of classes P in a balanced batch, checked, or chosen when it is 0.

    The default is the largest divisor of the batch, at most all classes, that leaves K = batch_size
    / P >= 4 images of each; where none does, the smallest divisor.

    Args:
        labels: integers `[n]`, at least two of each class.
        batch_size: a multiple of P, at least 2 P.
        classes: P, within [2, number of classes]; default 0.

    Returns:
        P, an integer.

    Raises:
        ValueError: if there are no labels or fewer than two classes, a class has a single image,
            or P or `batch_size` is out of its range.

    Example:
    >>> classes_per_batch([0, 0, 1, 1, 2, 2], batch_size=32)
    2
    >>> classes_per_batch(np.arange(100) % 10, batch_size=32)
    8
    """
    if labels is None:
        raise ValueError("`labels` must be given to balance the classes. Received: labels=None")
    known, counts = np.unique(labels, return_counts=True)
    if len(known) < 2:
        raise ValueError(
            f"`labels` must hold at least 2 classes. Received: {len(known)} in {len(labels)} labels"
        )
    single = known[counts == 1]
    if len(single):
        more = f" and {len(single) - 1} other class(es)" if len(single) > 1 else ""
        raise ValueError(
            "`labels` must hold at least 2 images of each class, one alone forms no pair. "
            f"Received: 1 image of label {single[0]}{more}"
        )
    if not classes:
        fitting = [p for p in range(2, len(known) + 1) if batch_size % p == 0]
        large = [p for p in fitting if batch_size // p >= IMAGES_PER_CLASS]
        classes = max(large, default=min(fitting, default=2))
    if not 2 <= classes <= len(known):
        raise ValueError(
            f"`classes` must be between 2 and the number of classes, {len(known)}. "
            f"Received: classes={classes}"
        )
    if batch_size % classes or batch_size < 2 * classes:
        raise ValueError(
            "`batch_size` must be a multiple of `classes`, with at least 2 images of each. "
            f"Received: batch_size={batch_size}, classes={classes}"
        )
    return classes


def _turns(items, size, random):
    """Yields groups of `size` items without end; every item comes once before any comes again."""
    left = items[:0]
    while True:
        group = items[:0]
        while len(group) < size:
            if not len(left):
                # A new turn opens with items that the group lacks, so that it holds none twice.
                ahead = random.permutation(np.setdiff1d(items, group))[: size - len(group)]
                left = np.concatenate([ahead, random.permutation(np.setdiff1d(items, ahead))])
            taken, left = np.split(left, [size - len(group)])
            group = np.concatenate([group, taken])
        yield group
