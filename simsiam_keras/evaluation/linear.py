"""Linear classification of frozen features, with a sweep over the learning rate."""

import dataclasses
import functools

import numpy as np
from keras import ops
from rich.console import Console
from rich.progress import track

from simsiam_keras import devices
from simsiam_keras.evaluation.checks import check_features, check_labels
from simsiam_keras.evaluation.precision import mean_average_precision, strata
from simsiam_keras.optimizers import lars_update

# Half decades that hold the rates in use with room on both sides: SGD's .1 for small images and
# 30 for ImageNet; LARS's .1 for ImageNet and, where an epoch is a few steps, about 10.
LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
BATCH_SIZE = {"sgd": 256, "lars": 4096}
_MOMENTUM = 0.9
_TRUST_COEFFICIENT = 0.001
_EVALUATION_ROWS = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier, `classes[argmax(features @ weights + bias)]`, and how it was found.

    Attributes:
        linear_accuracy: accuracy on the test part, in [0, 1]; None where images have several
            labels.
        learning_rate: the chosen rate, for a batch of 256.
        learning_rates: the rates tried, ascending.
        validation_accuracies: the accuracy of each rate on the held-out part; of several labels
            the mean average precision.
        at_grid_edge: whether the chosen rate is the first or last of several; a wider grid
            may then do better.
        weights: array `[d, classes]`.
        bias: array `[classes]`.
        classes: the training labels' values, ascending; of several labels their numbers.
        optimizer: "sgd" or "lars".
        epochs: passes over the training part.
        batch_size: as used, at most the number of training vectors.
        protocol: all of this in a sentence.
        mean_average_precision: on the test part, where images have several labels, else None.
    """

    linear_accuracy: float | None
    learning_rate: float
    learning_rates: tuple
    validation_accuracies: tuple
    at_grid_edge: bool
    weights: np.ndarray
    bias: np.ndarray
    classes: np.ndarray
    optimizer: str
    epochs: int
    batch_size: int
    protocol: str
    mean_average_precision: float | None = None


def linear_probe(
    train_features,
    train_labels,
    test_features,
    test_labels,
    *,
    optimizer="sgd",
    learning_rates=None,
    batch_size=None,
    epochs=90,
    validation_fraction=0.1,
    seed=0,
    progress=False,
    augmented=None,
):
    """Trains softmax regression on frozen features and measures it on the test part.

    Where images have several labels, it is a logistic regression of each, `sigmoid(w x + b)` with
    binary cross-entropy, measured by `mean_average_precision` in the place of accuracy.

    Every learning rate is tried on the same batches, without the held-out part of the training
    data; the rate of the best held-out accuracy (of equal ones, the middle) then trains a
    classifier on all of the training data, and the test labels are used once, to measure it. The
    rate in effect is `rate * batch / 256`, decayed by a cosine to 0 over the steps. Momentum is
    0.9, weight decay 0, and features are used as they come, as the paper does. The paper
    augments the images of the linear classifier; the rate is chosen on fixed ones in any case.

    Args:
        train_features: array or memory map `[n, d]`.
        train_labels: array `[n]` of at least two classes; any values. Or 0 and 1 `[n, classes]`.
        test_features: array or memory map `[m, d]`, m >= 1.
        test_labels: array `[m]`, of classes that `train_labels` holds. Or 0 and 1 `[m, classes]`.
        optimizer: "sgd" or "lars". Defaults to "sgd".
        learning_rates: rates > 0 for a batch of 256. Defaults to `LEARNING_RATES`.
        batch_size: >= 1. Defaults to 256 for "sgd", 4096 for "lars"; at most n.
        epochs: >= 1. Defaults to 90.
        validation_fraction: share of each class to hold out, in (0, 1). Defaults to 0.1.
        seed: of the held-out part, the initial weights and the order. Defaults to 0.
        progress: whether to draw a bar with the time left on standard error. Defaults to False.
        augmented: function of an epoch to features `[n, d]` for the final fit. Defaults to None.

    Returns:
        A `LinearProbe`.

    Raises:
        ValueError: if an argument is outside its range, the lengths or widths differ, there are
            fewer classes than expected, or a feature is not finite.

    Example:
        >>> import numpy as np
        >>> x, y = np.repeat([[1.0, 0.0], [0.0, 1.0]], 20, axis=0), np.repeat([3, 7], 20)
        >>> linear_probe(x, y, x, y, epochs=5).linear_accuracy
        1.0

    Reference:
        Chen & He 2020, section 4 and appendix A, https://arxiv.org/abs/2011.10566
    """
    if optimizer not in BATCH_SIZE:
        raise ValueError(f"`optimizer` must be 'sgd' or 'lars'. Received: optimizer={optimizer!r}")
    rates = LEARNING_RATES if learning_rates is None else learning_rates
    rates = tuple(sorted(float(rate) for rate in rates))
    if not rates or not rates[0] > 0:
        raise ValueError(
            "`learning_rates` must hold at least one rate, each > 0. "
            f"Received: learning_rates={learning_rates}"
        )
    batch_size = BATCH_SIZE[optimizer] if batch_size is None else batch_size
    if batch_size < 1 or epochs < 1:
        raise ValueError(
            "`batch_size` and `epochs` must be >= 1. "
            f"Received: batch_size={batch_size}, epochs={epochs}"
        )
    train_features, test_features = np.asarray(train_features), np.asarray(test_features)
    classes, train_classes, test_classes = _classes(
        train_features, train_labels, test_features, test_labels
    )
    fit, held_out = held_out_split(strata(train_classes), validation_fraction, seed)

    options = dict(optimizer=optimizer, batch_size=batch_size, epochs=epochs, seed=seed)
    sweep = train_heads(
        train_features, train_classes, fit, rates, progress=progress and "sweep", **options
    )
    accuracies = _accuracies(train_features, train_classes, held_out, *sweep)
    best = np.flatnonzero(accuracies == accuracies.max())
    best = int(best[len(best) // 2])
    everything = np.arange(len(train_classes))
    kernel, bias = train_heads(
        augmented or train_features,
        train_classes,
        everything,
        rates[best : best + 1],
        progress=progress and "final",
        **options,
    )
    accuracy = _accuracies(test_features, test_classes, np.arange(len(test_classes)), kernel, bias)
    accuracy, several = float(accuracy[0]), train_classes.ndim == 2
    batch_size = min(batch_size, len(everything))
    return LinearProbe(
        linear_accuracy=None if several else accuracy,
        mean_average_precision=accuracy if several else None,
        learning_rate=rates[best],
        learning_rates=rates,
        validation_accuracies=tuple(float(a) for a in accuracies),
        at_grid_edge=len(rates) > 1 and best in (0, len(rates) - 1),
        weights=kernel[:, 0],
        bias=bias[0],
        classes=classes,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        protocol=(
            f"{'Logistic regression of each label' if several else 'Softmax regression'} on "
            f"frozen{' features of new crops each epoch' if augmented else ', cached features'}: "
            f"{optimizer.upper()}, momentum 0.9, no weight decay, batch {batch_size}, "
            f"{epochs} epochs, cosine decay; learning rate "
            f"{rates[best]:g} x batch/256, the best of {len(rates)} on {len(held_out)} held-out "
            f"training vectors{' of fixed images' if augmented else ''}; retrained on all "
            f"{len(everything)}; test {'mean average precision' if several else 'accuracy'} "
            f"after the last epoch on {len(test_classes)} vectors; seed {seed}."
        ),
    )


def train_heads(
    features, classes, rows, rates, *, optimizer, batch_size, epochs, seed, progress=False
):
    """Trains one softmax or logistic regression for each learning rate, on the same batches.

    `v <- mu v + u`, `w <- w - rate * batch/256 * cos_t * v`, u the gradient (SGD) or its
    `lars_update`. The gradient of the cross-entropy is in closed form: `x^T (softmax - y) / n`, of
    several labels with the sigmoid in the softmax's place, their losses being summed.
    Heads start alike, from normal(0, 0.01) weights and zero biases as the authors' do, and never
    touch each other.

    Args:
        features: array or memory map `[n, d]`, or a function of an epoch's number to one.
        classes: integer array `[n]`, in 0 .. max, or 0 and 1 `[n, classes]`.
        rows: integer array of the rows to train on.
        rates: learning rates `[heads]`, for a batch of 256.
        optimizer: "sgd" or "lars"; LARS scales weights and biases, as the authors' code does.
        batch_size: capped to the number of rows.
        epochs: passes over the rows.
        seed: of the initial weights and the order.
        progress: False, or the bar's label. Defaults to False.

    Returns:
        Weights `[d, heads, classes]` and biases `[heads, classes]`, NumPy arrays.
    """
    batch_size = min(batch_size, len(rows))
    steps_per_epoch = -(-len(rows) // batch_size)
    rates = np.reshape(rates, (-1, 1)).astype("float32") * batch_size / 256
    several = classes.ndim == 2
    current = features(0) if callable(features) else features
    shape = (current.shape[1], 1, classes.shape[1] if several else classes.max() + 1)
    initial = np.random.default_rng(seed).normal(0, 0.01, shape)
    initial = initial.astype("float32").repeat(len(rates), axis=1)
    weights = [ops.convert_to_tensor(initial), ops.zeros(initial.shape[1:])]
    momentums = [ops.zeros_like(w) for w in weights]
    step = devices.compiled(functools.partial(_step, optimizer))
    console = Console(stderr=True)
    for epoch in track(range(epochs), progress or "", console=console, disable=not progress):
        if epoch and callable(features):
            current = features(epoch)
        order = np.random.default_rng([seed, epoch]).permutation(rows)
        for number in range(steps_per_epoch):
            batch = order[number * batch_size : (number + 1) * batch_size]
            done = (epoch * steps_per_epoch + number) / (epochs * steps_per_epoch)
            rate = rates * np.float32(0.5 * (1 + np.cos(np.pi * done)))
            x, y = np.asarray(current[batch], "float32"), classes[batch].astype("int32")
            weights, momentums = step(*map(ops.convert_to_tensor, (x, y, rate)), weights, momentums)
    return tuple(ops.convert_to_numpy(w) for w in weights)


def scores(probe, features):
    """Logits `[n, classes]` of a `LinearProbe`."""
    kernel, bias = probe.weights[:, None], probe.bias[None]
    parts = _logits(features, np.arange(len(features)), kernel, bias)
    return np.concatenate([logits[:, 0] for logits in parts])


def _step(optimizer, x, y, rate, weights, momentums):
    gradients = _gradients(x, y, *weights)
    if optimizer == "lars":
        gradients = [
            lars_update(g, w, 0.0, _TRUST_COEFFICIENT, axis)
            for g, w, axis in zip(gradients, weights, ((0, 2), 1), strict=True)
        ]
    momentums = [_MOMENTUM * v + g for v, g in zip(momentums, gradients, strict=True)]
    return [w - rate * v for w, v in zip(weights, momentums, strict=True)], momentums


def _gradients(x, y, kernel, bias):
    logits = ops.tensordot(x, kernel, 1) + bias
    if len(y.shape) == 2:
        error = ops.sigmoid(logits) - ops.cast(y, "float32")[:, None]
    else:
        error = ops.softmax(logits) - ops.one_hot(y, bias.shape[-1])[:, None]
    error = error / ops.cast(ops.shape(x)[0], "float32")
    return ops.tensordot(ops.transpose(x), error, 1), ops.sum(error, 0)


def held_out_split(classes, fraction, seed):
    """Splits rows at random, holding out the same share of every class.

    Every class keeps at least one row to train on; of a class of two or more, at least one is
    held out.

    Args:
        classes: array `[n]`.
        fraction: share to hold out, in (0, 1).
        seed: of the draw.

    Returns:
        The rows to train on and the rows held out, each ascending.

    Raises:
        ValueError: if the fraction is outside its range, or every class has a single row.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            f"`validation_fraction` must be in (0, 1). Received: validation_fraction={fraction}"
        )
    rng = np.random.default_rng(seed)
    held = np.zeros(len(classes), bool)
    for value in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == value))
        held[rows[: min(max(1, round(fraction * len(rows))), len(rows) - 1)]] = True
    if not held.any():
        raise ValueError(
            "`train_labels` must hold a class twice, to hold one out. Received: "
            f"{len(classes)} classes of one vector each"
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _classes(train_features, train_labels, test_features, test_labels):
    check_features(train_features, "train_features")
    check_features(test_features, "test_features")
    train_labels = check_labels(train_labels, train_features, "train_labels", several=True)
    several = train_labels.ndim == 2
    test_labels = check_labels(test_labels, test_features, "test_labels", several)
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            "`test_features` must be as wide as `train_features`. "
            f"Received: {test_features.shape[1]} and {train_features.shape[1]}"
        )
    if several:
        if test_labels.shape[1:] != train_labels.shape[1:]:
            raise ValueError(
                "`test_labels` must have as many labels for an image as `train_labels`. Received: "
                f"shape={test_labels.shape} and {train_labels.shape}"
            )
        return np.arange(train_labels.shape[1]), train_labels, test_labels
    classes, train_classes = np.unique(train_labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            "`train_labels` must hold at least 2 classes: fewer classes than expected. "
            f"Received: {classes.tolist()}"
        )
    missing = np.setdiff1d(test_labels, classes)
    if len(missing):
        raise ValueError(
            "`train_labels` must hold every class of `test_labels`: fewer classes than expected. "
            f"Received: train_labels without {missing[:10].tolist()}"
        )
    return classes, train_classes, np.searchsorted(classes, test_labels)


def _accuracies(features, classes, rows, kernel, bias):
    """The accuracy of each head, or of several labels its mean average precision."""
    if classes.ndim == 2:
        logits = np.concatenate(list(_logits(features, rows, kernel, bias)))
        heads = logits.swapaxes(0, 1)
        return np.array([mean_average_precision(classes[rows], head) for head in heads])
    right = np.zeros(len(bias))
    for start, logits in enumerate(_logits(features, rows, kernel, bias)):
        piece = rows[start * _EVALUATION_ROWS :][: len(logits)]
        right += (logits.argmax(-1) == classes[piece][:, None]).sum(0)
    return right / len(rows)


def _logits(features, rows, kernel, bias):
    """Yields `[rows, heads, classes]` of some rows at a time."""
    kernel, bias = ops.convert_to_tensor(kernel), ops.convert_to_tensor(bias)
    for start in range(0, len(rows), _EVALUATION_ROWS):
        piece = rows[start : start + _EVALUATION_ROWS]
        x = ops.convert_to_tensor(np.asarray(features[piece], "float32"))
        yield ops.convert_to_numpy(ops.tensordot(x, kernel, 1) + bias)
