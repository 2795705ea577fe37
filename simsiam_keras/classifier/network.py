"""An encoder with a linear layer, trained from the linear probe on: lower layers at lower rates."""

import dataclasses
import time

import keras
import numpy as np

from simsiam_keras import optimizers, schedules
from simsiam_keras.classifier import calibration
from simsiam_keras.few import finetune

GROUPS = 12  # that an encoder is divided into at most, as ConvNeXt is
WARMUP = 10  # steps in one of warm-up
_ROWS = 1024  # images that are read at a time


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training has come to; the network has the weights of the best epoch.

    Attributes:
        best_epoch: the best one after the start.
        better: whether it exceeds the start by more than chance.
        logits: of the held-out images after it `[n, classes]`.
        rows: what each epoch measured, that of the start first, a list of dicts.
    """

    best_epoch: int
    better: bool
    logits: np.ndarray
    rows: list


def groups(variables, most=GROUPS):
    """Divides an encoder's variables into groups of layers, from the last layers to the first.

    A group begins with a kernel; biases and normalizations belong to the kernel before them. Groups
    have as many kernels as one another, give or take one.

    Args:
        variables: in the order of their layers, the first layers' first.
        most: groups at the most.

    Returns:
        A list of lists of variables.
    """
    kernels = sum(len(v.shape) > 1 for v in variables)
    count = max(1, min(most, kernels))
    found, place = [[] for _ in range(count)], -1
    for variable in variables:
        place += len(variable.shape) > 1
        found[max(0, place) * count // max(1, kernels)].append(variable)
    return found[::-1]


def optimizer(lr, layer_decay, steps):
    """What trains a network: Adam with a warm-up and a cosine, at `lr * layer_decay ** k`.

    k is 0 for the last layer, 1 for the group of layers before it, and so on, see `groups`.

    Args:
        lr: highest rate of the last layer.
        layer_decay: in [0, 1].
        steps: in all.

    Returns:
        A function of an encoder and a layer to a `keras.optimizers.Optimizer`.

    Reference:
        Clark et al., ELECTRA, 2020, appendix A, https://arxiv.org/abs/2003.10555; for images
        Bao et al., BEiT, 2021, appendix H, https://arxiv.org/abs/2106.08254
    """

    def rate(k):
        return schedules.cosine(lr * layer_decay**k, steps, steps // WARMUP)

    def made(encoder, head):
        del head  # whose rate is what variables have that no other rate is given for
        adam = keras.optimizers.Adam(rate(0))
        found = enumerate(groups(encoder.trainable_variables), 1)
        return optimizers.with_rates(adam, {f"group_{k}": (group, rate(k)) for k, group in found})

    return made


def steps_of(cfg, n):
    """Steps of an epoch, and in all, of n images."""
    each = -(-max(cfg.steps, cfg.epochs * -(-n // cfg.train_batch_size)) // cfg.epochs)
    return each, each * cfg.epochs


def batches(numbers, batch_size, balanced, seed):
    """Yields rows of batches without end, in which every image, or every class, comes alike.

    Args:
        numbers: of the classes `[n]`.
        batch_size: rows in a batch.
        balanced: whether classes come alike, whatever their sizes, and the images of one in turn.
        seed: of the order.
    """
    random = np.random.default_rng(seed)
    if not balanced:
        yield from finetune.orders(len(numbers), random, batch_size)
    rows = [np.flatnonzero(numbers == c) for c in np.unique(numbers)]
    turns = [finetune.orders(len(each), random, 1) for each in rows]
    for classes in finetune.orders(len(rows), random, batch_size):
        yield np.array([rows[c][next(turns[c])[0]] for c in classes.tolist()])


def weights_of(numbers, balanced):
    """What each held-out image counts: alike, or so that every class does."""
    if not balanced:
        return None
    return 1 / np.bincount(numbers)[numbers]


def train(net, start, head, data, parts, cfg, on_step=None, on_epoch=None):
    """Trains a network, and leaves it as it was after the best epoch.

    The best has the highest likelihood of the held-out labels, at the temperature that suits it, of
    those that are no less accurate on them than the start, or of all where there are none. It is
    better than the start if it is no less accurate, and likelier by more than the best of so many
    epochs would be by chance, see `calibration.errors_by_chance`.

    Args:
        net: a `few.finetune.Network`.
        start: weights of its encoder to begin with.
        head: kernel and bias of its last layer to begin with.
        data: images uint8 `[n, side, side, channels]` and numbers of their classes `[n]`.
        parts: rows to train on and rows held out.
        cfg: a `config.FineTune`.
        on_step: function without arguments; default None.
        on_epoch: function of a row of what was measured; default None.

    Returns:
        A `Trained`.
    """
    (images, numbers), (fit, held) = data, parts
    weights = weights_of(numbers[held], cfg.class_balance == "balanced")
    net.encoder.set_weights(start)
    net.head.set_weights(head)
    order = batches(numbers[fit], cfg.train_batch_size, weights is not None, cfg.seed)
    steps, _ = steps_of(cfg, len(fit))
    began, rows, best = time.perf_counter(), [], None
    for number in range(cfg.epochs + 1):
        loss = _steps(net, images, numbers, fit, order, steps if number else 0, on_step)
        epoch = _judged(number, logits_of(net, images, held), numbers[held], weights)
        rows.append(epoch.row(loss, time.perf_counter() - began))
        if on_epoch:
            on_epoch(rows[-1])
        if number == 0:
            first = epoch
        elif best is None or epoch.rank(first) > best.rank(first):
            best, kept = epoch, (net.encoder.get_weights(), net.head.get_weights())
        elif number - best.number >= cfg.patience:
            break
    net.encoder.set_weights(kept[0])
    net.head.set_weights(kept[1])
    better = False
    if best.likelihood > first.likelihood:
        gain, error = calibration.gain(best.each, first.each, weights)
        chance = calibration.errors_by_chance(len(held), len(rows) - 1)
        better = best.accuracy >= first.accuracy and gain > chance * error
    return Trained(best.number, better, best.logits, rows)


@dataclasses.dataclass(frozen=True, eq=False)
class _Epoch:
    """What the held-out images say of an epoch: accuracy and likelihood weighted, and each's."""

    number: int
    accuracy: float
    likelihood: float
    each: np.ndarray
    logits: np.ndarray

    def rank(self, first):
        """What is compared of two epochs, the higher the better."""
        return self.accuracy >= first.accuracy, self.likelihood

    def row(self, loss, seconds):
        """Its row of metrics.jsonl."""
        return {
            "epoch": self.number,
            "loss": loss,
            "held_out_accuracy": self.accuracy,
            "held_out_loss": -self.likelihood if np.isfinite(self.likelihood) else None,
            "seconds": round(seconds, 2),
        }


