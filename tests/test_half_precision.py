"""float16: small gradients live by a scale, and a step that overflows is left out."""

import keras
import numpy as np
import pytest

from simsiam_keras import optimizers
from tests import tiny

RATE = 0.5


@pytest.fixture(autouse=True)
def half():
    keras.config.set_dtype_policy("mixed_float16")


def sgd(model):
    return optimizers.SGD(RATE)


def with_constant_rate(model):
    variables = model.predictor.trainable_variables
    return optimizers.with_constant_rate(optimizers.SGD(RATE), variables, RATE)


def lars(model):
    return optimizers.LARS(RATE)


OPTIMIZERS = [sgd, with_constant_rate, lars]


def compiled(make, scale):
    model = tiny.simsiam()
    model(tiny.two_views(tiny.images()))  # which builds the heads
    model.compile(make(model))
    model.optimizer.build(model.trainable_variables)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.optimizer.dynamic_scale.assign(scale)
    return model


def step(model):
    before = [tiny.double(v) for v in model.trainable_variables]
    tiny.fit(model, tiny.two_views(tiny.images()))
    return [tiny.double(v) - b for v, b in zip(model.trainable_variables, before, strict=True)]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_step_that_overflows_is_left_out_and_the_scale_halved(make):
    model = compiled(make, 2.0**40)  # of which float16 holds no gradient
    assert all((moved == 0).all() for moved in step(model))
    assert float(model.optimizer.dynamic_scale) == 2.0**39
    values = [tiny.numpy(v) for v in (*model.variables, *model.optimizer.variables)]
    assert all(np.isfinite(value).all() for value in values)
    model.optimizer.dynamic_scale.assign(2.0**10)
    assert any((moved != 0).any() for moved in step(model))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_scale_does_not_change_the_step(make):
    one, other = (step(compiled(make, scale)) for scale in (2.0**6, 2.0**11))
    largest = max(np.abs(moved).max() for moved in one)
    assert largest > 1e-3
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=0.02 * largest)
    with pytest.raises(AssertionError):  # a scale that was not taken out again
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b * 2.0**5, atol=0.02 * largest)


def test_small_gradients_live_by_the_scale():
    model = compiled(sgd, 2.0**15)
    for layer in (model.projector, model.encoder):
        assert layer.compute_dtype == "float16"
    moved = step(model)
    assert all(np.abs(m).max() > 0 for m in moved if m.ndim > 1)
