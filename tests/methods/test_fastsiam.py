"""FastSiam: its loss over K views, of which each predicts a constant that it has no part in."""

import inspect
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import config, heads, optimizers
from simsiam_keras.__main__ import main
from simsiam_keras.methods import fastsiam
from simsiam_keras.methods.fastsiam import FastSiam
from simsiam_keras.methods.simsiam import SimSiam
from tests import oracle
from tests.gradients import gradients
from tests.tiny import noise, numpy, tiny_encoder

D, N = 16, 6


def tiny(views=3, cls=FastSiam, **arguments):
    keras.utils.set_random_seed(0)
    arguments |= {"views": views} if cls is FastSiam else {}
    return cls(tiny_encoder(), heads.projector(D), heads.predictor(4), **arguments)


def several(count=3, n=N, seed=0):
    """Fixed views of the same images."""
    x = noise(8, n, seed)
    made = (x, x[:, :, ::-1], x * np.float32(0.5), x[:, ::-1], 255 - x)
    return tuple(np.ascontiguousarray(view) for view in made[:count])


def outputs_of(model, x):
    return {name: numpy(y) for name, y in model(x, training=True).items()}


def loss_of(model, outputs):
    outputs = {name: ops.convert_to_tensor(y) for name, y in outputs.items()}
    return float(model.compute_loss(y_pred=outputs))


def predictions_and_targets(outputs):
    k = len(outputs) // 2
    return ([outputs[f"{name}{i}"] for i in range(1, k + 1)] for name in "pz")


def mean(vectors):
    """The mean over vectors of each sample, number by number."""
    rows = np.zeros_like(vectors[0], "float64")
    for i, j in np.ndindex(rows.shape):
        rows[i, j] = sum(float(v[i][j]) for v in vectors) / len(vectors)
    return rows


def units(z):
    return np.array([oracle.unit(row) for row in z])


def by_hand(p, z):
    """`mean_i D(p_i, mean_{j != i} z_j)`, D a mean over the batch."""
    total = 0.0
    for i in range(len(p)):
        target = mean([z[j] for j in range(len(z)) if j != i])
        total += sum(oracle.distance(p[i], target)) / len(target)
    return total / len(p)


def of_all(p, z):
    return sum(np.mean(oracle.distance(a, mean(z))) for a in p) / len(p)


def of_the_next(p, z):
    k = len(p)
    return sum(np.mean(oracle.distance(p[i], z[(i + 1) % k])) for i in range(k)) / k


def of_the_first(p, z):
    return np.mean(oracle.distance(p[0], mean(z[1:])))


WRONG = {
    "own view in the target": of_all,
    "mean of unit vectors": lambda p, z: by_hand(p, [units(each) for each in z]),
    "one other view": of_the_next,
    "only the first view predicts": of_the_first,
    "sum over views": lambda p, z: len(p) * by_hand(p, z),
    "p as targets": lambda p, z: by_hand(p, p),
    "z as predictions": lambda p, z: by_hand(z, z),
    "no minus": lambda p, z: -by_hand(p, z),
}


def check_loss(expected, views=3, training=True):
    model = tiny(views)
    y = model(several(views), training=training)
    values = {name: numpy(v).astype("float64") for name, v in y.items()}
    # Lengths that differ, as without the normalization of the outputs.
    for i in range(1, views + 1):
        values[f"z{i}"] *= i
    loss = loss_of(model, {name: v.astype("float32") for name, v in values.items()})
    np.testing.assert_allclose(loss, expected(*predictions_and_targets(values)), atol=1e-6)


@pytest.mark.parametrize("views, training", [(2, True), (3, True), (3, False), (5, True)])
def test_loss_equals_the_oracle(views, training):
    check_loss(by_hand, views, training)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_losses_are_rejected(name):
    with pytest.raises(AssertionError):
        check_loss(WRONG[name])


def test_the_target_is_the_mean_of_outputs_as_they_are():
    e1, e2 = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    z = dict(zip(("z1", "z2", "z3"), (3 * e1, e1, e2), strict=True))
    p = dict(zip(("p1", "p2", "p3"), (e1, e1, e2), strict=True))
    # Targets (e1 + e2) / 2, (3 e1 + e2) / 2, 2 e1.
    expected = -(1 / np.sqrt(2) + 3 / np.sqrt(10) + 0) / 3
    outputs = {name: v.astype("float32") for name, v in (z | p).items()}
    assert loss_of(tiny(), outputs) == pytest.approx(expected, abs=1e-6)


