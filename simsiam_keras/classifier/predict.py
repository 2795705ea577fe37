"""`predict`: the images of a folder to a table of labels with probabilities."""

import csv
import io
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from simsiam_keras import inputs, runs, settings
from simsiam_keras.classifier import calibration, files, report
from simsiam_keras.data import batches
from simsiam_keras.errors import sentence
from simsiam_keras.progress import counted, saying

COLUMNS = ("file", "label", "probability", "second_label", "second_probability", "sure")
OF_CLASS = "p_"  # before a class's name, in the name of its column
TABLE = "labels.csv"


@settings.own
def predict(cfg, console=None):
    """Writes a table with a row for each image: its label, how probable it is, and whether sure.

    Images are read and written a batch at a time, so any number takes the same memory. One that
    cannot be decoded has a row without label, at the end.

    Args:
        cfg: a `config.Predict`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict that says what was written, and where the images are labelled how right it is.

    Raises:
        ValueError: if the classifier or the images cannot be used; nothing has been written.
    """
    console = console or Console(stderr=True)
    say = saying(console)
    began = time.perf_counter()
    if not 0 < cfg.precision < 1:
        raise ValueError(f"--precision must be in (0, 1). Received: {cfg.precision}")
    classifier = files.load(cfg.classifier)
    card = classifier.card
    output = _output(cfg)
    known, channels = card.stored_range, card.image_shape[-1]
    source = inputs.images_of(cfg, cfg.split, known, channels, lenient=True)
    inputs.tell(source, say)
    numbers, why = _numbers(cfg, source, card)
    if why:
        say(why)
    sure = calibration.sure(card.thresholds, cfg.precision)
    if not sure:
        say(report.not_sure(card.thresholds, card.held_out, cfg.precision))
    found = _Counts(card, sure)
    runs.make_folder(output.parent)
    with runs.atomic_file(output) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *(OF_CLASS + name for name in card.classes)])
        with counted("images", len(source), 0, console) as advance:
            for rows, images in batches.decoded(
                source, card.image_shape[0], card.eval_crop, cfg.batch_size
            ):
                probabilities = classifier(images)
                writer.writerows(found.rows([source.name_of(i) for i in rows], probabilities))
                if numbers is not None:
                    found.compare(probabilities, numbers[rows])
                advance(len(rows))
        damaged = _damaged(source)
        writer.writerows([name, *[""] * 4, "no", *[""] * len(card.classes)] for name in damaged)
        text.detach()
    return {
        "images": found.images,
        "sure": found.sure,
        "sure_from": sure and sure.threshold,
        "labels": dict(zip(card.classes, found.labels.tolist(), strict=True)),
        **found.comparison(),
        "damaged": inputs.without_row((source,), say)["count"],
        "dataset": cfg.dataset,
        "classifier": cfg.classifier,
        "table": str(output),
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


class _Counts:
    """Rows of the table, and what they come to.

    Args:
        card: a `files.Card`.
        sure: a `calibration.Sure` or None.
    """

    def __init__(self, card, sure):
        self.names, self.threshold = card.classes, sure.threshold if sure else np.inf
        self.images = self.sure = 0
        self.labels = np.zeros(len(card.classes), np.int64)
        self.confidence, self.right = [], []

    def rows(self, names, probabilities):
        """Yields a row of the table for each image."""
        for name, row in zip(names, probabilities.astype("float64"), strict=True):
            first, second = np.argsort(-row, kind="stable")[:2]
            is_sure = row[first] >= self.threshold
            self.images += 1
            self.sure += int(is_sure)
            self.labels[first] += 1
            yield [
                name,
                self.names[first],
                _spell(row[first]),
                self.names[second],
                _spell(row[second]),
                "yes" if is_sure else "no",
                *map(_spell, row),
            ]

    def compare(self, probabilities, numbers):
        """Notes how right the probabilities of some images are."""
        self.confidence.append(probabilities.max(-1))
        self.right.append(probabilities.argmax(-1) == numbers)

    def comparison(self):
        """How right all were, a dict; empty where nothing was compared."""
        if not self.right:
            return {}
        confidence, right = np.concatenate(self.confidence), np.concatenate(self.right)
        sure = confidence >= self.threshold
        return {
            "accuracy": float(right.mean()),
            "calibration_error": calibration.calibration_error(confidence, right),
            "sure_precision": float(right[sure].mean()) if sure.any() else None,
        }


def _spell(probability):
    return f"{probability:.6g}"


def _numbers(cfg, source, card):
    """The classifier's number of each image's label or None, and a sentence where it has none."""
    if source.labels is None:
        return None, ""
    if source.labels.ndim == 2:
        return None, f"{source.name} has several labels for an image, which are not compared."
    values = np.unique(source.labels)
    names = [str(source.class_names[v]) if source.class_names else str(v) for v in values.tolist()]
    strange = [name for name in names if name not in card.classes]
    if not strange:
        places = np.array([card.classes.index(name) for name in names])
        return places[np.searchsorted(values, source.labels)], ""
    text = sentence(
        f"{source.name} has classes that the classifier has not: {', '.join(strange[:5])}"
        f"{', ...' if len(strange) > 5 else ''}; its own are {', '.join(card.classes[:10])}"
    )
    if cfg.labels:
        raise ValueError(f"{text}. Leave out --labels to label the images without comparing")
    return None, f"{text}: labels are not compared."


def _damaged(source):
    """The names of the images that have no label, of both kinds."""
    return [name for name, _ in source.found.damaged] + [source.name_of(i) for i in source.missing]


def _output(cfg):
    """Where the table goes; another file of that name is not replaced."""
    path = Path(cfg.output or Path(cfg.run_dir) / TABLE)
    if path.is_dir():
        raise ValueError(f"--output must be a file. Received: {path}, which is a folder")
    if path.exists():
        with open(path, "rb") as file:
            first = file.read(len(",".join(COLUMNS)))
        if first != ",".join(COLUMNS).encode():
            raise ValueError(
                f"{path} would be replaced, but `predict` did not write it; move it away, or give "
                "another --output"
            )
    return path
