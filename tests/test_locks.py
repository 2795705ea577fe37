"""Run folders on file systems without locks, and systems without POSIX's ways."""

import builtins
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simsiam_keras import commands, locks, runs
from simsiam_keras.data.base import ArraySource
from simsiam_keras.errors import Caution, RunFailed
from simsiam_keras.evaluation import encoded
from simsiam_keras.study import runner
from tests.conftest import ROOT

fcntl = pytest.importorskip("fcntl")
FLAGS = {"epochs": 3}


@pytest.fixture(params=["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def no_flock(request, monkeypatch):
    number = getattr(errno, request.param)

    def flock(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    return f"fcntl.flock = lambda *a: (_ for _ in ()).throw(OSError({number}, 'no'))\n"


def holder(path, no_flock):
    """Another process that holds a folder until its input ends."""
    code = (
        f"import fcntl, sys, warnings; {no_flock}warnings.simplefilter('ignore')\n"
        "from simsiam_keras import runs\n"
        f"with runs.locked({str(path)!r}, {FLAGS!r}):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_file_stands_for_the_lock_where_there_is_none(tmp_path, no_flock):
    for _ in range(2):  # also in a folder that was held before
        with pytest.warns(Caution, match="without locks; the file .lock.soft stands for one"):
            with runs.locked(tmp_path, FLAGS):
                assert (tmp_path / ".lock.soft").exists()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["flags.cfg"]


@pytest.mark.filterwarnings("ignore::simsiam_keras.errors.Caution")
def test_a_second_process_is_kept_out_without_locks(tmp_path, no_flock):
    process = holder(tmp_path, no_flock)
    try:
        with pytest.raises(RunFailed, match=r"is in use .* If that process is gone \(see .*delete"):
            with runs.locked(tmp_path, FLAGS):
                pass
    finally:
        process.communicate("")


@pytest.mark.filterwarnings("ignore::simsiam_keras.errors.Caution")
def test_a_killed_process_does_not_hold_on(tmp_path, no_flock):
    process = holder(tmp_path, no_flock)
    process.kill()
    process.communicate()
    assert (tmp_path / ".lock.soft").exists()
    with runs.locked(tmp_path, FLAGS):
        pass


def test_another_error_of_the_lock_passes(tmp_path, monkeypatch):
    def flock(*arguments):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken"):
        with locks.held(tmp_path):
            pass


def test_a_system_without_fcntl_takes_filelocks_own(tmp_path, monkeypatch):
    usual = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "fcntl":
            raise ImportError(name)
        return usual(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with runs.locked(tmp_path, FLAGS):
        assert not (tmp_path / ".lock.soft").exists()


class Encoder:
    image_size, eval_crop = 4, 1.0

    def __call__(self, images):
        return images.reshape(len(images), -1)


def test_features_are_read_where_a_mapped_file_cannot_go(tmp_path, monkeypatch):
    """As on Windows: no unlinking of a file that a map is open of."""
    usual = Path.unlink

    def unlink(path, *arguments, **keywords):
        mapped = str(path) in Path("/proc/self/maps").read_text("utf-8")
        if mapped:
            raise PermissionError(errno.EACCES, "in use by another process", str(path))
        usual(path, *arguments, **keywords)

    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc to know what is mapped")
    monkeypatch.setattr(Path, "unlink", unlink)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype="uint8")
    source = ArraySource("six", pixels, np.arange(6) % 2)
    console = commands.Console(quiet=True)
    for _ in range(2):  # the same name is free again
        found, labels = encoded.mapped(Encoder(), source, 4, tmp_path, console)
        np.testing.assert_array_equal(found, pixels.reshape(6, -1))
        assert labels.tolist() == [0, 1] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_grid_runs_without_posix(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert runner.processors(0, 2) == []
    monkeypatch.delattr(signal, "SIGKILL")
    log = tmp_path / "a.log"
    log.write_text("last words\n", "utf-8")
    assert runner._last_words(log, -9) == "ended by SIGKILL (out of memory?) after: last words"
    assert runner._last_words(log, -63) == "ended by signal 63 after: last words"
