"""300 short epochs in one process: memory, open files and threads stay as they are after 30."""

import os
import threading

import numpy as np
import pytest

from simsiam_keras import callbacks
from tests.faults import small
from tests.memory import resident

EPOCHS, SETTLED = 300, 30  # by then all is compiled, and every kind of measurement was made
GROWTH_MB = 20


def held():
    """MB of private memory, open files, and threads, Python's and the libraries'."""
    files = len(os.listdir("/proc/self/fd"))
    return resident("RssAnon"), files, len(os.listdir("/proc/self/task")), threading.active_count()


def watched(run_dir, data, *flags):
    """What the process holds at the end of each epoch of a run."""
    found, method = [], callbacks.Clock.on_epoch_end

    def and_look(self, epoch, logs=None):
        found.append(held())
        method(self, epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Clock, "on_epoch_end", and_look)
        assert small.pretrain(run_dir, data, f"--epochs={EPOCHS}", "--knn_every=10", *flags) == 0
    return np.array(found)


def growth(found):
    """What the last 30 epochs hold more than the second 30, by medians.

    A pipeline's threads may for a moment stand beside those of the next one.
    """
    return np.median(found[-SETTLED:], axis=0) - np.median(found[SETTLED : 2 * SETTLED], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["host", "device"])
def test_300_epochs_take_no_more_than_30(augment, data, tmp_path):
    found = watched(tmp_path / "run", data, f"--augment={augment}")
    assert len(found) == EPOCHS
    memory, *others = growth(found)
    print(f"{augment}: {memory:+.1f} MB, files and threads {others}; at last {found[-1]}")
    assert memory < GROWTH_MB and max(others) <= 0


def test_growth_is_seen():
    steady = np.tile([800.0, 40, 40, 2], (EPOCHS, 1))
    assert (growth(steady) == 0).all()
    leaking = steady + np.arange(EPOCHS)[:, None] * [0.1, 0.1, 0, 0]  # MB and files an epoch
    memory, files, *_ = growth(leaking)
    assert memory > GROWTH_MB and files > 0
