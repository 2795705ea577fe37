import os
import signal
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

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
