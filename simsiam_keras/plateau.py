"""Ends a run that has stopped rising, by kNN or, without labels, by what stands in for it."""

import math
from typing import NamedTuple

import keras

from simsiam_keras import distribute
from simsiam_keras.quality import LABEL_FREE, points
from simsiam_keras.verdicts import percent

WORDS = {
    "knn_accuracy": "kNN",
    "mean_average_precision": "mean average precision of kNN",
    "z_std": "std·√d",
}


class Plateau(NamedTuple):
    """Where a run no longer rises.

    Attributes:
        name: the metric that it is by.
        epoch: of the last measurement.
        value: then.
        best: the best value before the last `patience` measurements.
        best_epoch: its epoch.
        noise: what a rise has to exceed.
    """

    name: str
    epoch: int
    value: float
    best: float
    best_epoch: int
    noise: float


def reached(rows, patience, every, queries=None):
    """The plateau that a run is on, a function of its rows alone, so that a resumed run agrees.

    It is one where none of the last `patience` measurements exceeds the best before them by more
    than the noise: of kNN one standard error of that best, `sqrt(b (1 - b) / queries)`, as the same
    images are classified each time; of a measure without labels, which is taken of the same views
    each time, the mean of its steps, up or down, over these measurements. A steady rise exceeds
    either, however slow; only what is left of the noise does not.

    Args:
        rows: the rows of metrics.jsonl.
        patience: measurements, at least 2: of one the only step would be the noise.
        every: epochs between measurements, at least 1; what is measured every epoch is read then.
        queries: how many images kNN classifies; None without labels.

    Returns:
        A `Plateau`, or None while it rises or there are too few measurements.

    Example:
    >>> values = (0.50, 0.90, 0.90, 0.89, 0.91)
    >>> rows = [{"epoch": i, "knn_accuracy": v} for i, v in enumerate(values, 1)]
    >>> reached(rows, 3, 1, queries=400).best_epoch, reached(rows, 4, 1, queries=400)
    (2, None)
    """
    name, found = points(rows)
    found = [(epoch, value) for epoch, value in found if epoch % every == 0]
    if len(found) <= patience or not rows or found[-1][0] != rows[-1]["epoch"]:
        return None
    if (queries is None) != (name == LABEL_FREE):
        return None  # what is to be gone by was not measured
    before, last = found[:-patience], found[-patience:]
    best_epoch, best = max(before, key=lambda point: point[1])
    if queries is None:
        values = [value for _, value in found[-patience - 1 :]]
        steps = [abs(b - a) for a, b in zip(values, values[1:], strict=False)]
        noise = sum(steps) / patience
    else:
        noise = math.sqrt(max(0.0, best * (1 - best)) / queries)
    if max(value for _, value in last) > best + noise:
        return None
    return Plateau(name, *found[-1], best, best_epoch, noise)


def sentence(found, patience, epochs, rate, peak):
    """Says why a run ends, what it has reached, and what it has not had.

    Args:
        found: a `Plateau`.
        patience: as in `reached`.
        epochs: that were planned.
        rate: the learning rate of the last epoch.
        peak: the highest one so far.
    """

    def spelled(value):
        return f"{abs(value):.3g}" if found.name == LABEL_FREE else percent(value)

    what = WORDS.get(found.name, found.name)
    return (
        f"Stopped on a plateau after epoch {found.epoch} of {epochs}: {what} has not risen by more "
        f"than its noise, {spelled(found.noise)}, in {patience} measurements; it is "
        f"{spelled(found.value)}, and was {spelled(found.best)} in epoch {found.best_epoch}. The "
        f"learning rate is still {rate:.2g}, of {peak:.2g} at its highest: it was planned for all "
        f"epochs, and a run of --epochs={found.epoch}, in which it comes down to 0, may end higher."
    )


class StopOnPlateau(keras.callbacks.Callback):
    """Ends the training once the run is on a plateau, in every process.

    After `callbacks.Row` and before the checkpoint.

    Args:
        rows: the rows so far.
        patience: as in `reached`; None never stops.
        every: as in `reached`.
        queries: as in `reached`.
        epochs: number of the last epoch.
    """

    def __init__(self, rows, patience, every, queries, epochs):
        super().__init__()
        self.rows, self.patience, self.every = rows, patience, every
        self.queries, self.epochs = queries, epochs

    def found(self):
        """The plateau that the run is on, or None; also before a resumed run goes on."""
        if self.patience is None or not self.rows or self.rows[-1]["epoch"] >= self.epochs:
            return None  # a run that ends anyway is not stopped
        return reached(self.rows, self.patience, self.every, self.queries)

    def on_epoch_end(self, epoch, logs=None):
        if self.patience is None:
            return
        found = self.found()
        distribute.check_agreement(int(found is not None), "Whether the run is on a plateau")
        if found is not None:
            self.model.stop_training = True

    def outcome(self, say):
        """Says, once the training has ended, whether this has ended it.

        Args:
            say: function of a sentence.

        Returns:
            What result.json has to say of it: `{"epochs": ..., "stopped": "plateau"}`, or nothing.
        """
        found = self.found()
        if found is None:
            return {}
        rates = [row["learning_rate"] for row in self.rows if row["epoch"] > 0]
        say(sentence(found, self.patience, self.epochs, rates[-1], max(rates)))
        return {"epochs": found.epoch, "stopped": "plateau"}
