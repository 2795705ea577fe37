"""What happens once an epoch, as Keras callbacks.

Order matters: `Clock` stops before anything else is measured, `KNN` and `Diagnosis` add to the logs
what `Record` writes, and a checkpoint is written after the row of its epoch, so that a resumed run
can drop the rows that it will measure again.
"""

import math
import time

import keras
from rich import progress
from rich.console import Console

from simsiam_keras import diagnose, runs, verdicts
from simsiam_keras.errors import RunFailed

# The numbers of a row of metrics.jsonl besides epoch and step.
METRICS = (
    "loss",
    "z_std",
    "knn_accuracy",
    *diagnose.MEASURES,
    "learning_rate",
    "images_per_second",
    "seconds",
)


class Clock(keras.callbacks.Callback):
    """Adds `seconds` and `images_per_second` of every epoch to its logs, by the clock.

    An epoch ends when the device has: the numbers that Keras hands to `on_epoch_end` are read from
    it. Its first one compiles.

    Args:
        images_per_epoch: images in an epoch.
    """

    def __init__(self, images_per_epoch):
        super().__init__()
        self.images_per_epoch = images_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        float(logs["loss"])  # waits, should Keras ever not have done so
        seconds = time.perf_counter() - self.began
        logs["seconds"] = round(seconds, 3)
        logs["images_per_second"] = round(self.images_per_epoch / seconds, 2)


class StopOnNaN(keras.callbacks.Callback):
    """Ends the run at the first loss that is not a number, before a checkpoint is overwritten.

    The epoch gets a row without numbers in metrics.jsonl, which `diagnose` reads.

    Args:
        run_dir: the run folder; None leaves no row.
    """

    def __init__(self, run_dir):
        super().__init__()
        self.run_dir = run_dir

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # Reading a loss waits for the step; every 50 steps costs nothing and still ends soon.
        if batch % 50 == 0:
            self._check(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs)

    def _check(self, logs):
        if not math.isfinite(float(logs["loss"])):
            if self.run_dir is not None:
                runs.append_metrics(self.run_dir, row(self.epoch + 1, None, {}))
            raise RunFailed(
                "the loss is not a number any more; lower --base_lr, add --warmup_epochs, or use "
                "--precision=float32. Checkpoints of earlier epochs are kept"
            )


class KNN(keras.callbacks.Callback):
    """Adds `knn_accuracy` to the logs of every n-th epoch and of the last.

    Args:
        measure: function without arguments that returns the accuracy.
        every: epochs between measurements; 0 for the last only.
        epochs: number of the last epoch.
    """

    def __init__(self, measure, every, epochs):
        super().__init__()
        self.measure, self.every, self.epochs = measure, every, epochs

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        if done == self.epochs or (self.every and done % self.every == 0):
            logs["knn_accuracy"] = self.measure()


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


class CollapseWatch(keras.callbacks.Callback):
    """Says in plain words, once, when the rules of `diagnose` find a collapse.

    Args:
        say: function of a sentence.
        flags: the run's flags by name, from which the advice follows.
        stop: raise instead, which ends the run.
    """

    def __init__(self, say, flags, stop=False):
        super().__init__()
        self.say, self.stop = say, stop
        self.run = diagnose.Run([], flags)
        self.said = set()

    def on_epoch_end(self, epoch, logs=None):
        self.run.rows.append(row(epoch + 1, None, logs))
        found = diagnose.judge(self.run)
        if found.verdict not in verdicts.COLLAPSES:
            return
        sentence = f"{found.sentence} Try: {' '.join(found.advice)}"
        if self.stop:
            raise RunFailed(f"stopped after epoch {epoch + 1}: {sentence}")
        if found.verdict not in self.said:
            self.say(f"Warning, epoch {epoch + 1}: {sentence}")
        self.said.add(found.verdict)


class Record(keras.callbacks.Callback):
    """Writes one row an epoch to metrics.jsonl and TensorBoard.

    Args:
        run_dir: the run folder.
        board: a `tensorboardX.SummaryWriter`.
        schedule: learning rate as a function of the step.
        steps_per_epoch: optimizer calls in an epoch.
    """

    def __init__(self, run_dir, board, schedule, steps_per_epoch):
        super().__init__()
        self.run_dir, self.board, self.schedule = run_dir, board, schedule
        self.steps_per_epoch = steps_per_epoch

    def on_epoch_end(self, epoch, logs=None):
        step = (epoch + 1) * self.steps_per_epoch
        measured = {**logs, "learning_rate": self.schedule(step - 1)}
        record(self.run_dir, self.board, row(epoch + 1, step, measured))


