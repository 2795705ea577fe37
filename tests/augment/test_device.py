"""The device engine's layer: the host's views, its step, its config, and training with it."""

import dataclasses
import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import checkpoints, heads
from simsiam_keras.augment import CIFAR, DIGITS, device
from simsiam_keras.methods.base import JointEmbedding
from simsiam_keras.methods.simsiam import SimSiam
from tests.augment.engines import BLURRED, HAS_HOST, SHORT, Device, call
from tests.augment.oracles import MULTI, far, photos
from tests.conftest import ROOT
from tests.tiny import tiny_encoder


@pytest.mark.skipif(not HAS_HOST, reason="needs tensorflow and keras_cv")
@pytest.mark.parametrize("which", [CIFAR, DIGITS, MULTI], ids=["cifar", "digits", "blurred"])
def test_the_same_draws_give_the_host_engines_views(which):
    from simsiam_keras.augment import host

    images, views = photos(64, 30, 36), host.Views(which)
    found = views(images, [3, 4])
    draws = np.concatenate(views.draw(64 * len(found), [3, 4]), axis=1)
    for recipe, first in ((which, 0), (which.small, 2))[: len(found) // 2]:
        expected = np.concatenate(found[first : first + 2])
        own, compiled = draws[64 * first :][:128], recipe is MULTI  # as the training step is
        results = Device().augment(np.concatenate([images, images]), own, recipe, xla=compiled)
        assert results.shape == (128, recipe.size, recipe.size, 3)
        # The host's one rounding, and keras_cv's grey weights.
        assert far(results, expected) <= 0.54
        assert far(results, np.roll(expected, 1, axis=0)) > 50
    if which.small:
        full_area = dataclasses.replace(which.small, crop_area=which.crop_area)
        wrong = Device().augment(np.concatenate([images, images]), draws[128:], full_area)
        assert far(wrong, expected) > 50


def test_a_shorter_batch_has_the_same_views_of_the_same_images():
    images = photos(16, 12, 12)
    found, shorter = (Device().views(SHORT, x, seed=1) for x in (images, images[:5]))
    for view, first in zip(found, shorter, strict=True):
        np.testing.assert_allclose(first, view[:5], atol=1e-3)


# Small views of two batches, made by two replicas and by one; argv: mistake.
REPLICAS = """
import sys
import numpy as np, tensorflow as tf
from simsiam_keras import distribute
distribute.scope("none", 2)  # the CPU must be split before TensorFlow uses it
from simsiam_keras.augment.device import Views
from tests.augment.oracles import MULTI

if sys.argv[1] == "same_rows":
    distribute.replica = lambda: 0
images = np.random.default_rng(0).integers(0, 255, (16, 16, 16, 3), dtype="uint8")
plain = Views(MULTI, seed=3)
expected = [plain(images[i : i + 8], training=True) for i in (0, 8)]
with distribute.scope("mirrored", 2):
    layer = Views(MULTI, seed=3)
    strategy = tf.distribute.get_strategy()
    batches = tf.data.Dataset.from_tensor_slices(images).batch(8, drop_remainder=True)
    step = tf.function(lambda x: strategy.run(lambda x: layer(x, training=True), (x,)))
    for views, batch in zip(expected, strategy.experimental_distribute_dataset(batches)):
        for one, two in zip(views, step(batch), strict=True):
            two = np.concatenate(strategy.experimental_local_results(two))
            np.testing.assert_allclose(two, one, atol=1e-3)
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="replicas are TensorFlow's")
@pytest.mark.parametrize("mistake", ["", "same_rows"])
def test_replicas_make_the_small_views_of_one_device(mistake):
    command = [sys.executable, "-c", REPLICAS, mistake]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode == 0) == (mistake == ""), done.stderr[-2000:]
    assert mistake == "" or "AssertionError" in done.stderr


def test_only_training_goes_on_to_the_next_step():
    layer, images = device.Views(SHORT), photos(4, 8, 8)
    first = call(layer, images)[0]
    np.testing.assert_array_equal(call(layer, images)[0], first)
    np.testing.assert_array_equal(call(layer, images, training=True)[0], first)
    assert int(layer.step) == 1
    assert (call(layer, images)[0] != first).any()


def test_a_dtype_policy_changes_nothing():
    images = photos(8, 12, 12) + np.float32(0.3)
    expected = call(device.Views(BLURRED), images)
    for policy in ("mixed_bfloat16", "float16"):
        keras.config.set_dtype_policy(policy)
        layer = device.Views(BLURRED)
        assert layer.compute_dtype != "float32"
        for x, y in zip(call(layer, images), expected, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == "float32"


def test_config_holds_the_constructors_arguments():
    layer = device.Views(MULTI, seed=7, views=4, name="views")
    config = layer.get_config()
    arguments = set(inspect.signature(device.Views).parameters) - {"kwargs"}
    assert arguments <= set(config)
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (other.recipe, other.seed, other.views, other.name) == (MULTI, 7, 4, "views")
    # Of a layer saved before there were small views.
    older = {k: v for k, v in config["recipe"].items() if not k.startswith("small")}
    layer = device.Views.from_config({**config, "recipe": older})
    assert layer.recipe.small is None and layer.recipe.size == MULTI.size


def test_one_image_is_no_batch():
    """Unlike the host's engine, which makes views of a data set's single images too."""
    with pytest.raises(ValueError, match="`images` must be .n, h, w, 3.* Received: shape="):
        Device().views(CIFAR, np.zeros((32, 32, 3), "uint8"))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match="`seed` must be an integer .* Received: seed="):
        device.Views(CIFAR, seed=seed)


# In fit


def tiny(seed=5):
    return SimSiam(
        tiny_encoder(),
        projector=heads.projector(16),
        predictor=heads.predictor(4),
        augmenter=device.Views(SHORT, seed=seed),
    )


class Witness(JointEmbedding):
    """A method whose loss tells its views: the mean of the first and twice the second's."""

    def __init__(self, recipe, seed):
        super().__init__(tiny_encoder(), device.Views(recipe, seed=seed))
        self.scale = self.add_weight((), "ones")
        self.built = True

    def embed(self, views, training):
        return {"seen": ops.mean(views[0] + 2 * views[1]) * self.scale}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred["seen"]


@pytest.mark.parametrize("jit_compile", [pytest.param(True, marks=pytest.mark.slow), False])
def test_fit_sees_the_views_of_every_step_and_of_a_remainder(jit_compile):
    if keras.backend.backend() == "torch" and jit_compile:
        pytest.skip("torch runs eagerly")
    if keras.backend.backend() == "jax" and not jit_compile:
        pytest.skip("JAX op by op compiles every op for itself")
    images, batches = photos(10, 12, 12), [slice(0, 4), slice(4, 8), slice(8, 10)]
    layer = device.Views(SHORT, seed=4)
    seen = []
    for _ in range(2):
        pairs = [call(layer, images[b], training=True) for b in batches]
        sizes = [len(x1) for x1, _ in pairs]
        seen.append(np.average([np.mean(x1 + 2 * x2) for x1, x2 in pairs], weights=sizes))
    model = Witness(SHORT, seed=4)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=jit_compile)
    losses = model.fit(images, batch_size=4, shuffle=False, epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, seen, rtol=1e-5)
    assert abs(seen[0] - seen[1]) > 0.1
    assert int(model.augmenter.step) == 6


