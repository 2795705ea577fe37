"""`embed`: features of a data set with what each row is, whole, in parts, or updated."""

import contextlib
import dataclasses
import hashlib
import os
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

from simsiam_keras import cards, devices, export, inputs, locks, runs, settings
from simsiam_keras.data import subsets
from simsiam_keras.evaluation import encoded
from simsiam_keras.gallery import vectors
from simsiam_keras.progress import saying

FORMS = ("npy", "parquet")
FREE = {"update", "batch_size", "trust_encoder"}  # what an update may have otherwise


@settings.own
def embed(cfg, console=None):
    """Writes the features of a data set, and what each row is; returns what was written.

    `vectors.parquet` has path or number, split, label and vector of each image; `features.npy`,
    `labels.npy` and `files.txt` the same in three files. An image that cannot be decoded has no
    row; `result.json` names it. Features are streamed to the disk, so that any number of images
    takes the same memory.

    Args:
        cfg: a `config.Embed`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict.

    Raises:
        ValueError: if the encoder or the data cannot be used, or what is to be updated is of
            another encoder or other data.
    """
    console = console or Console(stderr=True)
    forms, part = forms_of(cfg.format), shard_of(cfg.shard)
    encoder = export.load_encoder(cfg.encoder, cfg.trust_encoder)
    say, known = saying(console), (encoder.stored_range, encoder.channels)
    source = inputs.images_of(cfg, cfg.split, *known)
    inputs.tell(source, say)
    if part:
        source = _part_of(source, *part)
    folder = Path(cfg.run_dir) if cfg.run_dir else _folder(cfg, part)
    about = about_of(cfg, encoder, source)
    with _held(folder, cfg) as run_dir:
        old = _old(run_dir / vectors.NAME, about) if cfg.update else None
        rows, features, counts = _made(cfg, encoder, source, old, run_dir, console)
        result = _write(run_dir, forms, about, rows, features, source)
        if cfg.update:
            result |= counts
        runs.write_environment(run_dir, keras.backend.backend(), devices.names(), source)
        result |= {"dataset": cfg.dataset, "encoder": cfg.encoder}
        named = {**result, "class_names": source.class_names}
        named["without_row"] = inputs.without_row([source], say)
        runs.write_json(run_dir / "result.json", named)
    return {**result, "run_dir": str(run_dir)}


def forms_of(text):
    """What `--format` asks for, a set.

    Raises:
        ValueError: if it is none of `FORMS`.
    """
    forms = set(text.split(","))
    if forms - set(FORMS):
        raise ValueError(f"--format must be of {', '.join(FORMS)}, with commas. Received: {text}")
    return forms


def shard_of(text):
    """`(i, n)` of `i/n`, or None of "".

    Raises:
        ValueError: if i is not within [1, n].

    Example:
    >>> shard_of("3/16"), shard_of("")
    ((3, 16), None)
    """
    if not text:
        return None
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise ValueError(f"--shard must be such as 3/16, the third of 16 parts. Received: {text}")


def about_of(cfg, encoder, source):
    """What a file of vectors says of all its rows.

    Args:
        cfg: a configuration with `encoder` and `dataset`.
        encoder: an `export.LoadedEncoder`.
        source: a `data.Source`.

    Returns:
        A `vectors.About`.
    """
    several = source.labels is not None and source.labels.ndim == 2
    names = source.class_names
    if several and not names:
        names = map(str, range(source.labels.shape[1]))
    return vectors.About(
        dataset=cfg.dataset,
        root=_root(source),
        class_names=list(names) if names else None,
        several=several,
        dim=encoder.dim,
        encoder=cards.digest(cfg.encoder),
        image_size=encoder.image_size,
        eval_crop=encoder.eval_crop,
        stored_range=encoder.stored_range,
        channels=encoder.channels,
    )


def rows_of(source, split):
    """What is known of each image of a source that has a row of features.

    Args:
        source: a `data.Source` whose features are made.
        split: what it is called.

    Returns:
        A `vectors.Rows`.
    """
    numbers, root = source.rows().tolist(), _root(source)
    files = [_file(root, source.name_of(i)) for i in numbers]
    stats = [_stat(path) for path in files]
    return vectors.Rows(
        names=[source.name_of(i) for i in numbers],
        splits=[split] * len(numbers),
        labels=None if source.labels is None else source.labels[numbers],
        sizes=np.array([size for size, _ in stats], np.int64),
        modified=np.array([time for _, time in stats], np.int64),
        digests=[_digest(path) for path in files],
    )


