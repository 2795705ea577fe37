"""`linear-probe` and `knn`: what frozen features tell of labels, beside the pixels."""

import dataclasses
import math
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

from simsiam_keras import (
    crops,
    devices,
    export,
    inputs,
    monitors,
    plots,
    runs,
    settings,
)
from simsiam_keras.evaluation import confusion, encoded, knn, linear, logistic
from simsiam_keras.progress import saying

PIXEL_BYTES = 2**27  # of the pixels that `linear-probe` classifies beside the features, in float32
SWEPT_K = (1, 3, 5, 10, 20, 50, 100, 200)
SWEPT_T = (0.03, 0.07, 0.1, 0.2)
TOP = 5


@settings.own
def linear_probe(cfg, console=None):
    """Trains a linear classifier on frozen features; returns the content of its result.json.

    Args:
        cfg: a `config.LinearProbe`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict with `linear_accuracy`, `protocol`, `learning_rate`, `epochs` and what led to them.

    Raises:
        ValueError: if the encoder, the data or their labels cannot be used.
    """
    console = console or Console(stderr=True)
    began = time.perf_counter()
    rates = _rates(cfg.learning_rates)
    encoder = export.load_encoder(cfg.encoder, cfg.trust_encoder)
    say = saying(console)
    train_set, test_set, test_part = inputs.train_and_test(cfg, say, encoder)
    _check_classes(cfg, train_set)
    with _held(cfg, f"linear_probe_{cfg.optimizer}") as run_dir:
        before = encoded.fingerprint(encoder, train_set)

        def probed(encoder, augmented=None):
            parts = (
                *encoded.mapped(encoder, train_set, cfg.batch_size, run_dir, console),
                *encoded.mapped(encoder, test_set, cfg.batch_size, run_dir, console),
            )
            if cfg.optimizer == "logistic":
                return _logistic(parts, cfg.seed), parts
            probe = linear.linear_probe(
                *parts,
                optimizer=cfg.optimizer,
                learning_rates=rates,
                batch_size=cfg.probe_batch_size or None,
                epochs=cfg.epochs,
                validation_fraction=cfg.validation_fraction,
                seed=cfg.seed,
                progress=console.is_terminal,
                augmented=augmented,
            )
            return probe, parts

        plain, _ = probed(encoded.pixels(encoder, len(train_set), PIXEL_BYTES))
        augmented = None
        if cfg.protocol == "paper":
            flip = crops.mirrored(cfg.flip, cfg.encoder)
            augmented = crops.features(encoder, train_set, flip, cfg.seed, cfg.batch_size)
        probe, parts = probed(encoder, augmented)
        if not np.array_equal(before, encoded.fingerprint(encoder, train_set)):
            raise RuntimeError("the encoder changed while its features were probed")
        classifier = {"weights": probe.weights, "bias": probe.bias, "classes": probe.classes}
        runs.write_npz(run_dir / "classifier.npz", classifier)
        _write_environment(run_dir, train_set)
        if probe.at_grid_edge:
            say(
                f"The best learning rate, {probe.learning_rate:g}, is at the edge of those tried; "
                "a wider --learning_rates may do better."
            )
        several = probe.mean_average_precision
        result = {
            "linear_accuracy": probe.linear_accuracy,
            "linear_accuracy_pixels": plain.linear_accuracy,
            **({} if several is None else _precisions(several, plain.mean_average_precision)),
            **(_details(probe, parts, train_set, run_dir) if several is None else {}),
            "protocol": f"{probe.protocol[:-1]}; tested on {test_part}.",
            "optimizer": probe.optimizer,
            "learning_rate": probe.learning_rate,
            "learning_rates": list(probe.learning_rates),
            "validation_accuracies": list(probe.validation_accuracies),
            "at_grid_edge": probe.at_grid_edge,
            "epochs": probe.epochs,
            "classes": len(probe.classes),
            "train_images": len(train_set.rows()),
            "test_images": len(test_set.rows()),
            "dataset": cfg.dataset,
            "encoder": cfg.encoder,
            "seed": cfg.seed,
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
        _write_result(run_dir, result, say, train_set, test_set)
    return {**result, "run_dir": str(run_dir)}


def _details(probe, parts, train_set, run_dir):
    """Of one label each: the first five, each class, and a picture of what is taken for what."""
    _, _, features, labels = parts
    logits, n = linear.scores(probe, features), len(probe.classes)
    true = np.searchsorted(probe.classes, labels)
    matrix = confusion.confusion(true, logits.argmax(-1), n)
    known = train_set.class_names
    names = [str(known[c]) if known else str(c) for c in probe.classes.tolist()]
    path = run_dir / "plots" / "confusion.png"
    path.parent.mkdir(exist_ok=True)
    title = f"linear classifier, {matrix.sum():,} images, {np.trace(matrix) / matrix.sum():.1%}"
    plots.confusion(matrix, names, path, title)
    shares = [None if math.isnan(share) else float(share) for share in confusion.per_class(matrix)]
    found = {"per_class": dict(zip(names, shares, strict=True)), "confusion": str(path)}
    if n > TOP:
        found = {"top_5_accuracy": confusion.top_k_accuracy(logits, true, TOP), **found}
    return found


def _logistic(parts, seed):
    """scikit-learn's logistic regression of features, as a `linear.LinearProbe`."""
    features, labels, test_features, test_labels = parts
    if labels.ndim == 2:
        raise ValueError("--optimizer=logistic is of one label for each image; take sgd or lars")
    scaled = logistic.scaling(features)
    fitted = logistic.fit(scaled(features), labels, seed)
    weights = scaled.factor[:, None] * fitted.weights
    bias = fitted.bias - (scaled.mean * scaled.factor) @ fitted.weights
    right = fitted.predict(scaled(test_features)) == test_labels
    return linear.LinearProbe(
        linear_accuracy=float(np.mean(right)),
        learning_rate=None,
        learning_rates=(),
        validation_accuracies=(),
        at_grid_edge=False,
        weights=weights,
        bias=bias,
        classes=fitted.classes,
        optimizer="logistic",
        epochs=None,
        batch_size=len(labels),
        protocol=(
            "scikit-learn's logistic regression on frozen, cached, standardized features, C "
            f"{fitted.strength:g} by the likelihood of held-out training vectors; fitted to all "
            f"{len(labels)}; test accuracy on {len(test_labels)} vectors; seed {seed}."
        ),
    )


@settings.own
def nearest_neighbours(cfg, console=None):
    """Classifies by weighted nearest neighbours; returns the content of its result.json.

    Args:
        cfg: a `config.KNN`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict with `knn_accuracy` and the protocol.

    Raises:
        ValueError: if the encoder, the data or their labels cannot be used.
    """
    console = console or Console(stderr=True)
    encoder = export.load_encoder(cfg.encoder, cfg.trust_encoder)
    say = saying(console)
    if cfg.leave_one_out:
        bank, queries = _one_set(cfg, encoder, say), None
        test_part = f"each image of {cfg.split}, by all others"
    else:
        bank, queries, test_part = inputs.train_and_test(cfg, say, encoder)
    with _held(cfg, "knn") as run_dir:
        k = knn.chosen_k(cfg.knn_k, bank.labels[bank.rows()])

        def of(source, encoder):
            return encoded.mapped(encoder, source, cfg.batch_size, run_dir, console)

        def classified(encoder):
            features, labels = of(bank, encoder)
            if queries is None:
                found, true = knn.leave_one_out(features, k), labels
            else:
                asked, true = of(queries, encoder)
                found = knn.nearest_neighbours(features, asked, k)
            return knn.measured(*found, labels, true, cfg.knn_temperature)

        measured = classified(encoder)
        plain = classified(encoded.pixels(encoder, len(bank), monitors.PIXEL_BYTES))
        swept = {}
        if cfg.sweep:
            swept = _swept(of(bank, encoder), queries and of(queries, encoder))
        _write_environment(run_dir, bank)
        result = {
            **measured,
            **{f"{name}_pixels": value for name, value in plain.items()},
            "k": k,
            "temperature": cfg.knn_temperature,
            **swept,
            "bank": len(bank.rows()),
            "queries": len((queries or bank).rows()),
            "test_part": test_part,
            "dataset": cfg.dataset,
            "encoder": cfg.encoder,
        }
        _write_result(run_dir, result, say, *filter(None, (bank, queries)))
    return {**result, "run_dir": str(run_dir)}


def _one_set(cfg, encoder, say):
    source = inputs.labelled(cfg, cfg.split, encoder.stored_range, encoder.channels)
    inputs.tell(source, say)
    return source


def _swept(bank, queries):
    """The best k and temperature by leaving one out of the bank, and what the queries have of it.

    Args:
        bank: features and labels.
        queries: likewise, or None.

    Returns:
        A dict for result.json.
    """
    features, labels = bank
    ks = sorted({min(k, len(features) - 1) for k in SWEPT_K})
    similarity, index = knn.leave_one_out(features, ks[-1])
    tried = []
    for k, temperature in ((k, t) for k in ks for t in SWEPT_T):
        found = (similarity[:, :k], index[:, :k], labels, labels, temperature)
        ((name, value),) = knn.measured(*found).items()
        tried.append({"k": k, "temperature": temperature, "leave_one_out": value})
    best = max(tried, key=lambda row: row["leave_one_out"])
    found = {"best_k": best["k"], "best_temperature": best["temperature"]}
    found["best_leave_one_out"] = best["leave_one_out"]
    if queries is not None:
        near = knn.nearest_neighbours(features, queries[0], best["k"])
        measured = knn.measured(*near, labels, queries[1], best["temperature"])
        found |= {f"{name}_best": value for name, value in measured.items()}
    return {**found, "sweep": tried}


def _held(cfg, name):
    """The folder to write to; one named after the input gets a number where that one is taken."""
    flags = dataclasses.asdict(cfg)
    if cfg.run_dir:
        return runs.locked(Path(cfg.run_dir), flags)
    return runs.locked(inputs.free(inputs.beside(cfg.encoder, name), flags), flags)


def _write_result(run_dir, result, say, *used):
    """Writes result.json with the images that have no row of features, and says which these are."""
    without = inputs.without_row(used, say)
    runs.write_json(run_dir / "result.json", {**result, "without_row": without})


def _precisions(value, pixels):
    return {"mean_average_precision": value, "mean_average_precision_pixels": pixels}


def _check_classes(cfg, source):
    several = source.labels.ndim == 2
    classes = source.labels.shape[1] if several else len(np.unique(source.labels))
    if cfg.classes and classes != cfg.classes:
        raise ValueError(f"--classes={cfg.classes} were expected, {source.name} has {classes}")


def _rates(text):
    if not text:
        return None
    try:
        rates = tuple(float(rate) for rate in text.split(","))
    except ValueError:
        rates = (math.nan,)
    if not all(map(math.isfinite, rates)):
        raise ValueError(
            f"--learning_rates must be finite numbers separated by commas. Received: {text}"
        )
    return rates


def _write_environment(run_dir, source):
    runs.write_environment(run_dir, keras.backend.backend(), devices.names(), source)
