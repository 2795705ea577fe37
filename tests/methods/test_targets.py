"""Targets that are not the other view's z: alternation, and the moving average."""

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras.family import PAIRS
from simsiam_keras.targets import MovingAverage, Snapshot
from tests import oracle
from tests.gradients import gradients
from tests.methods.test_switches import DISTANCES, VIEWS, compiled, indexed, step, values_of, views
from tests.tiny import D, images, outputs_of
from tests.tiny import ablated as tiny
from tests.tiny import double as numpy


def trained(model, steps, seed=10):
    compiled(model)
    return [step(model, views(seed=seed + t)) for t in range(steps)]


@pytest.mark.parametrize("symmetrization", PAIRS)
@pytest.mark.parametrize("similarity", DISTANCES)
def test_alternating_every_step_is_simsiam(symmetrization, similarity):
    def run(**more):
        model = tiny(symmetrization=symmetrization, similarity=similarity, **more)
        compiled(model)
        count = VIEWS[symmetrization]
        return [step(model, views(count, seed=10 + t)) for t in range(6)], model.encoder

    (expected, plain), (actual, encoder) = run(), run(targets=Snapshot(1))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    for a, b in zip(encoder.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert len(set(np.round(expected, 4))) == 6


def blocks_of(k, refresh_at=0, steps=7):
    """Losses of alternation by hand: eta from a model whose weights are set before each block."""
    model, old = compiled(tiny()), tiny()
    model.optimizer.build(model.trainable_variables)
    path = []
    for t in range(steps):
        if t % k == refresh_at:
            old.set_weights(model.get_weights())
        x1, x2 = views(seed=10 + t)
        eta, y = outputs_of(old, x1, x2), outputs_of(model, x1, x2)
        path.append(oracle.algorithm_1(y["p1"], y["p2"], eta["z1"], eta["z2"]))
        constant = {f"z{j}": eta[f"z{j}"].astype("float32") for j in (1, 2)}

        def loss(x=(x1, x2), constant=constant):
            y = model(x, training=True)
            return model.compute_loss(y_pred={**y, **constant})

        found = gradients(loss, model.trainable_variables)
        model.optimizer.apply([ops.convert_to_tensor(g) for g in found])
    return path


@pytest.mark.parametrize("k", [2, 3])
def test_targets_are_of_the_weights_at_the_start_of_the_block(k):
    actual = trained(tiny(targets=Snapshot(k)), steps=7)
    np.testing.assert_allclose(actual, blocks_of(k), rtol=0, atol=1e-4)
    for wrong in (blocks_of(1), blocks_of(k + 1), blocks_of(k, refresh_at=1)):
        assert np.abs(np.subtract(actual, wrong)).max() > 1e-3


def test_the_copy_is_full_precision_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny(targets=Snapshot(2))
    trained(model, steps=2)
    weights = [*model.encoder.weights, *model.projector.weights]
    before = values_of(weights)
    step(model, views())
    for kept, value, weight in zip(model.targets.kept, before, weights, strict=True):
        if weight.trainable:  # running statistics have no part in a training step's targets
            np.testing.assert_array_equal(ops.convert_to_numpy(kept), value)
            assert (ops.convert_to_numpy(weight) != value).any()


def test_the_copies_do_not_train_and_running_statistics_move_as_without_them():
    model, plain = tiny(targets=Snapshot(3)), tiny()
    assert len(model.trainable_variables) == len(plain.trainable_variables)
    assert int(model.targets.step) == 0
    x = views()
    model(x, training=True), plain(x, training=True)
    for a, b in zip(model.encoder.get_weights(), plain.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.targets.step) == 1
    model(x, training=False)
    assert int(model.targets.step) == 1


# The moving average


def moving_average_by_hand(model, batches, m=0.8, symmetrization="sym", start=0.0):
    """Losses and memory, image by image, of a model in training mode that is not trained."""
    memory = np.full((20, D), start)
    path = []
    for batch in batches:
        y = {name: numpy(v) for name, v in model(batch["views"], training=True).items()}
        eta = {j: np.zeros((8, D)) for j in (1, 2)}
        for row, image in enumerate(batch["index"]):
            for j in (1, 2):
                eta[j][row] = m * memory[image] + (1 - m) * y[f"z{j}"][row]
            targets = (1, 2) if symmetrization == "sym" else (2,)
            memory[image] = sum(eta[j][row] for j in targets) / len(targets)
        if symmetrization == "sym":
            path.append(oracle.algorithm_1(y["z1"], y["z2"], eta[1], eta[2]))
        else:
            path.append(oracle.asymmetric(y["z1"], eta[2]))
    return path, memory


@pytest.mark.parametrize("symmetrization", ["sym", "asym"])
def test_the_memory_is_the_papers_moving_average(symmetrization):
    arguments = {"predictor": (), "symmetrization": symmetrization}
    model, twin = tiny(targets=MovingAverage(20), **arguments), tiny(**arguments)
    batches = [indexed(seed=t) for t in range(4)]

    def loss(batch):
        return float(model.compute_loss(y_pred=model(batch, training=True)))

    actual = [loss(batch) for batch in batches]
    expected, memory = moving_average_by_hand(twin, batches, symmetrization=symmetrization)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(model.targets.memory), memory, atol=1e-5)
    seen = set(np.concatenate([batch["index"] for batch in batches]).tolist())
    assert set(np.flatnonzero(memory.any(axis=1)).tolist()) == seen and len(seen) < 20
    for wrong in ({"m": 0.2}, {"start": 1.0}):
        wrong, _ = moving_average_by_hand(
            tiny(**arguments), batches, symmetrization=symmetrization, **wrong
        )
        assert np.abs(np.subtract(actual, wrong)).max() > 1e-3


def test_without_momentum_the_memory_changes_nothing():
    model = compiled(tiny(predictor=(), targets=MovingAverage(20, momentum=0.0)))
    plain = compiled(tiny(predictor=()))
    for t in range(4):
        batch = indexed(seed=t)
        assert step(model, batch) == pytest.approx(step(plain, batch["views"]), abs=1e-6)


def test_only_training_writes_the_memory():
    model = tiny(predictor=(), targets=MovingAverage(20))
    model(indexed(), training=False)
    assert not ops.convert_to_numpy(model.targets.memory).any()


def test_a_batch_without_numbers_is_an_error():
    model = compiled(tiny(predictor=(), targets=MovingAverage(20)))
    with pytest.raises(ValueError, match="number of each image: batches of .*'index': index"):
        step(model, views())


def test_images_in_a_dict_without_an_augmenter_are_an_error():
    with pytest.raises(ValueError, match="needs an `augmenter` .* Received: .'images', 'index'."):
        step(compiled(tiny()), {"images": images(), "index": np.arange(8)})


# Saving, resuming, refusing
