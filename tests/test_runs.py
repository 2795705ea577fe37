import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from simsiam_keras import checkpoints, optimizers, runs
from simsiam_keras.errors import RunFailed
from tests import tiny
from tests.tiny import compiled_model

FLAGS = {"epochs": 3, "seed": 0, "run_dir": "x"}
TEXT = "--epochs=3\n--seed=0\n--run_dir=x\n"


def compiled(**arguments):
    return compiled_model(tiny.simsiam(**arguments), optimizers.SGD(0.1))


def test_new_folder_holds_its_flags(tmp_path):
    with runs.locked(tmp_path / "run", FLAGS) as path:
        assert (path / "flags.cfg").read_text() == TEXT


def test_unfinished_run_resumes_with_the_same_flags(tmp_path):
    for _ in range(2):
        with runs.locked(tmp_path / "run", FLAGS):
            pass


def test_other_flags_are_free_until_something_is_trained(tmp_path):
    with runs.locked(tmp_path, FLAGS):
        pass
    with runs.locked(tmp_path, FLAGS | {"epochs": 4}) as path:
        assert "--epochs=4" in (path / "flags.cfg").read_text()


def test_other_flags_are_refused_and_named(tmp_path):
    with runs.locked(tmp_path, FLAGS):
        checkpoints.save(tmp_path, compiled(), 1)
    with pytest.raises(ValueError, match="--epochs: 3 there, 4 here"):
        with runs.locked(tmp_path, FLAGS | {"epochs": 4}):
            pass
    assert (tmp_path / "flags.cfg").read_text() == TEXT


def test_a_moved_run_resumes(tmp_path):
    with runs.locked(tmp_path / "a", FLAGS):
        pass
    (tmp_path / "a").rename(tmp_path / "b")
    with runs.locked(tmp_path / "b", FLAGS | {"run_dir": "y"}):
        pass


def test_finished_run_is_refused(tmp_path):
    with runs.locked(tmp_path, FLAGS) as path:
        runs.write_json(path / "result.json", {"loss": -1})
    with pytest.raises(ValueError, match="holds a finished run; give another --run_dir"):
        with runs.locked(tmp_path, FLAGS):
            pass


@pytest.mark.parametrize("text", ["", '{"loss": -0.9', "[]", "null"])
def test_a_half_written_result_is_not_a_finished_run(text, tmp_path):
    with runs.locked(tmp_path, FLAGS) as path:
        (path / "result.json").write_text(text)
    with pytest.raises(ValueError, match="result.json cannot be read .*; delete it, and the same"):
        with runs.locked(tmp_path, FLAGS):
            pass


def test_checkpoints_make_a_run_folder_also_without_its_flags(tmp_path):
    with runs.locked(tmp_path, FLAGS) as path:
        checkpoints.save(path, compiled(), 1)
        (path / "flags.cfg").unlink()
    with runs.locked(tmp_path, FLAGS) as path:
        assert (path / "flags.cfg").read_text() == TEXT


@pytest.mark.parametrize("text", ['--dataset="folder:', '--epochs=3\n--seed="\n'])
def test_damaged_flags_are_told(text, tmp_path):
    with runs.locked(tmp_path, FLAGS) as path:
        checkpoints.save(path, compiled(), 1)
        (path / "flags.cfg").write_text(text)
    with pytest.raises(ValueError, match="flags.cfg cannot be read .*; restore it, or give"):
        with runs.locked(tmp_path, FLAGS):
            pass


def test_metrics_are_read_without_a_torn_line(tmp_path):
    rows = [{"epoch": epoch, "loss": -epoch / 10} for epoch in range(4)]
    runs.write_metrics(tmp_path, rows[:3])
    runs.append_metrics(tmp_path, rows[3])
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"epoch": 4, "lo')
    assert runs.read_metrics(tmp_path) == rows


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"{", b"[]", b"{}", b'{"epoch": "1"}', b'{"epoch": 1, "loss": "low"}']
)
def test_damaged_metrics_are_told_with_their_line(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"epoch": 0}\n' + line + b"\n")
    with pytest.raises(ValueError, match="metrics.jsonl cannot be read .*; a run that goes on wr"):
        runs.read_metrics(tmp_path)


def test_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="not empty and not a run folder"):
        with runs.locked(tmp_path, FLAGS):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_is_looked_at_while_another_process_takes_it(tmp_path):
    def take(path):
        with runs.locked(path, FLAGS):
            pass

    with ThreadPoolExecutor(1) as other:
        for i in range(100):
            path = tmp_path / str(i)
            first = other.submit(take, path)
            while not first.done():
                with runs.locked(path, FLAGS, write=False):
                    pass
            first.result()  # raises what it raised


def test_what_a_killed_start_left_is_no_foreign_folder(tmp_path):
    for name in (".lock", ".flags.cfg.partial"):
        (tmp_path / name).write_text("--epo")
    with runs.locked(tmp_path, FLAGS) as path:
        assert [p.name for p in path.glob("*flags*")] == ["flags.cfg"]


def test_file_as_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        with runs.locked(tmp_path / "file", FLAGS):
            pass


def test_folder_in_use_by_another_process_is_refused(tmp_path):
    holder = (
        "import sys; from simsiam_keras import runs\n"
        f"with runs.locked({str(tmp_path)!r}, {FLAGS!r}):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunFailed, match="in use by another process"):
            with runs.locked(tmp_path, FLAGS):
                pass
    finally:
        process.communicate("")
    with runs.locked(tmp_path, FLAGS):  # free again
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    runs.write_atomically(path, "old")

    def full_disk(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunFailed, match="state cannot be written .No space left on device.; what"):
        runs.write_atomically(path, "new")
    assert path.read_text() == "old"


def test_a_write_that_breaks_off_leaves_no_part(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with runs.atomic_file(tmp_path / "state") as f:
            f.write(b"half")
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".state.partial").write_text("what a killed process left, and longer")
    runs.write_atomically(tmp_path / "state", "whole")
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    assert (tmp_path / "state").read_text() == "whole"


def test_a_planted_link_leads_nowhere(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / ".state.partial").symlink_to(tmp_path / "thesis.tex")
    runs.write_atomically(tmp_path / "state", "whole")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "state").read_text() == "whole" and not (tmp_path / "state").is_symlink()


def test_arrays_come_back_from_an_npz(tmp_path):
    arrays = {"model/0": np.arange(6.0).reshape(2, 3), "classes": np.array(["a", "bc"])}
    runs.write_npz(tmp_path / "arrays.npz", arrays)
    with np.load(tmp_path / "arrays.npz") as found:
        assert sorted(found.files) == sorted(arrays)
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value)
    assert [p.name for p in tmp_path.iterdir()] == ["arrays.npz"]


def test_a_run_begun_when_every_method_had_every_flag_is_told(tmp_path):
    with runs.locked(tmp_path, FLAGS | {"temperature": 0.5}):
        checkpoints.save(tmp_path, compiled(), 1)
    with pytest.raises(ValueError, match="earlier version began.*--temperature.*, or give"):
        with runs.locked(tmp_path, FLAGS):
            pass


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_that_is_a_link_is_not_followed(there, tmp_path):
    target = tmp_path / "target"
    if there:
        target.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(target)
    with pytest.raises(ValueError, match="lock must be a file, it is a symbolic link"):
        with runs.locked(tmp_path / "run", FLAGS):
            pass
    assert target.exists() == there and (not there or target.read_text() == "mine")
