"""The commands, as functions of their configurations."""

import dataclasses
import functools
import math
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import Progress

from simsiam_keras import (
    build,
    checkpoints,
    config,
    distribute,
    export,
    interrupts,
    plots,
    runs,
    settings,
    train,
    views,
)
from simsiam_keras.data import pipeline, ranges, sources
from simsiam_keras.errors import reading
from simsiam_keras.evaluation import features_to_file, knn, linear


@settings.own
def pretrain(cfg, console=None):
    """Trains an encoder, or resumes where the same run was stopped.

    Args:
        cfg: a `config.Pretrain`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        The content of result.json and `run_dir`, a dict.

    Raises:
        ValueError: if the configuration or its input cannot be used; nothing has been trained.
        RunFailed: if the run cannot go on; checkpoints and metrics of earlier epochs are kept.
        Interrupted: after a signal, with what is trained so far in a checkpoint.
    """
    with build.place(cfg):
        # Every process computes the same; the first alone writes and talks.
        first = distribute.process() == 0
        console = console or Console(stderr=True, quiet=not first)
        say = functools.partial(console.print, soft_wrap=True, markup=False, highlight=False)
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
    train_set, test_set = _labelled_splits(cfg, encoder)
    _check_classes(cfg, train_set)
    folder = _run_dir(cfg, f"linear_probe_{cfg.optimizer}")
    with runs.locked(folder, dataclasses.asdict(cfg)) as run_dir:
        before = _fingerprint(encoder, train_set)
        probe = linear.linear_probe(
            _mapped_features(encoder, train_set, cfg.batch_size, run_dir, console),
            train_set.labels,
            _mapped_features(encoder, test_set, cfg.batch_size, run_dir, console),
            test_set.labels,
            optimizer=cfg.optimizer,
            learning_rates=rates,
            batch_size=cfg.probe_batch_size or None,
            epochs=cfg.epochs,
            validation_fraction=cfg.validation_fraction,
            seed=cfg.seed,
            progress=console.is_terminal,
        )
        if not np.array_equal(before, _fingerprint(encoder, train_set)):
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
        result = {
            "linear_accuracy": probe.linear_accuracy,
            "protocol": probe.protocol,
            "optimizer": probe.optimizer,
            "learning_rate": probe.learning_rate,
            "learning_rates": list(probe.learning_rates),
            "validation_accuracies": list(probe.validation_accuracies),
            "at_grid_edge": probe.at_grid_edge,
            "epochs": probe.epochs,
            "classes": len(probe.classes),
            "train_images": len(train_set),
            "test_images": len(test_set),
            "dataset": cfg.dataset,
            "encoder": cfg.encoder,
            "seed": cfg.seed,
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
        runs.write_json(run_dir / "result.json", result)
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
    bank, queries = _labelled_splits(cfg, encoder)
    with runs.locked(_run_dir(cfg, "knn"), dataclasses.asdict(cfg)) as run_dir:
        accuracy = knn.knn_accuracy(
            _mapped_features(encoder, bank, cfg.batch_size, run_dir, console),
            bank.labels,
            _mapped_features(encoder, queries, cfg.batch_size, run_dir, console),
            queries.labels,
            cfg.knn_k,
            cfg.knn_temperature,
        )
        _write_environment(run_dir, bank)
        result = {
            "knn_accuracy": accuracy,
            "k": knn.effective_k(cfg.knn_k, len(bank)),
            "temperature": cfg.knn_temperature,
            "bank": len(bank),
            "queries": len(queries),
            "dataset": cfg.dataset,
            "encoder": cfg.encoder,
        }
        runs.write_json(run_dir / "result.json", result)
    return {**result, "run_dir": str(run_dir)}


@settings.own
def write_features(cfg, console=None):
    """Writes the features of a data set to `features.npy`, and its labels to `labels.npy`.

    Features are streamed to the disk, so that any number of images takes the same memory. The
    class names that the labels index are in `result.json`.

    Args:
        cfg: a `config.Embed`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict that says what was written.

    Raises:
        ValueError: if the encoder or the data cannot be used.
    """
    console = console or Console(stderr=True)
    encoder = export.load_encoder(cfg.encoder, cfg.trust_encoder)
    known = ranges.chosen(cfg.value_range, encoder.stored_range)
    source = sources.load(cfg.dataset, cfg.data_dir or None, cfg.split, known)
    with runs.locked(_run_dir(cfg, f"embed_{cfg.split}"), dataclasses.asdict(cfg)) as run_dir:
        path = run_dir / "features.npy"
        written = _write_features(path, encoder, source, cfg.batch_size, console)
        labels = run_dir / "labels.npy" if source.labels is not None else None
        if labels:
            with runs.atomic_file(labels) as file:
                np.save(file, source.labels)
        _write_environment(run_dir, source)
        result = {
            "features": list(written.shape),
            "file": str(path),
            "labels": str(labels) if labels else None,
            "dataset": cfg.dataset,
            "encoder": cfg.encoder,
        }
        runs.write_json(run_dir / "result.json", {**result, "class_names": source.class_names})
    return {**result, "run_dir": str(run_dir)}


@settings.own
def export_checkpoint(cfg, console=None):
    """Writes the encoder of a run's last checkpoint, also of a run that has not finished.

    Args:
        cfg: a `config.Export`.
        console: a `rich.console.Console` for what is said, standard error by default.

    Returns:
        A dict that says what was written.

    Raises:
        ValueError: if the folder is no run or has no checkpoint yet.
    """
    runs.refuse_unspellable(cfg.output, "output")
    source_dir = Path(cfg.run_dir)
    path = source_dir / "flags.cfg"
    if not path.exists():
        raise ValueError(f"{source_dir} is no run folder: it has no flags.cfg")
    with reading(path, "give the folder of a run with its own flags.cfg"):
        trained = config.parse("pretrain", [f"--flagfile={path}"])
        recipe = build.recipe(trained)
        encoder = build.plain_encoder(trained, recipe.size)
    say = functools.partial((console or Console(stderr=True)).print, soft_wrap=True, markup=False)
    position = checkpoints.restore_encoder(source_dir, encoder, say)
    if position is None:
        raise ValueError(f"{source_dir} has no checkpoint yet; train at least one epoch")
    stored_range = runs.value_range(source_dir)
    written = export.save_encoder(encoder, cfg.output, recipe.eval_crop, stored_range)
    return {"epoch": position.epoch, "written": ", ".join(map(str, written)), "run_dir": cfg.output}


@settings.own
def preview(cfg, console=None):
    """Draws pairs of views into a PNG.

    Args:
        cfg: a `config.Preview`.
        console: unused; every command takes one.

    Returns:
        A dict that says what was written.

    Raises:
        ValueError: if the data cannot be used.
    """
    del console
    source = sources.load(cfg.dataset, cfg.data_dir or None, cfg.split, cfg.value_range)
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


def _labelled_splits(cfg, encoder):
    known = ranges.chosen(cfg.value_range, encoder.stored_range)
    first = _labelled(cfg, cfg.split, known)
    return first, _labelled(cfg, cfg.test_split, ranges.chosen(known, first.value_range))


def _labelled(cfg, split, value_range):
    source = sources.load(cfg.dataset, cfg.data_dir or None, split, value_range)
    if source.labels is None:
        raise ValueError(
            f"--dataset={cfg.dataset} has no labels, which this command needs; "
            "put the images of each class in a folder of its own"
        )
    return source


def _check_classes(cfg, source):
    found = len(np.unique(source.labels))
    if cfg.classes and found != cfg.classes:
        raise ValueError(f"--classes={cfg.classes} were expected, {source.name} has {found}")


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


def _mapped_features(encoder, source, batch_size, run_dir, console):
    """The features as a memory map, so that more of them than memory holds can be evaluated."""
    path = run_dir / ".features.npy"
    mapped = _write_features(path, encoder, source, batch_size, console)
    try:
        path.unlink()  # the map keeps the content until it is closed, however the process ends
    except PermissionError:  # Windows, where a file cannot go before its map
        mapped = np.array(mapped)
        path.unlink()
    return mapped


def _write_features(path, encoder, source, batch_size, console):
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"features of {source.name}", total=len(source))
        return features_to_file(
            path,
            encoder,
            source,
            encoder.image_size,
            encoder.eval_crop,
            batch_size,
            on_batch=lambda done: bar.advance(task, done),
        )


def _fingerprint(encoder, source):
    batch = next(
        pipeline.evaluation_batches(source, encoder.image_size, encoder.eval_crop, batch_size=16)
    )[0]
    return encoder(batch)


def _write_environment(run_dir, source):
    runs.write_environment(run_dir, keras.backend.backend(), distribute.devices(), source)
