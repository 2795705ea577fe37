"""The run: parts to a run folder, resumed where it was stopped."""

import contextlib
import functools
import math
import time

import keras
import numpy as np

from simsiam_keras import (
    best,
    board,
    callbacks,
    checkpoints,
    devices,
    diagnose,
    distribute,
    export,
    flagfile,
    inputs,
    interrupts,
    monitors,
    plateau,
    plots,
    preflight,
    progress,
    projector,
    runs,
    start,
    whitening,
    worth,
)
from simsiam_keras.data.base import told_by
from simsiam_keras.errors import RunFailed, sentence, writing
from simsiam_keras.quality import choice


def pretrain(parts, run_dir, console):
    """Trains an encoder, or resumes where the same run was stopped.

    Args:
        parts: a `build.Parts`.
        run_dir: the run folder, see `runs.locked`.
        console: a `rich.console.Console` for progress.

    Returns:
        The content of result.json and `run_dir`, a dict; empty but in the first of several
        processes.

    Raises:
        ValueError: if the run was begun with other data or flags.
        RunFailed: if the run cannot go on; checkpoints and metrics of earlier epochs are kept.
    """
    began = time.perf_counter()
    first = distribute.process() == 0
    model, probe = parts.model, parts.probe
    say = progress.saying(console)
    newest = checkpoints.newest(run_dir)
    # Before the processes restore together.
    distribute.check_agreement(newest.epoch * parts.steps + newest.step, "The step to go on from")
    resumed = checkpoints.restore(run_dir, model, parts.identity, parts.steps, parts.epochs, say)
    rows = resumed.rows if resumed else []
    if resumed:
        began -= resumed.seconds + sum(row["seconds"] or 0 for row in rows)
    clock = callbacks.Clock(parts.steps * parts.batch_size, resumed)
    goes_on = f"resumes after {clock.position}" if resumed else "starts"
    say(f"{parts.facts['method']} {goes_on} in {run_dir}: {parts.headline}")

    # Before anything is written: it refuses what makes no batches.
    batches = _first_batches(parts, clock.position)
    monitored = monitors.monitored(model, parts.copy)
    encode = monitors.encoder_of(monitored)
    measure = functools.partial(
        monitors.knn_measure, encode, parts.recipe, probe, choice=parts.keep == "best"
    )
    before = callbacks.row(0, 0, {})
    if parts.keep == "best" and not probe:
        say(
            "Without labels no measure tells which epoch is best, so the last one's encoder is "
            "left; a few labelled images (--probe_dataset) would tell."
        )
    if probe and not resumed:
        before = _measured_before(parts, measure())
    with distribute.alone():
        pairs = parts.pairs()
    collapse = monitors.collapse_measures(monitored, pairs, parts.jit_compile)
    bar = progress.Progress(parts.epochs, clock, parts.steps, parts.batch_size, console)
    keeper = None
    watches = [
        clock,
        callbacks.StopOnNaN(run_dir if first else None, clock, parts.steps),
        callbacks.Diagnosis(collapse),
    ]
    if probe:
        watches.append(callbacks.KNN(measure, parts.knn_every, parts.epochs))
        watches.append(worth.Watch(rows[0] if resumed else before, parts.known, say))
    queries = monitors.queries_of(probe) if probe else None
    stop = plateau.StopOnPlateau(rows, parts.patience, parts.knn_every, queries, parts.epochs)
    watches += [callbacks.Row(rows, parts.schedule, parts.steps), stop]
    with contextlib.ExitStack() as stack:
        stack.callback(bar.close)
        if first:
            backend, found = parts.facts["backend"], devices.names()
            runs.write_environment(run_dir, backend, found, parts.source)
            runs.write_metrics(run_dir, rows)
            events = run_dir / "tensorboard"
            writer = board.Board(events, say, clock.position.epoch + 1 if resumed else 0)
            stack.callback(writer.close)
            if not resumed:
                rows += _begin(parts, run_dir, writer, before, say)
            write = functools.partial(checkpoints.save, run_dir, rows=rows, run=parts.identity)
            keeper = callbacks.Checkpoint(write, clock, parts.checkpoint_every, parts.epochs)
            watches.append(callbacks.Record(run_dir, writer, rows))
            if parts.keep == "best" and probe:
                # Before the checkpoint: a run that goes on after that one does not look again.
                n = monitors.choosing(probe)
                watches.append(best.Keeper(run_dir, rows, clock.position.epoch, n))
                if not resumed:
                    watches[-1].look(monitored.encoder, before)
            watches.append(keeper)
        total = parts.epochs * parts.steps
        watches += [
            preflight.Stopwatch(total, parts.flags, parts.recipe.size, say),
            callbacks.CollapseWatch(say, parts.flags, rows, parts.stop_on_collapse),
            bar,
        ]
        try:
            with interrupts.unmistaken(), told_by(parts.source):
                if not stop.found():  # a run may be resumed where it had just ended
                    _fit(parts, clock.position, batches, watches)
        except interrupts.Interrupted:
            if keeper:
                keeper.now()
            raise
    return _finish(parts, run_dir, rows, began, console, stop.outcome(say)) if first else {}


