"""JAX on several devices and in several processes, in the environment of `make backends`."""

import json
import os
import re
import socket
import subprocess
import tempfile
import time

import numpy as np
import pytest

from tests.conftest import ROOT

PYTHON = ROOT / ".venv-jax" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs `make backends`"),
]
FLAGS = (
    "pretrain --backend=jax --augment=device --recipe=digits --encoder=resnet10 --stem=stride2 "
    "--width=4 --output_dim=16 --predictor_hidden=4 --batch_size=256 --probe_dataset=none"
).split()
# Weights are compared in double precision: in single, rounding grows within ten steps from 1e-7 to
# 1e-2, by how the processor orders its sums.
DOUBLE = """
import sys
import keras
from simsiam_keras import __main__, build, settings
keras.config.set_floatx("float64")
changed = settings.changed
settings.changed = lambda **values: changed(**{**values, "dtype_policy": "float64"})
"""
RUN = "sys.exit(__main__.main())"
# What a process must not do: read the part of the batch that another reads.
SAME_PART = """
right = build.pipeline.training_images
build.pipeline.training_images = lambda *a, part=(0, 1), **k: right(*a, part=(0, part[1]), **k)
"""


# Compiling takes most of a run's time; the processes of all tests share what was compiled.
CACHE = tempfile.TemporaryDirectory()


def start(*flags, code=None, **variables):
    main = ["-c", code + RUN] if code else ["-m", "simsiam_keras"]
    command = [str(PYTHON), *main, *FLAGS, *flags]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_COMPILATION_CACHE_DIR": CACHE.name,
            "JAX_ENABLE_X64": str(int(code is not None)),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def start_two(*flags, code=None):
    address = free_address()
    flags = [*flags, "--num_processes=2"]
    # The first by flags, the second by the environment.
    first = start(*flags, f"--job_addresses={address}", "--process_id=0", code=code)
    second = start(
        *flags,
        code=code,
        KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
        KERAS_DISTRIBUTION_PROCESS_ID="1",
    )
    return first, second


def finish(*processes):
    said = [process.communicate(timeout=400) for process in processes]
    errors = "\n".join(err[-3000:] for _, err in said)
    assert all(process.returncode == 0 for process in processes), errors
    return said[-1]


def weights(run_dir, epoch):
    with np.load(run_dir / "checkpoints" / f"epoch_{epoch:05d}.npz") as saved:
        names = [name for name in saved.files if "/" in name and not name.startswith("metric/")]
        return np.concatenate([np.ravel(saved[name]) for name in names])


def losses(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def assert_same(a, b):
    np.testing.assert_allclose(losses(a), losses(b), atol=1e-4)
    np.testing.assert_allclose(weights(a, 2), weights(b, 2), atol=1e-4)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("one") / "run"
    finish(start("--epochs=2", f"--run_dir={run_dir}", code=DOUBLE))
    return run_dir


def test_two_devices_equal_one(one, tmp_path):
    finish(start("--epochs=2", f"--run_dir={tmp_path / 'run'}", "--virtual_devices=2", code=DOUBLE))
    assert_same(tmp_path / "run", one)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["devices"] == ["cpu:0", "cpu:1"]


def test_two_processes_equal_one_and_only_the_first_writes(one, tmp_path):
    out, err = finish(*start_two("--epochs=2", f"--run_dir={tmp_path / 'run'}", code=DOUBLE))
    assert_same(tmp_path / "run", one)
    assert len(losses(tmp_path / "run")) == 2  # not a row from each process
    assert "pretrain" not in out and "epoch" not in err  # the second process says nothing
    assert (tmp_path / "run" / "result.json").exists()


def test_two_processes_that_read_the_same_images_do_not(one, tmp_path):
    finish(*start_two("--epochs=2", f"--run_dir={tmp_path / 'run'}", code=DOUBLE + SAME_PART))
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "run", one)


def test_a_killed_process_ends_the_run_and_one_process_goes_on(tmp_path):
    run_dir = tmp_path / "run"
    flags = ["--epochs=30", f"--run_dir={run_dir}"]
    first, second = start_two(*flags)
    metrics = run_dir / "metrics.jsonl"
    for _ in range(3000):
        if metrics.exists() and len(losses(run_dir)) >= 2:
            break
        time.sleep(0.1)
    second.kill()
    second.communicate()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "another of the 2 processes of this run has ended" in err and "Traceback" not in err
    before = losses(run_dir)
    assert 2 <= len(before) < 30 and not (run_dir / "result.json").exists()
    _, err = finish(start(*flags))
    assert f"resumes after epoch {len(before)}" in err
    assert losses(run_dir)[: len(before)] == before and len(losses(run_dir)) == 30


def test_what_stands_in_the_way_is_said_by_every_process(one):
    for process in start_two("--epochs=2", f"--run_dir={one}"):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "holds a finished run" in err and "Traceback" not in err


def test_processes_that_do_not_share_the_folder_say_so(tmp_path):
    finish(start("--epochs=4", f"--run_dir={tmp_path / 'one'}"))
    (tmp_path / "one" / "result.json").unlink()
    (tmp_path / "one" / "checkpoints" / "epoch_00004.npz").unlink()
    (tmp_path / "one").rename(tmp_path / "0")
    flags = ["--epochs=4", "--num_processes=2", f"--job_addresses={free_address()}"]
    runs = [start(*flags, f"--run_dir={tmp_path / str(i)}", f"--process_id={i}") for i in range(2)]
    for process in runs:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2
        assert re.search(r"must be a folder that all see. Received: \[[1-9]\d*, 0\]", err), err
        assert "Traceback" not in err
