"""Signals: a run that is stopped goes on as if it never had been, to the bit."""

import re
import signal

import pytest

from simsiam_keras import callbacks
from tests.faults import small


def losing(method, position, number):
    """A callback's method before which a signal comes, at one position of the run."""

    def signal_and_method(self, index, logs=None):
        if self.position == position:
            signal.raise_signal(number)
        method(self, index, logs)

    return signal_and_method


STOPS = {
    "within an epoch": ("on_train_batch_end", (1, 1), signal.SIGTERM, "after step 2 of epoch 2"),
    "in its last step": ("on_train_batch_end", (1, 2), signal.SIGINT, "after step 3 of epoch 2"),
    "in the very first": ("on_train_batch_end", (0, 0), signal.SIGTERM, "after step 1 of epoch 1"),
    "where an epoch is measured": ("on_epoch_end", (1, 3), signal.SIGHUP, "step 3 of epoch 2"),
    "between epochs": ("on_epoch_begin", (1, 3), signal.SIGTERM, "after epoch 2"),
    "before all": ("on_epoch_begin", (0, 0), signal.SIGINT, "starts"),
}


# The device's views differ in where their state is: in the model.
DEVICE = list(STOPS)[: None if small.WHOLE else 2]
CASES = [*((stop, "host") for stop in STOPS), *((stop, "device") for stop in DEVICE)]


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "augment"), CASES)
def test_a_stopped_run_goes_on_as_if_never_stopped(stop, augment, data, whole, tmp_path, capfd):
    name, position, number, words = STOPS[stop]
    flags = [data, f"--augment={augment}"]
    with pytest.MonkeyPatch.context() as patch:
        method = losing(getattr(callbacks.Clock, name), position, number)
        patch.setattr(callbacks.Clock, name, method)
        assert small.pretrain(tmp_path / "run", *flags) == 128 + number
    error = capfd.readouterr().err
    assert re.search(f"interrupted; .*the same command .*{words}", error)
    assert f"{signal.Signals(number).name} received, stopping" in error
    assert not (tmp_path / "run" / "result.json").exists()
    assert small.pretrain(tmp_path / "run", *flags) == 0
    assert words in re.search(r"simsiam (starts|resumes .*?) in ", capfd.readouterr().err)[1]
    assert small.outcome(tmp_path / "run") == whole[augment]


@pytest.mark.slow
def test_an_error_that_a_library_makes_of_a_signal_is_one(data, whole, tmp_path, capfd):
    measure = callbacks.KNN.on_epoch_end

    def broken_into(self, epoch, logs=None):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise RuntimeError("Concurrent access?") from None
        measure(self, epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.KNN, "on_epoch_end", broken_into)
        code = small.pretrain(tmp_path / "run", data, "--augment=host")
    error = capfd.readouterr().err
    assert code == 128 + signal.SIGTERM and "Concurrent" not in error
    assert "interrupted; the same command goes on after step 3 of epoch 1" in error
    assert small.pretrain(tmp_path / "run", data, "--augment=host") == 0
    assert small.outcome(tmp_path / "run") == whole["host"]
