"""Damaged files of an unfinished run: it ends as the whole run does, or says what is damaged."""

import shutil
import signal

import pytest

from simsiam_keras import callbacks
from simsiam_keras.__main__ import main
from tests.faults import small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unfinished(data, tmp_path_factory):
    """A run that was stopped in the third epoch."""
    run_dir = tmp_path_factory.mktemp("unfinished") / "run"
    method = callbacks.Clock.on_train_batch_end

    def stopping(self, batch, logs=None):
        if self.position == (2, 0):
            signal.raise_signal(signal.SIGTERM)
        method(self, batch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Clock, "on_train_batch_end", stopping)
        assert small.pretrain(run_dir, data, "--augment=host") == 128 + signal.SIGTERM
    return run_dir


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path):
    path.write_bytes(bytes(b ^ 0x55 for b in path.read_bytes()))


def gone(path):
    path.unlink()


DAMAGES = [emptied, cut, garbled, gone]
# What a run can do without is made anew; where flags.cfg is damaged, it is told to be restored.
WITHOUT = {
    "metrics.jsonl": DAMAGES,
    "environment.json": DAMAGES if small.WHOLE else [garbled, gone],
    "plots/views.png": DAMAGES if small.WHOLE else [emptied],
    "checkpoints/epoch_00002_step_00001.npz": DAMAGES,
    "flags.cfg": [gone],
}
CASES = [(name, damage) for name, damages in WITHOUT.items() for damage in damages]


@pytest.mark.parametrize(("name", "damage"), CASES, ids=lambda x: getattr(x, "__name__", x))
def test_a_run_goes_on_whatever_became_of(name, damage, unfinished, data, whole, tmp_path, capfd):
    run_dir = shutil.copytree(unfinished, tmp_path / "run")
    damage(run_dir / name)
    assert small.pretrain(run_dir, data, "--augment=host") == 0
    error = capfd.readouterr().err
    assert ("is damaged" in error) == (name.startswith("checkpoints") and damage is not gone)
    if name.startswith("plots"):
        (run_dir / name).touch()  # drawn at the beginning, and no part of what is trained
    assert small.outcome(run_dir) == whole["host"]


@pytest.mark.parametrize("damage", [garbled, emptied])
def test_damaged_flags_are_told(damage, unfinished, data, tmp_path, capfd):
    run_dir = shutil.copytree(unfinished, tmp_path / "run")
    damage(run_dir / "flags.cfg")
    assert small.pretrain(run_dir, data, "--augment=host") == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("simsiam_keras: ") and "--run_dir" in error


# `export` needs no metrics; to `diagnose` garbled flags are none, and it can do without.
TOLD = [("diagnose", "metrics.jsonl"), ("export", "flags.cfg")]
NOT_NEEDED = [("diagnose", "flags.cfg"), ("export", "metrics.jsonl")]


@pytest.mark.parametrize(("command", "name"), TOLD + NOT_NEEDED)
def test_who_reads_a_damaged_run_is_told_which_file(command, name, unfinished, tmp_path, capfd):
    run_dir = shutil.copytree(unfinished, tmp_path / "run")
    garbled(run_dir / name)
    output = [f"--output={tmp_path / 'out'}"] if command == "export" else []
    code = main([command, f"--run_dir={run_dir}", *output])
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert code == (2 if (command, name) in TOLD else 0), error
    assert (str(run_dir / name) in error) == ((command, name) in TOLD)
