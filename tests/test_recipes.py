"""The recipes of the paper, at full size."""

import keras
import numpy as np
import pytest
from PIL import Image

from simsiam_keras import (
    build,
    config,
)
from simsiam_keras.__main__ import main
from tests.conftest import ROOT
from tests.test_end_to_end import read_json


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_full_size_recipes_build_what_the_paper_says(name):
    cfg = config.parse("pretrain", [f"--flagfile={ROOT / 'flags' / name}.cfg"])
    model, schedule = build.model(cfg, build.recipe(cfg), steps=97)
    trainable = sum(int(np.prod(v.shape)) for v in model.encoder.trainable_variables)
    assert trainable == {"cifar10": 11_168_832, "imagenet": 23_508_032}[name]
    assert float(schedule(0)) == pytest.approx({"cifar10": 0.06, "imagenet": 0.1}[name])
    layers = len([x for x in model.projector.layers if isinstance(x, keras.layers.Dense)])
    assert layers == {"cifar10": 2, "imagenet": 3}[name]


@pytest.mark.slow
def test_imagenet_recipe_takes_two_steps_on_a_generated_folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(8):
        pixels = random.integers(0, 255, (8, 8, 3), dtype="uint8")
        Image.fromarray(pixels).resize((260 + i, 240)).save(folder / f"{i}.jpg")
    flags = [f"--dataset=folder:{folder}", "--probe_dataset=none", "--batch_size=4", "--epochs=1"]
    card = f"--flagfile={ROOT / 'flags' / 'imagenet.cfg'}"
    argv = ["pretrain", card, *flags, "--warmup_epochs=0", f"--run_dir={tmp_path / 'run'}"]
    assert main(argv) == 0
    assert np.isfinite(read_json(tmp_path / "run" / "result.json")["loss"])


def test_flags_change_a_recipe_as_they_say():
    flags = ["--recipe=imagenet", "--color_strength=0.25", "--eval_crop=1"]
    made = build.recipe(config.parse("pretrain", flags))
    assert made.jitter == (0.1, 0.1, 0.1, 0.025) and made.grayscale == 0.05
    assert (made.jitter_probability, made.blur, made.eval_crop) == (0.8, 0.5, 1.0)
    assert build.recipe(config.parse("pretrain", ["--recipe=imagenet"])).eval_crop == 0.875
    with pytest.raises(ValueError, match="`grayscale` must be within"):
        build.recipe(config.parse("pretrain", ["--color_strength=6"]))