def _root(source):
    """The folder that the names of a source's images are below; "" where they are in none."""
    place = source.found.place
    return os.path.abspath(place) if source.names and place and os.path.isdir(place) else ""


def _file(root, name):
    return os.path.join(root, *name.split("/")) if root else None


def _stat(path):
    if path is None:
        return -1, -1
    try:
        found = os.stat(path)
    except OSError:  # gone since it was read
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _digest(path):
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _part_of(source, i, n):
    numbers = np.arange(i - 1, len(source), n)
    if not len(numbers):
        raise ValueError(f"--shard={i}/{n} is empty: {source.name} has {len(source)} images")
    return subsets.subset(source, numbers, f"{source.name}, part {i} of {n}")


def _folder(cfg, part):
    name = f"embed_{cfg.split}" + (f"_{part[0]:02d}_of_{part[1]:02d}" if part else "")
    folder = inputs.beside(cfg.encoder, name)
    return folder if cfg.update else inputs.free(folder, dataclasses.asdict(cfg))


@contextlib.contextmanager
def _held(folder, cfg):
    """The folder to write to, held against others; of an update one that is finished."""
    flags = dataclasses.asdict(cfg)
    if not (cfg.update and (folder / "result.json").exists()):
        with runs.locked(folder, flags) as run_dir:
            yield run_dir
        return
    runs.refuse_other_flags(folder, flags, "vectors", FREE)
    with locks.held(folder):
        yield folder


def _old(path, about):
    """The `vectors.Vectors` to bring up to date; None where there are none yet."""
    if not path.exists():
        return None
    old = vectors.read(path)
    if old.about.encoder != about.encoder:
        raise ValueError(
            f"{path} has vectors of another encoder; give another --run_dir for those of this one"
        )
    if not about.root or old.about.root != about.root:
        raise ValueError(
            f"--update goes by files, and {path} is of "
            f"{old.about.root or old.about.dataset}. Received: {about.root or about.dataset}"
        )
    return old


def _made(cfg, encoder, source, old, run_dir, console):
    """The rows, their features, and of an update how many are new, kept and gone."""
    path = run_dir / ".features.npy"
    if old is None:
        features = encoded.write(path, encoder, source, cfg.batch_size, console)
        return rows_of(source, cfg.split), features, {"new": len(features), "kept": 0, "gone": 0}
    row_of = {name: row for row, name in enumerate(old.names)}
    names = [source.name_of(i) for i in range(len(source))]
    same = [_unchanged(_file(old.about.root, name), old, row_of.get(name)) for name in names]
    fresh = [i for i, kept in enumerate(same) if not kept]
    found = {}
    if fresh:
        part = subsets.subset(source, fresh, source.name)
        features = encoded.write(path, encoder, part, cfg.batch_size, console)
        rows = part.rows().tolist()
        source.missing |= {fresh[i]: error for i, error in part.missing.items()}
        found = {fresh[i]: features[row] for row, i in enumerate(rows)}
    rows = rows_of(source, cfg.split)
    numbers = source.rows().tolist()
    merged = np.empty((len(numbers), encoder.dim), "float32")
    for row, i in enumerate(numbers):
        merged[row] = found[i] if i in found else old.vectors[row_of[names[i]]]
    gone = len(row_of.keys() - set(names))
    return rows, merged, {"new": len(found), "kept": len(numbers) - len(found), "gone": gone}


def _unchanged(path, old, row):
    """Whether a file is what it was: by size and time, or else by its content."""
    if row is None:
        return False
    size, modified = _stat(path)
    if size != old.rows.sizes[row]:
        return False
    return modified == old.rows.modified[row] or _digest(path) == old.rows.digests[row]


def _write(run_dir, forms, about, rows, features, source):
    written = {"features": list(features.shape)}
    if "parquet" in forms:
        vectors.write(run_dir / vectors.NAME, about, rows, features)
        written["vectors"] = str(run_dir / vectors.NAME)
    if "npy" in forms:
        files = {"file": "features.npy", "files": "files.txt", "labels": "labels.npy"}
        written |= {name: str(run_dir / file) for name, file in files.items()}
        if rows.labels is None:
            written["labels"] = None
        else:
            with runs.atomic_file(run_dir / "labels.npy") as file:
                np.save(file, rows.labels)
        with runs.atomic_file(run_dir / "features.npy") as file:
            np.save(file, features)
        text = "".join(f"{name}\n" for name in inputs.row_names(source))
        runs.write_atomically(run_dir / "files.txt", text)
    (run_dir / ".features.npy").unlink(missing_ok=True)
    return written
