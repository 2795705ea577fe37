"""SimSiam's ablations: each changes what the paper says it does, and nothing else."""

import inspect
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import checkpoints, losses, optimizers
from simsiam_keras.family import PAIRS
from simsiam_keras.methods.ablations import AblatedSimSiam
from simsiam_keras.targets import MovingAverage, Snapshot
from tests import oracle
from tests.gradients import gradients
from tests.tiny import SHAPE, images, outputs_of
from tests.tiny import ablated as tiny
from tests.tiny import double as numpy

VIEWS = {"sym": 2, "asym": 2, "asym2x": 4}
DISTANCES = {
    "cosine": (oracle.distance, oracle.distance_gradient),
    "cross_entropy": (oracle.cross_entropy, oracle.cross_entropy_gradient),
}


def views(count=2, n=8, seed=0):
    """Views of the same images: noise of their own on each."""
    x = images(n, seed)
    rng = np.random.default_rng(seed + 1)
    return tuple((x + rng.normal(0, 40, x.shape)).astype("float32") for _ in range(count))


def compiled(model, compile_step=False):
    """Compiled by Keras; on TensorFlow step by step, since tracing would take most of the time."""
    eager = keras.backend.backend() == "tensorflow" and not compile_step
    model.compile(optimizers.SGD(0.05, weight_decay=5e-4), run_eagerly=eager)
    return model


def values_of(variables):
    return [ops.convert_to_numpy(v) for v in variables]


def moved(before, after):
    return [bool((a != b).any()) for a, b in zip(before, after, strict=True)]


def step(model, batch):
    """The loss of one step of fit on one batch."""
    return float(model.train_on_batch(batch, return_dict=True)["loss"])


# Symmetrization and similarity


def loss_of(symmetrization, y, distance):
    """The paper's loss, by hand for each case."""
    if symmetrization == "sym":
        return oracle.algorithm_1(y["p1"], y["p2"], y["z1"], y["z2"], distance)
    if symmetrization == "asym":
        return oracle.asymmetric(y["p1"], y["z2"], distance)
    first = oracle.asymmetric(y["p1"], y["z2"], distance)
    return (first + oracle.asymmetric(y["p3"], y["z4"], distance)) / 2


def check_loss(symmetrization, similarity, expected=None):
    model = tiny(symmetrization=symmetrization, similarity=similarity)
    y = model(views(VIEWS[symmetrization]), training=True)
    values = {name: numpy(v) for name, v in y.items()}
    distance, _ = DISTANCES[similarity]
    expected = (expected or loss_of)(symmetrization, values, distance)
    np.testing.assert_allclose(float(model.compute_loss(y_pred=y)), expected, rtol=1e-6, atol=1e-6)


GRID = list(itertools.product(PAIRS, DISTANCES))


@pytest.mark.parametrize("symmetrization, similarity", GRID)
def test_losses_equal_the_oracle(symmetrization, similarity):
    check_loss(symmetrization, similarity)


WRONG = {
    "half of one side": lambda s, y, d: oracle.asymmetric(y["p1"], y["z2"], d) / 2,
    "own view": lambda s, y, d: oracle.asymmetric(y["p1"], y["z1"], d),
    "z for p": lambda s, y, d: oracle.asymmetric(y["z1"], y["z2"], d),
    "the other distance": lambda s, y, d: loss_of(
        s, y, {oracle.distance: oracle.cross_entropy, oracle.cross_entropy: oracle.distance}[d]
    ),
}


@pytest.mark.parametrize("symmetrization, similarity", GRID)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_losses_are_rejected(name, symmetrization, similarity):
    with pytest.raises(AssertionError):
        check_loss(symmetrization, similarity, WRONG[name])


def test_asym2x_does_not_pair_across_the_pairs():
    def crossed(symmetrization, y, distance):
        first = oracle.asymmetric(y["p1"], y["z4"], distance)
        return (first + oracle.asymmetric(y["p3"], y["z2"], distance)) / 2

    with pytest.raises(AssertionError):
        check_loss("asym2x", "cosine", crossed)


