"""VICReg: its three terms, of which two are the batch's, and a global batch on any replica."""

import inspect
import math

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import config, heads, losses, optimizers
from simsiam_keras.losses import decorrelation
from simsiam_keras.methods.vicreg import VICReg
from tests import oracle
from tests.gradients import gradients, gradients_of_arrays
from tests.tiny import noise, numpy, tiny_encoder

D, N = 6, 8
COEFFICIENTS = {"sim_coeff": 25.0, "std_coeff": 25.0, "cov_coeff": 1.0}  # the paper's


def tiny(**arguments):
    keras.utils.set_random_seed(0)
    projector = heads.projector(D, layers=3, hidden=12, batch_norm="hidden")
    return VICReg(tiny_encoder(), projector, **arguments)


def two_views(n=N):
    x = noise(8, n)
    return np.ascontiguousarray(x[:, :, ::-1]), x * np.float32(0.5)


def draw(n=N, seed=0):
    """Outputs of two views with channels on either side of a deviation of 1, and correlated."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(n, D)) @ random.normal(0, 0.4, (D, D))
    scale = np.array([0.3, 0.7, 1.0, 1.5, 2.0, 3.0])
    z, others = (mixed * scale + random.normal(0, 0.2, (n, D)) + 2 for _ in range(2))
    return z.astype("float32"), others.astype("float32")


# By hand, from equations 1 to 6 and the authors' code.


def covariance(z, j, k, degrees):
    n = len(z)
    means = [sum(float(z[i][c]) for i in range(n)) / n for c in (j, k)]
    products = [(float(z[i][j]) - means[0]) * (float(z[i][k]) - means[1]) for i in range(n)]
    return sum(products) / degrees


def hinge(z, biased=False, root=math.sqrt, squared=False, target=1.0):
    n, d = z.shape
    total = 0.0
    for j in range(d):
        spread = root(covariance(z, j, j, n if biased else n - 1) + 1e-4)
        total += max(0.0, target - spread) ** (2 if squared else 1)
    return total / d


def penalty(z, biased=False, diagonal=False, power=2, parts=None):
    n, d = z.shape
    total = 0.0
    for j in range(d):
        for k in range(d):
            if j != k or diagonal:
                total += abs(covariance(z, j, k, n if biased else n - 1)) ** power
    return total / (d if parts is None else parts)


def by_hand(z, others, sim_coeff=25.0, std_coeff=25.0, cov_coeff=1.0, v=hinge, c=penalty, s=None):
    """The value of each sample, whose mean is the loss."""
    variance, cov = (v(z) + v(others)) / 2, c(z) + c(others)
    invariance = s or (lambda a, b: oracle.squared_distance(a, b) / len(a))
    return np.array(
        [
            sim_coeff * invariance(a, b) + std_coeff * variance + cov_coeff * cov
            for a, b in zip(z, others, strict=True)
        ]
    )


def variant(**parts):
    return lambda z, others, **coefficients: by_hand(z, others, **coefficients, **parts)


WRONG = {
    "biased variance": variant(v=lambda z: hinge(z, biased=True)),
    "biased covariance": variant(c=lambda z: penalty(z, biased=True)),
    "diagonal included": variant(c=lambda z: penalty(z, diagonal=True)),
    "variance for deviation": variant(v=lambda z: hinge(z, root=lambda x: x)),
    "hinge squared": variant(v=lambda z: hinge(z, squared=True)),
    "hinge at .9": variant(v=lambda z: hinge(z, target=0.9)),
    "variances of both views added": variant(v=lambda z: 2 * hinge(z)),
    "covariances of both views averaged": variant(c=lambda z: penalty(z) / 2),
    "covariance not divided by d": variant(c=lambda z: penalty(z, parts=1)),
    "covariance divided by d^2": variant(c=lambda z: penalty(z, parts=D * D)),
    "covariance not squared": variant(c=lambda z: penalty(z, power=1)),
    "invariance not divided by d": variant(s=oracle.squared_distance),
    "invariance not squared": variant(s=lambda a, b: math.sqrt(oracle.squared_distance(a, b)) / D),
    "invariance of unit vectors": variant(
        s=lambda a, b: oracle.squared_distance(oracle.unit(a), oracle.unit(b)) / D
    ),
    "one view": lambda z, others, **c: by_hand(z, z, **c),
    "coefficients exchanged": lambda z, others, sim_coeff, std_coeff, cov_coeff: by_hand(
        z, others, cov_coeff, std_coeff, sim_coeff
    ),
}
GRID = [
    COEFFICIENTS,
    {"sim_coeff": 1.0, "std_coeff": 0.0, "cov_coeff": 0.0},
    {"sim_coeff": 0.0, "std_coeff": 1.0, "cov_coeff": 0.0},
    {"sim_coeff": 0.0, "std_coeff": 0.0, "cov_coeff": 1.0},
    {"sim_coeff": 10.0, "std_coeff": 3.0, "cov_coeff": 0.5},
]


def check_values(expected, coefficients, n=N):
    z, others = draw(n)
    values = numpy(losses.vicreg(z, others, **coefficients))
    assert values.shape == (n,) and values.dtype == np.float32
    np.testing.assert_allclose(values, expected(z, others, **coefficients), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [2, N])
@pytest.mark.parametrize("coefficients", GRID)
def test_values_equal_the_oracle(coefficients, n):
    check_values(by_hand, coefficients, n)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_losses_are_rejected(name):
    with pytest.raises(AssertionError):
        check_values(WRONG[name], COEFFICIENTS)


@pytest.mark.parametrize("training", [True, False])
def test_the_methods_loss_is_the_mean_of_the_oracle(training):
    model = tiny(sim_coeff=10.0, std_coeff=3.0, cov_coeff=0.5)
    y = model(two_views(), training=training)
    assert set(y) == {"z1", "z2"}
    expected = by_hand(numpy(y["z1"]), numpy(y["z2"]), 10.0, 3.0, 0.5).mean()
    assert float(model.compute_loss(y_pred=y)) == pytest.approx(expected, rel=1e-5)


def test_the_defaults_are_the_papers():
    check = inspect.signature(losses.vicreg).parameters
    assert {name: check[name].default for name in COEFFICIENTS} == COEFFICIENTS
    flags = config.make("pretrain", method="vicreg")
    assert (flags.projector_layers, flags.output_dim, flags.projector_hidden) == (3, 8192, 0)
    assert {name: getattr(flags, name) for name in COEFFICIENTS} == COEFFICIENTS
    assert tiny().coefficients == COEFFICIENTS


def loss(z, others, **coefficients):
    return float(np.mean(numpy(losses.vicreg(z, others, **coefficients))))


def test_spread_and_uncorrelated_outputs_of_equal_views_have_0():
    z = 2 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], "float32")
    assert loss(z, z) == 0
    # A shift by c of one view costs c^2 and changes no variance.
    assert loss(z, z + 3) == pytest.approx(25 * 9)


def test_equal_outputs_have_99_hundredths_of_the_variances_weight_and_no_gradient():
    same = np.ones([N, D], "float32")
    assert loss(same, same) == pytest.approx(0.99 * 25)
    model = tiny(std_coeff=2.0)
    z = ops.convert_to_tensor(same)
    assert float(model.compute_loss(y_pred={"z1": z, "z2": z})) == pytest.approx(0.99 * 2)
    assert float(model.z_std.result()) == pytest.approx(0, abs=1e-6)
    for constant in (same, 0 * same):
        for g in gradients_of_arrays(lambda a, b: ops.mean(losses.vicreg(a, b)), constant, same):
            assert np.isfinite(g).all()


def test_one_channel_has_no_covariance():
    z = np.array([[0.0], [4.0], [8.0]], "float32")
    assert loss(z, z) == 0


def test_values_ignore_what_they_should():
    z, others = draw()
    values = numpy(losses.vicreg(z, others))
    same = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(numpy(losses.vicreg(others, z)), values, **same)
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_allclose(numpy(losses.vicreg(z[order], others[order])), values[order], **same)
    channels = np.random.default_rng(2).permutation(D)
    shuffled = losses.vicreg(z[:, channels], others[:, channels])
    np.testing.assert_allclose(numpy(shuffled), values, **same)
    np.testing.assert_allclose(numpy(losses.vicreg(-z, -others)), values, **same)
    # So a bias of the projector's output does not matter.
    np.testing.assert_allclose(numpy(losses.vicreg(z + 5, others + 5)), values, **same)
    # And do not ignore which outputs belong together, nor lengths.
    assert abs(loss(z[order], others) - loss(z, others)) > 1e-2
    assert abs(loss(2 * z, 2 * others) - loss(z, others)) > 1e-2


@pytest.mark.parametrize("coefficients", GRID)
def test_gradients_equal_finite_differences_in_both_views(coefficients):
    z, others = draw()
    found = gradients_of_arrays(
        lambda a, b: ops.mean(losses.vicreg(a, b, **coefficients)), z, others
    )
    mean = lambda a, b: by_hand(a, b, **coefficients).mean()  # noqa: E731
    expected = (
        oracle.finite_differences(lambda a: mean(a, others), z),
        oracle.finite_differences(lambda b: mean(z, b), others),
    )
    for a, b in zip(found, expected, strict=True):
        assert abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * abs(b).max())


def parts_of_a_batch(gathered):
    """The mean value of two replicas' halves, with the variances of the whole batch or not."""
    z, others = draw()
    everything = {"all_z": z, "all_others": others} if gathered else {}
    halves = (slice(0, N // 2), slice(N // 2, N))
    return np.concatenate([numpy(losses.vicreg(z[h], others[h], **everything)) for h in halves])


def test_halves_of_a_batch_have_the_values_of_the_whole():
    expected = numpy(losses.vicreg(*draw()))
    np.testing.assert_allclose(parts_of_a_batch(gathered=True), expected, rtol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(parts_of_a_batch(gathered=False), expected, rtol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    # Squares of 300 are above float16's 65504, and 1e-4 is lost beside 1 in bfloat16.
    z, others = (ops.cast(300 * x, dtype) for x in draw())
    values = losses.vicreg(z, others)
    assert keras.backend.standardize_dtype(values.dtype) == "float32"
    exact = by_hand(*(numpy(ops.cast(x, "float32")) for x in (z, others)))
    np.testing.assert_allclose(numpy(values), exact, rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_on_finite_numbers(policy):
    exact = tiny()
    keras.config.set_dtype_policy(policy)
    model = tiny()
    keras.config.set_dtype_policy("float32")
    assert model.projector.compute_dtype == policy.removeprefix("mixed_")
    for each in (exact, model):
        each.compile(optimizers.SGD(0.01), jit_compile=False)
    x = {"views": two_views()}
    found, expected = (
        float(each.train_on_batch(x, return_dict=True)["loss"]) for each in (model, exact)
    )
    assert found == pytest.approx(expected, rel=0.02)
    for _ in range(3):
        assert np.isfinite(float(model.train_on_batch(x, return_dict=True)["loss"]))
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_every_weight_but_the_outputs_bias_receives_a_gradient():
    model, x = tiny(), two_views()
    compute = lambda: model.compute_loss(y_pred=model(x, training=True))  # noqa: E731
    variables = model.trainable_variables
    for v, g in zip(variables, gradients(compute, variables), strict=True):
        assert np.isfinite(g).all(), v.path
        if v.path.endswith("linear_3/bias"):
            np.testing.assert_allclose(g, 0, atol=1e-4)
        else:
            assert abs(g).max() > 1e-3, v.path


def trained(**coefficients):
    """Losses of some steps on one batch, and the least deviation of a channel after them."""
    model, x = tiny(**coefficients), two_views()
    model.compile(optimizers.SGD(0.02), jit_compile=False)
    found = []
    for _ in range(40):
        model.reset_metrics()
        found.append(float(model.train_on_batch({"views": x}, return_dict=True)["loss"]))
    y = model(x, training=True)
    return found, min(numpy(y[name]).std(axis=0, ddof=1).min() for name in ("z1", "z2"))


def test_training_lowers_the_loss_and_spreads_each_channel():
    found, least = trained()
    assert found[-1] < 0.7 * found[0]
    alone, collapsed = trained(std_coeff=0.0)
    assert alone[-1] < alone[0]
    assert collapsed < 0.1 < 0.3 < least


def test_one_image_has_no_variance_and_is_refused():
    model = tiny()
    with pytest.raises(ValueError, match="at least 2 images in a batch"):
        model.compute_loss(y_pred=model(two_views(1), training=True))
    with pytest.raises(ValueError, match="--batch_size must be at least twice"):
        config.make("pretrain", method="vicreg", batch_size=2, gradient_accumulation=2)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_coefficients_must_not_be_negative(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 0. Received: {name}=-1"):
        tiny(**{name: -1})


@pytest.mark.parametrize("missing", ["all_z", "all_others"])
def test_outputs_of_all_replicas_come_together(missing):
    z, others = draw()
    given = {"all_z": z, "all_others": others} | {missing: None}
    with pytest.raises(ValueError, match=f"must be given together. Received: {missing}=None"):
        losses.vicreg(z, others, **given)


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_views_is_a_sentence(count):
    with pytest.raises(ValueError, match=f"takes 2 views of each image here. Received: {count}"):
        tiny()((noise(8),) * count)


def test_the_parts_of_the_loss():
    z, _ = draw()
    assert float(decorrelation.variance_hinge(z)) == pytest.approx(hinge(z), rel=1e-5)
    assert float(decorrelation.covariance_penalty(z)) == pytest.approx(penalty(z), rel=1e-5)


def test_config_gives_every_argument_back():
    model = tiny(sim_coeff=1, std_coeff=2, cov_coeff=3, name="twin")
    arguments = set(inspect.signature(VICReg.__init__).parameters) - {"self", "kwargs"}
    assert set(model.get_config()) == arguments | {"name", "trainable", "dtype"}
    made = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert made.coefficients == {"sim_coeff": 1, "std_coeff": 2, "cov_coeff": 3}
    assert made.name == "twin"
    assert made.projector.get_config() == model.projector.get_config()


def test_saved_and_loaded(tmp_path):
    model = tiny(cov_coeff=0.5)
    model.save(tmp_path / "vicreg.keras")
    loaded = keras.saving.load_model(tmp_path / "vicreg.keras")
    assert loaded.coefficients == {**COEFFICIENTS, "cov_coeff": 0.5}
    y, z = (m(two_views(), training=False) for m in (model, loaded))
    for name in y:
        np.testing.assert_array_equal(numpy(y[name]), numpy(z[name]))


def test_flags_make_the_model():
    flags = config.make(
        "pretrain", method="vicreg", output_dim=D, projector_hidden=12, cov_coeff=0.5
    )
    assert config.parse("pretrain", config.to_arguments(flags)) == flags
    model = VICReg.from_flags(flags, tiny_encoder(), None, steps=1, images=N)
    assert model.coefficients == {**COEFFICIENTS, "cov_coeff": 0.5}
    kernels = [w.shape for w in model.projector.trainable_variables if "kernel" in w.path]
    assert kernels == [(12, 12), (12, 12), (12, D)]
    norms = [layer for layer in model.projector.layers if "norm" in layer.name]
    assert len(norms) == 2  # the output has none
