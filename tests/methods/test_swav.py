"""SwAV: swapped predictions of balanced codes, prototypes of unit length, freezing, queue."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import heads, optimizers
from simsiam_keras.methods.swav import SwAV
from tests import oracle
from tests.gradients import gradients
from tests.tiny import double as numpy
from tests.tiny import images, tiny_encoder, two_views

K = 5


def tiny(seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    projector = heads.projector(16, hidden=24, batch_norm="hidden")
    return SwAV(tiny_encoder(), projector, **{"prototypes": K, **arguments})


def by_hand(z, prototypes, full=(0, 1), temperature=0.1, epsilon=0.05, iterations=3):
    """Algorithm 1 of the paper: codes of the full views, predicted from every other view."""
    scores = [np.array([oracle.unit(row) for row in view]) @ prototypes for view in z]
    total = []
    for i in full:
        codes = oracle.sinkhorn(scores[i], epsilon, iterations)
        for v in range(len(z)):
            if v != i:
                total.append(np.mean(oracle.swapped_prediction(scores[v], codes, temperature)))
    return sum(total) / len(total)


def outputs_of(model, views):
    """The projector's outputs of every view, `[n, d]`, not normalized."""
    return [numpy(model.project(x, training=True)) for x in views]


def check_loss(expected, count=2, **arguments):
    model = tiny(small_views=count - 2, **arguments)
    views = tuple(images(seed=i) for i in range(2)) + tuple(
        images(seed=i)[:, ::2, ::2] for i in range(2, count)
    )
    loss = float(model.compute_loss(y_pred=model(views, training=True)))
    values = expected(outputs_of(model, views), numpy(model.prototypes))
    np.testing.assert_allclose(loss, values, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_loss_equals_the_oracle(count):
    check_loss(by_hand, count)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda z, c: by_hand(z, c, temperature=1.0),
        lambda z, c: by_hand(z, c, iterations=1),
        lambda z, c: by_hand(z, c, full=(0,)),
        lambda z, c: by_hand(z, 2 * c),
        lambda z, c: by_hand([z[1], *z[1:]], c),
    ],
    ids=["no temperature", "one iteration", "one side", "long prototypes", "own view"],
)
def test_wrong_losses_are_rejected(wrong, count):
    with pytest.raises(AssertionError):
        check_loss(wrong, count)


def test_small_views_make_no_codes():
    with pytest.raises(AssertionError):
        check_loss(lambda z, c: by_hand(z, c, full=(0, 1, 2, 3)), count=4)


def step(model, seed=0):
    return float(model.train_on_batch(two_views(images(seed=seed)), return_dict=True)["loss"])


def compiled(model, rate=0.5):
    model.compile(optimizers.SGD(rate, weight_decay=1e-3), run_eagerly=True)
    return model


def test_prototypes_begin_and_stay_at_unit_length():
    model = compiled(tiny())
    start = numpy(model.prototypes)
    np.testing.assert_allclose(np.linalg.norm(start, axis=0), 1, atol=1e-5)
    for seed in range(3):
        step(model, seed)
    moved = numpy(model.prototypes)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=0), 1, atol=1e-5)
    assert abs(moved - start).max() > 1e-3


def test_frozen_prototypes_stay_while_the_encoder_learns():
    model = compiled(tiny(freeze_steps=2))
    start, encoder = numpy(model.prototypes), numpy(model.encoder.trainable_variables[0])
    for seed in range(2):
        step(model, seed)
        np.testing.assert_allclose(numpy(model.prototypes), start, atol=1e-6)
    assert abs(numpy(model.encoder.trainable_variables[0]) - encoder).max() > 1e-4
    step(model, 2)
    assert abs(numpy(model.prototypes) - start).max() > 1e-4


def test_codes_are_constants_and_every_score_is_predicted():
    model = tiny()
    y = model(two_views(images()), training=True)
    names = ("scores1", "scores2", "codes1", "codes2")
    variables = [keras.Variable(ops.convert_to_numpy(y[name])) for name in names]

    def loss():
        values = {n: ops.convert_to_tensor(v) for n, v in zip(names, variables, strict=True)}
        return model.compute_loss(y_pred={**values, "z1": y["z1"]})

    s1, s2, q1, q2 = gradients(loss, variables)
    assert abs(s1).max() > 1e-4 and abs(s2).max() > 1e-4
    assert not q1.any() and not q2.any()