@pytest.mark.parametrize(
    "symmetrization, outputs",
    [
        ("sym", {"z1", "z2", "p1", "p2"}),
        ("asym", {"z1", "z2", "p1"}),
        ("asym2x", {"z1", "z2", "z3", "z4", "p1", "p3"}),
    ],
)
def test_only_what_the_loss_needs_is_predicted(symmetrization, outputs):
    model = tiny(symmetrization=symmetrization)
    assert set(model(views(VIEWS[symmetrization]), training=True)) == outputs


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("symmetrization, similarity", GRID)
def test_gradients_of_every_output(symmetrization, similarity, stop_gradient):
    """dL/dp_i from the oracle; dL/dz_j zero, or the oracle's without the stop-gradient."""
    model = tiny(symmetrization=symmetrization, similarity=similarity, stop_gradient=stop_gradient)
    values = outputs_of_all(model)
    names = sorted(values)
    variables = [keras.Variable(values[name].astype("float32")) for name in names]

    def loss():
        tensors = [ops.convert_to_tensor(v) for v in variables]
        return model.compute_loss(y_pred=dict(zip(names, tensors, strict=True)))

    found = dict(zip(names, gradients(loss, variables), strict=True))
    _, gradient = DISTANCES[similarity]
    pairs = {"sym": ["12", "21"], "asym": ["12"], "asym2x": ["12", "34"]}[symmetrization]
    scale = 1 / (len(pairs) * len(images()))
    for i, j in pairs:
        expected = gradient(values[f"p{i}"], values[f"z{j}"]) * scale
        np.testing.assert_allclose(found.pop(f"p{i}"), expected, atol=1e-6)
        dz = found.pop(f"z{j}")
        if stop_gradient:
            assert not dz.any()
        elif similarity == "cosine":  # symmetric in its arguments
            expected = oracle.distance_gradient(values[f"z{j}"], values[f"p{i}"]) * scale
            np.testing.assert_allclose(dz, expected, atol=1e-6)
        else:
            assert dz.any()
    assert not any(g.any() for g in found.values())  # what is left takes no part


def outputs_of_all(model):
    batch = views(model.views)
    return {name: numpy(v) for name, v in model(batch, training=True).items()}


def test_in_the_asymmetric_loss_the_second_view_only_sets_the_target():
    # Its branch is a constant: changing the first view's input changes nothing in its gradient.
    model = tiny(symmetrization="asym")
    x1, x2 = views()
    z2 = outputs_of(model, x1, x2)["z2"].astype("float32")

    def with_constant():
        z1 = model.projector(model.encoder(x1, training=True), training=True)
        p1 = model.predictor(z1, training=True)
        return ops.mean(losses.negative_cosine_similarity(p1, z2))

    actual = gradients(
        lambda: model.compute_loss(y_pred=model((x1, x2), training=True)),
        model.trainable_variables,
    )
    expected = gradients(with_constant, model.trainable_variables)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6)
    assert any(np.abs(e).max() > 1e-3 for e in expected)


@pytest.mark.parametrize("symmetrization", PAIRS)
def test_another_number_of_views_is_named(symmetrization):
    wrong = 4 if VIEWS[symmetrization] == 2 else 2
    with pytest.raises(ValueError, match=f"takes {6 - wrong} views .* Received: {wrong} views"):
        tiny(symmetrization=symmetrization)(views(wrong), training=True)


# The predictor


def test_without_a_predictor_p_is_z():
    y = outputs_of(tiny(predictor=()), *views())
    np.testing.assert_array_equal(y["p1"], y["z1"])
    np.testing.assert_array_equal(y["p2"], y["z2"])


def gradients_without_predictor(symmetrization, stop_gradient):
    model = tiny(predictor=(), symmetrization=symmetrization, stop_gradient=stop_gradient)
    x = views()
    return gradients(
        lambda: model.compute_loss(y_pred=model(x, training=True)), model.trainable_variables
    )


def test_without_a_predictor_the_stop_gradient_halves_the_gradient():
    # Section 4.2: "using stop-gradient is equivalent to removing stop-gradient and scaling the
    # loss by 1/2", for the symmetrized loss and only for it.
    def check(symmetrization):
        stopped = gradients_without_predictor(symmetrization, True)
        whole = gradients_without_predictor(symmetrization, False)
        assert any(np.abs(g).max() > 1e-3 for g in whole)
        for a, b in zip(stopped, whole, strict=True):
            np.testing.assert_allclose(a, b / 2, rtol=1e-3, atol=1e-6)

    check("sym")
    with pytest.raises(AssertionError):
        check("asym")


