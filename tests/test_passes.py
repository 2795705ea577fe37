"""Views side by side on JAX: each has its own batch statistics, as one after the other."""

import json

import keras
import numpy as np
import pytest

from simsiam_keras import heads, passes
from tests.test_backends import PYTHON, call
from tests.tiny import noise, numpy, tiny_encoder

needs_jax = pytest.mark.skipif(not PYTHON["jax"].exists(), reason="needs `make backends`")

# What two training steps leave, with the views side by side and one after the other, and what side
# by side leaves where the statistics of a pass are kept in another way. Prints by how much.
SAME = """
import json
import keras, numpy as np
from simsiam_keras import devices, heads, optimizers, passes
from simsiam_keras.methods.fastsiam import FastSiam
from tests.tiny import noise, tiny_encoder

assert not passes.side_by_side(tiny_encoder(), (noise(8, 2), noise(8, 2)))  # on a CPU
devices.on_accelerator = lambda: True
views = tuple(noise(8, 6, seed) * scale for seed, scale in enumerate((1, 0.3, 0.6)))
original = passes.side_by_side

def trained(rule, momentum=passes._momentum):
    passes.side_by_side, passes._momentum = rule, momentum
    keras.utils.set_random_seed(0)
    model = FastSiam(tiny_encoder(), heads.projector(16), heads.predictor(4), views=3)
    model.compile(optimizers.SGD(0.05))
    losses = [float(model.train_on_batch(views)[0]) for _ in range(2)]
    moving = [np.asarray(v) for v in model.non_trainable_variables if "moving" in v.path]
    return losses, [np.asarray(v) for v in model.trainable_variables], moving

momentum = passes._momentum
taken = []
def noted(layer, x):
    taken.append(original(layer, x))
    return taken[-1]

one, other = trained(noted), trained(lambda layer, x: False)
wrong = trained(original, lambda layer: {key: 1.0 for key in momentum(layer)})
def furthest(a, b):
    return max(float(np.abs(np.subtract(x, y)).max()) for x, y in zip(a, b))
print(json.dumps({
    "side by side": all(taken) and len(taken),
    "same": [furthest(a, b) for a, b in zip(one, other)],
    "wrong": furthest(wrong[2], other[2]),
}))
"""


@needs_jax
def test_side_by_side_is_one_after_the_other():
    found = json.loads(call("jax", "-c", SAME).stdout.splitlines()[-1])
    assert found["side by side"] >= 3  # encoder, projector and predictor, each time it is traced
    assert max(found["same"]) < 1e-4 < 1e-2 < found["wrong"], found


# Prints which networks may have their views side by side.
RULES = """
import json
import keras
from keras import layers
from simsiam_keras import devices, passes
from tests.tiny import noise, tiny_encoder

devices.on_accelerator = lambda: True

class Own(layers.Layer):
    def call(self, x):
        return x

def with_layer(layer):
    x = keras.Input((8, 8, 3))
    return keras.Model(x, layers.GlobalAveragePooling2D()(layer(x)))

same = (noise(8, 2), noise(8, 2))
frozen = tiny_encoder()
frozen.trainable_variables[0].trainable = False
print(json.dumps({
    "tiny": passes.side_by_side(tiny_encoder(), same),
    "sizes": passes.side_by_side(tiny_encoder(), (noise(8, 2), noise(6, 2))),
    "dropout": passes.side_by_side(with_layer(layers.Dropout(0.5)), same),
    "own layer": passes.side_by_side(with_layer(Own()), same),
    "regularized": passes.side_by_side(
        with_layer(layers.Conv2D(2, 1, activity_regularizer="l2")), same),
    "penalty": passes.side_by_side(
        with_layer(layers.Conv2D(2, 1, kernel_regularizer="l2")), same),
    "frozen": passes.side_by_side(frozen, same),
}))
"""


@needs_jax
def test_only_what_keeps_nothing_else_goes_side_by_side():
    found = json.loads(call("jax", "-c", RULES).stdout.splitlines()[-1])
    assert found.pop("tiny")
    assert not any(found.values()), found


def test_elsewhere_views_go_one_after_the_other():
    views = (noise(8, 6), 0.5 * noise(8, 6))
    one, other = tiny_encoder(), tiny_encoder()
    other.set_weights(one.get_weights())
    assert keras.backend.backend() != "jax" and not passes.side_by_side(one, views)
    for y, x in zip(passes.apart(one, views, training=True), views, strict=True):
        np.testing.assert_array_equal(numpy(y), numpy(other(x, training=True)))


def test_without_training_nothing_is_kept():
    head = heads.build(heads.projector(4), 3, "projector")
    before = head.get_weights()
    passes.apart(head, (np.ones((2, 3), "float32"),) * 2, training=False)
    for x, y in zip(head.get_weights(), before, strict=True):
        np.testing.assert_array_equal(x, y)
