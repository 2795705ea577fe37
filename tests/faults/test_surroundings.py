"""What a machine does to a run: full and read-only disks, no home, other clocks, lost images."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import board, callbacks, plots
from tests.conftest import ROOT
from tests.faults import small

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    """Function of a size and options to a file system of its own, unmounted afterwards."""
    mounted = []

    def mount(size, options=""):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def one_sentence(error):
    """The last line of standard error, which must be ours and the only one of its kind."""
    assert "Traceback" not in error, error
    said = [line for line in error.splitlines() if line.startswith("simsiam_keras: ")]
    assert len(said) == 1, error
    return said[0]


@pytest.mark.parametrize("size", ["8k", "64k", "128k", "256k"])
def test_a_full_disk_ends_a_run_in_a_sentence_and_room_lets_it_go_on(
    size, disk, data, whole, tmp_path, capfd
):
    folder = disk(size)
    code = small.pretrain(folder / "run", data, "--augment=host")
    error = capfd.readouterr().err
    if code == 0:  # room for all, but perhaps for pictures
        said = " ".join(error.split())  # a console breaks lines where it is full
        left_out = "could not be drawn, all else goes on: [Errno 28] No space left" in said
        found = small.outcome(folder / "run")
        assert left_out == (found.pop("plots") != whole["host"]["plots"])
        assert found == {name: value for name, value in whole["host"].items() if name != "plots"}
        return
    assert code == 1 and "cannot be written" in one_sentence(error)
    assert "No space left" in error or "Errno 28" in error
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    assert small.pretrain(folder / "run", data, "--augment=host") == 0
    assert small.outcome(folder / "run") == whole["host"]


def test_a_read_only_folder_is_told(disk, data, capfd):
    folder = disk("1m", ",ro")
    assert small.pretrain(folder / "run", data) in (1, 2)
    assert "Read-only file system" in one_sentence(capfd.readouterr().err)


def test_without_home_and_temporary_folder(data, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    nowhere = {"HOME": "/nowhere", "TMPDIR": "/nowhere", "TEMP": "/nowhere", "TMP": "/nowhere"}
    command = [sys.executable, "-m", "simsiam_keras", "pretrain", *small.FLAGS, data]
    done = subprocess.run(
        [*command, f"--run_dir={tmp_path / 'run'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**environment, **nowhere},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()


def photographs(folder, n=48):
    """Pictures of sizes that vary, so that each is read when its turn comes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        shape = (*rng.integers(12, 30, 2), 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype="uint8")).save(folder / f"{i}.png")
    return f"--dataset=folder:{folder}"


def deleting(method, folder, kept):
    """A callback's method before which photographs vanish, after the first epoch."""

    def method_without(self, epoch, logs=None):
        if epoch == 0:
            for path in sorted(folder.iterdir())[kept:]:
                path.unlink()
        method(self, epoch, logs)

    return method_without


@pytest.mark.parametrize("augment", ["host", "device"])
def test_photographs_that_vanish_while_it_trains(augment, tmp_path, monkeypatch, capfd):
    folder = tmp_path / "photos"
    flags = [photographs(folder), f"--augment={augment}", "--probe_dataset=none", "--cache=none"]
    method = deleting(callbacks.Clock.on_epoch_end, folder, kept=0)
    monkeypatch.setattr(callbacks.Clock, "on_epoch_end", method)
    assert small.pretrain(tmp_path / "run", *flags) in (1, 2)
    error = capfd.readouterr().err
    assert "cannot be decoded" in one_sentence(error) and "disk is still there" in error
    assert (tmp_path / "run" / "checkpoints" / "epoch_00001.npz").exists()
    # Photographs that are not there any more are other data.
    monkeypatch.undo()
    shutil.rmtree(folder)
    photographs(folder, n=40)
    assert small.pretrain(tmp_path / "run", *flags) == 2
    assert "changed since" in one_sentence(capfd.readouterr().err)


def test_a_clock_that_goes_backwards(data, whole, tmp_path, monkeypatch):
    began, calls = time.time(), []
    monkeypatch.setattr(time, "time", lambda: calls.append(1) or began - 3600 * len(calls))
    assert small.pretrain(tmp_path / "run", data, "--augment=host") == 0
    assert calls and small.outcome(tmp_path / "run") == whole["host"]


NAMES = ["$20_$", "a$b$c", "_hidden", b"\xff\xfe bytes".decode(errors="surrogateescape"), "é $x$"]


def test_names_that_a_picture_cannot_take(tmp_path, capfd):
    folder = tmp_path / "my $photos$ \udcff"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        (folder / name).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    assert small.pretrain(tmp_path / "run", f"--dataset=folder:{folder}") == 0
    assert "could not be drawn" not in capfd.readouterr().err
    plots_made = {path.name for path in (tmp_path / "run" / "plots").iterdir()}
    assert plots_made == {"views.png", "curves.png", "embedding.png"}


def test_what_only_decorates_ends_nothing(data, whole, tmp_path, monkeypatch, capfd):
    def broken(*arguments, **options):
        raise RuntimeError("no such font")

    monkeypatch.setattr(plots, "embedding_map", broken)
    monkeypatch.setattr(board.event_file_writer, "EventsWriter", broken)
    assert small.pretrain(tmp_path / "run", data, "--augment=host") == 0
    error = capfd.readouterr().err
    assert "embedding.png could not be drawn, all else goes on: no such font" in error
    assert error.count("TensorBoard's files cannot be written") == 1
    (tmp_path / "run" / "plots" / "embedding.png").touch()
    (tmp_path / "run" / "tensorboard").mkdir(exist_ok=True)
    assert small.outcome(tmp_path / "run") == whole["host"]