def check_movement(model, predictor_moves):
    """Which weights a few steps of SGD with weight decay move."""
    compiled(model)
    parts = {"encoder": model.encoder, "projector": model.projector, "predictor": model.predictor}
    kinds = [(name, part) for name, part in parts.items() if part.weights]
    learned = {name: [w for w in p.weights if "moving" not in w.name] for name, p in kinds}
    running = {name: [w for w in p.weights if "moving" in w.name] for name, p in kinds}
    before = {name: values_of(w) for name, w in learned.items()}
    statistics = {name: values_of(w) for name, w in running.items()}
    for _ in range(3):
        step(model, views())
    for name in learned:
        expected = predictor_moves or name != "predictor"
        assert set(moved(before[name], values_of(learned[name]))) == {expected}, name
        assert all(moved(statistics[name], values_of(running[name]))), name


def test_a_learned_predictor_moves():
    check_movement(tiny(), predictor_moves=True)


def test_a_fixed_predictor_does_not_move_not_even_by_weight_decay():
    check_movement(tiny(fixed_predictor=True), predictor_moves=False)
    with pytest.raises(AssertionError, match="predictor"):
        check_movement(tiny(), predictor_moves=False)


def test_a_predictor_frozen_by_its_layers_would_stop_its_statistics():
    model = tiny()
    model.predictor.trainable = False
    with pytest.raises(AssertionError, match="predictor"):
        check_movement(model, predictor_moves=False)


