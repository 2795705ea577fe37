"""Vectors and what they are of, in Parquet: written in a stream, read whole or chunk by chunk."""

import contextlib
import dataclasses
import glob
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simsiam_keras import runs
from simsiam_keras.errors import sentence

NAME = "vectors.parquet"
META = b"simsiam_keras"  # the key of the file's own metadata, JSON
FORMAT = 1
GROUP_BYTES = 2**23  # of the vectors in a row group, the least that is read at a time
UNLABELLED = -1
_OF_FILES = ("vector", "bytes", "modified_ns", "sha256")


@dataclasses.dataclass(frozen=True)
class About:
    """What all rows of a file have in common.

    Attributes:
        dataset: as the user named it.
        root: absolute path of the folder that `name` is below; "" where images are in no folder.
        class_names: list of str; None without labels that have names.
        several: whether an image has a list of labels, which then have names.
        dim: d, width of the vectors.
        encoder: `"sha256:..."` of the encoder's file or folder.
        image_size: side of the images that it takes, in pixels.
        eval_crop: share of the short side that is looked at.
        stored_range: see `cards.Card`.
        channels: of the images.
    """

    dataset: str
    root: str
    class_names: list | None
    several: bool
    dim: int
    encoder: str
    image_size: int
    eval_crop: float
    stored_range: list | str | None
    channels: int


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """What n rows say besides their vectors.

    Attributes:
        names: list of str, the path below `About.root` with /, or the number of the image.
        splits: list of str.
        labels: int64 `[n]`, -1 unlabelled; 0 and 1 `[n, classes]` of several; None without labels.
        sizes: int64 `[n]`, bytes of the file; -1 where there is none.
        modified: int64 `[n]`, nanoseconds; -1 likewise.
        digests: list of bytes, SHA-256 of the file; None likewise.
    """

    names: list
    splits: list
    labels: np.ndarray | None
    sizes: np.ndarray
    modified: np.ndarray
    digests: list

    def __len__(self):
        return len(self.names)


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """All of one or several files, in memory.

    Attributes:
        about: an `About`, of the first file.
        rows: a `Rows` of n.
        vectors: float32 `[n, d]`.
    """

    about: About
    rows: Rows
    vectors: np.ndarray

    names = property(lambda self: self.rows.names)
    splits = property(lambda self: self.rows.splits)
    labels = property(lambda self: self.rows.labels)
    root = property(lambda self: self.about.root)
    class_names = property(lambda self: self.about.class_names)
    encoder = property(lambda self: self.about.encoder)
    image_size = property(lambda self: self.about.image_size)

    def path(self, number):
        """Where an image lies; None where it is in no folder."""
        return path_of(self.about, self.rows.names[number])


def under_one(roots):
    """The folder above several, and what names below each of them begin with there.

    Args:
        roots: absolute paths; "" where names are below no folder.

    Returns:
        `(root, prefixes)`; `""` and as many empty texts where they have no folder in common.

    Example:
    >>> under_one(["/photos/train", "/photos/test/small"])
    ('/photos', ['train/', 'test/small/'])
    """
    try:
        root = os.path.commonpath(roots)
    except ValueError:  # not all absolute, or on several drives
        root = ""
    if not root:
        return "", [""] * len(roots)
    inside = [os.path.relpath(path, root).replace(os.sep, "/") for path in roots]
    return root, ["" if path == "." else f"{path}/" for path in inside]


def path_of(about, name):
    """Where the image of a row lies; None where it is in no folder."""
    return os.path.join(about.root, *name.split("/")) if about.root else None