def test_two_views_are_simsiam_bit_for_bit():
    model, twin = tiny(2), tiny(cls=SimSiam)
    y, expected = (outputs_of(each, several(2)) for each in (model, twin))
    assert y.keys() == expected.keys()
    for name in y:
        np.testing.assert_array_equal(y[name], expected[name])
    assert loss_of(model, y) == loss_of(twin, expected)
    for each in (model, twin):
        each.compile(optimizers.SGD(0.05, weight_decay=5e-4), jit_compile=False)
        for seed in range(3):
            each.train_on_batch({"views": several(2, seed=seed)})
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_three_views_are_not_two_of_them():
    outputs = outputs_of(tiny(), several())
    two = {name: outputs[name] for name in ("z1", "z2", "p1", "p2")}
    assert abs(loss_of(tiny(), outputs) - loss_of(tiny(2), two)) > 1e-3


def test_loss_ignores_the_order_of_views_and_of_the_batch_but_not_of_one_view():
    model, x = tiny(), several()
    loss = loss_of(model, outputs_of(model, x))
    for views in itertools.permutations(x):
        assert loss_of(model, outputs_of(model, views)) == pytest.approx(loss, abs=1e-6)
    order = np.random.default_rng(1).permutation(N)
    together = tuple(view[order] for view in x)
    assert loss_of(model, outputs_of(model, together)) == pytest.approx(loss, abs=1e-6)
    one = (x[0][order], *x[1:])
    assert abs(loss_of(model, outputs_of(model, one)) - loss) > 1e-3


def test_loss_ignores_the_length_of_predictions():
    model = tiny()
    y = outputs_of(model, several())
    longer = {name: 7 * v if name.startswith("p") else v for name, v in y.items()}
    assert loss_of(model, longer) == pytest.approx(loss_of(model, y), abs=1e-6)


def test_collapsed_outputs_reach_minus_one():
    model = tiny()
    same = np.ones([N, D], "float32")
    assert loss_of(model, {f"{name}{i}": same for name in "pz" for i in (1, 2, 3)}) == (
        pytest.approx(-1, abs=1e-6)
    )
    assert float(model.z_std.result()) == pytest.approx(0, abs=1e-6)


def check_gradients():
    """Those of p are of the distance to a constant, those of z are 0."""
    model, y = tiny(), outputs_of(tiny(), several())
    variables = {name: keras.Variable(v) for name, v in y.items()}
    found = gradients(
        lambda: model.compute_loss(
            y_pred={name: ops.convert_to_tensor(v) for name, v in variables.items()}
        ),
        list(variables.values()),
    )
    found = dict(zip(variables, found, strict=True))
    for i in (1, 2, 3):
        target = mean([y[f"z{j}"] for j in (1, 2, 3) if j != i])
        expected = oracle.distance_gradient(y[f"p{i}"], target) / (3 * N)
        np.testing.assert_allclose(found[f"p{i}"], expected, atol=1e-6)
        assert abs(expected).max() > 1e-3
        np.testing.assert_array_equal(found[f"z{i}"], 0)


def test_the_targets_are_constants():
    check_gradients()


def test_without_the_stop_gradient_they_are_not(monkeypatch):
    monkeypatch.setattr(fastsiam.ops, "stop_gradient", lambda x: x)
    with pytest.raises(AssertionError):
        check_gradients()


def test_every_weight_receives_a_finite_gradient_also_from_dead_views():
    model, x = tiny(), several()
    loss = lambda x: model.compute_loss(y_pred=model(x, training=True))  # noqa: E731
    for v, g in zip(
        model.trainable_variables,
        gradients(lambda: loss(x), model.trainable_variables),
        strict=True,
    ):
        assert np.isfinite(g).all() and g.any(), v.path
    dead = tuple(np.zeros_like(view) for view in x)
    for g in gradients(lambda: loss(dead), model.trainable_variables):
        assert np.isfinite(g).all()


def test_the_loss_falls_on_a_batch():
    model = tiny()
    model.compile(optimizers.SGD(0.1), jit_compile=False)
    losses = []
    for _ in range(12):
        model.reset_metrics()
        logs = model.train_on_batch({"views": several()}, return_dict=True)
        losses.append(float(logs["loss"]))
    assert losses[-1] < losses[0] - 0.1
    assert float(logs["z_std"]) > 0.5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_on_finite_numbers(policy):
    keras.config.set_dtype_policy(policy)
    model = tiny()
    keras.config.set_dtype_policy("float32")
    assert model.projector.compute_dtype == policy.removeprefix("mixed_")
    model.compile(optimizers.SGD(0.05), jit_compile=False)
    for _ in range(3):
        loss = float(model.train_on_batch({"views": several()}, return_dict=True)["loss"])
        assert -1 - 1e-6 <= loss <= 1
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_the_mean_of_half_precision_outputs_does_not_overflow():
    model = tiny(5)
    large = np.full([N, D], 60000, "float16")
    outputs = {f"{name}{i}": ops.convert_to_tensor(large) for name in "pz" for i in range(1, 6)}
    assert loss_of(model, outputs) == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_views_is_a_sentence(count):
    with pytest.raises(ValueError, match=f"takes 3 views of each image here. Received: {count}"):
        tiny()(several(count))


