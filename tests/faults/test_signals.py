"""What a person or a scheduler sees who ends a command: an answer at once, and a true sentence."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.faults import small

# A step that takes as long as a large model's on a slow machine: the main thread waits in
# native code, deaf to signals.
SLOW_STEP = """
import time
from simsiam_keras.methods.base import JointEmbedding

def train_step(self, *args, before=JointEmbedding.train_step):
    import tensorflow as tf
    def wait(x):
        print("in the step", flush=True)
        time.sleep(5)
        return x
    with tf.control_dependencies([tf.numpy_function(wait, [0.0], tf.float32)]):
        return before(self, *args)

JointEmbedding.train_step = train_step
from simsiam_keras.__main__ import run
run()
"""


class Command:
    """A command as a process, its words with the time at which each came."""

    def __init__(self, *arguments, code=None):
        program = ["-c", code] if code else ["-m", "simsiam_keras"]
        self.process = subprocess.Popen(
            [sys.executable, "-u", *program, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.said = ""

    def until(self, words, seconds=120):
        """Waits for words; returns the seconds that it took."""
        began = time.monotonic()
        while not re.search(words, self.said):
            if time.monotonic() - began > seconds:
                raise AssertionError(f"no {words!r} in {seconds} s: {self.said}")
            self.said += (self.process.stdout.read() or b"").decode()
            time.sleep(0.01)
        return time.monotonic() - began

    def send(self, number):
        self.process.send_signal(number)

    def end(self, seconds=120):
        code = self.process.wait(seconds)
        os.set_blocking(self.process.stdout.fileno(), True)
        self.said += self.process.stdout.read().decode()
        assert "Traceback" not in self.said, self.said
        return code


@pytest.fixture
def slow_run(data, tmp_path):
    flags = ["pretrain", *small.FLAGS, data, f"--run_dir={tmp_path / 'run'}"]
    return Command(*flags, code=SLOW_STEP)


@pytest.mark.slow
def test_a_signal_is_answered_while_a_step_takes_long(slow_run, tmp_path):
    slow_run.until("in the step")
    slow_run.send(signal.SIGTERM)
    assert slow_run.until("SIGTERM received, stopping after this step; a second one ends at") < 1
    assert slow_run.end() == 128 + signal.SIGTERM
    assert "interrupted; the same command goes on after step 1 of epoch 1" in slow_run.said
    assert (tmp_path / "run" / "checkpoints" / "epoch_00000_step_00001.npz").exists()


@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_promises_nothing(slow_run, tmp_path):
    slow_run.until("in the step")
    slow_run.send(signal.SIGINT)
    slow_run.until("SIGINT received")
    slow_run.send(signal.SIGINT)
    began = time.monotonic()
    assert slow_run.end(10) == 128 + signal.SIGINT and time.monotonic() - began < 1
    assert "second SIGINT, ended at once" in slow_run.said and "goes on" not in slow_run.said
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


@pytest.mark.slow
def test_before_the_first_step_no_checkpoint_is_promised(data, tmp_path):
    command = Command("pretrain", *small.FLAGS, data, f"--run_dir={tmp_path / 'run'}")
    command.until("simsiam starts in")
    command.send(signal.SIGTERM)
    assert command.end() == 128 + signal.SIGTERM
    made = list((tmp_path / "run").glob("checkpoints/*"))
    words = "goes on after" if made else "nothing was trained yet, the same command starts again"
    assert words in command.said


@pytest.fixture(scope="module")
def encoder(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "run"
    assert small.pretrain(path, data, "--epochs=1") == 0
    return path / "encoder.keras"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["embed", "linear-probe", "knn"])
def test_commands_that_read_an_encoder_end_as_asked(name, encoder, tmp_path):
    run_dir = tmp_path / "out"
    command = Command(name, f"--encoder={encoder}", "--dataset=digits", f"--run_dir={run_dir}")
    deadline = time.monotonic() + 60
    while not run_dir.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    command.send(signal.SIGTERM)
    assert command.end() == 128 + signal.SIGTERM
    assert "interrupted; the same command starts again" in command.said
    left = {path.name for path in run_dir.iterdir()} - {".lock"}
    assert left <= {"flags.cfg"}
    again = Command(name, f"--encoder={encoder}", "--dataset=digits", f"--run_dir={run_dir}")
    assert again.end() == 0


@pytest.mark.slow
def test_what_is_ignored_stays_ignored(data, tmp_path):
    run_dir = tmp_path / "run"
    command = Command(
        "pretrain",
        *small.FLAGS,
        data,
        f"--run_dir={run_dir}",
        code="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from simsiam_keras.__main__ import run; run()",
    )
    command.until("simsiam starts in")
    command.send(signal.SIGHUP)  # a terminal that closes on nohup's command
    assert command.end() == 0 and (run_dir / "result.json").exists()
