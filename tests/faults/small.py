"""A run so small that it can be stopped in every place, and what of it must be the same."""

import json
import os

import keras
import numpy as np

from simsiam_keras.__main__ import main

# 3 epochs of 3 steps.
FLAGS = (
    "--recipe=digits --image_size=12 --encoder=twin --width=2 --output_dim=8 --predictor_hidden=4 "
    "--batch_size=16 --epochs=3 --knn_every=2 --jit=off"
).split()
EVERY = int(
    os.environ.get("EVERY", 12)
)  # of the states of a run's folder; `make faults` asks for 1
WHOLE = EVERY == 1  # of the other cases, CI leaves out those that differ least
TIMED = ("seconds", "images_per_second")
NUMBERS = ("loss", "z_std", "knn_accuracy", "knn_accuracy_random_init", "epochs", "parameters")
FILES = {
    "flags.cfg",
    "environment.json",
    "metrics.jsonl",
    "result.json",
    "checkpoints",
    "tensorboard",
    "encoder.keras",
    "encoder.json",
    "plots",
}


def images(path, n=48, seed=0):
    """Writes labelled noise; returns the flag that names it."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 12, 12, 3), dtype="uint8")
    np.savez(path, images=pixels, labels=np.arange(n) % 3)
    return f"--dataset=npz:{path}"


def pretrain(run_dir, *flags):
    """The exit code of a run."""
    return main(["pretrain", *FLAGS, f"--run_dir={run_dir}", *flags])


def outcome(run_dir):
    """All of a finished run that must not depend on where it was stopped."""
    missing = FILES - {path.name for path in run_dir.iterdir()}
    assert not missing, missing
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]
    result = json.loads((run_dir / "result.json").read_text())
    encoder = keras.saving.load_model(run_dir / "encoder.keras")
    return {
        "rows": rows,
        "result": [result[name] for name in NUMBERS],
        "encoder": [w.tobytes() for w in encoder.get_weights()],
        "saved_model": (run_dir / "encoder" / "saved_model.pb").exists(),
        "plots": sorted(path.name for path in (run_dir / "plots").iterdir()),
    }
