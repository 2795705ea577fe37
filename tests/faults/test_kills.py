"""A machine that goes away, at any moment: the same command ends as the whole run does."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import keras
import pytest

from simsiam_keras import interrupts
from tests.conftest import ROOT
from tests.faults import small

KILLS = int(os.environ.get("KILLS", 2))  # of each kind; `make faults` asks for 30

_watched = None  # function of nothing, called before each file operation


def _audit(event, arguments):
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
        if _watched and threading.current_thread() is threading.main_thread():
            _watched(event, arguments)


def states_of(run_dir, train, folder):
    """Copies of a run's folder as it is before each file operation in it, but for repetitions."""
    global _watched
    sys.addaudithook(_audit)  # which stays for good, and does nothing without `_watched`
    copies, busy = [], []

    def copy(event, arguments):
        named = str(arguments[0]) if arguments else ""
        writes = event != "open" or "w" in str(arguments[1]) or "a" in str(arguments[1])
        if busy or not writes or str(run_dir) not in named or not run_dir.exists():
            return
        busy.append(True)
        try:
            copies.append(shutil.copytree(run_dir, folder / f"{len(copies):03d}", symlinks=True))
        finally:
            busy.clear()

    _watched = copy
    try:
        train()
    finally:
        _watched = None
    return copies


def tear(run_dir):
    """Leaves of what was being written a half, and of the next row some letters."""
    for path in run_dir.rglob(".*partial"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if (run_dir / "metrics.jsonl").exists():
        with open(run_dir / "metrics.jsonl", "a") as f:
            f.write('{"epoch": 1, "lo')


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["host", "device"])
def test_killed_between_any_two_file_operations(augment, data, whole, tmp_path, capfd):
    flags, run_dir = [data, f"--augment={augment}"], tmp_path / "run"
    states = states_of(run_dir, lambda: small.pretrain(run_dir, *flags), (tmp_path / "states"))
    assert len(states) > 30 and small.outcome(run_dir) == whole[augment]
    offset = random.Random(augment).randrange(small.EVERY)
    for state in states[offset :: small.EVERY]:
        tear(state)
        assert not (state / "result.json").exists()
        assert small.pretrain(state, *flags) == 0, (state, capfd.readouterr().err)
        assert small.outcome(state) == whole[augment], state


@pytest.mark.slow
@pytest.mark.parametrize("measurement", ["KNN", "Record", "Checkpoint", "CollapseWatch"])
def test_told_to_end_among_the_measurements_after_an_epoch(
    measurement, data, whole, tmp_path, monkeypatch
):
    ends, stopped = keras.callbacks.CallbackList.on_epoch_end, []

    def on_epoch_end(self, epoch, logs=None):
        if epoch != 1 or stopped:
            return ends(self, epoch, logs)
        for callback in self.callbacks:
            if type(callback).__name__ == measurement:
                stopped.append(callback)
                raise interrupts.Interrupted(signal.SIGTERM)
            callback.on_epoch_end(epoch, logs)
        return None

    monkeypatch.setattr(keras.callbacks.CallbackList, "on_epoch_end", on_epoch_end)
    run_dir = tmp_path / "run"
    assert small.pretrain(run_dir, data, "--augment=host") == 128 + signal.SIGTERM
    assert small.pretrain(run_dir, data, "--augment=host") == 0
    assert small.outcome(run_dir) == whole["host"]


def start(run_dir, *flags, backend="tensorflow", python=sys.executable):
    command = [python, "-m", "simsiam_keras", "pretrain", *small.FLAGS, f"--backend={backend}"]
    return subprocess.Popen(
        [*command, f"--run_dir={run_dir}", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


def finish(process):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


BACKENDS = {
    "host": ("tensorflow", sys.executable),
    "jax": ("jax", ROOT / ".venv-jax" / "bin" / "python"),
    "device": ("tensorflow", sys.executable),
    "torch": ("torch", ROOT / ".venv-torch" / "bin" / "python"),
}
KINDS = list(BACKENDS)[: 2 if KILLS < 3 else None]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind, data, tmp_path):
    """By turns without warning, and with a signal that leaves a checkpoint within an epoch."""
    backend, python = BACKENDS[kind]
    if not os.path.exists(python):
        pytest.skip("needs `make backends`")
    flags = [data, f"--augment={'host' if kind == 'host' else 'device'}", "--epochs=60"]
    flags += ["--jit=on"] if kind == "jax" else []  # which else computes one operation at a time
    options = {"backend": backend, "python": str(python)}
    began = time.monotonic()
    finish(start(tmp_path / "whole", *flags, **options))
    took, rng = time.monotonic() - began, random.Random(kind)
    expected = small.outcome(tmp_path / "whole")
    for i in range(KILLS):
        run_dir = tmp_path / f"run{i}"
        process = start(run_dir, *flags, **options)
        try:
            process.wait(rng.uniform(0.2, 1) * took)
        except subprocess.TimeoutExpired:
            process.send_signal((signal.SIGKILL, signal.SIGTERM)[i % 2])
        said, _ = process.communicate()
        written = (run_dir / "result.json").exists()  # then nothing waits for a signal any more
        killed = {-signal.SIGKILL, 128 + signal.SIGTERM, *([-signal.SIGTERM] if written else [])}
        assert process.returncode in {0, *killed}, said
        if not written:
            finish(start(run_dir, *flags, **options))
        assert small.outcome(run_dir) == expected, (i, said)


@pytest.mark.slow
def test_a_second_process_is_refused_and_changes_nothing(data, tmp_path):
    run_dir = tmp_path / "run"
    first = start(run_dir, data, "--augment=host", "--epochs=2000")
    while not (run_dir / "metrics.jsonl").exists() and first.poll() is None:
        time.sleep(0.05)
    second = start(run_dir, data, "--augment=host", "--epochs=2000")
    said, _ = second.communicate(timeout=300)
    assert first.poll() is None and second.returncode == 1
    assert "is in use by another process; wait for it" in said
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=300)
    assert first.returncode == 128 + signal.SIGTERM, said
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(len(rows))) and len(rows) > 1
