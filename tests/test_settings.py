"""Settings of Keras, by its configuration file, the environment or a script, change nothing."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from simsiam_keras import commands, config, encoders, heads, settings
from simsiam_keras.augment import Views
from simsiam_keras.methods.simsiam import SimSiam
from tests.conftest import ROOT
from tests.tiny import numpy, pixels, randomized

ODD = {"floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}
TINY = {
    "recipe": "digits",
    "augment": "device",
    "encoder": "resnet10",
    "width": 2,
    "output_dim": 8,
    "predictor_hidden": 4,
    "batch_size": 512,
    "epochs": 2,
}


def values():
    names = ("floatx", "epsilon", "image_data_format", "max_epochs", "max_steps_per_epoch")
    return {name: getattr(keras.config, name)() for name in names}


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.fixture
def odd():
    """As a keras.json and KERAS_MAX_EPOCHS would have it, and a script's policy."""
    before = values()
    for name, value in {**ODD, "max_epochs": 1, "max_steps_per_epoch": 1}.items():
        getattr(keras.config, f"set_{name}")(value)
    keras.config.set_dtype_policy("float16")
    yield values()
    for name, value in before.items():
        getattr(keras.config, f"set_{name}")(value)


MAKERS = {
    "imagenet": lambda: encoders.resnet10((24, 16, 3), "imagenet", width=2),
    "cifar": lambda: encoders.resnet10((12, 8, 3), "cifar", width=2),
    "bottleneck": lambda: encoders.resnet(
        (1, 1), encoders._bottleneck_block, (12, 8, 3), "stride2", 2, False
    ),
    "twin": lambda: encoders.twin((12, 8, 3), width=2),
    "application": lambda: encoders.application("MobileNetV3Small", (64, 32, 3)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_channels_come_last_whatever_keras_is_set_to(name, request):
    expected = randomized(MAKERS[name]())
    request.getfixturevalue("channels_first")
    found = MAKERS[name]()
    assert keras.config.image_data_format() == "channels_first"  # as it was
    assert found.output_shape == expected.output_shape
    found.set_weights(expected.get_weights())
    images = pixels(2, *expected.input_shape[1:])
    np.testing.assert_allclose(numpy(found(images)), numpy(expected(images)), rtol=1e-5, atol=1e-5)


def test_training_with_channels_last_whatever_keras_is_set_to(request):
    def losses():
        keras.utils.set_random_seed(0)
        augmenter = Views("digits", size=8)
        encoder = encoders.resnet10((8, 8, 3), width=2)
        model = SimSiam(encoder, heads.projector(8), heads.predictor(4), augmenter)
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        images = pixels(8, 12, 12, 3)
        return [float(model.train_on_batch(images, return_dict=True)["loss"]) for _ in range(2)]

    expected = losses()
    request.getfixturevalue("channels_first")
    np.testing.assert_allclose(losses(), expected, rtol=0, atol=1e-5)


def test_a_command_runs_within_keras_own_defaults(odd):
    @settings.own
    def command(cfg, console):
        return values(), keras.config.dtype_policy().name

    found, policy = command(config.make("pretrain"))
    assert policy == "float32"
    assert found == {
        "floatx": "float32",
        "epsilon": 1e-7,
        "image_data_format": "channels_last",
        "max_epochs": None,
        "max_steps_per_epoch": None,
    }
    assert values() == odd  # and leaves it as it was


@pytest.mark.slow
def test_a_run_takes_none_of_what_keras_is_set_to(tmp_path, request):
    def rows(name):
        cfg = config.make("pretrain", run_dir=str(tmp_path / name), **TINY)
        commands.pretrain(cfg)
        lines = (tmp_path / name / "metrics.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    expected = rows("a")
    request.getfixturevalue("odd")
    found = rows("b")
    assert len(found) == len(expected) == 3
    for a, b in zip(found, expected, strict=True):
        for key in ("loss", "z_std", "feature_rank", "knn_accuracy"):
            assert a[key] == pytest.approx(b[key], abs=1e-4), key


def test_an_error_leaves_the_settings_as_they_were(odd):
    with pytest.raises(ZeroDivisionError):
        with settings.changed(**settings.DEFAULTS):
            assert values()["floatx"] == "float32"
            raise ZeroDivisionError
    assert values() == odd and keras.config.dtype_policy().name == "float16"


def test_another_backend_than_keras_has_is_refused(tmp_path):
    cfg = config.make("pretrain", run_dir=str(tmp_path / "run"), backend="jax", **TINY)
    with pytest.raises(ValueError, match="--backend must be the one .* tensorflow.*--backend=jax"):
        commands.pretrain(cfg)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_configuration_file_and_the_environment_are_not_read(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({**ODD, "backend": "jax"}), "utf-8")
    odd = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "1"}
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    losses = []
    for name, environment in (("a", {}), ("b", odd)):
        run_dir = tmp_path / name
        words = ["pretrain", *flags, "--backend=tensorflow", f"--run_dir={run_dir}"]
        done = subprocess.run(
            [sys.executable, "-m", "simsiam_keras", *words],
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        result = json.loads((run_dir / "result.json").read_text("utf-8"))
        assert (result["epochs"], result["backend"]) == (2, "tensorflow")
        losses.append(result["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
