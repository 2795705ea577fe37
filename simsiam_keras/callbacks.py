"""What happens once an epoch, as Keras callbacks.

Order matters: `Clock` stops before anything else is measured, `KNN` and `Diagnosis` add to the logs
what `Row` keeps, and a checkpoint is written after the row of its epoch, which it holds.
"""

import math
import time

import keras
import numpy as np

from simsiam_keras import checkpoints, diagnose, interrupts, quality, runs, verdicts
from simsiam_keras.errors import RunFailed

SECONDS_BETWEEN_CHECKPOINTS = 600  # within an epoch

# The numbers of a row of metrics.jsonl besides epoch and step.
METRICS = (
    "loss",
    "z_std",
    "knn_accuracy",
    "mean_average_precision",  # in its place where images have several labels
    quality.CHOICE,
    *diagnose.MEASURES,
    "learning_rate",
    "images_per_second",
    "seconds",
)


class Clock(keras.callbacks.Callback):
    """Knows where the run is; adds `seconds` and `images_per_second` of an epoch to its logs.

    An epoch ends when the device has: the numbers that Keras hands to `on_epoch_end` are read from
    it. Its first one compiles. Signals are held back within a step, so that the position is true.

    Args:
        images_per_epoch: images in an epoch.
        resumed: a `checkpoints.Resumed`, or None at the beginning.
    """

    def __init__(self, images_per_epoch, resumed=None):
        super().__init__()
        self.images_per_epoch = images_per_epoch
        self.position = resumed.position if resumed else checkpoints.Position(0)
        self.before = resumed.seconds if resumed else 0.0
        self.metrics = resumed.metrics if resumed and self.position.step else None
        self.began = time.perf_counter()

    def seconds(self):
        """How long the steps of this epoch have taken, those before a resumption included."""
        return time.perf_counter() - self.began + self.before

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != self.position.epoch:
            self.position, self.before = checkpoints.Position(epoch), 0.0
        if self.metrics:  # Keras has just reset those that the first steps left
            for variable, value in zip(self.model.metrics_variables, self.metrics, strict=True):
                variable.assign(value)
            self.metrics = None
        self.first = self.position.step
        self.began = time.perf_counter()
        interrupts.hold()

    def on_train_batch_end(self, batch, logs=None):
        self.position = self.position._replace(step=self.first + batch + 1)
        interrupts.check()

    def on_epoch_end(self, epoch, logs=None):
        float(logs["loss"])  # waits, should Keras ever not have done so
        seconds = self.seconds()
        logs["seconds"] = round(seconds, 3)
        logs["images_per_second"] = round(self.images_per_epoch / seconds, 2)
        # What is measured now may take long, and is repeated by a run that goes on.
        interrupts.release()
        interrupts.check()


class StopOnNaN(keras.callbacks.Callback):
    """Ends the run at the first loss that is not a number, before a checkpoint is overwritten.

    The epoch gets a row without numbers in metrics.jsonl, which says what diverged and which
    `diagnose` reads.

    Args:
        run_dir: the run folder; None leaves no row.
        clock: a `Clock`.
        steps_per_epoch: optimizer calls in an epoch.
    """

    def __init__(self, run_dir, clock, steps_per_epoch):
        super().__init__()
        self.run_dir, self.clock, self.steps_per_epoch = run_dir, clock, steps_per_epoch
        self.last, self.previous = None, None

    def on_train_batch_end(self, batch, logs=None):
        # Reading a loss waits for its step, so it is the one before, while this one runs. One in
        # every 50 steps still ends soon.
        done, previous = self._step(), self.previous
        if previous is None:
            self._check(done, logs)
        elif done // 50 > previous[0] // 50:
            self._check(*previous)
        self.previous = done, logs

    def on_epoch_end(self, epoch, logs=None):
        self._check(self._step(), logs)

    def _step(self):
        position = self.clock.position
        return position.epoch * self.steps_per_epoch + position.step

    def _check(self, step, logs):
        loss, epoch = float(logs["loss"]), self.clock.position.epoch + 1
        if math.isfinite(loss):
            self.last = {"step": step, "loss": loss}
            return
        names = [v.path for v in self.model.variables if not _finite(v)]
        diverged = {"last": self.last, "not_finite": len(names), "first": names[:3]}
        if self.run_dir is not None:
            runs.append_metrics(self.run_dir, {**row(epoch, step, {}), runs.DIVERGED: diverged})
        before = f"it was {self.last['loss']:.3f} at step {self.last['step']}" if self.last else ""
        weights = f"{len(names)} of {len(self.model.variables)} weights are not finite"
        raise RunFailed(
            f"the loss is not a number any more at step {step}, in epoch {epoch} "
            f"({', '.join(filter(None, (before, weights)))}); lower --base_lr, add "
            "--warmup_epochs, or use --precision=float32. Checkpoints of earlier epochs are kept"
        )