def test_the_queue_holds_the_latest_outputs_in_order():
    n, length = len(images()), 20
    model = tiny(queue=length)
    latest = {1: np.zeros((length, 16)), 2: np.zeros((length, 16))}
    for seed in range(4):
        y = model(two_views(images(seed=seed)), training=True)
        for i in (1, 2):
            latest[i] = np.concatenate([numpy(y[f"z{i}"]), latest[i]])[:length]
            np.testing.assert_allclose(numpy(model.queue)[i - 1], latest[i], atol=1e-6)
        assert int(model.seen) == min(length, n * (seed + 1))
    model(two_views(images(seed=9)), training=False)  # inference leaves it alone
    np.testing.assert_allclose(numpy(model.queue)[0], latest[1], atol=1e-6)


@pytest.mark.parametrize(
    ("queue", "start", "used"),
    [(16, 0, [0, 0, 1, 1]), (16, 3, [0, 0, 0, 1]), (12, 0, [0, 0, 1, 1])],
)
def test_the_queue_balances_the_codes_when_it_is_full_and_its_time_has_come(queue, start, used):
    model = tiny(queue=queue, queue_start=start)
    for seed, expected in enumerate(used):
        earlier = numpy(model.queue)[0]
        y = model(two_views(images(seed=seed)), training=True)
        prototypes, n = numpy(model.prototypes), len(images())
        alone = oracle.sinkhorn(numpy(y["z1"]) @ prototypes, 0.05, 3)
        more = oracle.sinkhorn(np.concatenate([numpy(y["z1"]), earlier]) @ prototypes, 0.05, 3)[:n]
        assert abs(alone - more).max() > 1e-3
        codes = numpy(y["codes1"])
        np.testing.assert_allclose(codes, more if expected else alone, atol=1e-4)


def test_a_collapsed_encoder_cannot_have_a_low_loss():
    """Equal scores have uniform codes, which no prediction is nearer to than log k."""
    model = tiny()
    z = np.ones([8, 16], "float32") / 4
    scores = z @ numpy(model.prototypes).astype("float32")
    codes = oracle.sinkhorn(scores, 0.05, 3).astype("float32")
    y = {"z1": z, "scores1": scores, "scores2": scores, "codes1": codes, "codes2": codes}
    assert float(model.compute_loss(y_pred=y)) >= np.log(K) - 1e-5


def test_the_loss_falls_on_a_batch():
    model = compiled(tiny(), rate=0.05)
    losses = [step(model) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.1


def test_half_precision_keeps_scores_and_codes_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny()
    y = model(two_views(images()), training=True)
    for name in ("z1", "scores1", "codes1"):
        assert keras.backend.standardize_dtype(y[name].dtype) == "float32"
    np.testing.assert_allclose(numpy(y["codes1"]).sum(axis=1), 1, atol=1e-5)


def test_saved_and_loaded_with_queue_and_prototypes(tmp_path):
    model = compiled(tiny(queue=8, freeze_steps=1, small_views=1))
    views = (*two_views(images()), images()[:, ::2, ::2])
    model.train_on_batch({"views": views})
    model.save(tmp_path / "swav.keras")
    loaded = keras.saving.load_model(tmp_path / "swav.keras")
    assert len(loaded.variables) == len(model.variables)
    for a, b in itertools.zip_longest(model.variables, loaded.variables):
        assert a.path.split("/")[-1] == b.path.split("/")[-1]
    for name in ("z1", "scores3", "codes2"):
        y, z = (m({"views": views}, training=False)[name] for m in (model, loaded))
        np.testing.assert_allclose(numpy(y), numpy(z), atol=1e-6)
    assert int(loaded.seen) == 8 and int(loaded.step) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prototypes": 1}, "`prototypes` must be at least 2"),
        ({"temperature": 0.0}, "`temperature` must be"),
        ({"epsilon": 0.0}, "`epsilon` must be"),
        ({"iterations": 0}, "`iterations` must be"),
        ({"queue": -1}, "`queue` must be"),
    ],
)
def test_arguments_are_checked(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**arguments)(two_views(images()), training=True)


def test_another_number_of_views_is_refused():
    with pytest.raises(ValueError, match="takes 3 views of each image here. Received: 2 views"):
        tiny(small_views=1)(two_views(images()), training=True)
