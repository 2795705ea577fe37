"""What is explored: vectors, and what they are of, from a file of them or from an encoder."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from simsiam_keras import export, inputs
from simsiam_keras.data import folders, sources
from simsiam_keras.evaluation import encoded
from simsiam_keras.gallery import pictures, vectors

UNLABELLED = -1
ALL = "all"


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """n images and their vectors.

    Attributes:
        title: the data set as the user named it.
        root: the folder that names are below; "" where they are in none.
        names: list of n str.
        splits: list of n str.
        labels: int64 `[n]`, -1 where an image has none; None without labels.
        class_names: list of str, or None.
        vectors: float32 `[n, d]`.
        pictures: a `pictures.Files` or `pictures.OfSources`.
        encoder: what made the vectors, for people.
    """

    title: str
    root: str
    names: list
    splits: list
    labels: np.ndarray | None
    class_names: list | None
    vectors: np.ndarray
    pictures: object
    encoder: str

    def __len__(self):
        return len(self.names)


def of(cfg, run_dir, console, say):
    """The images that flags name.

    Args:
        cfg: an `options.Explore` or `options.Duplicates`.
        run_dir: folder for features while they are made.
        console: a `rich.console.Console`.
        say: function of a sentence.

    Returns:
        A `Collection`.

    Raises:
        ValueError: if the encoder, the data or the vectors cannot be used.
    """
    if not cfg.vectors:
        return from_encoder(cfg, run_dir, console, say)
    return from_vectors(vectors.read(cfg.vectors), cfg, say)


def from_vectors(found, cfg, say):
    """A `Collection` of a `gallery.vectors.Vectors`."""
    if not len(found.names):
        raise ValueError(f"{cfg.vectors} has no row; write it again with `embed`")
    rows = found.names, found.splits
    return Collection(
        title=found.about.dataset,
        root=found.root,
        names=list(found.names),
        splits=list(found.splits),
        labels=_single(found.labels, say),
        class_names=list(found.class_names) if found.class_names else None,
        vectors=found.vectors,
        pictures=pictures.of_vectors(found.about, *rows, cfg.value_range, cfg.data_dir),
        encoder=found.encoder,
    )


def from_encoder(cfg, run_dir, console, say):
    """A `Collection` of a data set's splits, whose features are made."""
    encoder = export.load_encoder(cfg.encoder, cfg.trust_encoder)
    known = (encoder.stored_range, encoder.channels)
    loaded, features = [], []
    for split in _splits(cfg):
        source = inputs.images_of(cfg, split, *known)
        inputs.tell(source, say)
        path = run_dir / ".features.npy"
        features.append(np.array(encoded.write(path, encoder, source, cfg.batch_size, console)))
        path.unlink()
        loaded.append((split, source))
    inputs.without_row([source for _, source in loaded], say)
    rows = [source.rows().tolist() for _, source in loaded]
    root, prefixes = _root([source for _, source in loaded])
    names = [
        prefix + source.name_of(i)
        for prefix, (_, source), numbers in zip(prefixes, loaded, rows, strict=True)
        for i in numbers
    ]
    class_names, labels = _labels([source for _, source in loaded], rows, say)
    return Collection(
        title=cfg.dataset,
        root=root,
        names=names,
        splits=[s for (s, _), numbers in zip(loaded, rows, strict=True) for _ in numbers],
        labels=labels,
        class_names=class_names,
        vectors=np.concatenate(features),
        pictures=_pictures(root, names, loaded, rows),
        encoder=cfg.encoder,
    )


def _splits(cfg):
    """The parts that `--split=all` means: those there are, or the whole where it is not divided."""
    if cfg.split != ALL:
        return cfg.split.split(",")
    kind, _, path = cfg.dataset.partition(":")
    if kind == "folder" and path:
        names = folders.splits(Path(path).expanduser(), cfg.labels, cfg.labels_columns)
        if ALL in names:
            return [ALL]
    else:
        names = sources.splits(cfg.dataset, cfg.data_dir or None)
    return [name for name in names if name != ALL] or [ALL]


def _root(loaded):
    """The folder that all files of several sources are below, and what is before their names."""
    places = [os.path.abspath(source.found.place) for source in loaded]
    if not all(map(os.path.isdir, places)) or not all(source.names for source in loaded):
        return "", [""] * len(loaded)
    return vectors.under_one(places)


def _pictures(root, names, loaded, rows):
    """The files, also of images that were decoded once, into memory; else what the sources have."""
    if root:
        source = loaded[0][1]
        return pictures.Files(root, names, source.value_range, source.channels)
    return pictures.OfSources(
        [(source, i) for (_, source), numbers in zip(loaded, rows, strict=True) for i in numbers]
    )


def _labels(loaded, rows, say):
    """Names of classes and labels of several sources' rows, numbered alike."""
    labels = [
        None if s.labels is None else _single(s.labels[r], say)
        for s, r in zip(loaded, rows, strict=True)
    ]
    if all(found is None for found in labels):
        return None, None
    names = [source.class_names for source in loaded if source.class_names]
    union = list(dict.fromkeys(name for part in names for name in part)) or None
    joined = []
    for source, found, numbers in zip(loaded, labels, rows, strict=True):
        if found is None:
            found = np.full(len(numbers), UNLABELLED)
        elif union and source.class_names:
            places = np.array([union.index(name) for name in source.class_names] + [UNLABELLED])
            found = places[found]
        joined.append(found.astype(np.int64))
    return union, np.concatenate(joined)


def _single(labels, say):
    if labels is not None and np.ndim(labels) == 2:
        say("Images with several labels have none here; clusters and splits are shown.")
        return None
    return labels
