"""The commands, as functions of their configurations."""

import dataclasses
import math
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

from simsiam_keras import (
    build,
    checkpoints,
    config,
    devices,
    distribute,
    export,
    inputs,
    interrupts,
    monitors,
    plots,
    preflight,
    runs,
    settings,
    train,
    views,
)
from simsiam_keras.data import ranges
from simsiam_keras.evaluation import encoded, knn, linear
from simsiam_keras.progress import saying

PIXEL_BYTES = 2**27  # of the pixels that `linear-probe` classifies beside the features, in float32


@settings.own
def pretrain(cfg, console=None):
    """Trains an encoder, or resumes where the same run was stopped.

    Args:
        cfg: a `config.Pretrain`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        The content of result.json and `run_dir`, a dict; with `plan`, what the run will take.

    Raises:
        ValueError: if the configuration or its input cannot be used; nothing has been trained.
        RunFailed: if the run cannot go on; checkpoints and metrics of earlier epochs are kept.
        Interrupted: after a signal, with what is trained so far in a checkpoint.
    """
    with build.place(cfg):
        # Every process computes the same; the first alone writes and talks.
        first = distribute.process() == 0
        console = console or Console(stderr=True, quiet=not first)
        say = saying(console)
        if cfg.plan:
            return preflight.plan(build.parts(cfg, say), say)
        # Resumed or repeated, a run may have another number of processes: it is the same run.
        flags = dataclasses.replace(cfg, job_addresses="", num_processes=0, process_id=-1)
        folder = config.run_dir(cfg)
        try:
            locked = runs.locked(folder, dataclasses.asdict(flags), write=first)
            with interrupts.unmistaken(), locked as run_dir:
                return train.pretrain(build.parts(flags, say), run_dir, console)
        except interrupts.Interrupted as stop:
            raise interrupts.Interrupted(stop.number, checkpoints.outlook(folder)) from None


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
    folder = _run_dir(cfg, f"linear_probe_{cfg.optimizer}")
    with runs.locked(folder, dataclasses.asdict(cfg)) as run_dir:
        before = encoded.fingerprint(encoder, train_set)

        def probed(encoder):
            return linear.linear_probe(
                *encoded.mapped(encoder, train_set, cfg.batch_size, run_dir, console),
                *encoded.mapped(encoder, test_set, cfg.batch_size, run_dir, console),
                optimizer=cfg.optimizer,
                learning_rates=rates,
                batch_size=cfg.probe_batch_size or None,
                epochs=cfg.epochs,
                validation_fraction=cfg.validation_fraction,
                seed=cfg.seed,
                progress=console.is_terminal,
            )

        probe = probed(encoder)
        plain = probed(encoded.pixels(encoder, len(train_set), PIXEL_BYTES))
        if not np.array_equal(before, encoded.fingerprint(encoder, train_set)):
            raise RuntimeError("the encoder changed while its features were probed")
        classifier = {"weights": probe.weights, "bias": probe.bias, "classes": probe.classes}
        runs.write_npz(run_dir / "classifier.npz", classifier)
        _write_environment(run_dir, train_set)
        if probe.at_grid_edge:
            console.print(
                f"The best learning rate, {probe.learning_rate:g}, is at the edge of those tried; "
                "a wider --learning_rates may do better.",
                soft_wrap=True,
            )
        several = probe.mean_average_precision
        result = {
            "linear_accuracy": probe.linear_accuracy,
            "linear_accuracy_pixels": plain.linear_accuracy,
            **({} if several is None else _precisions(several, plain.mean_average_precision)),
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
    bank, queries, test_part = inputs.train_and_test(cfg, say, encoder)
    with runs.locked(_run_dir(cfg, "knn"), dataclasses.asdict(cfg)) as run_dir:
        k = knn.chosen_k(cfg.knn_k, bank.labels[bank.rows()])

        def classified(encoder):
            return knn.knn_measure(
                *encoded.mapped(encoder, bank, cfg.batch_size, run_dir, console),
                *encoded.mapped(encoder, queries, cfg.batch_size, run_dir, console),
                k,
                cfg.knn_temperature,
            )

        measured = classified(encoder)
        plain = classified(encoded.pixels(encoder, len(bank), monitors.PIXEL_BYTES))
        _write_environment(run_dir, bank)
        result = {
            **measured,
            **{f"{name}_pixels": value for name, value in plain.items()},
            "k": k,
            "temperature": cfg.knn_temperature,
            "bank": len(bank.rows()),
            "queries": len(queries.rows()),
            "test_part": test_part,
            "dataset": cfg.dataset,
            "encoder": cfg.encoder,
        }
        _write_result(run_dir, result, say, bank, queries)
    return {**result, "run_dir": str(run_dir)}


@settings.own
def preview(cfg, console=None):
    """Draws pairs of views into a PNG.

    Args:
        cfg: a `config.Preview`.
        console: a `rich.console.Console` for what is said, standard error by default.

    Returns:
        A dict that says what was written.

    Raises:
        ValueError: if the data cannot be used.
    """
    source = inputs.images_of(cfg, cfg.split, channels=cfg.channels)
    inputs.tell(source, saying(console or Console(stderr=True)))
    path = Path(cfg.output or Path(cfg.run_dir) / "views.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe = build.recipe(cfg)
    grid = views.preview(cfg, recipe, source, cfg.pairs)
    plots.write_png(path, grid)
    return {
        "pairs": min(cfg.pairs, len(source)),
        "value_range": ranges.described(source.value_range) or "8 bits, as they are",
        "recipe": str(recipe),
        "written": str(path),
    }


def _run_dir(cfg, name):
    if cfg.run_dir:
        return Path(cfg.run_dir)
    path = Path(cfg.encoder)
    return path.parent / (name if path.name == "encoder" else f"{path.stem}_{name}")


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
