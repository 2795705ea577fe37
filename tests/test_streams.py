"""Output that cannot be written as it is, or at all: other encodings, `| head`, a full disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simsiam_keras import config
from simsiam_keras.errors import Caution
from simsiam_keras.streams import BROKEN_PIPE
from tests.conftest import ROOT

ROW = {"epoch": 1, "step": 2, "loss": -0.03, "z_std": 0.98, "knn_accuracy": None}
TINY = [
    *("--dataset=digits", "--recipe=digits", "--augment=device", "--encoder=resnet10"),
    *("--width=2", "--output_dim=8", "--predictor_hidden=4", "--batch_size=512", "--epochs=2"),
]


@pytest.fixture
def run_dir(tmp_path):
    """A run folder with a Cyrillic name, as `diagnose` needs it."""
    folder = tmp_path / "прогон"
    folder.mkdir()
    (folder / "flags.cfg").write_text("--dataset=folder:Фото\n--epochs=1\n", "utf-8")
    (folder / "metrics.jsonl").write_text(json.dumps(ROW) + "\n", "utf-8")
    return folder


def command(*argv, end="", **environment):
    """Runs a command line by way of a shell, `end` behind it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    words = [sys.executable, "-m", "simsiam_keras", *map(str, argv)]
    script = 'set -o pipefail; "$@" ' + end
    return subprocess.run(
        ["bash", "-c", script, "bash", *words],
        env={**environment, "COLUMNS": "250"},  # no path is cut
        capture_output=True,
        timeout=300,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_an_encoding_lacks_is_replaced(run_dir, encoding):
    done = command("diagnose", f"--run_dir={run_dir}", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode(encoding)
    assert "?d" in out and "??????" in out  # the root's sign, the folder's name
    assert "| verdict" in out  # no lines that would all be question marks
    assert done.stderr == b""


def test_utf8_is_left_as_it_is(run_dir):
    done = command("diagnose", f"--run_dir={run_dir}", PYTHONIOENCODING="utf-8")
    out = done.stdout.decode("utf-8")
    assert "std·√d" in out and "прогон" in out and "│ verdict" in out


@pytest.mark.parametrize("argv", [["--help"], ["pretrain", "--help"], ["diagnose"]])
def test_a_reader_that_has_gone_ends_it_quietly(run_dir, argv):
    argv = [*argv, f"--run_dir={run_dir}"]
    done = command(*argv, end="| head -c 1")
    # A short text may be in the pipe before `head` ends; what is said is nothing in either case.
    assert done.returncode in (0, BROKEN_PIPE)
    assert len(done.stdout) == 1 and done.stderr == b""


def test_a_reader_that_was_never_there_gives_the_shells_code(run_dir):
    done = command("diagnose", f"--run_dir={run_dir}", end="| (exec <&-; sleep 3)")
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_failure_in_a_sentence(run_dir):
    done = command("diagnose", f"--run_dir={run_dir}", end="> /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"simsiam_keras: standard output cannot be written: " + (
        b"No space left on device\n"
    )


def test_closed_descriptors_are_no_error(run_dir):
    done = command("diagnose", f"--run_dir={run_dir}", end="<&- >&- 2>&-")
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("end", ["2> >(exec 0<&-)", "2>/dev/full", "2>&-"])
def test_training_goes_on_without_its_progress(tmp_path, end):
    done = command("pretrain", *TINY, f"--run_dir={tmp_path / 'run'}", end=end)
    assert done.returncode == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))["epochs"] == 2
    assert b"wall_seconds" in done.stdout


@pytest.mark.slow
def test_a_locale_without_utf8_reads_names_and_flags(tmp_path, photos):
    photos = photos.rename(photos.with_name("Фото"))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    card = tmp_path / "card.cfg"
    card.write_text(f"--dataset=folder:{photos}\n", "utf-8")
    flags = [*TINY[1:], "--batch_size=24", "--image_size=16", f"--flagfile={card}"]
    done = command("pretrain", *flags, f"--run_dir={tmp_path / 'run'}", **plain)
    assert done.returncode == 0, done.stderr
    assert f"--dataset=folder:{photos}\n" in (tmp_path / "run/flags.cfg").read_text("utf-8")
    done = command("export", f"--run_dir={tmp_path / 'run'}", f"--output={tmp_path / 'a'}", **plain)
    assert done.returncode == 0, done.stderr


def test_bytes_that_are_no_text_are_written_as_flags(tmp_path):
    (tmp_path / "card.cfg").write_bytes(b"--dataset=folder:fo\xffto\n")
    cfg = config.parse("pretrain", [f"--flagfile={tmp_path / 'card.cfg'}"])
    assert os.fsencode(cfg.dataset) == b"folder:fo\xffto"
    (tmp_path / "again.cfg").write_text(config.to_flagfile(cfg), "utf-8")
    assert config.parse("pretrain", [f"--flagfile={tmp_path / 'again.cfg'}"]) == cfg
    assert config.run_dir(cfg).name == "simsiam_fo_to"


SPELT = """
import sys
from simsiam_keras import flagfile
name = sys.argv[1]
text = flagfile.write({"dataset": name})
assert flagfile.parse(text) == ["--dataset=" + name], text
sys.stdout.buffer.write(text.encode("utf-8"))
"""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_flagfile_is_the_same_in_every_locale(locale):
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SPELT, "Фото"], env=environment, capture_output=True, cwd=ROOT
    )
    assert done.stdout.decode("utf-8") == "--dataset=Фото\n", done.stderr


def test_a_folder_that_tensorflow_cannot_spell_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"ru\xffn")
    done = command("pretrain", *TINY, f"--run_dir={path}")
    assert done.returncode == 2 and b"--run_dir must be a name in UTF-8" in done.stderr
    assert not path.exists()


def test_a_folder_of_windows_gives_a_run_its_last_name(monkeypatch):
    cfg = config.make("pretrain", dataset="folder:C:\\photos\\cats\\")
    monkeypatch.setattr(os, "sep", "\\")
    assert config.run_dir(cfg).name == "simsiam_cats"


def test_a_caution_is_one_line():
    code = (
        "import warnings; from simsiam_keras import errors, streams\n"
        "streams.prepare(); warnings.warn('this is odd', errors.Caution)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "simsiam_keras: warning: this is odd\n"
    assert issubclass(Caution, UserWarning)