def write(path, about, rows, vectors):
    """Writes a file; it appears when it is whole.

    Args:
        path: where.
        about: an `About`.
        rows: a `Rows` of n.
        vectors: float32 `[n, d]`, read a part at a time: it may be a memory map.
    """
    columns = _columns(about, rows)
    schema = pa.schema(
        [*(pa.field(name, column.type) for name, column in columns.items()), _field(about.dim)]
    ).with_metadata({META: json.dumps({"format": FORMAT, **dataclasses.asdict(about)}).encode()})
    every = max(1, GROUP_BYTES // (4 * about.dim))
    # Of floats nothing is won by compressing them.
    compression = dict.fromkeys(columns, "zstd") | {"vector": "none"}
    few = [name for name in ("split", "label", "class") if name in columns]
    with runs.atomic_file(path) as file:
        with pq.ParquetWriter(file, schema, compression=compression, use_dictionary=few) as writer:
            for first in range(0, max(1, len(rows)), every):
                part = slice(first, min(first + every, len(rows)))
                arrays = [column[part] for column in columns.values()]
                flat = pa.array(np.ascontiguousarray(vectors[part], "float32").reshape(-1))
                arrays.append(pa.FixedSizeListArray.from_arrays(flat, about.dim))
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _field(dim):
    return pa.field("vector", pa.list_(pa.float32(), dim))


def _columns(about, rows):
    columns = {"name": pa.array(map(_text, rows.names), pa.string())}
    columns["split"] = pa.array(rows.splits, pa.string())
    if about.several:
        chosen = [np.flatnonzero(row).tolist() for row in rows.labels]
        columns["labels"] = pa.array(chosen, pa.list_(pa.int64()))
    else:
        labels = rows.labels
        unknown = np.ones(len(rows), bool) if labels is None else labels == UNLABELLED
        values = np.zeros(len(rows), np.int64) if labels is None else labels
        columns["label"] = pa.array(values, pa.int64(), mask=unknown)
    if about.class_names and not about.several and rows.labels is not None:
        named = [about.class_names[i] if i != UNLABELLED else None for i in rows.labels.tolist()]
        columns["class"] = pa.array(named, pa.string())
    for name, values in (("bytes", rows.sizes), ("modified_ns", rows.modified)):
        columns[name] = pa.array(values, pa.int64(), mask=np.asarray(values) < 0)
    columns["sha256"] = pa.array(rows.digests, pa.binary(32))
    return columns


def _text(name):
    """A name that UTF-8 can hold: bytes that it cannot are spelled out."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


class Reader:
    """Files of vectors as one, of which the vectors stay on the disk.

    Args:
        paths: what `--vectors` and `--gallery` name: a file, a folder of them, a pattern, or
            several of these with commas.

    Attributes:
        about: an `About`, of the first file; where files have roots of their own, such as the
            splits of one folder, its `root` is the folder above them all.
        files: the list of files.

    Raises:
        ValueError: if there is none, one is no such file, or they are of different encoders or
            classes.
    """

    def __init__(self, paths):
        self.files = _files(paths)
        self._opened = [_opened(path) for path in self.files]
        abouts = [about for about, _ in self._opened]
        root, self._prefixes = under_one([about.root for about in abouts])
        if not root and any(about.root for about in abouts):
            raise ValueError(
                f"{', '.join(self.files)} are of images that no folder has in common: give vectors "
                "of one data set"
            )
        self.about = dataclasses.replace(abouts[0], root=root)
        for path, other in zip(self.files, abouts, strict=True):
            for name in ("encoder", "class_names", "several"):
                if getattr(other, name) != getattr(self.about, name):
                    raise ValueError(
                        f"{path} and {self.files[0]} have another `{name}`: give vectors that one "
                        "encoder made of one data set"
                    )

    def __len__(self):
        return sum(file.metadata.num_rows for _, file in self._opened)

    def chunks(self):
        """Yields the vectors in order, float32 `[m, d]`, a few megabytes at a time."""
        for _, file in self._opened:
            for group in range(file.metadata.num_row_groups):
                column = file.read_row_group(group, columns=["vector"]).column(0)
                yield _matrix(column, self.about.dim)

    def rows(self):
        """The `Rows` of all."""
        return _rows(self._table(("vector",)), self.about)

    def some(self, numbers):
        """What a few rows say, dicts by their numbers: name, path, split, label and class."""
        rows = self._table(_OF_FILES).take(pa.array(numbers)).to_pylist()
        return {
            number: {**row, "path": path_of(self.about, row["name"])}
            for number, row in zip(np.asarray(numbers).tolist(), rows, strict=True)
        }

    def _table(self, without):
        """All columns but some, names below the root of all."""
        tables = []
        for prefix, (_, file) in zip(self._prefixes, self._opened, strict=True):
            kept = [n for n in file.schema_arrow.names if n not in without]
            table = file.read(columns=kept)
            if prefix:
                names = pc.binary_join_element_wise(prefix, table["name"], "")
                table = table.set_column(kept.index("name"), "name", names)
            tables.append(table)
        # Files without a label have no column of classes.
        return pa.concat_tables(tables, promote_options="default")

    def vectors(self):
        """All vectors, float32 `[n, d]`."""
        found = np.empty((len(self), self.about.dim), "float32")
        first = 0
        for chunk in self.chunks():
            found[first : first + len(chunk)] = chunk
            first += len(chunk)
        return found


def read(paths):
    """Reads everything of what `Reader` takes.

    Returns:
        A `Vectors`.

    Raises:
        ValueError: as `Reader`.
    """
    reader = Reader(paths)
    return Vectors(reader.about, reader.rows(), reader.vectors())


def _files(paths):
    found = []
    for path in str(paths).split(","):
        if os.path.isdir(path):
            inside = sorted(glob.glob(os.path.join(glob.escape(path), "*.parquet")))
            if not inside:
                raise ValueError(f"{path} has no .parquet: write one with `embed`")
            found += inside
        elif os.path.isfile(path):
            found.append(path)
        else:
            matching = sorted(glob.glob(path))
            if not matching:
                raise ValueError(f"There is no {path}: give a .parquet that `embed` wrote")
            found += matching
    return found


def _opened(path):
    try:
        with contextlib.ExitStack() as stack:
            file = pq.ParquetFile(path)
            stack.callback(file.close)
            found = json.loads((file.schema_arrow.metadata or {})[META])
            if found.pop("format") != FORMAT:
                raise ValueError("another version's")
            about = About(**found)
            if file.schema_arrow.field("vector") != _field(about.dim):
                raise ValueError("its vectors have another width than it says")
            stack.pop_all()
            return about, file
    except Exception as error:
        said = sentence(error).rstrip(".")[:200]
        raise ValueError(
            f"{path} is no file of vectors that `embed` wrote, or it is damaged ({said}); write it "
            "again with `embed`"
        ) from error


def _matrix(column, dim):
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(flat).reshape(-1, dim) if flat else np.empty((0, dim), "float32")


def _rows(table, about):
    labels = None
    if about.several:
        labels = np.zeros((len(table), len(about.class_names)), np.int64)
        for row, chosen in enumerate(table["labels"].to_pylist()):
            labels[row, chosen] = 1
    elif table["label"].null_count < len(table):
        labels = table["label"].fill_null(UNLABELLED).to_numpy().astype(np.int64)
    return Rows(
        table["name"].to_pylist(),
        table["split"].to_pylist(),
        labels,
        table["bytes"].fill_null(-1).to_numpy(),
        table["modified_ns"].fill_null(-1).to_numpy(),
        table["sha256"].to_pylist(),
    )


def default_path(folder):
    """Where `embed` writes the vectors of a folder."""
    return Path(folder) / NAME
