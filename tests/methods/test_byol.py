"""BYOL: its loss, and a target network that follows at a distance and gets no gradient."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import heads, optimizers
from simsiam_keras.methods.byol import BYOL
from simsiam_keras.targets import MomentumEncoder
from tests import oracle
from tests.gradients import gradients
from tests.tiny import double as numpy
from tests.tiny import images, tiny_encoder, two_views


def tiny(seed=0, **target):
    keras.utils.set_random_seed(seed)
    projector = heads.projector(16, hidden=24, batch_norm="hidden")
    return BYOL(tiny_encoder(), projector, heads.predictor(20), target=MomentumEncoder(**target))


def by_hand(p1, p2, t1, t2):
    """`L = sum of the squared distances of unit vectors, both ways`, a mean over the batch."""
    return np.mean(oracle.regression(p1, t2)) + np.mean(oracle.regression(p2, t1))


WRONG = {
    "own view": lambda p1, p2, t1, t2: by_hand(p1, p2, t2, t1),
    "half": lambda *outputs: by_hand(*outputs) / 2,
    "not normalized": lambda p1, p2, t1, t2: (
        sum(oracle.squared_distance(a, b) for a, b in zip([*p1, *p2], [*t2, *t1], strict=True))
        / len(p1)
    ),
    "one side": lambda p1, p2, t1, t2: by_hand(p1, p1, t2, t2) / 2,
}


def check_loss(expected):
    model = tiny()
    # A target that differs from the online network, as after some steps.
    for kept in model.target.kept:
        kept.assign(kept.value + 0.1 * keras.random.normal(kept.shape, seed=1))
    model.target.step.assign(5)
    y = model(two_views(images()), training=True)
    values = [numpy(y[name]) for name in ("p1", "p2", "target1", "target2")]
    loss = float(model.compute_loss(y_pred=y))
    np.testing.assert_allclose(loss, expected(*values), rtol=1e-5, atol=1e-6)


def test_loss_equals_the_oracle():
    check_loss(by_hand)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_losses_are_rejected(name):
    with pytest.raises(AssertionError):
        check_loss(WRONG[name])


def online(model):
    return [numpy(w) for w in (*model.encoder.weights, *model.projector.weights)]


def kept(model):
    return [numpy(w) for w in model.target.kept]


def momenta(m, total_steps, count):
    """`1 - (1 - m) (1 + cos(pi t / T)) / 2` of each step."""
    return [
        1 - (1 - m) * (1 + math.cos(math.pi * min(t, total_steps) / total_steps)) / 2
        for t in range(count)
    ]


def check_average(average, steps=3, **target):
    """The target that makes step t's outputs, against an average kept by hand."""
    model = tiny(**target)
    model.compile(optimizers.SGD(0.5, weight_decay=5e-4), run_eagerly=True)
    xi = online(model)
    rates = momenta(target["momentum"], target["total_steps"], steps)
    for t in range(steps):
        # The target's weights at the beginning of step t, of which the online weights are theta_t.
        theta = online(model)
        if t > 0:
            xi = average(xi, theta, rates[t - 1])
        model.train_on_batch(two_views(images(seed=t)))
        for a, b in zip(kept(model), xi, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # The weights have moved by far more than the tolerance.
    moved = [abs(a - b).max() for a, b in zip(online(model), xi, strict=True)]
    assert max(moved) > 1e-2


def ema(xi, theta, m):
    return [m * a + (1 - m) * b for a, b in zip(xi, theta, strict=True)]


def test_the_target_is_the_moving_average_after_three_steps():
    check_average(ema, momentum=0.9, total_steps=4)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda xi, theta, m: ema(theta, xi, m),
        lambda xi, theta, m: ema(xi, theta, 0.9),  # not rising
        lambda xi, theta, m: xi,
        lambda xi, theta, m: theta,
    ],
    ids=["exchanged", "constant momentum", "never updated", "copied"],
)
def test_wrong_averages_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_average(wrong, momentum=0.9, total_steps=4)


