import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras.losses import negative_cosine_similarity
from simsiam_keras.methods.simsiam import SimSiam
from tests import oracle
from tests.gradients import gradients
from tests.tiny import MirrorAndDim, fit, images, outputs_of, stopped, two_views
from tests.tiny import compiled_model as compiled
from tests.tiny import double as numpy
from tests.tiny import simsiam as tiny


def check_algorithm_1(loss_of):
    """`loss_of(model, outputs)` of the model's own z and p is the paper's L."""
    model = tiny()
    y_pred = model(two_views(images()), training=True)
    values = {name: numpy(v) for name, v in y_pred.items()}
    expected = oracle.algorithm_1(*(values[name] for name in ("p1", "p2", "z1", "z2")))
    # A mean of cosines in float32.
    np.testing.assert_allclose(float(loss_of(model, y_pred)), expected, rtol=0, atol=1e-6)


def mean_distance(p, z):
    return ops.mean(negative_cosine_similarity(p, ops.convert_to_tensor(z)))


WRONG_LOSSES = {
    "own view": lambda y: mean_distance(y["p1"], y["z1"]) / 2 + mean_distance(y["p2"], y["z2"]) / 2,
    "no half": lambda y: mean_distance(y["p1"], y["z2"]) + mean_distance(y["p2"], y["z1"]),
    "one side": lambda y: mean_distance(y["p1"], y["z2"]),
    "z with z": lambda y: mean_distance(y["z1"], y["z2"]),
    "p with p": lambda y: mean_distance(y["p1"], y["p2"]),
    "no minus": lambda y: (
        -mean_distance(y["p1"], y["z2"]) / 2 - mean_distance(y["p2"], y["z1"]) / 2
    ),
}


@pytest.mark.parametrize("training", [True, False])
def test_loss_equals_algorithm_1(training):
    check_algorithm_1(lambda model, y: model.compute_loss(y_pred=y, training=training))


@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_wrong_losses_are_rejected(name):
    with pytest.raises(AssertionError):
        check_algorithm_1(lambda model, y: WRONG_LOSSES[name](y))


def test_loss_is_symmetric_in_the_views():
    x1, x2 = two_views(images())
    model = tiny()
    a = model.compute_loss(y_pred=model((x1, x2), training=True))
    b = model.compute_loss(y_pred=model((x2, x1), training=True))
    np.testing.assert_allclose(float(a), float(b), rtol=0, atol=1e-6)


def test_loss_ignores_the_order_of_the_batch_and_not_that_of_one_view():
    x1, x2 = two_views(images())
    model = tiny()
    order = np.random.default_rng(1).permutation(len(x1))
    loss = float(model.compute_loss(y_pred=model((x1, x2), training=True)))
    both = float(model.compute_loss(y_pred=model((x1[order], x2[order]), training=True)))
    one = float(model.compute_loss(y_pred=model((x1[order], x2), training=True)))
    np.testing.assert_allclose(both, loss, rtol=0, atol=1e-6)
    assert abs(one - loss) > 1e-3


def test_the_outputs_are_f_and_h_of_each_view():
    model = tiny()
    x1, x2 = two_views(images())
    y = model((x1, x2), training=True)
    for x, z, p in ((x1, y["z1"], y["p1"]), (x2, y["z2"], y["p2"])):
        # Each view is normalized by its own batch's statistics.
        expected = model.projector(model.encoder(x, training=True), training=True)
        np.testing.assert_array_equal(numpy(z), numpy(expected))
        np.testing.assert_array_equal(numpy(p), numpy(model.predictor(expected, training=True)))


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_gradient_reaches_z_only_without_the_stop_gradient(stop_gradient):
    model = stopped(stop_gradient)
    names = ("p1", "p2", "z1", "z2")
    values = outputs_of(model, *two_views(images()))
    variables = [keras.Variable(values[name].astype("float32")) for name in names]

    def loss():
        tensors = [ops.convert_to_tensor(v) for v in variables]
        return model.compute_loss(y_pred=dict(zip(names, tensors, strict=True)))

    n = len(images())
    dp1, dp2, dz1, dz2 = gradients(loss, variables)
    p1, p2, z1, z2 = (values[name] for name in names)
    np.testing.assert_allclose(dp1, oracle.distance_gradient(p1, z2) / (2 * n), atol=1e-6)
    np.testing.assert_allclose(dp2, oracle.distance_gradient(p2, z1) / (2 * n), atol=1e-6)
    if stop_gradient:
        assert not dz1.any() and not dz2.any()
    else:
        np.testing.assert_allclose(dz2, oracle.distance_gradient(z2, p1) / (2 * n), atol=1e-6)
        np.testing.assert_allclose(dz1, oracle.distance_gradient(z1, p2) / (2 * n), atol=1e-6)
        assert dz1.any() and dz2.any()


def check_constant_targets(stop_gradient):
    """Gradients of every weight equal those with the targets as arrays of numbers."""
    model = stopped(stop_gradient)
    x1, x2 = two_views(images())
    targets = outputs_of(model, x1, x2)
    z1, z2 = (targets[name].astype("float32") for name in ("z1", "z2"))

    def with_constants():
        y = model((x1, x2), training=True)
        return mean_distance(y["p1"], z2) / 2 + mean_distance(y["p2"], z1) / 2

    actual = gradients(
        lambda: model.compute_loss(y_pred=model((x1, x2), training=True)),
        model.trainable_variables,
    )
    expected = gradients(with_constants, model.trainable_variables)
    assert any(np.abs(e).max() > 1e-3 for e in expected)
    for variable, a, e in zip(model.trainable_variables, actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6, err_msg=variable.path)