class Checkpoint(keras.callbacks.Callback):
    """Writes a checkpoint every n-th epoch and after the last."""

    def __init__(self, run_dir, every, epochs):
        super().__init__()
        self.run_dir, self.every, self.epochs = run_dir, every, epochs

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        if done % self.every == 0 or done == self.epochs:
            runs.save_checkpoint(self.run_dir, self.model, done)


class Progress(keras.callbacks.Callback):
    """One bar over the whole run with images/s and the time left; a line an epoch without terminal.

    It shows the loss and what tells whether to believe it: std·√d (one point?), the effective rank
    of the features (few directions?) and kNN (of use?). Within 100 columns.

    Args:
        epochs: number of the last epoch.
        first_epoch: epochs done before this process began.
        steps_per_epoch: optimizer calls in an epoch.
        images_per_step: images in one of them.
        console: a `rich.console.Console`, standard error by default.
    """

    def __init__(self, epochs, first_epoch, steps_per_epoch, images_per_step, console=None):
        super().__init__()
        self.epochs, self.first_epoch = epochs, first_epoch
        self.steps_per_epoch, self.images_per_step = steps_per_epoch, images_per_step
        self.console = console or Console(stderr=True)
        self.shown = {"feature_rank": None, "knn_accuracy": None}  # as last measured
        self.bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            progress.BarColumn(bar_width=8),
            progress.TextColumn("{task.fields[shown]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(compact=True, elapsed_when_finished=False),
            console=self.console,
            speed_estimate_period=300,
            disable=not self.console.is_terminal,
        )

    def on_train_begin(self, logs=None):
        self.began, self.drawn = time.perf_counter(), 0.0
        self.bar.start()
        self.task = self.bar.add_task(
            "train",
            total=self.epochs * self.steps_per_epoch,
            completed=self.first_epoch * self.steps_per_epoch,
            epoch=self.first_epoch + 1,
            shown="compiling",
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        # Reading the logs waits for the device, so look a few times a second, not at every step.
        if self.bar.disable or now - self.drawn < 0.3:
            return
        self.drawn = now
        done = self.epoch * self.steps_per_epoch + batch + 1
        rate = (done - self.first_epoch * self.steps_per_epoch) / (now - self.began)
        shown = (
            f"loss {float(logs['loss']):+.2f}  std·√d {float(logs['z_std']):.2f}"
            f"{self._shown()}  {rate * self.images_per_step:.0f} img/s"
        )
        self.bar.update(self.task, completed=done, epoch=self.epoch + 1, shown=shown)

    def on_epoch_end(self, epoch, logs=None):
        for name in self.shown:
            self.shown[name] = logs.get(name) or self.shown[name]
        if self.bar.disable:
            done = epoch + 1 - self.first_epoch
            left = (time.perf_counter() - self.began) / done * (self.epochs - epoch - 1)
            self.console.print(
                f"epoch {epoch + 1}/{self.epochs}  loss {logs['loss']:+.4f}  "
                f"std·√d {logs['z_std']:.3f}{self._shown()}  left {_clock(left)}",
                soft_wrap=True,
            )
        else:
            done = (epoch + 1) * self.steps_per_epoch
            self.bar.update(self.task, completed=done)

    def _shown(self):
        rank, accuracy = self.shown.values()
        shown = "" if rank is None else f"  rank {rank:.0f}"
        return shown + ("" if accuracy is None else f"  kNN {100 * accuracy:.1f} %")

    def close(self):
        """Leaves the bar as it stands; also after an error."""
        self.bar.stop()


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
        board: a `tensorboardX.SummaryWriter`.
        row: from `row`.
    """
    runs.append_metrics(run_dir, row)
    for name, value in row.items():
        if name not in ("epoch", "step", "seconds") and value is not None:
            board.add_scalar(name, value, row["epoch"])
    board.flush()


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
