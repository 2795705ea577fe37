import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras.optimizers import LARS, lars_update

SHAPES = ((4, 3), (2, 2, 3, 5), (6,))
STEPS = 20


def schedule():
    return keras.optimizers.schedules.CosineDecay(0.5, STEPS)


def cosine(step):
    return 0.5 * 0.5 * (1 + np.cos(np.pi * step / STEPS))


def data():
    rng = np.random.default_rng(0)
    start = [rng.normal(size=s).astype("float32") for s in SHAPES]
    gradients = [[rng.normal(size=s).astype("float32") for s in SHAPES] for _ in range(STEPS)]
    gradients[3][0][:] = 0.0
    return start, gradients


def oracle(
    momentum,
    weight_decay,
    eta,
    exclude_1d,
    decay_in_ratio=True,
    sum_of_norms=True,
    rate_inside=False,
):
    """You et al. 2017, algorithm 1, with apex's LARC conventions, in NumPy."""
    weights, gradients = data()
    weights = [w.astype("float64") for w in weights]
    buffers = [np.zeros_like(w) for w in weights]
    for step, gs in enumerate(gradients):
        for i, g in enumerate(gs):
            w, rate = weights[i], cosine(step)
            w_norm, g_norm = np.sqrt((w**2).sum()), np.sqrt((g.astype("float64") ** 2).sum())
            if not (exclude_1d and w.ndim < 2) and w_norm > 0 and g_norm > 0:
                g = g + weight_decay * w
                norm = g_norm + weight_decay * w_norm * decay_in_ratio
                if not sum_of_norms:
                    norm = np.sqrt((g**2).sum())
                g = eta * w_norm / norm * g
            if rate_inside:
                buffers[i] = momentum * buffers[i] + rate * g
                weights[i] = w - buffers[i]
            else:
                buffers[i] = momentum * buffers[i] + g
                weights[i] = w - rate * buffers[i]
    return weights


def train(**options):
    start, gradients = data()
    optimizer = LARS(schedule(), **options)
    variables = [keras.Variable(w) for w in start]
    for gs in gradients:
        optimizer.apply([ops.convert_to_tensor(g) for g in gs], variables)
    return [ops.convert_to_numpy(v) for v in variables]


def distance(a, b):
    return max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("exclude_1d", [True, False])
def test_lars_is_the_papers_rule(momentum, weight_decay, exclude_1d):
    weights = train(
        momentum=momentum,
        weight_decay=weight_decay,
        trust_coefficient=0.05,
        exclude_1d=exclude_1d,
    )
    assert distance(weights, oracle(momentum, weight_decay, 0.05, exclude_1d)) < 1e-5


@pytest.mark.parametrize(
    "wrong", [{"decay_in_ratio": False}, {"sum_of_norms": False}, {"rate_inside": True}]
)
def test_the_data_tell_wrong_rules_apart(wrong):
    weights = train(momentum=0.9, weight_decay=0.5, trust_coefficient=0.05)
    assert distance(weights, oracle(0.9, 0.5, 0.05, True, **wrong)) > 1e-3


def test_excluded_variables_follow_plain_momentum_sgd():
    # lr constant: then Keras's SGD, with the rate inside the buffer, is the same.
    bias, other = keras.Variable(np.ones(3, "float32")), keras.Variable(np.ones(3, "float32"))
    lars = LARS(0.1, momentum=0.9, weight_decay=0.3)
    sgd = keras.optimizers.SGD(0.1, momentum=0.9)
    for step in range(5):
        gradient = ops.convert_to_tensor(np.arange(3, dtype="float32") + step)
        lars.apply([gradient], [bias])
        sgd.apply([gradient], [other])
    np.testing.assert_allclose(ops.convert_to_numpy(bias), ops.convert_to_numpy(other), rtol=1e-5)


@pytest.mark.parametrize("zero", ["weight", "gradient", "both"])
def test_a_zero_norm_leaves_the_gradient_alone(zero):
    w = np.zeros((2, 3), "float32") if zero != "gradient" else np.ones((2, 3), "float32")
    g = np.zeros((2, 3), "float32") if zero != "weight" else np.full((2, 3), 2.0, "float32")
    update = lars_update(ops.convert_to_tensor(g), ops.convert_to_tensor(w), 0.1, 0.001)
    np.testing.assert_array_equal(ops.convert_to_numpy(update), g)


def test_the_update_does_not_depend_on_the_gradients_scale():
    rng = np.random.default_rng(0)
    g, w = rng.normal(size=(2, 4, 3)).astype("float32")
    a, b = (
        ops.convert_to_numpy(
            lars_update(ops.convert_to_tensor(g * scale), ops.convert_to_tensor(w), 0.0, 0.001)
        )
        for scale in (np.float32(1e-4), np.float32(1e4))
    )
    np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(a), 0.001 * np.linalg.norm(w), rtol=1e-5)


def test_half_precision_norms_do_not_overflow():
    g = ops.convert_to_tensor(np.full((100, 100), 100.0, "float16"))
    w = ops.convert_to_tensor(np.full((100, 100), 50.0, "float16"))
    update = ops.convert_to_numpy(lars_update(g, w, 0.0, 0.01))
    assert update.dtype == "float16"
    np.testing.assert_allclose(update.astype("float32"), 0.5, rtol=1e-2)


def test_axis_counts_layers():
    rng = np.random.default_rng(0)
    g, w = rng.normal(size=(2, 5, 3, 4)).astype("float32")
    together = lars_update(ops.convert_to_tensor(g), ops.convert_to_tensor(w), 0.1, 0.01, (0, 2))
    for i in range(3):
        alone = lars_update(
            ops.convert_to_tensor(g[:, i]), ops.convert_to_tensor(w[:, i]), 0.1, 0.01
        )
        np.testing.assert_allclose(
            ops.convert_to_numpy(together)[:, i], ops.convert_to_numpy(alone), rtol=1e-5
        )


def test_config_round_trip():
    options = dict(momentum=0.8, weight_decay=1e-6, trust_coefficient=0.02, exclude_1d=False)
    optimizer = LARS(schedule(), global_clipnorm=1.0, name="mine", **options)
    config = optimizer.get_config()
    assert {key: config[key] for key in options} == options
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(restored) is LARS
    assert restored.get_config() == config


def test_training_resumes_from_a_saved_model(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype("float32"), rng.normal(size=(32, 1)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(LARS(0.5, weight_decay=1e-3), "mse")
    fit = dict(batch_size=8, epochs=2, shuffle=False, verbose=0)
    model.fit(x, y, **fit)
    model.save(tmp_path / "model.keras")
    model.fit(x, y, **fit)
    restored = keras.saving.load_model(tmp_path / "model.keras")
    restored.fit(x, y, **fit)
    for a, b in zip(model.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\). Received: momentum=1.0"),
        ({"weight_decay": -1}, "`weight_decay` must be >= 0. Received: weight_decay=-1"),
        ({"trust_coefficient": 0}, "`trust_coefficient` must be > 0"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        LARS(**options)
