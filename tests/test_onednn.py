"""Narrow networks and odd batches, where oneDNN's kernels were found to fail."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from simsiam_keras import encoders, heads
from simsiam_keras.methods.simsiam import SimSiam

ROOT = Path(__file__).parents[1]

# Each block of the encoders alone, in float32 against float64, which oneDNN does not compute.
# Prints for each the largest errors of the outputs and of the gradients by images, kernel, gamma
# and beta, relative to the largest value of each, and in the last line the largest of all. At width
# 1 the normalization leaves no gradient by a 1x1 kernel.
GRID = """
import sys
import keras, numpy as np, tensorflow as tf
from simsiam_keras import encoders

def block(width, kernel, stride, size, dtype):
    keras.config.set_dtype_policy(dtype)
    inputs = keras.Input((size, size, width))
    model = keras.Model(inputs, encoders._conv_norm(inputs, 2 * width, kernel, stride, name="c"))
    @tf.function(reduce_retracing=True)  # in a graph, as `fit` runs it
    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
        watched = [x, *(v.value for v in model.trainable_variables)]
        return [y, *tape.gradient(y, watched, dy)]
    return model, lambda *xs: [v.numpy() for v in step(*(tf.constant(x, dtype) for x in xs))]

worst = 0
for width in map(int, sys.argv[1].split(",")):
    for kernel, stride, size in [(3, 1, 8), (3, 2, 8), (7, 2, 8), (1, 1, 8), (1, 2, 16)]:
        single, step = block(width, kernel, stride, size, "float32")
        double, exact = block(width, kernel, stride, size, "float64")
        double.set_weights(single.get_weights())
        for n in map(int, sys.argv[2].split(",")):
            rng = np.random.default_rng([width, n])
            x = rng.normal(size=(n, size, size, width)).astype("float32")
            dy = rng.normal(size=(n, size // stride, size // stride, 2 * width)).astype("float32")
            pairs = zip(step(x, dy), exact(x, dy))
            errors = [np.abs(a - b).max() / np.abs(b).max() for a, b in pairs]
            print(width, n, kernel, stride, *(f"{e:.1e}" for e in errors), flush=True)
            worst = max([worst, *errors]) if np.isfinite(errors).all() else np.inf
print(worst)
"""

FIT = """
import numpy as np
import simsiam_keras as ss
x = np.random.default_rng(0).integers(0, 256, (93, 16, 16, 3)).astype("float32")
encoder = ss.encoders.resnet10((16, 16, 3), stem="cifar", width=8)
model = ss.SimSiam(encoder, ss.heads.projector(32), ss.heads.predictor(8))
model.compile(optimizer=ss.optimizers.SGD(0.05))
model.fit((x, x), batch_size=64, epochs=2, verbose=0)
"""

PRETRAIN = (
    "pretrain --dataset=digits --recipe=digits --encoder=resnet10 --width=8 --output_dim=32 "
    "--predictor_hidden=8 --batch_size=101 --epochs=1 --probe_dataset=none"
).split()


def call(*argv, **environment):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": str(ROOT),
    } | environment
    return subprocess.run(
        [sys.executable, *map(str, argv)], capture_output=True, text=True, env=environment
    )


def fault(way, *shape, **environment):
    return call(ROOT / "tests/faults/onednn.py", way, *shape, **environment)


def strided(channels, strides=2, **options):
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(channels, 3, padding="same")(images)
    x = keras.layers.Conv2D(32, 1, strides, name="narrow", **options)(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def method(encoder):
    return SimSiam(encoder, heads.projector(4), heads.predictor(2))


@pytest.mark.parametrize(
    "make, widths", [(encoders.resnet10, (3, 8, 15)), (encoders.resnet50, (3,))]
)
def test_narrow_shortcuts_take_their_pixels_before_the_convolution(make, widths):
    for width in widths:
        model = make((32, 32, 3), width=width)
        assert encoders.narrow_strided(model) == []
        x = np.random.default_rng(0).normal(size=(2, 7, 7, 4)).astype("float32")
        np.testing.assert_array_equal(keras.layers.AveragePooling2D(1, 2)(x), x[:, ::2, ::2])
        assert model.get_layer("stage_2_1_shortcut_pick").strides == (2, 2)


def test_wide_shortcuts_are_left_as_they_are():
    model = encoders.resnet10(width=16)
    assert not [layer.name for layer in model.layers if "pick" in layer.name]


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_another_encoder_is_warned_of(backend, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    images = keras.Input((16, 16, 3))
    outer = keras.Model(images, strided(15)(images))  # as in keras.applications, one in another
    with pytest.warns(UserWarning, match=r"1x1.*narrow.*AveragePooling2D\(1, strides\)"):
        method(outer)


@pytest.mark.parametrize("channels, options", [(16, {}), (15, {"strides": 1}), (10, {"groups": 2})])
def test_nothing_is_said_of_what_is_computed_well(channels, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(strided(channels, **options))


def test_nothing_is_said_without_onednn(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    test_nothing_is_said_of_what_is_computed_well(15, {})


@pytest.mark.slow
def test_a_smaller_last_batch_trains():
    done = call("-c", FIT)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.slow
@pytest.mark.parametrize("flag, code", [("--base_lr=0.03", 0), ("--base_lr=1e30", 1)])
def test_the_command_trains_narrow_encoders_on_odd_batches(flag, code, tmp_path):
    done = call("-m", "simsiam_keras", *PRETRAIN, flag, f"--run_dir={tmp_path / 'run'}")
    assert done.returncode == code, done.stderr[-500:]
    assert ("the loss is not a number any more" in done.stderr) == (code == 1)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["DEFAULT", "AVX2"])  # of which each has its own kernels
def test_narrow_widths_and_odd_batches_are_computed_right(isa):
    done = call("-c", GRID, "2,3,4,7,8,12,15,17", "1,3,29,101", ONEDNN_MAX_CPU_ISA=isa)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-500:]
    # Sums of up to 6464 products and a normalization, in float32.
    assert float(done.stdout.split()[-1]) < 2e-5, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("isa, channels", [("DEFAULT", 8), ("AVX2", 7)])
def test_the_reduced_program_dies_or_is_wrong_but_not_with_pixels_picked(isa, channels):
    picked = fault("picked", 1, channels, 64, ONEDNN_MAX_CPU_ISA=isa)
    assert picked.returncode == 0 and float(picked.stdout) < 1e-5, picked.stderr[-500:]
    done = fault("strided", 1, channels, 64, ONEDNN_MAX_CPU_ISA=isa)
    if done.returncode == 0 and float(done.stdout) < 1e-5:
        pytest.skip("this TensorFlow on this CPU is without the fault")
