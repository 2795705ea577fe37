"""Which labels a classifier learns from, and what its classes are called."""

import numpy as np

from simsiam_keras.data import subsets


def check(cfg, train_set, test_set):
    """Refuses labels that no classifier can be trained or tested on.

    Args:
        cfg: a `config.FineTune`.
        train_set: a labelled `data.Source`.
        test_set: another.

    Raises:
        ValueError: if images have several labels, there are other classes than expected or fewer
            than two, or the test images have one that the training images lack.
    """
    for source in (train_set, test_set):
        if source.labels.ndim == 2:
            raise ValueError(
                "`fine-tune` needs one label for each image; "
                f"{source.name} has several. `linear-probe` and `knn` take those"
            )
    classes = np.unique(train_set.labels)
    if cfg.classes and len(classes) != cfg.classes:
        raise ValueError(
            f"--classes={cfg.classes} were expected, {train_set.name} has {len(classes)}"
        )
    if len(classes) < 2:
        raise ValueError(
            f"`fine-tune` needs two classes or more; {train_set.name} has {len(classes)}"
        )
    strange = np.setdiff1d(test_set.labels, classes)
    if len(strange):
        raise ValueError(
            f"the test images of {cfg.dataset} have classes without a training image: "
            f"{', '.join(names(train_set, strange)[:5])}; take these images out, or give another "
            "--test_split"
        )


def names(source, classes):
    """What classes are called, by their numbers, as a list of str."""
    known = source.class_names
    return [str(known[c] if known else c) for c in classes.tolist()]


def drawn(source, cfg):
    """The images that the flags say to learn from, all without these.

    Args:
        source: a labelled `data.Source`.
        cfg: a `config.FineTune`.

    Returns:
        A source of the same kind, with at least an image of each class.

    Raises:
        ValueError: if no class keeps two images, of which one is held out.
    """
    if cfg.labels_per_class:
        source = subsets.few_labels(source, cfg.labels_per_class, cfg.seed)
    elif cfg.labels_fraction:
        source = fraction(source, cfg.labels_fraction, cfg.seed)
    if np.unique(source.labels, return_counts=True)[1].max() < 2:
        raise ValueError(
            "`fine-tune` holds out an image of each class that has two, and no class has; give "
            "--labels_per_class=2 or more, or --labels_fraction of more images"
        )
    return source


def fraction(source, share, seed=0):
    """A random share of the images of each class, one at the least.

    Args:
        source: a labelled `data.Source`.
        share: in (0, 1].
        seed: integer >= 0; default 0.

    Returns:
        A source of the same kind, in the same order.
    """
    random, kept = np.random.default_rng(seed), []
    for value in np.unique(source.labels):
        rows = random.permutation(np.flatnonzero(source.labels == value))
        kept.append(rows[: max(1, round(share * len(rows)))])
    name = f"{source.name}, {100 * share:g} % of the labels"
    return subsets.subset(source, np.sort(np.concatenate(kept)), name)
