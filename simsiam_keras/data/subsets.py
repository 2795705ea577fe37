"""Parts of a source: images by their numbers, or a few of each class."""

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
        "names": source.names and [source.names[i] for i in indices.tolist()],
        "found": source.found.noting(f"{len(indices):,} of its {len(source):,} images are taken"),
    }
    if isinstance(source, ArraySource):
        part = ArraySource(name, source.images[indices], **known)
        part.value_range = source.value_range
        return part
    items = [source.items[i] for i in indices.tolist()]
    known |= {"image_shape": source.image_shape, "channels": source.channels}
    return EncodedSource(name, items, value_range=source.value_range, **known)


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
    if source.labels is None:
        raise ValueError(f"The source must have labels. Received: {source.name}, without labels")
    if np.ndim(source.labels) != 1:
        raise ValueError(
            f"The source must have one label for each image. Received: {source.name}, with several"
        )
    random = np.random.default_rng(seed)
    kept = [
        random.permutation(np.flatnonzero(source.labels == c))[:per_class]
        for c in np.unique(source.labels)
    ]
    return subset(source, np.sort(np.concatenate(kept)), f"{source.name}, {per_class} per class")
