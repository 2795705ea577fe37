import keras
import numpy as np
import pytest

from simsiam_keras import schedules
from tests import oracle


@pytest.mark.parametrize(
    "base_lr, batch_size, expected",
    [(0.03, 512, 0.06), (0.05, 256, 0.05), (0.05, 4096, 0.8), (0.03, 64, 0.0075)],
)
def test_linear_scaling_rule(base_lr, batch_size, expected):
    assert schedules.scaled_lr(base_lr, batch_size) == pytest.approx(expected, rel=1e-12)


GRID = [(0.06, 10, 0), (0.06, 97, 0), (0.5, 20, 5), (2.0, 31, 30), (0.03, 12, 1), (0.1, 1, 0)]


def check(schedule_of, lr, total, warmup):
    schedule = schedule_of(lr, total, warmup)
    rates = [float(schedule(t)) for t in range(total + 4)]
    expected = [oracle.cosine_rate(t, lr, total, warmup) for t in range(total + 4)]
    # float32 arithmetic: the cosine of pi t / total is off by about 1e-7 of 1.
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-6 * lr)


@pytest.mark.parametrize("lr, total, warmup", GRID)
def test_cosine_step_by_step(lr, total, warmup):
    check(schedules.cosine, lr, total, warmup)


def warmup_outside_the_total(lr, total, warmup):
    return keras.optimizers.schedules.CosineDecay(
        0.0, total, warmup_target=lr, warmup_steps=max(1, warmup)
    )


def constant(lr, total, warmup):
    return lambda t: lr


def linear_decay(lr, total, warmup):
    return lambda t: (
        lr * t / warmup if t < warmup else lr * max(0, 1 - (t - warmup) / (total - warmup))
    )


def without_warmup(lr, total, warmup):
    return keras.optimizers.schedules.CosineDecay(lr, total)


def warmup_from_one(lr, total, warmup):
    right = schedules.cosine(lr, total, warmup)
    return lambda t: lr * (t + 1) / warmup if t < warmup else right(t)


@pytest.mark.parametrize(
    "wrong",
    [warmup_outside_the_total, constant, linear_decay, without_warmup, warmup_from_one],
)
def test_wrong_schedules_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check(wrong, 0.5, 20, 5)


def test_landmarks():
    schedule = schedules.cosine(0.8, total_steps=30, warmup_steps=10)
    assert float(schedule(0)) == 0
    assert float(schedule(10)) == pytest.approx(0.8, rel=1e-6)
    assert float(schedule(20)) == pytest.approx(0.4, rel=1e-6)
    assert float(schedule(30)) == pytest.approx(0, abs=1e-7)
    assert float(schedule(1000)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("total, warmup", [(10, 10), (10, 11), (10, -1), (0, 0), (-5, 0)])
def test_a_warmup_that_leaves_no_step_is_an_error(total, warmup):
    with pytest.raises(
        ValueError, match=f"`warmup_steps`.*warmup_steps={warmup}, total_steps={total}"
    ):
        schedules.cosine(0.1, total, warmup)


@pytest.mark.parametrize("warmup", [0, 3])
def test_config_round_trip(warmup):
    schedule = schedules.cosine(0.1, 9, warmup)
    restored = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    for t in range(11):
        assert float(restored(t)) == float(schedule(t))
