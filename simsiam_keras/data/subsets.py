"""Parts of a source: a few images of each class, or few of some classes."""

import numpy as np

from simsiam_keras.data.base import ArraySource, EncodedSource, digest


def subset(source, indices, name):
    """Some images of a source, in the order of their numbers given.

    Args:
        source: an `ArraySource` or `EncodedSource` of n images.
        indices: integers `[m]` within [0, n).
        name: what to call it.

    Returns:
        A source of the same kind with m images, labelled as they were. The fingerprint is one of
        the source's and the numbers.

    Raises:
        ValueError: if `indices` is empty or reaches beyond the source.
    """
    indices = np.asarray(indices, np.int64)
    if not len(indices) or indices.min() < 0 or indices.max() >= len(source):
        raise ValueError(
            f"`indices` must hold numbers of the {len(source)} images of {source.name}. Received: "
            + (f"{indices.min()} to {indices.max()}" if len(indices) else "none")
        )
    labels = None if source.labels is None else source.labels[indices]
    known = {
        "labels": labels,
        "class_names": source.class_names,
        "fingerprint": digest([source.fingerprint, indices]),
    }
    if isinstance(source, ArraySource):
        return ArraySource(name, source.images[indices], **known)
    items = [source.items[i] for i in indices.tolist()]
    return EncodedSource(name, items, image_shape=source.image_shape, **known)


def few_labels(source, per_class, seed=0):
    """`per_class` random images of each class, the few-label setting; all of a smaller class.

    For one seed, those of a smaller `per_class` are among those of a larger one.

    Args:
        source: an `ArraySource` or `EncodedSource` with labels.
        per_class: images of each class, at least 1.
        seed: integer >= 0; default 0.

    Returns:
        A source of the same kind, in the same order, named such as `digits, 5 per class`.

    Raises:
        ValueError: if there are no labels, or `per_class` is below 1.
    """
    if per_class < 1:
        raise ValueError(f"`per_class` must be >= 1. Received: per_class={per_class}")
    kept = _keep(source, {c: per_class for c in _counts(source)}, seed)
    return subset(source, kept, f"{source.name}, {per_class} per class")


def imbalanced(source, fraction, classes, seed=0):
    """A random `fraction` of the images of some classes, and all of the others.

    Of a class of m images, `max(2, round(fraction * m))` stay, so that it still forms a pair.

    Args:
        source: an `ArraySource` or `EncodedSource` with labels.
        fraction: within (0, 1).
        classes: labels of the classes that become rare.
        seed: integer >= 0; default 0.

    Returns:
        A source of the same kind, in the same order, named such as `digits, 10 % of classes 0, 1`.

    Raises:
        ValueError: if there are no labels, `fraction` is out of its range, or no image has one of
            the `classes`.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` must be within (0, 1). Received: fraction={fraction}")
    counts, rare = _counts(source), np.unique(classes).tolist()
    if not rare or not set(rare) <= set(counts):
        raise ValueError(
            f"`classes` must be labels of {source.name}, {', '.join(map(str, counts))}. "
            f"Received: classes={rare}"
        )
    counts.update({c: max(2, round(fraction * counts[c])) for c in rare})
    share = f"{100 * fraction:g} % of classes {', '.join(map(str, rare))}"
    return subset(source, _keep(source, counts, seed), f"{source.name}, {share}")


def _counts(source):
    """{label: its images}, ascending."""
    if source.labels is None:
        raise ValueError(f"The source must have labels. Received: {source.name}, without labels")
    known, counts = np.unique(source.labels, return_counts=True)
    return dict(zip(known.tolist(), counts.tolist(), strict=True))


def _keep(source, counts, seed):
    """Numbers, ascending, of `counts[c]` random images of every class c, or all if fewer."""
    random = np.random.default_rng(seed)
    images = [random.permutation(np.flatnonzero(source.labels == c))[: counts[c]] for c in counts]
    return np.sort(np.concatenate(images))
