import io
import time

import pytest
from rich.console import Console

from simsiam_keras import callbacks


def progress(width, terminal, epochs=800):
    """What a run of a few steps shows, line by line."""
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    bar = callbacks.Progress(epochs, 98, steps_per_epoch=2, images_per_step=512, console=console)
    bar.on_train_begin()
    bar.began -= 0.1  # so that the rate is one that a GPU reaches, of five digits
    logs = {"loss": -0.8312, "z_std": 0.9974}
    for epoch in (98, 99):
        bar.on_epoch_begin(epoch)
        for batch in range(2):
            bar.drawn = 0.0
            bar.on_train_batch_end(batch, logs)
        measured = {"feature_rank": 163.7, "knn_accuracy": 0.9278} if epoch == 98 else {}
        bar.on_epoch_end(epoch, logs | measured)
    bar.close()
    return console.file.getvalue().replace("\r", "\n").splitlines()


def test_bar_shows_the_three_that_matter_within_100_columns():
    lines = [line for line in progress(100, True) if "rank" in line]
    assert lines
    for words in ("loss -0.83", "std·√d 1.00", "rank 164", "kNN 92.8 %", "img/s", "left"):
        assert words in lines[-1]
    assert "…" not in lines[-1]


def test_without_a_terminal_there_is_a_line_an_epoch():
    first, second = progress(80, False)
    assert first.startswith("epoch 99/800  loss -0.8312  std·√d 0.997  rank 164  kNN 92.8 %  left")
    assert "rank 164  kNN 92.8 %" in second  # as last measured


@pytest.mark.parametrize("measured", [{}, {"feature_rank": 3.0, "alignment": None}])
def test_row_has_every_metric(measured):
    row = callbacks.row(3, 66, {"loss": -0.5, "other": 1, **measured})
    assert list(row) == ["epoch", "step", *callbacks.METRICS]
    assert row["loss"] == -0.5 and row["z_std"] is None and row["alignment"] is None
    assert row["feature_rank"] == measured.get("feature_rank")


class OnTheDevice:
    """A number that is not there yet."""

    def __float__(self):
        time.sleep(0.2)
        return -0.5


def test_the_clock_waits_for_the_device_and_not_for_the_monitors():
    clock = callbacks.Clock(images_per_epoch=100)
    clock.on_epoch_begin(0)
    logs = {"loss": OnTheDevice()}
    clock.on_epoch_end(0, logs)
    time.sleep(0.5)  # kNN
    assert 0.2 <= logs["seconds"] < 0.5
    assert logs["images_per_second"] == pytest.approx(100 / logs["seconds"], rel=0.01)