def test_a_fixed_predictor_changes_no_other_gradient():
    x = views()

    def gradients_of(model):
        variables = [*model.encoder.trainable_variables, *model.projector.trainable_variables]
        return gradients(lambda: model.compute_loss(y_pred=model(x, training=True)), variables)

    for a, b in zip(gradients_of(tiny()), gradients_of(tiny(fixed_predictor=True)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.any()


def indexed(n=8, seed=0, count=2, of=20):
    index = np.random.default_rng(seed).permutation(of)[:n]
    return {"views": views(count, n, seed), "index": index}


# Multi-step alternation


SWITCHES = {
    "no stop-gradient": {"stop_gradient": False},
    "no predictor": {"predictor": ()},
    "fixed predictor": {"fixed_predictor": True},
    "cross-entropy": {"similarity": "cross_entropy"},
    "asym": {"symmetrization": "asym"},
    "asym2x": {"symmetrization": "asym2x"},
    "alternating": {"targets": lambda: Snapshot(4)},
    "moving average": {"predictor": (), "targets": lambda: MovingAverage(20)},
    "many": {
        "symmetrization": "asym2x",
        "fixed_predictor": True,
        "similarity": "cross_entropy",
        "targets": lambda: Snapshot(3),
    },
}


def switched(name, seed=0):
    arguments = {k: v() if k == "targets" else v for k, v in SWITCHES[name].items()}
    return tiny(seed=seed, **arguments)


def batch_of(model, seed):
    batch = indexed(seed=seed, count=model.views)
    return batch if isinstance(model.targets, MovingAverage) else batch["views"]


@pytest.mark.parametrize("name", SWITCHES)
def test_a_saved_model_goes_on_as_the_first_would(name, tmp_path):
    model = compiled(switched(name))
    for t in range(2):
        step(model, batch_of(model, t))
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    for key in ("stop_gradient", "fixed_predictor", "similarity", "symmetrization"):
        assert getattr(restored, key) == getattr(model, key)
    later = [batch_of(model, t) for t in range(2, 6)]
    model.reset_metrics()
    expected, actual = ([step(m, batch) for batch in later] for m in (model, restored))
    tolerance = 0 if keras.backend.backend() == "tensorflow" else 1e-6
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
    for a, b in zip(values_of(model.variables), values_of(restored.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_checkpoint_resumes_exactly(name, tmp_path):
    model = compiled(switched(name))
    for t in range(2):
        step(model, batch_of(model, t))
    checkpoints.save(tmp_path, model, 1)
    resumed = compiled(switched(name, seed=1))
    checkpoints.restore(tmp_path, resumed)
    for m in (model, resumed):
        m.reset_metrics()
    later = [batch_of(model, t) for t in range(2, 6)]
    expected, actual = ([step(m, batch) for batch in later] for m in (model, resumed))
    tolerance = 0 if keras.backend.backend() == "tensorflow" else 1e-6
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["alternating", "moving average"])
def test_forgetting_the_targets_state_is_seen_to_differ(name):
    model, forgetful = compiled(switched(name)), compiled(switched(name))
    for t in range(4):
        for m in (model, forgetful):
            step(m, batch_of(m, t % 2))
        if t == 1:
            for variable in forgetful.targets.variables:
                variable.assign(ops.zeros_like(variable))
    model.reset_metrics(), forgetful.reset_metrics()
    difference = step(model, batch_of(model, 1)) - step(forgetful, batch_of(model, 1))
    assert abs(difference) > 1e-4


def test_config_holds_the_constructors_arguments():
    arguments = set(inspect.signature(AblatedSimSiam.__init__).parameters) - {"self", "kwargs"}
    for name in SWITCHES:
        config = switched(name).get_config()
        assert arguments <= set(config)
        clone = AblatedSimSiam.from_config(
            keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(config))
        )
        for key in ("stop_gradient", "fixed_predictor", "similarity", "symmetrization"):
            assert clone.get_config()[key] == config[key]
        assert type(clone.targets) is type(config["targets"])
        assert clone.predictor.get_config() == config["predictor"].get_config()
    assert Snapshot(7).get_config()["steps"] == 7
    config = MovingAverage(7, momentum=0.5).get_config()
    assert (config["images"], config["momentum"]) == (7, 0.5)


@pytest.mark.parametrize("name", SWITCHES)
def test_predict_gives_features_whatever_the_switch(name):
    model = switched(name)
    assert model.predict(images(), verbose=0).shape == (8, 12)


@pytest.mark.parametrize("name", ["alternating", "moving average"])
def test_the_compiled_step_is_the_same(name):
    model, plain = compiled(switched(name), compile_step=True), compiled(switched(name))
    for t in range(5):
        batch = batch_of(model, t)
        assert step(model, batch) == pytest.approx(step(plain, batch), abs=1e-5)


@pytest.mark.parametrize("name", ["cross-entropy", "alternating", "moving average", "many"])
def test_mixed_precision_trains_on_finite_numbers(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = switched(name)
    keras.config.set_dtype_policy("float32")
    compiled(model)
    exact = compiled(switched(name))
    first = step(model, batch_of(model, 0))
    # bfloat16 keeps 8 bits, so each cosine is off by some 2^-8, a logarithm of 16 by .01.
    assert first == pytest.approx(step(exact, batch_of(exact, 0)), abs=0.03)
    assert np.isfinite([step(model, batch_of(model, t)) for t in range(1, 4)]).all()
    assert all(np.isfinite(v).all() for v in values_of(model.variables))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"similarity": "dot"}, "`similarity` must be one of .* similarity='dot'"),
        ({"symmetrization": "both"}, "`symmetrization` must be one of .* symmetrization='both'"),
        ({"fixed_predictor": True, "predictor": ()}, "`fixed_predictor` must be False without"),
        ({"stop_gradient": False, "targets": Snapshot(2)}, "`stop_gradient` must be True with"),
        (
            {"similarity": "cross_entropy", "targets": MovingAverage(20)},
            "`similarity` must be 'cosine' with",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**arguments)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: Snapshot(0), "`steps` must be at least 1. Received: steps=0"),
        (lambda: MovingAverage(0), "`images` must be at least 1. Received: images=0"),
        (lambda: MovingAverage(5, 1.0), "`momentum` must be within .0, 1.. Received: momentum=1.0"),
        (lambda: MovingAverage(5, -0.1), "`momentum` must be within"),
    ],
)
def test_targets_out_of_range_are_named(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_images_come_with_their_numbers_through_an_augmenter():
    @keras.saving.register_keras_serializable("simsiam_keras_tests")
    class Halves(keras.layers.Layer):
        def call(self, x, training=False):
            return x, x * 0.5

    model = compiled(tiny(predictor=(), targets=MovingAverage(20), augmenter=Halves()))
    pairs = compiled(tiny(predictor=(), targets=MovingAverage(20)))
    for t in range(3):
        x, index = images(seed=t), np.random.default_rng(t).permutation(20)[:8]
        a = step(model, {"images": x, "index": index})
        b = step(pairs, {"views": (x, x * np.float32(0.5)), "index": index})
        assert a == pytest.approx(b, abs=1e-6)
    assert SHAPE == x.shape[1:]
