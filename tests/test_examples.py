"""Each program of examples/ runs as a user would run it, on its smallest size."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "examples"
PROGRAMS = sorted(path.name for path in FOLDER.glob("*.py"))


def run(folder, program, *flags):
    done = subprocess.run(
        [sys.executable, FOLDER / program, *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from simsiam_keras import encoders, export

    folder = tmp_path_factory.mktemp("encoder")
    export.save_encoder(encoders.resnet10((16, 16, 3), stem="stride2", width=16), folder)
    return folder / "encoder.keras"


def number(text, pattern):
    return float(re.search(pattern, text).group(1))


@pytest.mark.slow
def test_photographs_to_an_encoder(tmp_path):
    said = run(tmp_path, "own_photographs.py", "--epochs=2")
    assert 0.5 < number(said, r"kNN after ([\d.]+)") <= 1
    assert (tmp_path / "encoder" / "encoder.keras").exists()


@pytest.mark.slow
def test_a_warm_start_changes_the_weights(encoder, tmp_path):
    import keras
    import numpy as np

    run(tmp_path, "warm_start.py", f"--weights={encoder}", "--epochs=1")
    before, after = (keras.saving.load_model(p) for p in (encoder, tmp_path / "encoder.keras"))
    pairs = list(zip(before.trainable_variables, after.trainable_variables, strict=True))
    assert any(not np.allclose(a, b) for a, b in pairs)
    assert all(np.allclose(a, b, atol=0.5) for a, b in pairs)


def test_a_linear_probe(encoder, tmp_path):
    said = run(tmp_path, "linear_probe.py", f"--encoder={encoder}", "--epochs=10")
    assert 0.7 < number(said, r"linear accuracy ([\d.]+)") <= 1


def test_fine_tuning(encoder, tmp_path):
    said = run(tmp_path, "fine_tune.py", f"--encoder={encoder}", "--epochs=8")
    assert 0.3 < number(said, r"test accuracy ([\d.]+) with 100 labels") <= 1
    assert (tmp_path / "classifier.keras").exists()


def test_search_finds_the_query_first(encoder, tmp_path):
    lines = run(tmp_path, "search.py", f"--encoder={encoder}", "--query=7").splitlines()
    assert len(lines) == 6 and lines[0].startswith("1.0000  image 7")


def test_an_encoder_of_ones_own(tmp_path):
    said = run(tmp_path, "custom_encoder.py", "--epochs=2")
    assert number(said, r"z_std ([\d.]+)") > 0.5
    assert (tmp_path / "custom" / "encoder.keras").exists()


@pytest.mark.slow
def test_a_method_of_ones_own(tmp_path):
    said = run(tmp_path, "custom_method.py", "--epochs=5")
    assert 0.7 < number(said, r"kNN ([\d.]+)") <= 1


@pytest.mark.slow
def test_callbacks(tmp_path):
    said = run(tmp_path, "callbacks.py", "--epochs=2")
    assert "kept SimSiam as" in said
    assert len((tmp_path / "callbacks" / "log.csv").read_text().splitlines()) == 3


def test_each_program_is_tested_and_listed():
    tests, table = (
        path.read_text() for path in (ROOT / "tests/test_examples.py", FOLDER / "README.md")
    )
    assert PROGRAMS and all(f'"{name}"' in tests and f"({name})" in table for name in PROGRAMS)


def test_barlow_twins_is_its_definition():
    import importlib.util

    import numpy as np

    spec = importlib.util.spec_from_file_location("custom_method", FOLDER / "custom_method.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 30, 5)).astype("float32")
    expected = 0.0
    for i in range(5):
        for j in range(5):
            c = np.corrcoef(z1[:, i], z2[:, j])[0, 1]
            expected += (1 - c) ** 2 if i == j else 5e-3 * c**2
    method = module.BarlowTwins.__new__(module.BarlowTwins)
    object.__setattr__(method, "off_diagonal", 5e-3)
    found = np.asarray(module.BarlowTwins.objective(method, z1, z2))
    np.testing.assert_allclose(found, np.full(30, expected), rtol=2e-3)
    assert abs(found[0] - 5) > 0.1  # of no correlation at all