def test_simsiam_learns_from_images_alone_and_resumes_with_the_same_views(tmp_path):
    images, labels = photos(16, 12, 12), np.arange(16)
    model = tiny()
    model.compile(keras.optimizers.SGD(0.05))
    before = model.encoder.get_weights()[0]
    loss = model.fit(images, labels, batch_size=8, verbose=0).history["loss"]
    assert -1 <= loss[0] <= 1
    assert (model.encoder.get_weights()[0] != before).any()
    assert "step" in {v.name for v in model.non_trainable_variables}

    (tmp_path / "run").mkdir()
    checkpoints.save(tmp_path / "run", model, 1)
    resumed = tiny()
    resumed.compile(keras.optimizers.SGD(0.05))
    assert checkpoints.restore(tmp_path / "run", resumed).position == (1, 0)
    assert int(resumed.augmenter.step) == 2
    expected = call(model.augmenter, images)
    np.testing.assert_array_equal(call(resumed.augmenter, images), expected)
    assert far(call(tiny().augmenter, images), expected) > 50


def test_a_saved_model_goes_on_with_the_next_views(tmp_path):
    images, model = photos(4, 12, 12), tiny()
    call(model.augmenter, images, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.augmenter.recipe == SHORT and loaded.augmenter.seed == 5
    assert int(loaded.augmenter.step) == 1
    np.testing.assert_array_equal(call(loaded.augmenter, images), call(model.augmenter, images))
