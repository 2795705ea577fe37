"""ONNX from JAX and PyTorch, without TensorFlow; what they cannot write they say in a sentence."""

import os
import subprocess
import sys

import numpy as np
import pytest

from simsiam_keras import cards, export
from simsiam_keras.formats import onnx
from simsiam_keras.formats.job import Job
from tests.conftest import ROOT
from tests.formats.conftest import CROP, SIZE
from tests.test_backends import OTHERS, PYTHON
from tests.tiny import pixels

pytest.importorskip("onnxruntime")
NEEDED = {"jax": "onnxruntime, jax2onnx", "torch": "onnxruntime, onnx"}


def call(backend, *flags):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("KERAS_BACKEND", None)
    run = [PYTHON[backend], "-m", "simsiam_keras", "export", f"--backend={backend}", *flags]
    return subprocess.run(
        list(map(str, run)), cwd=ROOT, env=environment, capture_output=True, text=True
    )


def has_converter(backend):
    code = f"import {NEEDED[backend]}"
    return not subprocess.run([PYTHON[backend], "-c", code], capture_output=True).returncode


@pytest.mark.parametrize("backend", OTHERS)
def test_onnx_without_tensorflow(backend, tiny, tmp_path):
    if not has_converter(backend):
        pytest.skip(f"needs {NEEDED[backend]} beside {backend}")
    flags = [f"--encoder={tiny / 'encoder.keras'}", f"--output={tmp_path}", "--format=keras,onnx"]
    done = call(backend, *flags)
    assert done.returncode == 0, done.stderr
    done = call(backend, *flags[:2], "--format=onnx", "--with_preprocessing")
    assert done.returncode == 0, done.stderr
    encoder = export.load_encoder(tiny / "encoder.keras")
    job = Job(encoder.model, CROP)
    one, any_size = (onnx.opened(tmp_path / f"encoder{x}.onnx") for x in ("", "_any_size"))
    for n in (1, 3, 5):
        for encode, shape in ((one, (SIZE, SIZE)), (any_size, (50, 37))):
            images = pixels(n, *shape, 3, seed=n)
            expected = encoder(images if shape == (SIZE, SIZE) else job.prepared(images))
            np.testing.assert_allclose(encode(images), expected, atol=1e-4 * np.abs(expected).max())
    assert cards.read(tmp_path).weights == cards.read(tiny).weights


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("format", ["litert", "saved_model"])
def test_what_another_backend_cannot_write(format, backend, tiny, tmp_path):
    flags = [f"--encoder={tiny / 'encoder.keras'}", f"--output={tmp_path / 'out'}"]
    done = call(backend, *flags, f"--format={format}")
    assert done.returncode == 2, done.stderr
    assert "TensorFlow" in done.stderr and "encoder.keras is the same on every" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", OTHERS)
def test_an_operator_set_that_a_converter_does_not_know(backend, tiny, tmp_path):
    if not has_converter(backend):
        pytest.skip(f"needs {NEEDED[backend]} beside {backend}")
    flags = [f"--encoder={tiny / 'encoder.keras'}", f"--output={tmp_path / 'out'}"]
    done = call(backend, *flags, "--format=onnx", "--opset=12")
    assert done.returncode == 2 and "--opset must be within" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_what_is_missing_is_told_with_the_file_for_the_backend(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for backend, file in (("tensorflow", "tools"), ("jax", "onnx-jax"), ("torch", "onnx-torch")):
        monkeypatch.setattr(onnx.keras.backend, "backend", lambda found=backend: found)
        with pytest.raises(ImportError, match=f"needs onnxruntime.*requirements-{file}.txt"):
            onnx.refuse(18)
        assert (ROOT / f"requirements-{file}.txt").exists()
