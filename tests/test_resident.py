"""Images on the device and many steps in one program: the same training, on JAX."""

import json

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import config, resident
from simsiam_keras.data import ArraySource, pipeline, rows
from tests.test_backends import PYTHON, call

needs_jax = pytest.mark.skipif(not PYTHON["jax"].exists(), reason="needs `make backends`")

N, BATCH = 13, 4


def source(labels=None):
    images = np.arange(N, dtype="uint8")[:, None, None, None] * np.ones((1, 3, 3, 3), "uint8")
    return ArraySource("numbers", images, labels)


def test_rows_are_those_of_the_images_one_would_be_sent():
    labels = np.arange(N) % 2
    options = {"seed": 1, "first_epoch": 1, "epochs": 3, "with_index": True, "with_labels": True}
    sent = [batch for (batch,) in pipeline.training_images(source(labels), BATCH, 3, **options)]
    chunks = list(rows.training_rows(source(labels), BATCH, chunk=3, **options))
    assert [chunk["rows"].shape for chunk in chunks] == [(3, BATCH)] * 2
    for name in ("index", "labels"):
        sought = np.stack([batch[name] for batch in sent])
        assert np.array_equal(np.concatenate([chunk[name] for chunk in chunks]), sought)
    pixels = np.stack([batch["images"][:, 0, 0, 0] for batch in sent])
    assert np.array_equal(np.concatenate([chunk["rows"] for chunk in chunks]), pixels)


def test_rows_of_a_part_of_an_epoch():
    whole = np.concatenate([c["rows"] for c in rows.training_rows(source(), BATCH, epochs=2)])
    part = rows.training_rows(source(), BATCH, epochs=2, first_step=2)
    assert np.array_equal(np.concatenate([c["rows"] for c in part]), whole[2:])
    with pytest.raises(ValueError, match="`chunk` must divide the 3 batches"):
        rows.training_rows(source(), BATCH, chunk=2)
    with pytest.raises(ValueError, match="first_step=1"):
        rows.training_rows(source(), BATCH, chunk=3, first_step=1)


def test_steps_in_one_program_divide_an_epoch():
    assert resident.steps_per_execution(0, 97) == 97
    assert resident.steps_per_execution(0, 101) == 1
    assert resident.steps_per_execution(0, 390) == 78
    assert resident.steps_per_execution(13, 390) == 13
    with pytest.raises(ValueError, match="must divide the 12 steps of an epoch: 1, 2, 3, 4, 6, 12"):
        resident.steps_per_execution(5, 12)


@pytest.mark.parametrize("flag", ["--augment=host", "--jit=off"])
def test_what_cannot_be_is_said(flag, monkeypatch):
    monkeypatch.setattr(resident.keras.backend, "backend", lambda: "jax")
    flags = ["--data_on_device=on", "--backend=jax", "--augment=device", flag]
    with pytest.raises(ValueError, match="--data_on_device=on needs .*(--augment|--jit)"):
        resident.wanted(config.parse("pretrain", flags), source(), None)


def test_unasked_it_needs_an_accelerator():
    asked = config.parse("pretrain", ["--backend=jax", "--augment=device"])
    assert not resident.wanted(asked, source(), None)


def test_its_size_is_that_of_the_canvases():
    assert resident.nbytes(source(), None) == N * 27
    assert resident.nbytes(source(), (5, 4)) == N * 60


# Two epochs of `pretrain` in each way, in which the second has another size of views; argv: the
# data set, and flags that differ in the second run. Prints the largest difference of the weights,
# and of all losses.
SAME_TRAINING = """
import json, sys
import keras, numpy as np
from simsiam_keras import build, config, train
from simsiam_keras.train import _fit
from simsiam_keras.checkpoints import Position

FLAGS = (
    "--recipe=digits --image_size=8 --encoder=resnet10 --stem=stride2 --width=2 "
    "--method=fastsiam --views=3 --one_pass=true --output_dim=8 --predictor_hidden=4 "
    "--batch_size=128 --epochs=2 "
    "--base_lr=0.01 --early_size=6 --early_epochs=1 --backend=jax --augment=device"
).split()

class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []
    def on_epoch_end(self, epoch, logs):
        self.seen.append(float(logs["loss"]))

def trained(*flags):
    cfg = config.parse("pretrain", [*FLAGS, f"--dataset={sys.argv[1]}", *flags])
    with build.place(cfg):
        parts, losses = build.parts(cfg, print), Losses()
        batches = parts.batches(0, 0)
        _fit(parts, Position(0), batches, [losses])
        return [np.asarray(w) for w in parts.model.weights], losses.seen

one, losses = trained("--data_on_device=off")
other, same = trained("--data_on_device=on", *sys.argv[2:])
difference = max(float(np.abs(a - b).max()) for a, b in zip(one, other))
print(json.dumps([difference, float(np.abs(np.subtract(losses, same)).max())]))
"""


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize("data", ["digits", "folder"])
def test_training_is_the_same(data, tmp_path):
    if data == "folder":  # of various sizes, which lie on canvases
        data = f"folder:{tmp_path}"
        for i in range(256):
            image = np.random.default_rng(i).integers(0, 255, (20 + i % 9, 24, 3), "uint8")
            Image.fromarray(image).save(tmp_path / f"{i:03}.png")

    def differences(*flags):
        return json.loads(call("jax", "-c", SAME_TRAINING, data, *flags).stdout.splitlines()[-1])

    same, other = differences(), differences("--early_size=7")
    assert max(same) < 1e-4 < 1e-2 < min(other), (same, other)
