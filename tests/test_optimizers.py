import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import heads, schedules
from simsiam_keras.optimizers import SGD, with_constant_rate
from tests import oracle

STEPS = 20
SHAPES = [(4, 3), (5,), (1,)]  # a kernel, and the 1-d variables of biases and normalizations


def problem(seed=0):
    """Start values and 20 gradients of three variables."""
    rng = np.random.default_rng(seed)
    starts = [rng.normal(size=s).astype("float32") for s in SHAPES]
    gradients = [[rng.normal(size=s).astype("float32") for s in SHAPES] for _ in range(STEPS)]
    return starts, gradients


def run(optimizer, starts, gradients):
    """The variables after every step, `[variable][step]`."""
    variables = [keras.Variable(w, name=f"w{i}") for i, w in enumerate(starts)]
    paths = [[] for _ in variables]
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(a) for a in g], variables)
        for path, v in zip(paths, variables, strict=True):
            path.append(ops.convert_to_numpy(v))
    return [np.array(p) for p in paths]


SETTINGS = [
    {"momentum": 0.9, "weight_decay": 5e-4},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    {"momentum": 0.9, "weight_decay": 0.0},
    {"momentum": 0.0, "weight_decay": 0.1},
    {"momentum": 0.0, "weight_decay": 0.0},
]


def check(make, setting, scheduled):
    starts, gradients = problem()
    lr = schedules.cosine(0.2, STEPS, 5) if scheduled else 0.05
    rates = [oracle.cosine_rate(t, 0.2, STEPS, 5) if scheduled else 0.05 for t in range(STEPS)]
    paths = run(make(lr, **setting), starts, gradients)
    for i, path in enumerate(paths):
        expected = oracle.sgd(starts[i], [g[i] for g in gradients], rates, **setting)
        # Twenty float32 steps on weights of order 1: a few units of 6e-8 each.
        np.testing.assert_allclose(path, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
def test_sgd_equals_pytorch(setting, scheduled):
    check(SGD, setting, scheduled)


def decoupled_decay(lr, momentum, weight_decay, nesterov=False):
    return keras.optimizers.SGD(
        lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay or None
    )


class RateInsideTheBuffer(SGD):
    def update_step(self, gradient, variable, learning_rate):
        g = gradient + self.coupled_weight_decay * variable
        v = self.momentums[self._get_variable_index(variable)]
        self.assign(v, self.momentum * v + learning_rate * g)
        step = self.momentum * v + learning_rate * g if self.nesterov else v
        self.assign_sub(variable, step)


class DecaySkipsVectors(SGD):
    def update_step(self, gradient, variable, learning_rate):
        if len(variable.shape) < 2:
            gradient = gradient - self.coupled_weight_decay * variable
        super().update_step(gradient, variable, learning_rate)


class DecayAfterMomentum(SGD):
    def update_step(self, gradient, variable, learning_rate):
        v = self.momentums[self._get_variable_index(variable)]
        self.assign(v, self.momentum * v + gradient)
        self.assign_sub(variable, learning_rate * (v + self.coupled_weight_decay * variable))


class Dampened(SGD):
    def update_step(self, gradient, variable, learning_rate):
        super().update_step(0.1 * gradient, variable, learning_rate)


class NesterovForgotten(SGD):
    def __init__(self, *args, nesterov=False, **kwargs):
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize(
    "wrong, setting, scheduled",
    [
        (decoupled_decay, SETTINGS[1], False),
        (decoupled_decay, SETTINGS[0], True),
        (RateInsideTheBuffer, SETTINGS[1], True),
        (RateInsideTheBuffer, SETTINGS[3], True),
        (RateInsideTheBuffer, SETTINGS[2], True),
        (DecaySkipsVectors, SETTINGS[0], False),
        (DecaySkipsVectors, SETTINGS[4], False),
        (DecayAfterMomentum, SETTINGS[0], False),
        (Dampened, SETTINGS[3], False),
        (NesterovForgotten, SETTINGS[2], False),
    ],
)
def test_wrong_optimizers_are_rejected(wrong, setting, scheduled):
    with pytest.raises(AssertionError):
        check(wrong, setting, scheduled)


def test_rate_inside_the_buffer_is_the_same_without_a_schedule():
    # So that it is the schedule that the check above rejects it for.
    check(RateInsideTheBuffer, SETTINGS[1], scheduled=False)


def test_gradient_accumulation_equals_the_big_batch():
    starts, gradients = problem()
    setting = {"momentum": 0.9, "weight_decay": 0.05}
    paths = run(SGD(0.05, gradient_accumulation_steps=4, **setting), starts, gradients)
    for i, path in enumerate(paths):
        means = [np.mean([g[i] for g in gradients[k : k + 4]], axis=0) for k in range(0, STEPS, 4)]
        expected = oracle.sgd(starts[i], means, [0.05] * len(means), **setting)
        np.testing.assert_allclose(path[3::4], expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(path[2], starts[i])  # nothing moves in between


def test_config_round_trip():
    schedule = schedules.cosine(0.2, 50, 5)
    for learning_rate in (0.3, schedule):
        optimizer = SGD(learning_rate, momentum=0.8, weight_decay=0.1, nesterov=True, clipnorm=1.0)
        config = optimizer.get_config()
        assert (config["momentum"], config["weight_decay"], config["nesterov"]) == (0.8, 0.1, True)
        restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert type(restored) is SGD and restored.get_config() == config
        starts, gradients = problem()
        for a, b in zip(
            run(optimizer, starts, gradients), run(restored, starts, gradients), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"weight_decay": -1e-4}, "`weight_decay`.*weight_decay=-0.0001"),
        ({"weight_decay": float("nan")}, "`weight_decay`.*weight_decay=nan"),
        ({"momentum": -0.1}, "momentum"),
        ({"momentum": 1.1}, "momentum"),
    ],
)
def test_sgd_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        SGD(0.1, **arguments)