def test_one_view_is_refused():
    with pytest.raises(ValueError, match="`views` must be at least 2. Received: views=1"):
        tiny(1)


def test_the_predictor_must_be_as_wide_as_the_projector():
    with pytest.raises(ValueError, match="`predictor` must be as wide"):
        FastSiam(tiny_encoder(), heads.projector(D), (heads.Row(8),))


def test_config_gives_every_argument_back():
    model = tiny(5, name="twin")
    arguments = set(inspect.signature(FastSiam.__init__).parameters) - {"self", "kwargs"}
    assert set(model.get_config()) == arguments | {"name", "trainable", "dtype"}
    made = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert made.views == 5 and made.name == "twin"
    for part in ("encoder", "projector", "predictor"):
        assert getattr(made, part).get_config() == getattr(model, part).get_config()


def test_saved_and_loaded(tmp_path):
    model = tiny()
    model.save(tmp_path / "fastsiam.keras")
    loaded = keras.saving.load_model(tmp_path / "fastsiam.keras")
    assert loaded.views == 3
    y, z = (m(several(), training=False) for m in (model, loaded))
    for name in y:
        np.testing.assert_array_equal(numpy(y[name]), numpy(z[name]))
    np.testing.assert_array_equal(numpy(loaded(several()[0])), numpy(model(several()[0])))


def test_flags_make_the_model_and_its_views():
    assert config.make("pretrain", method="fastsiam").full_views == 4
    flags = config.make(
        "pretrain", method="fastsiam", views=3, output_dim=D, predictor_hidden=4, projector_layers=3
    )
    assert config.parse("pretrain", config.to_arguments(flags)) == flags
    assert flags.full_views == 3
    model = FastSiam.from_flags(flags, tiny_encoder(), None, steps=1, images=N)
    assert model.views == 3
    kernels = [w.shape for w in model.projector.trainable_variables if "kernel" in w.path]
    assert kernels == [(12, D), (D, D), (D, D)]
    kernels = [w.shape for w in model.predictor.trainable_variables if "kernel" in w.path]
    assert kernels == [(D, 4), (4, D)]


@pytest.mark.parametrize("learned", [False, True])
def test_a_flag_gives_the_projectors_last_normalization_a_scale(learned):
    flags = config.make("pretrain", method="fastsiam", output_dim=D, output_affine=learned)
    model = FastSiam.from_flags(flags, tiny_encoder(), None, steps=1, images=N)
    assert model.projector.layers[-1].scale == model.projector.layers[-1].center == learned


def test_one_view_on_the_command_line_is_refused(capsys):
    assert main(["pretrain", "--method=fastsiam", "--views=1"]) == 2
    assert "views" in capsys.readouterr().err


def test_one_pass_is_the_same_where_nothing_is_normalized():
    x = several()
    plain = heads.projector(D, batch_norm="none"), heads.predictor(4, batch_norm="none")

    def made(**arguments):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 8, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3)(inputs / 128 - 1))
        encoder = keras.Model(inputs, pooled)
        return outputs_of(FastSiam(encoder, *plain, views=3, **arguments), x)

    apart, together = made(), made(one_pass=True)
    assert list(apart) == list(together)
    for name, y in apart.items():
        np.testing.assert_allclose(together[name], y, rtol=1e-4, atol=1e-6)


def test_in_one_pass_statistics_are_those_of_all_views():
    x = several()
    apart, together = outputs_of(tiny(), x), outputs_of(tiny(one_pass=True), x)
    z = [np.concatenate([outputs[f"z{i}"] for i in (1, 2, 3)]) for outputs in (apart, together)]
    for outputs in z:
        np.testing.assert_allclose(outputs.mean(0), 0, atol=1e-4)
    views = [outputs["z1"].mean(0) for outputs in (apart, together)]
    assert np.abs(views[0]).max() < 1e-4 < 1e-2 < np.abs(views[1]).max()


def test_one_pass_is_saved(tmp_path):
    tiny(one_pass=True).save(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras").one_pass
