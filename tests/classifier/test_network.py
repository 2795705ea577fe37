"""Layer groups and their rates, batches, and which epoch is kept."""

import dataclasses
import types

import keras
import numpy as np
import pytest

from simsiam_keras.classifier import calibration, network
from simsiam_keras.few import finetune
from tests.classifier.made import configuration
from tests.few import small


def variables(*shapes):
    return [types.SimpleNamespace(shape=shape, name=i) for i, shape in enumerate(shapes)]


def test_groups_begin_at_kernels_and_go_from_the_top():
    kernel, other = (3, 3), (3,)
    given = variables(other, kernel, other, other, kernel, kernel, other, kernel)
    names = [[v.name for v in group] for group in network.groups(given, most=2)]
    assert names == [[5, 6, 7], [0, 1, 2, 3, 4]]
    assert [len(g) for g in network.groups(variables(*[kernel] * 7), most=3)] == [2, 2, 3]
    assert len(network.groups(given)) == 4  # no more than kernels
    assert network.groups(variables(other, other)) == [variables(other, other)]


def test_every_variable_of_an_encoder_has_one_group_and_normalization_its_kernels():
    encoder = small.encoder()
    found = network.groups(encoder.trainable_variables, most=4)
    paths = [v.path for group in found[::-1] for v in group]
    assert paths == [v.path for v in encoder.trainable_variables]
    for group in found:
        assert len(group[0].shape) > 1


def net_of(encoder, cfg, **changed):
    options = {
        "classes": 3,
        "flip": False,
        "min_crop": 1.0,
        "learn_statistics": False,
        "batch_size": cfg.train_batch_size,
        "seed": 0,
        "optimizer": network.optimizer(cfg.lr, cfg.layer_decay, 20),
    }
    return finetune.Network(encoder, **{**options, **changed})


def rates_of(net):
    """The rate of each variable's optimizer at its highest, by path."""
    optimizer = net.optimizer
    rates = {}
    for v in net.trained.trainable_variables:
        schedule = optimizer._optimizer_map(v)._learning_rate
        rates[v.path] = max(float(schedule(step)) for step in range(20))
    return rates


def test_rates_fall_by_the_decay_from_the_last_layer_down():
    cfg = configuration(lr=0.01, layer_decay=0.5)
    net = net_of(small.encoder(), cfg)
    rates = rates_of(net)
    for k, group in enumerate(network.groups(net.encoder.trainable_variables), 1):
        for v in group:
            assert rates[v.path] == pytest.approx(0.01 * 0.5**k, rel=1e-4)
    assert all(rates[v.path] == pytest.approx(0.01, rel=1e-4) for v in net.head.weights)
    assert len({*rates.values()}) == 1 + min(12, len(kernels(net.encoder)))


def kernels(encoder):
    return [v for v in encoder.trainable_variables if len(v.shape) > 1]


def moved(layer_decay):
    """How far each group's kernels moved in one step at the first rate, which is Adam's own."""
    cfg = configuration(lr=0.01, layer_decay=layer_decay)
    encoder = small.encoder()
    net = net_of(encoder, cfg, optimizer=network.optimizer(cfg.lr, layer_decay, 8))  # no warm-up
    before = [v.numpy() if hasattr(v, "numpy") else np.array(v) for v in kernels(encoder)]
    images, numbers = small.pictures(4, 0)
    net.encoder.set_weights(encoder.get_weights())
    net.head.set_weights([np.random.default_rng(0).normal(size=net.head.kernel.shape), np.zeros(3)])
    net.trained.train_on_batch(images, numbers)
    after = [keras.ops.convert_to_numpy(v) for v in kernels(net.encoder)]
    return [np.abs(a - b).max() for a, b in zip(after, before, strict=True)]