def _measured_before(parts, measured):
    """The row of epoch 0: kNN of the start, and what it is compared with."""
    with distribute.alone():
        at_random = parts.encoder if parts.known else None
        beside = worth.beside(parts.recipe, parts.probe, measured, at_random)
    return {**callbacks.row(0, 0, measured), **beside}


def _first_batches(parts, position):
    """The batches from a position on; None where no step is left."""
    epoch, step = divmod(position.epoch * parts.steps + position.step, parts.steps)
    return parts.batches(epoch, step) if epoch < parts.epochs else None


def _fit(parts, position, batches, watches):
    """What is left of an unfinished epoch, then the whole ones that are left."""
    epoch, step = position
    if step == parts.steps:  # of which only the measurements at its end are missing
        _end_epoch(parts.model, epoch, watches)
        epoch, step = epoch + 1, 0
    while epoch < parts.epochs and not parts.model.stop_training:
        last = epoch + 1 if step else parts.last(epoch)
        parts.enter(epoch)
        if batches is None:
            batches = parts.batches(epoch)
        _fit_epochs(parts, batches, epoch, last, watches, step)
        epoch, step, batches = last, 0, None


def _fit_epochs(parts, batches, first, last, watches, step=0):
    parts.model.fit(
        batches,
        epochs=last,
        initial_epoch=first,
        steps_per_epoch=parts.steps - step,
        verbose=0,
        callbacks=watches,
    )


def _end_epoch(model, epoch, watches):
    every = keras.callbacks.CallbackList(watches, model=model)
    every.on_train_begin()
    every.on_epoch_begin(epoch)
    logs = {name: float(value) for name, value in model.get_metrics_result().items()}
    every.on_epoch_end(epoch, logs)


def _begin(parts, run_dir, writer, before, say):
    """Writes what stands before the first epoch: flags, a picture of the views, known weights, kNN.

    Returns:
        The rows before training: kNN of the start, or none.
    """
    if parts.known:
        with writing(run_dir / start.FILE):
            _encoder_of(parts).save(run_dir / start.FILE)
    writer.text("flags", "    " + flagfile.write(parts.flags).replace("\n", "\n    "))
    writer.hparams(
        board.compared(parts.flags), ("loss", "z_std", *(["knn_accuracy"] if parts.probe else []))
    )
    with distribute.alone():
        grid = parts.preview(pairs=16)
    _draw(run_dir, "views", lambda path: plots.write_png(path, grid), say)
    writer.image("augmented_pairs", grid)
    if parts.probe is None:
        return []
    callbacks.record(run_dir, writer, before)
    return [before]


def _encoder_of(parts):
    """The model's encoder as it now is, in float32 on one device."""
    encoder = parts.encoder()
    encoder.set_weights(parts.model.encoder.get_weights())
    return encoder


