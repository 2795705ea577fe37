"""How far something is and how long it takes: one bar on a terminal, lines elsewhere."""

import contextlib
import datetime
import functools
import time

import keras
from rich import progress
from rich.console import Console

SECONDS_BETWEEN_LINES = 30  # where there is no terminal
SECONDS_WORTH_SAYING = 5  # of compilation


def saying(console):
    """A function that prints a sentence as it is, its lines as long as they are."""
    return functools.partial(console.print, soft_wrap=True, markup=False, highlight=False)


class Progress(keras.callbacks.Callback):
    """One bar over the whole run with images/s and the time left; a line an epoch without terminal.

    It shows the loss and what tells whether to believe it: std·√d (one point?), the effective rank
    of the features (few directions?) and kNN (of use?). Within 100 columns.

    Args:
        epochs: number of the last epoch.
        clock: a `callbacks.Clock`, where the run is.
        steps_per_epoch: optimizer calls in an epoch.
        images_per_step: images in one of them.
        console: a `rich.console.Console`, standard error by default.
    """

    def __init__(self, epochs, clock, steps_per_epoch, images_per_step, console=None):
        super().__init__()
        self.epochs, self.clock = epochs, clock
        self.steps_per_epoch, self.images_per_step = steps_per_epoch, images_per_step
        self.console = console or Console(stderr=True)
        self.shown = {"feature_rank": None, "knn_accuracy": None}  # as last measured
        self.first, self.began = self._steps(), None
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
        if self.began is not None:  # what was left of an epoch came first
            return
        self.began, self.drawn = time.perf_counter(), None
        self.bar.start()
        self.task = self.bar.add_task(
            "train",
            total=self.epochs * self.steps_per_epoch,
            completed=self.first,
            epoch=self.clock.position.epoch + 1,
            shown="compiling the first step",
        )

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self.drawn is None:
            self._say_compiled(now - self.began)
            self.drawn = self.compiled = now
            self.first_done = self._steps()
        # Reading the logs waits for the device, so look a few times a second, not at every step.
        if now - self.drawn < (SECONDS_BETWEEN_LINES if self.bar.disable else 0.3):
            return
        self.drawn = now
        done, position = self._steps(), self.clock.position
        rate = (done - self.first_done) / (now - self.compiled)  # the first one compiled
        shown = (
            f"loss {float(logs['loss']):+.2f}  std·√d {float(logs['z_std']):.2f}"
            f"{self._shown()}  {rate * self.images_per_step:.0f} img/s"
        )
        if self.bar.disable:
            left = (self.epochs * self.steps_per_epoch - done) / rate
            self._line(
                f"epoch {position.epoch + 1}/{self.epochs}  "
                f"step {position.step}/{self.steps_per_epoch}  {shown}  left {_clock(left)}"
            )
        else:
            self.bar.update(self.task, completed=done, epoch=position.epoch + 1, shown=shown)

    def on_epoch_end(self, epoch, logs=None):
        for name in self.shown:
            self.shown[name] = logs.get(name) or self.shown[name]
        done = (epoch + 1) * self.steps_per_epoch
        if self.bar.disable:
            taken = (time.perf_counter() - self.began) / max(1, done - self.first)
            left = taken * (self.epochs * self.steps_per_epoch - done)
            self._line(
                f"epoch {epoch + 1}/{self.epochs}  loss {logs['loss']:+.4f}  "
                f"std·√d {logs['z_std']:.3f}{self._shown()}  left {_clock(left)}"
            )
        else:
            self.bar.update(self.task, completed=done)

    def close(self):
        """Leaves the bar as it stands; also after an error."""
        self.bar.stop()

    def _steps(self):
        return self.clock.position.epoch * self.steps_per_epoch + self.clock.position.step

    def _say_compiled(self, seconds):
        if self.bar.disable and seconds > SECONDS_WORTH_SAYING:
            self._line(f"the first step took {seconds:.0f} s, as it was compiled")

    def _shown(self):
        rank, accuracy = self.shown.values()
        shown = "" if rank is None else f"  rank {rank:.0f}"
        return shown + ("" if accuracy is None else f"  kNN {100 * accuracy:.1f} %")

    def _line(self, text):
        saying(self.console)(text)


def _clock(seconds):
    return str(datetime.timedelta(seconds=round(seconds)))


@contextlib.contextmanager
def counted(what, total, done, console):
    """Shows how far something is.

    Args:
        what: is counted, in a word or two.
        total: number of all.
        done: how many there were before.
        console: a `rich.console.Console`.

    Yields:
        A function of how many more there are.
    """
    began = last = None
    first = done

    def line(more):
        nonlocal began, last, first, done
        done += more
        now = time.monotonic()
        if began is None:  # the first one compiled
            began, last, first = now, now, done
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left = (total - done) * (now - began) / (done - first)
        saying(console)(f"{what}: {done} of {total}, left {_clock(left)}")

    if not console.is_terminal:
        yield line
        return
    with progress.Progress(
        progress.TextColumn("{task.description} {task.completed:.0f}/{task.total}"),
        progress.BarColumn(bar_width=20),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(compact=True),
        console=console,
        speed_estimate_period=300,
        transient=True,
    ) as shown:
        task = shown.add_task(what, total=total, completed=done)
        yield lambda more: shown.advance(task, more)
