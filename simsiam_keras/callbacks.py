"""What happens once an epoch, as Keras callbacks.

Order matters: `KNN` adds to the logs what `Record` writes, and a checkpoint is written after the
row of its epoch, so that a resumed run can drop the rows that it will measure again.
"""

import math
import time

import keras
from rich import progress
from rich.console import Console

from simsiam_keras import runs
from simsiam_keras.errors import RunFailed

COLLAPSED = 0.5  # healthy runs stay above .8; without stop-gradient the digits fall to .3 - .45
PATIENCE = 5  # epochs
COLLAPSE_ADVICE = (
    "the outputs are collapsing to one constant (std x sqrt(d) = {z_std:.2f}; about 1 is healthy, "
    "0 is collapsed) although the loss ({loss:.2f}) looks good. Try: a lower --base_lr, a larger "
    "--batch_size, stronger crops (--min_crop), and see that --stop_gradient is true."
)


class StopOnNaN(keras.callbacks.Callback):
    """Ends the run at the first loss that is not a number, before a checkpoint is overwritten."""

    def on_train_batch_end(self, batch, logs=None):
        # Reading a loss waits for the step; every 50 steps costs nothing and still ends soon.
        if batch % 50 == 0:
            self._check(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs)

    def _check(self, logs):
        if not math.isfinite(float(logs["loss"])):
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


class CollapseWatch(keras.callbacks.Callback):
    """Says in plain words when `z_std` stays low.

    Args:
        say: function of a sentence.
        stop: raise instead, which ends the run.
    """

    def __init__(self, say, stop=False):
        super().__init__()
        self.say, self.stop = say, stop
        self.low = 0

    def on_epoch_end(self, epoch, logs=None):
        self.low = self.low + 1 if logs["z_std"] < COLLAPSED else 0
        if self.low < PATIENCE:
            return
        sentence = COLLAPSE_ADVICE.format(z_std=logs["z_std"], loss=logs["loss"])
        if self.stop:
            raise RunFailed(f"stopped after epoch {epoch + 1}: {sentence}")
        if self.low == PATIENCE:
            self.say(f"Warning, epoch {epoch + 1}: {sentence}")


class Record(keras.callbacks.Callback):
    """Writes one row an epoch to metrics.jsonl and TensorBoard.

    Args:
        run_dir: the run folder.
        board: a `tensorboardX.SummaryWriter`.
        schedule: learning rate as a function of the step.
        steps_per_epoch: optimizer calls in an epoch.
        images_per_epoch: images in an epoch.
    """

    def __init__(self, run_dir, board, schedule, steps_per_epoch, images_per_epoch):
        super().__init__()
        self.run_dir, self.board, self.schedule = run_dir, board, schedule
        self.steps_per_epoch, self.images_per_epoch = steps_per_epoch, images_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.trained = time.perf_counter()  # without the monitors that follow

    def on_epoch_end(self, epoch, logs=None):
        step = (epoch + 1) * self.steps_per_epoch
        seconds = self.trained - self.began
        row = {
            "epoch": epoch + 1,
            "step": step,
            "loss": float(logs["loss"]),
            "z_std": float(logs["z_std"]),
            "knn_accuracy": logs.get("knn_accuracy"),
            "learning_rate": float(self.schedule(step - 1)),
            "images_per_second": round(self.images_per_epoch / seconds, 2),
            "seconds": round(seconds, 3),
        }
        runs.append_metrics(self.run_dir, row)
        write_scalars(self.board, row)


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
        self.shown = ""
        self.bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
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
            f"loss {float(logs['loss']):+.3f}  std·√d {float(logs['z_std']):.2f}"
            f"{self.shown}  {rate * self.images_per_step:.0f} images/s"
        )
        self.bar.update(self.task, completed=done, epoch=self.epoch + 1, shown=shown)

    def on_epoch_end(self, epoch, logs=None):
        if logs.get("knn_accuracy") is not None:
            self.shown = f"  kNN {100 * logs['knn_accuracy']:.1f} %"
        if self.bar.disable:
            done = epoch + 1 - self.first_epoch
            left = (time.perf_counter() - self.began) / done * (self.epochs - epoch - 1)
            self.console.print(
                f"epoch {epoch + 1}/{self.epochs}  loss {logs['loss']:+.4f}  "
                f"std·√d {logs['z_std']:.3f}{self.shown}  left {_clock(left)}",
                soft_wrap=True,
            )
        else:
            done = (epoch + 1) * self.steps_per_epoch
            self.bar.update(self.task, completed=done)

    def close(self):
        """Leaves the bar as it stands; also after an error."""
        self.bar.stop()


def write_scalars(board, row):
    """Writes the numbers of a metrics row to TensorBoard, over epochs."""
    for name, value in row.items():
        if name not in ("epoch", "step", "seconds") and value is not None:
            board.add_scalar(name, value, row["epoch"])
    board.flush()


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
