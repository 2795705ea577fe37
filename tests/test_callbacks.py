import time

import pytest

from simsiam_keras import callbacks


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