def test_the_targets_are_constants():
    check_constant_targets(stop_gradient=True)


def test_without_the_stop_gradient_they_are_not():
    with pytest.raises(AssertionError, match="conv"):
        check_constant_targets(stop_gradient=False)


def test_every_weight_receives_a_gradient():
    model = tiny()
    x = two_views(images())
    loss = lambda: model.compute_loss(y_pred=model(x, training=True))  # noqa: E731
    for variable, g in zip(
        model.trainable_variables, gradients(loss, model.trainable_variables), strict=True
    ):
        assert np.isfinite(g).all() and g.any(), variable.path
    parts = (model.encoder, model.projector, model.predictor)
    ids = [id(v) for part in parts for v in part.trainable_variables]
    assert sorted(ids) == sorted(id(v) for v in model.trainable_variables)


def test_gradient_is_finite_when_a_view_is_dead():
    model = tiny()
    model.encoder.get_layer("conv").kernel.assign(np.zeros((3, 3, 3, 12)))
    x = two_views(np.zeros_like(images()))
    loss = lambda: model.compute_loss(y_pred=model(x, training=True))  # noqa: E731
    assert np.isfinite(float(loss()))
    for g in gradients(loss, model.trainable_variables):
        assert np.isfinite(g).all()


def test_one_step_of_fit_is_sgd_on_the_gradient_with_constant_targets():
    model, twin = tiny(), tiny()
    x1, x2 = two_views(images())
    z1, z2 = (outputs_of(twin, x1, x2)[name].astype("float32") for name in ("z1", "z2"))

    def with_constants():
        y = twin((x1, x2), training=True)
        return mean_distance(y["p1"], z2) / 2 + mean_distance(y["p2"], z1) / 2

    starts = [ops.convert_to_numpy(v) for v in twin.trainable_variables]
    expected = gradients(with_constants, twin.trainable_variables)
    (loss,) = fit(compiled(model), (x1, x2))
    np.testing.assert_allclose(loss, float(with_constants()), rtol=0, atol=1e-5)
    for v, w, g in zip(model.trainable_variables, starts, expected, strict=True):
        after = oracle.sgd(w, [g], [0.05], momentum=0.9, weight_decay=5e-4)[-1]
        np.testing.assert_allclose(ops.convert_to_numpy(v), after, rtol=1e-4, atol=1e-5)


def test_an_augmenter_gives_the_step_that_its_pairs_give():
    x = images()
    expected = fit(compiled(tiny()), two_views(x), steps=3)
    assert fit(compiled(tiny(augmenter=MirrorAndDim())), x, steps=3) == pytest.approx(
        expected, abs=1e-5
    )
    # Labels beside the images are for monitors; the loss is the same with them.
    labelled = compiled(tiny(augmenter=MirrorAndDim()))
    history = labelled.fit(x, np.arange(len(x)), batch_size=len(x), verbose=0).history
    assert history["loss"][0] == pytest.approx(expected[0], abs=1e-5)
    assert len(set(np.round(expected, 5))) == 3  # the steps do move the loss


def test_fit_reports_z_std_of_the_outputs():
    model, twin = compiled(tiny()), tiny()
    x1, x2 = two_views(images())
    expected = oracle.output_std(outputs_of(twin, x1, x2)["z1"])
    history = model.fit((x1, x2), batch_size=len(x1), verbose=0).history
    assert set(history) == {"loss", "z_std"}
    np.testing.assert_allclose(history["z_std"][0], expected, atol=1e-5)


def test_evaluate_on_pairs_gives_the_loss_in_inference_mode():
    model = compiled(tiny())
    x1, x2 = two_views(images())
    fit(model, (x1, x2))
    y = model((x1, x2), training=False)
    values = [numpy(y[name]) for name in ("p1", "p2", "z1", "z2")]
    logs = model.evaluate((x1, x2), verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], oracle.algorithm_1(*values), atol=1e-5)


def test_evaluate_on_images_uses_the_augmenter():
    model = compiled(tiny(augmenter=MirrorAndDim()))
    x = images()
    fit(model, x)
    pairs = compiled(tiny())
    pairs.set_weights(model.get_weights())
    expected = pairs.evaluate(two_views(x), verbose=0, return_dict=True)
    actual = model.evaluate(x, verbose=0, return_dict=True)
    assert actual == pytest.approx(expected, abs=1e-5)


def test_images_without_an_augmenter_are_an_error():
    with pytest.raises(ValueError, match="`augmenter`"):
        fit(compiled(tiny()), images())


def test_a_layers_regularizer_adds_to_the_loss():
    def loss(factor):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 8, 3))
        dense = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(factor))
        model = compiled(SimSiam(keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))))
        penalty = factor * float(np.sum(np.square(numpy(dense.kernel))))
        x = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 8, 3)).astype("float32")
        return model.evaluate(tuple(x), verbose=0, return_dict=True)["loss"], penalty

    (plain, _), (with_penalty, penalty) = loss(0.0), loss(0.1)
    assert penalty > 0.1
    assert with_penalty == pytest.approx(plain + penalty, abs=1e-5)


@pytest.mark.parametrize("augmenter", [None, MirrorAndDim])
def test_predict_gives_the_encoders_features(augmenter):
    model, x = tiny(augmenter=augmenter and augmenter()), images()
    features = model.predict(x, verbose=0)
    assert features.shape == (len(x), 12)
    np.testing.assert_allclose(features, numpy(model.encoder(x, training=False)), atol=1e-5)
    np.testing.assert_array_equal(numpy(model(x)), numpy(model.encoder(x)))
