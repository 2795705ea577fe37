"""SimSiam saved, in half precision, and collapsing."""

import functools
import inspect

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import heads, optimizers, schedules
from simsiam_keras.methods.ablations import AblatedSimSiam
from simsiam_keras.methods.simsiam import SimSiam
from tests import oracle
from tests.tiny import MirrorAndDim, fit, images, tiny_encoder, two_views
from tests.tiny import compiled_model as compiled
from tests.tiny import double as numpy
from tests.tiny import simsiam as tiny


def optimizer_of(name, model):
    sgd = optimizers.SGD(schedules.cosine(0.1, 10, 2), weight_decay=5e-4)
    if name == "sgd":
        return sgd
    return optimizers.with_constant_rate(sgd, model.predictor.trainable_variables, 0.1)


@pytest.mark.parametrize("name", ["sgd", "constant predictor rate"])
def test_saving_and_loading_changes_nothing(name, tmp_path):
    model = tiny(augmenter=MirrorAndDim())
    compiled(model, optimizer_of(name, model))
    x = images()
    fit(model, x, steps=2)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert type(restored) is SimSiam
    np.testing.assert_array_equal(model.predict(x, verbose=0), restored.predict(x, verbose=0))
    pairs = {name: numpy(v) for name, v in model(two_views(x)).items()}
    for key, value in restored(two_views(x)).items():
        np.testing.assert_array_equal(numpy(value), pairs[key])
    expected, actual = fit(model, x, steps=3), fit(restored, x, steps=3)
    assert len(set(expected)) == 3
    # Equal to the last bit, but for what the backend itself does not repeat to the last bit: JAX
    # compiles a step of its own for each model.
    tolerance = 0 if keras.backend.backend() == "tensorflow" else 1e-6
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
    for a, b in zip(model.variables, restored.variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=tolerance, atol=10 * tolerance
        )


def test_forgetting_the_optimizer_is_seen_to_differ(tmp_path):
    # So that the equality above can fail: the momentum and the step of the schedule do matter.
    model = compiled(tiny(), optimizers.SGD(schedules.cosine(0.1, 10, 2)))
    x = two_views(images())
    fit(model, x, steps=2)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras", compile=False)
    compiled(restored, optimizers.SGD(schedules.cosine(0.1, 10, 2)))
    differences = np.subtract(fit(restored, x, steps=3), fit(model, x, steps=3))
    assert np.abs(differences[1:]).min() > 1e-3


def test_config_matches_the_constructor():
    model = tiny(augmenter=MirrorAndDim(), name="twin")
    config = model.get_config()
    arguments = set(inspect.signature(SimSiam.__init__).parameters) - {"self", "kwargs"}
    assert set(config) == arguments | {"name", "trainable", "dtype"}
    clone = SimSiam.from_config(
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(config))
    )
    assert clone.name == "twin"
    assert isinstance(clone.augmenter, MirrorAndDim)
    for part in ("encoder", "projector", "predictor"):
        a, b = getattr(model, part), getattr(clone, part)
        assert a is not b and a.get_config() == b.get_config()


def test_the_defaults_are_the_papers():
    model = SimSiam(tiny_encoder())
    assert [w.shape for w in model.projector.trainable_variables if "kernel" in w.path] == [
        (12, 2048),
        (2048, 2048),
    ]
    assert [w.shape for w in model.predictor.trainable_variables if "kernel" in w.path] == [
        (2048, 512),
        (512, 2048),
    ]
    assert model.augmenter is None
    model = SimSiam(tiny_encoder(), projector=heads.projector(40))
    assert model.predictor.get_layer("predictor_linear_1").units == 10  # d / 4


def test_a_predictor_of_another_width_is_an_error():
    with pytest.raises(
        ValueError, match=r"`predictor`.*predictor=\(None, 5\), projector=\(None, 16\)"
    ):
        SimSiam(tiny_encoder(), heads.projector(16), (heads.Row(5, norm=False, relu=False),))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_on_finite_numbers(policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny()
    finally:
        keras.config.set_dtype_policy(previous)
    assert model.projector.compute_dtype == policy.removeprefix("mixed_")
    compiled(model)
    starts = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    x = two_views(images())
    losses = fit(model, x, steps=3)
    exact = fit(compiled(tiny()), x, steps=1)[0]
    # bfloat16 keeps 8 bits, so each cosine is off by some 2^-8.
    assert losses[0] == pytest.approx(exact, abs=0.02)
    assert np.isfinite(losses).all() and np.abs(losses).max() <= 1 + 1e-6
    for v, start in zip(model.trainable_variables, starts, strict=True):
        value = ops.convert_to_numpy(v)
        assert value.dtype == np.float32 and np.isfinite(value).all(), v.path
        assert (value != start).any(), v.path


def shifted(rng, digits):
    """A view of each digit: moved by up to two pixels, brighter or darker, noisy."""
    n = len(digits)
    padded = np.pad(digits, ((0, 0), (2, 2), (2, 2)))
    rows, columns = rng.integers(0, 5, size=(2, n))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), axis=(1, 2))
    x = windows[np.arange(n), rows, columns] * rng.uniform(0.6, 1.4, size=(n, 1, 1))
    return np.clip(x + rng.normal(0, 12, size=x.shape), 0, 255).astype("float32")[..., None]


def spread_after_training(stop_gradient, seed=0, epochs=20, batch_size=128):
    """`z_std` of a small net after 280 steps on scikit-learn's digits."""
    digits = pytest.importorskip("sklearn.datasets").load_digits().images * (255 / 16)
    rng = np.random.default_rng(seed)
    many = np.concatenate([digits[rng.permutation(len(digits))] for _ in range(epochs)])
    many = many[: len(many) // batch_size * batch_size]
    views = shifted(rng, many), shifted(rng, many)

    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 64, offset=-1.0)(x)
    for width, stride in ((8, 1), (16, 2)):
        x = keras.layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(heads.batch_norm()(x))
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    cls = SimSiam if stop_gradient else functools.partial(AblatedSimSiam, stop_gradient=False)
    # Without normalization of the output, which would hold its deviation up.
    model = cls(encoder, heads.projector(32, batch_norm="hidden"))
    compiled(model, optimizers.SGD(0.2, weight_decay=5e-4))
    model.fit(views, batch_size=batch_size, shuffle=False, verbose=0)
    x1, x2 = (view[-1024:] for view in views)
    return oracle.output_std(numpy(model((x1, x2), training=True)["z1"]))


def test_removing_the_stop_gradient_collapses_the_output():
    # Seeds 0 to 3 on TensorFlow 2.21: .77 .77 .74 .80 with the stop-gradient, .014 .015 .014 .017
    # without. The paper's figure 2.
    assert spread_after_training(stop_gradient=True) > 0.6
    assert spread_after_training(stop_gradient=False) < 0.1