def _finish(parts, run_dir, rows, began, console, stopped):
    """Exports the encoder, draws the pictures, and seals the run with result.json."""
    probe, say = parts.probe, progress.saying(console)
    trained = [row for row in rows if row["epoch"] > 0]
    encoder, kept = _encoder_of(parts), trained[-1]["epoch"]
    if parts.keep == "best":
        found = best.restore(run_dir, encoder)
        kept = kept if found is None else found
    whitened = None
    if parts.view_whitening:
        (before,) = (row for row in rows if row["epoch"] == kept)
        encoder, whitened = _whitened(parts, encoder, before, console)
    peak_memory = devices.peak_memory()
    with writing(run_dir / "encoder"):
        export.save_encoder(encoder, run_dir, parts.recipe.eval_crop, parts.source.value_range)
    encode = monitors.encode_with(encoder)
    _draw_outcome(parts, run_dir, encode, rows, say)
    measured = worth.result(rows, kept, parts.known, whitened) if probe else {}
    result = {
        **parts.facts,
        **stopped,
        "loss": trained[-1]["loss"],
        "z_std": trained[-1]["z_std"],
        **{name: trained[-1][name] for name in diagnose.MEASURES},
        **_accuracies(measured),
        "knn": monitors.knn_protocol(probe) if probe else None,
        "parameters": sum(math.prod(v.shape) for v in parts.model.trainable_variables),
        "images_per_second": float(np.median([row["images_per_second"] for row in trained])),
        "peak_memory_mb": peak_memory and round(peak_memory / 2**20, 1),
        "wall_seconds": round(time.perf_counter() - began, 1),
    }
    used = [source for source in (probe.bank, probe.queries) if source] if probe else []
    without = inputs.without_row(used, say)
    if probe:
        result["verdict"] = worth.verdict(measured, rows[0]["knn_queries"])
        say(result["verdict"])
    runs.write_json(run_dir / "result.json", {**result, "without_row": without})
    return {**result, "run_dir": str(run_dir)}


def _whitened(parts, encoder, before, console):
    """The encoder with view whitening and its kNN; without, where `--keep=best` finds it worse."""
    images = min(whitening.IMAGES, len(parts.source))
    with distribute.alone():
        encode = monitors.encode_with(encoder)
        with progress.counted("view whitening, images", images, 0, console) as advance:

            def pairs():
                for pair in parts.many_pairs(images):
                    yield pair
                    advance(len(pair[0]))

            found = whitening.whitened(encoder, encode, pairs(), parts.view_whitening)
        if not parts.probe:
            return found, None
        encode, best_is_left = monitors.encode_with(found), parts.keep == "best"
        measured = monitors.knn_measure(encode, parts.recipe, parts.probe, choice=best_is_left)
    if best_is_left and choice(measured) < choice(before):
        values = f"{choice(measured):.4f} with it, {choice(before):.4f} without"
        progress.saying(console)(f"View whitening is left out: kNN of the bank is {values}.")
        return encoder, None
    return found, measured


def _accuracies(measured):
    """What was measured, with kNN's accuracies null where there are no labels, or several."""
    return {"knn_accuracy": None, "knn_accuracy_random_init": None, **measured}


def _draw_outcome(parts, run_dir, encode, rows, say):
    probe = parts.probe
    shown = probe.queries or probe.bank if probe else parts.source

    @functools.cache
    def features():
        return monitors.features(encode, parts.recipe, shown)

    def curves(path):
        plots.curves(rows, path, f"{parts.facts['method']} on {parts.source.name}")

    def embedding(path):
        plots.embedding_map(
            features(),
            None if shown.labels is None else shown.labels[shown.rows()],
            shown.class_names,
            path,
            f"features of {shown.name} after {rows[-1]['epoch']} epochs (t-SNE)",
            seed=parts.seed,
        )

    _draw(run_dir, "curves", curves, say)
    _draw(run_dir, "embedding", embedding, say)
    if parts.projector:
        path = run_dir / "tensorboard" / projector.CONFIG
        write = functools.partial(projector.write, source=shown, seed=parts.seed)
        _try(path, lambda path: write(path.parent, features()), say)


def _draw(run_dir, name, draw, say):
    _try(run_dir / "plots" / f"{name}.png", draw, say)


def _try(path, draw, say):
    """Has a picture drawn; without it the run is still what it is."""
    try:
        path.parent.mkdir(exist_ok=True)
        draw(path)
    except Exception as error:
        why = error.__cause__ if isinstance(error, RunFailed) and error.__cause__ else error
        say(f"{path} could not be drawn, all else goes on: {sentence(why)}")