TOTAL = 12
SETTING = {"momentum": 0.9, "weight_decay": 0.1}


def two_parts():
    """A model of an encoder and a predictor, whose variables carry their own paths."""
    keras.utils.set_random_seed(3)
    encoder = heads.build((heads.Row(3),), 4, name="projector")
    predictor = heads.build(heads.predictor(2), 3, name="predictor")
    inputs = keras.Input((4,))
    return keras.Model(inputs, predictor(encoder(inputs))), predictor


def gradients_for(model, steps, seed=7):
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
        for _ in range(steps)
    ]


def check_constant_rate(wrap):
    model, predictor = two_parts()
    starts = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    of_predictor = {id(v) for v in predictor.trainable_variables}
    gradients = gradients_for(model, TOTAL)
    optimizer = wrap(SGD(schedules.cosine(0.2, TOTAL), **SETTING), predictor.trainable_variables)
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(a) for a in g], model.trainable_variables)
    cosine = [oracle.cosine_rate(t, 0.2, TOTAL) for t in range(TOTAL)]
    assert 0 < len(of_predictor) < len(starts)
    for i, v in enumerate(model.trainable_variables):
        rates = [0.05] * TOTAL if id(v) in of_predictor else cosine
        expected = oracle.sgd(starts[i], [g[i] for g in gradients], rates, **SETTING)[-1]
        np.testing.assert_allclose(ops.convert_to_numpy(v), expected, rtol=1e-6, atol=2e-6)


def test_the_predictor_keeps_its_rate_and_the_rest_follow_the_cosine():
    check_constant_rate(lambda optimizer, variables: with_constant_rate(optimizer, variables, 0.05))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda optimizer, variables: optimizer,
        lambda optimizer, variables: with_constant_rate(optimizer, variables[:1], 0.05),
        lambda optimizer, variables: with_constant_rate(optimizer, variables, 0.2),
        lambda optimizer, variables: SGD(0.05, **SETTING),
    ],
)
def test_other_rates_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_constant_rate(wrong)


def test_the_constant_rate_survives_saving(tmp_path):
    model, predictor = two_parts()
    optimizer = with_constant_rate(
        SGD(schedules.cosine(0.2, TOTAL), **SETTING), predictor.trainable_variables, 0.05
    )
    model.compile(optimizer, loss="mse")
    gradients = gradients_for(model, TOTAL)
    for g in gradients[:4]:
        optimizer.apply([ops.convert_to_tensor(a) for a in g], model.trainable_variables)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    for g in gradients[4:]:
        for m in (model, restored):
            m.optimizer.apply([ops.convert_to_tensor(a) for a in g], m.trainable_variables)
    for a, b in zip(model.variables, restored.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


def test_excluded_variables_do_not_decay():
    def after(exclude):
        kernel, bias = keras.Variable(np.ones(3)), keras.Variable(np.ones(3), name="bias")
        optimizer = SGD(0.1, momentum=0.0, weight_decay=0.5)
        if exclude:
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.apply([ops.zeros(3), ops.zeros(3)], [kernel, bias])
        return ops.convert_to_numpy(kernel), ops.convert_to_numpy(bias)

    np.testing.assert_allclose(after(exclude=False), np.full((2, 3), 0.95), rtol=1e-6)
    np.testing.assert_allclose(after(exclude=True), [[0.95] * 3, [1.0] * 3], rtol=1e-6)