def _finite(variable):
    value = keras.ops.convert_to_numpy(variable)
    return not np.issubdtype(value.dtype, np.floating) or bool(np.isfinite(value).all())


class KNN(keras.callbacks.Callback):
    """Adds what kNN is measured by to the logs of every n-th epoch and of the last.

    Args:
        measure: function without arguments that returns `{name: number}`.
        every: epochs between measurements; 0 for the last only.
        epochs: number of the last epoch.
    """

    def __init__(self, measure, every, epochs):
        super().__init__()
        self.measure, self.every, self.epochs = measure, every, epochs

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        if done == self.epochs or (self.every and done % self.every == 0):
            logs.update(self.measure())


class Diagnosis(keras.callbacks.Callback):
    """Adds the measures of collapse to the logs of every epoch.

    Args:
        measure: function without arguments that returns `{name: number}`.
    """

    def __init__(self, measure):
        super().__init__()
        self.measure = measure

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.measure())


class Row(keras.callbacks.Callback):
    """Adds a row to those of the run.

    Args:
        rows: the rows so far, a list that grows.
        schedule: learning rate as a function of the step.
        steps_per_epoch: optimizer calls in an epoch.
    """

    def __init__(self, rows, schedule, steps_per_epoch):
        super().__init__()
        self.rows, self.schedule, self.steps_per_epoch = rows, schedule, steps_per_epoch

    def on_epoch_end(self, epoch, logs=None):
        step = (epoch + 1) * self.steps_per_epoch
        measured = {**logs, "learning_rate": self.schedule(step - 1)}
        self.rows.append(row(epoch + 1, step, measured))


class Record(keras.callbacks.Callback):
    """Writes the newest row to metrics.jsonl and TensorBoard.

    Args:
        run_dir: the run folder.
        board: a `board.Board`.
        rows: the rows so far.
    """

    def __init__(self, run_dir, board, rows):
        super().__init__()
        self.run_dir, self.board, self.rows = run_dir, board, rows

    def on_epoch_end(self, epoch, logs=None):
        record(self.run_dir, self.board, self.rows[-1])


class Checkpoint(keras.callbacks.Callback):
    """Writes a checkpoint every n-th epoch and after the last, and within one that takes long.

    The last is also the one after which another callback ends the training.

    Args:
        write: function of a model, a `checkpoints.Position` and the seconds that its steps took.
        clock: a `Clock`.
        every: epochs between checkpoints.
        epochs: number of the last epoch.
    """

    def __init__(self, write, clock, every, epochs):
        super().__init__()
        self.write, self.clock, self.every, self.epochs = write, clock, every, epochs
        self.written, self.last = time.monotonic(), clock.position

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self.written > SECONDS_BETWEEN_CHECKPOINTS:
            self.now()

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        if done % self.every == 0 or done == self.epochs or self.model.stop_training:
            self._write(checkpoints.Position(done))

    def now(self):
        """Writes a checkpoint where the run is, should there be none."""
        if self.clock.position > self.last:
            self._write(self.clock.position)

    def _write(self, position):
        self.write(self.model, position, seconds=self.clock.seconds() if position.step else 0.0)
        self.written, self.last = time.monotonic(), position


class CollapseWatch(keras.callbacks.Callback):
    """Says in plain words, once, when the rules of `diagnose` find a collapse.

    Args:
        say: function of a sentence.
        flags: the run's flags by name, from which the advice follows.
        rows: the rows so far.
        stop: raise instead, which ends the run.
    """

    def __init__(self, say, flags, rows, stop=False):
        super().__init__()
        self.say, self.stop = say, stop
        self.run = diagnose.Run(rows, flags)
        self.said = set()

    def on_epoch_end(self, epoch, logs=None):
        found = diagnose.judge(self.run)
        if found.verdict not in verdicts.COLLAPSES:
            return
        sentence = f"{found.sentence} Try: {' '.join(found.advice)}"
        if self.stop:
            raise RunFailed(f"stopped after epoch {epoch + 1}: {sentence}")
        if found.verdict not in self.said:
            self.say(f"Warning, epoch {epoch + 1}: {sentence}")
        self.said.add(found.verdict)


def row(epoch, step, measured):
    """A row of metrics.jsonl: every metric, None where it was not measured.

    Args:
        epoch: epochs completed.
        step: optimizer calls so far.
        measured: `{name: number}`; what is no metric is left out.

    Returns:
        A dict of JSON numbers.
    """
    values = ((name, measured.get(name)) for name in METRICS)
    values = {name: value if value is None else float(value) for name, value in values}
    return {"epoch": epoch, "step": step, **values}


def record(run_dir, board, row):
    """Appends a row to metrics.jsonl and writes its numbers to TensorBoard, over epochs.

    Args:
        run_dir: the run folder.
        board: a `board.Board`.
        row: from `row`.
    """
    runs.append_metrics(run_dir, row)
    shown = {name: row[name] for name in METRICS if name != "seconds" and row[name] is not None}
    board.scalars(shown, row["epoch"])
