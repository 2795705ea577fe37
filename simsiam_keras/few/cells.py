"""The cells of the table: one row after one draw, each kept in a file as soon as it is measured."""

import dataclasses
import time
from pathlib import Path

import numpy as np

from simsiam_keras import runs
from simsiam_keras.evaluation import logistic

ENOUGH = 5  # labels of every class, of which a fifth can be held out to choose a rate by


@dataclasses.dataclass(frozen=True)
class Cell:
    """Where a measurement is kept.

    Attributes:
        row: name of the row.
        draw: a `draws.Draw`.
        folder: the folder of all cells.
        identity: what the measurement is of, `{name: digest}`; of another one it is made again.
    """

    row: str
    draw: object
    folder: Path
    identity: dict

    @property
    def path(self):
        """The file."""
        return self.folder / f"{self.row}_{self.draw.per_class}_{self.draw.number}.json"

    def measured(self):
        """What was measured, a dict, or None."""
        if not self.path.exists():
            return None
        found = runs.read_json(self.path, "delete it, and it is measured again")
        return found if found.get("identity") == self.identity else None

    def keep(self, right, began, **how):
        """Writes what was measured.

        Args:
            right: boolean `[test images]`.
            began: of the clock, when it began.
            **how: what was chosen.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {
            "row": self.row,
            "labels_per_class": self.draw.per_class,
            "draw": self.draw.number,
            "labels": len(self.draw.rows),
            "accuracy": float(np.mean(right)),
            **how,
            "seconds": round(time.perf_counter() - began, 2),
            "right": "".join("01"[int(value)] for value in right),
            "identity": self.identity,
        }
        runs.write_json(self.path, found)


def right_of(measured):
    """What a cell classified rightly, 0 and 1 `[test images]`."""
    return np.array(list(measured["right"]), "int64")


def linear(cell, scaled, data, seed):
    """Measures a linear classifier on frozen features.

    Args:
        cell: a `Cell`.
        scaled: the `logistic.Scaling` of the training features.
        data: training features, their labels, test features, their labels.
        seed: of the choice of C.
    """
    began = time.perf_counter()
    train, train_labels, test, test_labels = data
    rows = cell.draw.rows
    fitted = logistic.fit(scaled(train[rows]), train_labels[rows], seed)
    right = fitted.predict(scaled(test)) == test_labels
    cell.keep(right, began, C=fitted.strength)


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How networks are trained.

    Attributes:
        rates: learning rates to choose from, ascending.
        epochs: passes over the labelled images.
        steps: steps at the least.
        seed: of the order and of what is held out.
    """

    rates: tuple
    epochs: int
    steps: int
    seed: int

    def steps_of(self, n, batch_size):
        """Steps of a fit on n images."""
        return max(self.steps, -(-self.epochs * n // batch_size))

    def tried(self, draw, labels):
        """The rates that are tried after a draw: all where labels can be held out, else one."""
        fewest = np.unique(labels[draw.rows], return_counts=True)[1].min()
        return self.rates if fewest >= ENOUGH else (self.rates[len(self.rates) // 2],)

    def total(self, draw, labels, batch_size):
        """Steps that a cell takes, of every rate and of the last fit."""
        tried, n = len(self.tried(draw, labels)), len(draw.rows)
        last = self.steps_of(n, batch_size)
        if tried == 1:
            return last
        out = logistic.folds(labels[draw.rows], self.seed)[0].sum()
        return tried * self.steps_of(n - out, batch_size) + last


def network(cell, net, start, images, features, tuning, on_step):
    """Measures a network that is trained on the labelled images.

    Of several rates the one with the highest likelihood of a held-out fifth of the labels trains on
    all of them.

    Args:
        cell: a `Cell`.
        net: a `finetune.Network`.
        start: weights of its encoder to begin with.
        images: training images, their labels, test images, their labels.
        features: features of the training images at the start, whose linear classifier the last
            layer begins with; None, it begins with zeros.
        tuning: a `Tuning`.
        on_step: called after each step.
    """
    began = time.perf_counter()
    train, train_labels, test, test_labels = images
    classes = np.unique(train_labels)
    numbers = np.searchsorted(classes, train_labels)
    scaled = None if features is None else logistic.scaling(features)

    def fit(rows, rate):
        head = None
        if scaled:
            fitted = logistic.fit(scaled(features[rows]), numbers[rows], tuning.seed)
            head = fitted.layer(scaled, len(classes))
        steps, seed = tuning.steps_of(len(rows), net.batch_size), [tuning.seed, cell.draw.number]
        net.fit(start, head, train[rows], numbers[rows], steps, rate, seed, on_step)
        return steps

    rows, tried = cell.draw.rows, tuning.tried(cell.draw, train_labels)
    likelihoods = []
    if len(tried) > 1:
        out = logistic.folds(numbers[rows], tuning.seed)[0]
        for rate in tried:
            fit(rows[~out], rate)
            likelihoods.append(_likelihood(net.logits(train[rows[out]]), numbers[rows[out]]))
    rate = tried[int(np.argmax(likelihoods))] if likelihoods else tried[0]
    steps = fit(rows, rate)
    right = classes[net.predict(test)] == test_labels
    cell.keep(right, began, learning_rate=rate, steps=steps, rates_tried=list(tried))


def _likelihood(logits, numbers):
    logits = logits.astype("float64") - logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    found = logits[np.arange(len(numbers)), numbers].mean()
    return found if np.isfinite(found) else -np.inf