@pytest.mark.parametrize("training", [True, False])
def test_the_target_network_is_the_online_network_with_other_weights(training):
    model, other = tiny(seed=0, momentum=1.0), tiny(seed=1)
    x1, x2 = two_views(images())
    expected = [
        numpy(other.projector(other.encoder(x, training=training), training=training))
        for x in (x1, x2)
    ]
    model.target.step.assign(1)  # the first step would copy the online weights
    for weight, value in zip(model.target.kept, online(other), strict=True):
        weight.assign(value.astype(weight.dtype))
    y = model((x1, x2), training=training)
    for name, values in zip(("target1", "target2"), expected, strict=True):
        np.testing.assert_allclose(numpy(y[name]), values, rtol=1e-4, atol=1e-5)
    if training:  # batch statistics, not the moving ones
        inference = numpy(other.projector(other.encoder(x1, training=False), training=False))
        assert abs(inference - expected[0]).max() > 1e-2


def test_the_online_network_is_left_alone_by_the_target():
    model = tiny()
    before = online(model)
    model.target({1: images()}, encoder=model.encoder, projector=model.projector, training=True)
    for a, b in zip(before, online(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_gradient_reaches_the_target_and_only_the_online_outputs_have_one():
    model = tiny()
    model.target.step.assign(1)
    y = model(two_views(images()), training=True)
    names = ("p1", "p2", "target1", "target2")
    variables = [keras.Variable(ops.convert_to_numpy(y[name])) for name in names]

    def loss():
        values = {name: ops.convert_to_tensor(v) for name, v in zip(names, variables, strict=True)}
        return model.compute_loss(y_pred={**values, "z1": y["z1"]})

    p1, p2, t1, t2 = gradients(loss, variables)
    assert abs(p1).max() > 1e-4 and abs(p2).max() > 1e-4
    assert not t1.any() and not t2.any()
    assert all(not weight.trainable for weight in model.target.kept)
    assert model.trainable_variables and not any(
        v is w for v in model.trainable_variables for w in model.target.kept
    )


def test_with_accumulation_the_average_moves_once_an_optimizer_step():
    model = tiny(momentum=0.5, every=2)
    states = []
    for _ in range(5):
        for weight in model.encoder.trainable_variables:
            weight.assign(weight.value + 1.0)
        model(two_views(images()), training=True)
        states.append(kept(model)[0])
    same = [np.array_equal(a, b) for a, b in zip(states, states[1:], strict=False)]
    assert same == [True, False, True, False]


def test_saved_and_loaded_with_its_target(tmp_path):
    model = tiny(momentum=0.9, total_steps=10)
    model.compile(optimizers.SGD(0.5))
    model.fit(*[two_views(images())], batch_size=len(images()), verbose=0)
    model.fit(*[two_views(images())], batch_size=len(images()), verbose=0)
    model.save(tmp_path / "byol.keras")
    loaded = keras.saving.load_model(tmp_path / "byol.keras")
    assert loaded.target.total_steps == 10 and int(loaded.target.step) == 2
    for a, b in zip(kept(model), kept(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    y, z = (m(two_views(images()), training=False) for m in (model, loaded))
    np.testing.assert_allclose(numpy(y["target1"]), numpy(z["target1"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"momentum": 1.5}, "`momentum` must be within"),
        ({"momentum": -0.1}, "`momentum` must be within"),
        ({"total_steps": 0}, "must be at least 1. Received: total_steps=0"),
        ({"every": 0}, "must be at least 1"),
    ],
)
def test_arguments_are_checked(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        MomentumEncoder(**arguments)


def test_a_predictor_of_another_width_is_refused():
    with pytest.raises(ValueError, match="as wide as `projector`"):
        BYOL(tiny_encoder(), heads.projector(16), (heads.Row(8),))


def test_collapse_and_perfect_agreement_have_the_losses_of_the_formula():
    model = tiny()
    z = np.random.default_rng(0).normal(size=(8, 16)).astype("float32")
    y = {"z1": z, "p1": z, "p2": z, "target1": 3 * z, "target2": 3 * z}
    assert float(model.compute_loss(y_pred=y)) == pytest.approx(0, abs=1e-5)
    y |= {"target1": -z, "target2": -z}
    assert float(model.compute_loss(y_pred=y)) == pytest.approx(8, abs=1e-5)