def _steps(net, images, numbers, fit, order, steps, on_step):
    """Trains some steps; their mean loss, or None where there is none."""
    net.trained.reset_metrics()
    loss = None
    for _ in range(steps):
        rows = fit[next(order)]
        loss = float(net.trained.train_on_batch(np.asarray(images[rows]), numbers[rows]))
        if on_step:
            on_step()
    return loss if loss is not None and np.isfinite(loss) else None


def _judged(number, logits, numbers, weights):
    """An epoch by its logits of the held-out images."""
    if not np.isfinite(logits).all():
        return _Epoch(number, 0.0, -np.inf, np.full(len(numbers), -np.inf), logits)
    accuracy = float(np.average(logits.argmax(-1) == numbers, weights=weights))
    each = calibration.likelihoods(logits, numbers, calibration.temperature(logits, numbers))
    return _Epoch(number, accuracy, float(np.average(each, weights=weights)), each, logits)


def logits_of(net, images, rows):
    """Logits `[n, classes]` of images by their numbers, a few of them in memory."""
    parts = [rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS)]
    return np.concatenate([net.logits(images[part]) for part in parts])


def finished(net, temperature):
    """The classifier to hand on: images to calibrated probabilities, of stock layers alone.

    Args:
        net: a `few.finetune.Network`.
        temperature: that logits are divided by.

    Returns:
        A `keras.Model`, values 0..255 `[n, side, side, channels]` to `[n, classes]`.
    """
    images = keras.Input(net.shape, name="images")
    logits = keras.layers.Rescaling(1 / temperature, name="temperature")(
        net.head(net.encoder(images))
    )
    return keras.Model(images, keras.layers.Softmax(name="probabilities")(logits))
