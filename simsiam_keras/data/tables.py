"""Labels of images in a table beside them: csv, tsv or json."""

import csv
import dataclasses
import io
import json
from pathlib import Path, PurePosixPath

import numpy as np

from simsiam_keras.data.images import ENDINGS
from simsiam_keras.errors import reading, sentence

FILE = (
    "file filename filepath path image imagename imagepath imageid imageindex img imgname id idcode"
)
LABEL = "label labels class classes classname category target species breed diagnosis dx"
LABEL += " findinglabels classid"
SPLIT = "split splits set subset partition"
EXAMPLES = 2  # of what does not match


@dataclasses.dataclass(frozen=True)
class Match:
    """What a table says of some images.

    Attributes:
        kept: numbers of the images that are taken, ascending.
        labels: int64 `[kept]`, or 0 and 1 `[kept, classes]`; None where it has none.
        classes: their names, or None.
        unlabelled: why there are no labels.
        notes: sentences.
    """

    kept: list
    labels: np.ndarray | None
    classes: tuple | None
    unlabelled: str
    notes: list


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a table of labels.

    Attributes:
        path: the file.
        rows: `(file, label, split)` of each row, texts.
        columns: names of the columns that these are; the last may be None.
    """

    path: str
    rows: list
    columns: tuple

    @property
    def divides(self):
        """Whether it names splits."""
        return self.columns[2] is not None

    def splits(self, found):
        """The names of the splits, those of the folder where it names none."""
        return tuple(sorted({split for _, _, split in self.rows})) if self.divides else found

    def match(self, paths, every, split):
        """The labels of some images.

        Args:
            paths: of the images, with `/`, below their split's folder.
            every: of all images below the whole folder, to tell another table from a part without
                labels.
            split: the rows to look at; None for all.

        Returns:
            A `Match`.

        Raises:
            ValueError: if no row names any image of the folder.
        """
        rows = [row for row in self.rows if split in (None, row[2])]
        index = _index(paths)
        found, unmatched, twice = {}, [], 0
        for file, label, _ in rows:
            number = _lookup(index, file)
            if number is None:
                unmatched.append(file)
            elif number in found:
                twice += found[number] != label
            else:
                found[number] = label
        name = Path(self.path).name
        columns = [
            f"`{column}` is the {what}"
            for column, what in zip(self.columns, ("file", "label", "split"), strict=True)
            if column is not None
        ]
        notes = [f"labels of {name}: {', '.join(columns)}"]
        if not found:
            self._refuse_strangers(every)
            why = f"{name} names none of these {len(paths)} images"
            return Match(list(range(len(paths))), None, None, why, notes)
        kept = sorted(number for number, label in found.items() if label)
        if not kept:
            why = f"{name} has no label for these {len(paths)} images"
            return Match(list(range(len(paths))), None, None, why, notes)
        if len(kept) < len(paths):
            notes.append(f"{len(paths) - len(kept):,} images without a label there are left out")
        if unmatched:
            notes.append(
                f"{len(unmatched):,} of {len(rows):,} rows name no image here"
                f" ({_examples(unmatched)})"
            )
        if twice:
            notes.append(f"{twice:,} rows give a file a second label; the first counts")
        labels, classes = self._numbers([found[number] for number in kept])
        return Match(kept, labels, classes, "", notes)

    def _numbers(self, labels):
        """Labels as numbers of the classes of all rows, so that splits share them."""
        several = any("|" in label for _, label, _ in self.rows)
        split = (lambda label: label.split("|")) if several else (lambda label: [label])
        names = {name.strip() for _, label, _ in self.rows for name in split(label) if label}
        classes = tuple(sorted(names, key=_order))
        numbers = {name: number for number, name in enumerate(classes)}
        if not several:
            return np.array([numbers[label] for label in labels], np.int64), classes
        matrix = np.zeros((len(labels), len(classes)), np.int64)
        for row, label in zip(matrix, labels, strict=True):
            row[[numbers[name.strip()] for name in split(label)]] = 1
        return matrix, classes

    def _refuse_strangers(self, every):
        index = _index(every)
        if not any(_lookup(index, file) is not None for file, _, _ in self.rows):
            rows = _examples([file for file, _, _ in self.rows])
            raise ValueError(
                f"--labels={self.path} names none of the {len(every)} images (column "
                f"`{self.columns[0]}`: {rows}; images: {_examples(every)}); name the columns with "
                "--labels_columns=FILE,LABEL"
            )


def read(path, columns=""):
    """Reads a table of labels.

    A csv or tsv file with a line of names (or without, if its first field is the name of an image),
    a json list of objects, or a json object of files and labels.

    Args:
        path: the file.
        columns: names of the columns of the file, the label and, maybe, the split, separated by
            commas; default "", found by their usual names.

    Returns:
        A `Table`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or its columns cannot be told.
    """
    try:
        path = str(Path(path).expanduser())
        exists = Path(path).is_file()
    except (OSError, ValueError, RuntimeError):  # where no file can have that name
        exists = False
    if not exists:
        raise FileNotFoundError(f"There is no file {path}; give --labels an existing table.")
    with reading(path, "give --labels a csv, tsv or json file in UTF-8"):
        text = Path(path).read_text("utf-8-sig")
        names, rows = _json(text) if path.lower().endswith(".json") else _separated(text)
    if not rows:
        raise ValueError(f"--labels={path} has no rows")
    chosen = _columns(path, names, columns)
    at = [None if name is None else names.index(name) for name in chosen]
    fields = [
        [row[i].strip() if i is not None and i < len(row) else "" for i in at] for row in rows
    ]
    return Table(path, [tuple(row) for row in fields if row[0]], chosen)


def _separated(text):
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if rows and any(field.strip().lower().endswith(ENDINGS) for field in rows[0]):
        return [str(i) for i in range(1, len(rows[0]) + 1)], rows
    return [name.strip() for name in rows[0]] if rows else [], rows[1:]


def _json(text):
    found = json.loads(text)
    if isinstance(found, dict):
        found = [{"file": file, "label": label} for file, label in found.items()]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ValueError("neither a list of objects nor an object of files and labels")
    names = list(dict.fromkeys(name for row in found for name in row))
    return names, [[_text(row.get(name)) for name in names] for row in found]


def _text(value):
    if isinstance(value, list):
        return "|".join(map(_text, value))
    return "" if value is None else str(value)


def _columns(path, names, columns):
    """The columns of file, label and split, in this order; None without a split."""
    listed = ", ".join(names)
    if columns:
        chosen = [name.strip() for name in columns.split(",")]
        if len(chosen) not in (2, 3) or not set(chosen) <= set(names):
            raise ValueError(
                f"--labels_columns must be two or three of {listed}: the file, the label and, "
                f"maybe, the split. Received: {columns}"
            )
        return (*chosen, *[None] * (3 - len(chosen)))
    if names == ["1", "2"]:
        return "1", "2", None
    found = [_usual(names, known) for known in (FILE, LABEL, SPLIT)]
    left = [name for name in names if name not in found]
    if found[0] and not found[1] and len(left) == 1:
        found[1] = left[0]
    for what, name in zip(("the file", "the label"), found, strict=False):
        if name is None:
            raise ValueError(
                f"--labels={path} has no column that is named as {what} usually is; give "
                f"--labels_columns=FILE,LABEL. Its columns: {listed}"
            )
    return tuple(found)


def _usual(names, known):
    """The column whose name comes first among the usual ones, None if none does."""
    spelled = {"".join(c for c in name.lower() if c.isalnum()): name for name in reversed(names)}
    return next((spelled[word] for word in known.split() if word in spelled), None)


def _keys(path):
    """What a file may be called: without ever more of its folders, with and without ending."""
    parts = path.replace("\\", "/").lower().removeprefix("./").strip("/").split("/")
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        yield name
        if name.endswith(ENDINGS):
            yield str(PurePosixPath(name).with_suffix(""))


def _index(paths):
    """Numbers of images by what they may be called; -1 where several are called so."""
    index = {}
    for number, path in enumerate(paths):
        for key in set(_keys(path)):
            index[key] = number if key not in index else -1
    return index


def _lookup(index, file):
    found = next((index[key] for key in _keys(file) if key in index), -1)
    return None if found < 0 else found


def _order(name):
    """Numbers by value, before words."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def _examples(names):
    return ", ".join(f"`{sentence(name)}`" for name in names[:EXAMPLES]) + (
        ", ..." if len(names) > EXAMPLES else ""
    )
