import io
import re
import time

from rich.console import Console

from simsiam_keras import callbacks, progress
from simsiam_keras.checkpoints import Position, Resumed

LATE = Position(98)
LOGS = {"loss": -0.8312, "z_std": 0.9974}


def shown(width, terminal, epochs=800, start=LATE, steps=2, images=512, before_step=None):
    """What a run of two epochs shows, line by line."""
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    clock = callbacks.Clock(images * steps, Resumed(start, [], 0.0, []))
    bar = progress.Progress(epochs, clock, steps, images, console)
    for epoch in (start.epoch, start.epoch + 1):
        bar.on_train_begin()
        clock.on_epoch_begin(epoch)
        bar.on_epoch_begin(epoch)
        for batch in range(steps - clock.position.step):
            if before_step:
                before_step(bar)
            clock.on_train_batch_end(batch)
            bar.on_train_batch_end(batch, LOGS)
        measured = {"feature_rank": 163.7, "knn_accuracy": 0.9278} if epoch == 98 else {}
        bar.on_epoch_end(epoch, LOGS | measured)
    bar.close()
    return console.file.getvalue().replace("\r", "\n").splitlines()


def at_a_gpus_rate(bar):
    # Long since the last look, and the first step a while ago: a rate of five digits.
    if bar.drawn is not None:
        bar.drawn, bar.compiled = 0.0, time.perf_counter() - 0.05


def test_bar_shows_the_three_that_matter_within_100_columns():
    lines = [line for line in shown(100, True, before_step=at_a_gpus_rate) if "rank" in line]
    assert lines
    for words in ("loss -0.83", "std·√d 1.00", "rank 164", "kNN 92.8 %", "img/s", "left"):
        assert words in lines[-1]
    assert "…" not in lines[-1]


def test_without_a_terminal_there_is_a_line_an_epoch():
    first, second = shown(80, False)
    assert first.startswith("epoch 99/800  loss -0.8312  std·√d 0.997  rank 164  kNN 92.8 %  left")
    assert "rank 164  kNN 92.8 %" in second  # as last measured


def minutes_pass(bar):
    bar.began -= 60
    if bar.drawn is not None:
        bar.drawn -= 60
        bar.compiled -= 60


def test_a_long_epoch_is_not_silent_in_a_log():
    lines = shown(80, False, epochs=2, start=Position(0), steps=3, before_step=minutes_pass)
    assert re.fullmatch(r"the first step took 60 s, as it was compiled", lines[0])
    # The first step, which compiled, does not count: one of 512 images a minute.
    words = r"epoch 1/2  step 2/3  loss -0.83  std·√d 1.00  9 img/s  left 0:04:00"
    assert re.fullmatch(words, lines[1]), lines[1]
    assert lines[2].startswith("epoch 1/2  step 3/3") and lines[3].startswith("epoch 1/2  loss")


def test_a_bar_says_that_it_compiles():
    def look(bar):
        if bar.drawn is None:
            bar.bar.refresh()

    lines = shown(100, True, before_step=look)
    assert any("compiling the first step" in line for line in lines)


def test_what_is_left_is_counted_from_where_a_run_goes_on():
    start = Position(0, 2)
    lines = shown(80, False, epochs=2, start=start, steps=3, before_step=minutes_pass)
    ends = [line for line in lines if "  loss" in line and "step" not in line]
    # One step a minute: three of the second epoch are left after the rest of the first.
    assert ends[0].endswith("left 0:03:00") and ends[1].endswith("left 0:00:00")