def test_a_step_moves_a_layer_by_its_rate():
    """Adam's first step is the rate, whatever the gradient."""
    one, half = moved(1.0), moved(0.5)
    np.testing.assert_allclose(one, 0.01, rtol=0.02)
    count = len(half)
    groups = min(12, count)
    expected = [0.01 * 0.5 ** (groups - i * groups // count) for i in range(count)]
    np.testing.assert_allclose(half, expected, rtol=0.05)
    assert moved(0.0) == [0.0] * count


def test_batches_visit_images_or_classes_alike():
    numbers = np.repeat([0, 1, 2], [20, 5, 1])
    plain = network.batches(numbers, 13, False, 0)
    rows = np.concatenate([next(plain) for _ in range(4)])
    assert np.bincount(rows).tolist() == [2] * 26
    even = network.batches(numbers, 6, True, 0)
    drawn = [next(even) for _ in range(10)]
    assert all(np.bincount(numbers[rows]).tolist() == [2, 2, 2] for rows in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=26)
    assert counts[:20].tolist() == [1] * 20 and counts[20:25].tolist() == [4] * 5
    again = network.batches(numbers, 6, True, 0)
    assert np.array_equal(next(again), drawn[0])
    weights = network.weights_of(numbers, True)
    assert [weights[numbers == c].sum() for c in range(3)] == pytest.approx([1, 1, 1])


def test_steps_are_divided_over_the_epochs():
    cfg = configuration(epochs=20, steps=60, train_batch_size=32)
    assert network.steps_of(cfg, 48) == (3, 60)  # 2 in a pass, 40 in all
    assert network.steps_of(cfg, 1000) == (32, 640)
    assert network.steps_of(dataclasses.replace(cfg, epochs=7), 48) == (9, 63)


class Scripted:
    """In the place of a network: what it classifies after each epoch is given."""

    def __init__(self, logits):
        self.given, self.epoch, self.trained = logits, 0, self
        self.encoder, self.head = (Weights(self) for _ in range(2))

    def reset_metrics(self):
        pass

    def train_on_batch(self, images, numbers):
        self.epoch += 1
        return 1.0

    def logits(self, images):
        return np.array(self.given[self.epoch])


class Weights:
    def __init__(self, net):
        self.net, self.set = net, []

    def get_weights(self):
        return f"epoch {self.net.epoch}"

    def set_weights(self, weights):
        self.set.append(weights)


def kept(right, patience=10, times=20):
    """What is kept where these of six held-out images are right after each; each image is there
    several times."""
    numbers = np.tile(np.arange(6) % 2, times)
    n, logits = len(numbers), []
    for count in right:
        sign = np.where(np.tile(np.arange(6), times) < (count or 0), 1, -1)[:, None]
        logits.append(np.eye(2)[numbers] * sign if count is not None else np.full((n, 2), np.nan))
    net = Scripted(logits)
    cfg = configuration(epochs=len(right) - 1, steps=1, train_batch_size=n, patience=patience)
    data = np.zeros((2 * n, 2, 2, 3)), np.concatenate([numbers, numbers])
    parts = np.arange(n), np.arange(n, 2 * n)
    found = network.train(net, "start", "head", data, parts, cfg)
    assert net.encoder.set[-1] == f"epoch {found.best_epoch}"
    return found


def best(*arguments, **named):
    """The best epoch, 0 where it is not better than the start."""
    found = kept(*arguments, **named)
    return found.best_epoch if found.better else 0


def test_the_best_epoch_is_kept_and_the_start_unless_one_is_better():
    assert best([4, 5, 6, 5]) == 2
    assert best([5, 4, 3, 4]) == 0
    assert best([5, 5, 5, 5]) == 0
    found = kept([4, 5, 4, 4, 4, 6], patience=3)
    assert found.best_epoch == 1 and len(found.rows) == 5


def test_a_few_images_do_not_show_that_an_epoch_is_better():
    assert best([4, 5, 5], times=1) == 0
    assert best([4, 5, 5], times=20) == 1


@pytest.mark.parametrize(("later", "better"), [([1, 1, 1, 0, 0], False), ([1, 1, 1, 1, 0], True)])
def test_what_is_less_accurate_than_the_start_is_never_better(later, better):
    """Though it is likelier: sure of what is right, against right by a hair and wrong by far."""
    numbers = np.tile(np.arange(5) % 2, 40)
    own, n = np.eye(2)[numbers], len(numbers)
    start = own * np.tile([0.01, 0.01, 0.01, 0.01, -9], 40)[:, None]
    other = own * np.tile(np.where(later, 9.0, -0.01), 40)[:, None]

    def each(logits):
        return calibration.likelihoods(logits, numbers, calibration.temperature(logits, numbers))

    gain, error = calibration.gain(each(other), each(start))
    assert gain > calibration.errors_by_chance(n, 1) * error
    cfg = configuration(epochs=1, steps=1, train_batch_size=n)
    data = np.zeros((2 * n, 2, 2, 3)), np.concatenate([numbers, numbers])
    parts = np.arange(n), np.arange(n, 2 * n)
    assert network.train(Scripted([start, other]), "s", "h", data, parts, cfg).better == better


def test_training_that_diverges_keeps_the_start():
    found = kept([4, None, None])
    assert not found.better
    assert found.rows[1]["held_out_loss"] is None


def test_training_learns_and_begins_at_the_head_that_is_given():
    encoder = small.encoder()
    images, numbers = small.pictures(24, 0)
    cfg = configuration(lr=3e-3, epochs=4, steps=80, train_batch_size=12, patience=4)
    made = network.optimizer(cfg.lr, 0.9, 80)
    net = net_of(encoder, cfg, learn_statistics=True, optimizer=made)
    random = np.random.default_rng(0)
    head = [random.normal(0, 0.1, net.head.kernel.shape).astype("float32"), np.ones(3, "float32")]
    parts = np.arange(36), np.arange(36, 72)
    seen = []
    found = network.train(
        net, encoder.get_weights(), head, (images, numbers), parts, cfg, on_epoch=seen.append
    )
    first = encoder.predict(images, verbose=0)[parts[1]] @ head[0] + head[1]
    accuracy = (first.argmax(-1) == numbers[parts[1]]).mean()
    assert found.rows[0]["held_out_accuracy"] == pytest.approx(accuracy) and seen == found.rows
    best = network.logits_of(net, images, parts[1])
    np.testing.assert_allclose(best, found.logits, atol=1e-3)
    assert found.better
    rows = found.rows
    assert rows[found.best_epoch]["held_out_loss"] == min(row["held_out_loss"] for row in rows)


def test_the_finished_model_gives_the_probabilities_at_the_temperature():
    cfg = configuration()
    net = net_of(small.encoder(), cfg)
    net.head.set_weights([np.random.default_rng(0).normal(size=net.head.kernel.shape), np.ones(3)])
    images = small.pictures(2, 0)[0]
    expected = calibration.probabilities(net.logits(images), 2.0)
    found = network.finished(net, 2.0).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - calibration.probabilities(net.logits(images), 0.5)).max() > 0.01
