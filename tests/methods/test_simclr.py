"""SimCLR: NT-Xent on its own outputs, and what its negatives do."""

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import heads, optimizers
from simsiam_keras.methods.simclr import SimCLR
from tests import oracle
from tests.gradients import gradients
from tests.tiny import double as numpy
from tests.tiny import images, tiny_encoder, two_views


def tiny(seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    return SimCLR(tiny_encoder(), heads.projector(16, hidden=24), **arguments)


def check_loss(temperature, expected):
    model = tiny(temperature=temperature)
    y = model(two_views(images()), training=True)
    loss = float(model.compute_loss(y_pred=y))
    z1, z2 = numpy(y["z1"]), numpy(y["z2"])
    np.testing.assert_allclose(loss, np.mean(expected(z1, z2, temperature)), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_loss_equals_the_oracle(temperature):
    check_loss(temperature, oracle.nt_xent)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda z1, z2, t: oracle.nt_xent(z1, z2, 1.0),
        lambda z1, z2, t: oracle.nt_xent(z1, z1, t),
        lambda z1, z2, t: 2 * oracle.nt_xent(z1, z2, t),
    ],
    ids=["no temperature", "one view", "sum of both directions"],
)
def test_wrong_losses_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_loss(0.5, wrong)


def test_a_collapsed_encoder_has_log_2n_minus_1():
    model = tiny()
    z = np.ones([8, 16], "float32")
    assert float(model.compute_loss(y_pred={"z1": z, "z2": z})) == pytest.approx(np.log(15))
    assert float(model.z_std.result()) == pytest.approx(0, abs=1e-6)


def test_gradient_reaches_both_views_and_pushes_other_images_away():
    model = tiny()
    z1, z2 = (
        keras.Variable(np.random.default_rng(i).normal(size=(6, 16)).astype("float32"))
        for i in (0, 1)
    )

    def loss():
        return model.compute_loss(
            y_pred={"z1": ops.convert_to_tensor(z1), "z2": ops.convert_to_tensor(z2)}
        )

    before = float(loss())
    g1, g2 = gradients(loss, [z1, z2])
    assert abs(g1).max() > 1e-3 and abs(g2).max() > 1e-3
    cosines = oracle_cosines(z1, z2)
    for variable, gradient in ((z1, g1), (z2, g2)):
        variable.assign(ops.convert_to_numpy(variable) - 10 * gradient)
    assert float(loss()) < before
    others = ~np.eye(6, dtype=bool)
    assert oracle_cosines(z1, z2)[others].mean() < cosines[others].mean()
    assert oracle_cosines(z1, z2)[~others].mean() > cosines[~others].mean()


def oracle_cosines(z1, z2):
    a, b = ([oracle.unit(row) for row in numpy(z)] for z in (z1, z2))
    return np.array(a) @ np.array(b).T


def test_the_loss_falls_on_a_batch_and_the_outputs_stay_spread():
    model = tiny()
    model.compile(optimizers.SGD(0.1), run_eagerly=True)
    losses = [
        float(model.train_on_batch(two_views(images()), return_dict=True)["loss"])
        for _ in range(12)
    ]
    assert losses[-1] < losses[0] - 0.3


def test_one_image_has_no_negatives_and_is_refused():
    with pytest.raises(ValueError, match="at least 2 images in a batch"):
        tiny()(two_views(images(n=1)), training=True)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="`temperature` must be"):
        tiny(temperature=0.0)


def test_saved_and_loaded(tmp_path):
    model = tiny(temperature=0.2)
    model.save(tmp_path / "simclr.keras")
    loaded = keras.saving.load_model(tmp_path / "simclr.keras")
    assert loaded.temperature == 0.2
    y, z = (m(two_views(images())) for m in (model, loaded))
    np.testing.assert_array_equal(numpy(y["z1"]), numpy(z["z1"]))
