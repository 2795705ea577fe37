"""What holds for every method of the family, as the flags build it."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import build, checkpoints, config
from simsiam_keras.family import FAMILY

SMALL = {
    "encoder": "resnet10",
    "stem": "stride2",
    "width": 2,
    "image_size": 8,
    "output_dim": 8,
    "projector_hidden": 8,
    "predictor_hidden": 4,
    "batch_size": 8,
    "epochs": 4,
    "prototypes": 6,
    "queue": 16,
    "queue_start_epoch": 0,
    "freeze_prototypes_epochs": 1,
}
LABELS = np.arange(8) % 2


def made(method, steps=2, **more):
    """The compiled method with small flags, step by step on TensorFlow: tracing takes longest."""
    known = {field.name for field in dataclasses.fields(config.of("pretrain", method))}
    flags = {name: value for name, value in SMALL.items() if name in known}
    cfg = config.make("pretrain", method=method, **flags, **more)
    keras.utils.set_random_seed(0)
    model, _ = build.model(cfg, build.recipe(cfg), steps=steps, images=20)
    model.run_eagerly = keras.backend.backend() == "tensorflow"
    return cfg, model


def noise(seed):
    return np.random.default_rng(seed).uniform(0, 255, (8, 8, 8, 3)).astype("float32")


def batch(cfg, seed):
    views = tuple(noise([seed, i]) for i in range(cfg.full_views))
    return {"views": views, **({"labels": LABELS} if cfg.member.supervised else {})}


def step(model, inputs):
    model.reset_metrics()
    return float(model.train_on_batch(inputs, return_dict=True)["loss"])


def values(model):
    return [ops.convert_to_numpy(v) for v in (*model.variables, *model.optimizer.variables)]


def resumed(method, tmp_path, forget=()):
    """Losses and variables of two more steps, and of a fresh model with the checkpoint."""
    cfg, model = made(method)
    for t in range(3):
        step(model, batch(cfg, t))
    checkpoints.save(tmp_path, model, 3)
    _, fresh = made(method)
    for variable in fresh.variables:
        variable.assign(ops.zeros_like(variable))
    assert checkpoints.restore(tmp_path, fresh).position == (3, 0)
    for name in forget:
        variable = next(v for v in fresh.variables if v.path.endswith(name))
        variable.assign(ops.zeros_like(variable))
    losses = [[step(m, batch(cfg, t)) for t in range(3, 6)] for m in (model, fresh)]
    return losses, [values(m) for m in (model, fresh)]


@pytest.mark.parametrize("method", FAMILY)
def test_a_checkpoint_holds_all_of_its_state(method, tmp_path):
    (expected, actual), (whole, fresh) = resumed(method, tmp_path)
    assert len(set(np.round(expected, 6))) == 3
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    for a, b in zip(whole, fresh, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "state"), [("byol", "kept_0"), ("swav", "queue"), ("swav", "prototypes")]
)
def test_state_that_is_forgotten_is_seen_to_differ(method, state, tmp_path):
    (expected, actual), _ = resumed(method, tmp_path, forget=[state])
    assert np.abs(np.subtract(expected, actual)).max() > 1e-5


@pytest.mark.parametrize("method", FAMILY)
def test_it_trains_on_views_made_in_the_step(method):
    cfg, model = made(method, augment="device")
    before = model.encoder.get_weights()
    images = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype="uint8")
    labels = {"labels": LABELS} if cfg.member.supervised else {}
    losses = [step(model, {"images": images, **labels}) for _ in range(2)]
    assert np.isfinite(losses).all() and losses[0] != losses[1]  # other views
    after = model.encoder.get_weights()
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("method", [m for m in FAMILY if not FAMILY[m].supervised])
def test_another_number_of_views_is_said_in_a_sentence(method):
    cfg, model = made(method)
    views = batch(cfg, 0)["views"]
    sentence = f"takes {len(views)} views of each image here. Received: {len(views) + 1}"
    with pytest.raises(ValueError, match=sentence):
        model((*views, views[0]))
