"""The run: parts to a run folder, resumed where it was stopped."""

import contextlib
import functools
import math
import time

import numpy as np
from tensorboardX import SummaryWriter

from simsiam_keras import callbacks, diagnose, distribute, export, flagfile, monitors, plots, runs


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
        RunFailed: if the run cannot go on; checkpoints and metrics of earlier epochs are kept.
    """
    began = time.perf_counter()
    first = distribute.process() == 0
    model, probe = parts.model, parts.probe
    monitored = monitors.monitored(model, parts.copy)
    encode = monitors.encoder_of(monitored)
    measure = functools.partial(monitors.knn_accuracy, encode, parts.recipe, probe)

    distribute.check_agreement(runs.last_epoch(run_dir), "The epoch to go on from")
    first_epoch = runs.restore_checkpoint(run_dir, model)
    say = functools.partial(console.print, soft_wrap=True, markup=False, highlight=False)
    resumed = f"resumes after epoch {first_epoch}" if first_epoch else "starts"
    say(f"{parts.facts['method']} {resumed} in {run_dir}: {parts.headline}")
    accuracy = measure() if probe and first_epoch == 0 else None
    dataset = parts.batches(first_epoch)
    with distribute.alone():
        pairs = parts.pairs()
    collapse = monitors.collapse_measures(monitored, pairs, parts.jit_compile)
    bar = callbacks.Progress(parts.epochs, first_epoch, parts.steps, parts.batch_size, console)
    watches = [
        callbacks.Clock(parts.steps * parts.batch_size),
        callbacks.StopOnNaN(run_dir if first else None),
        callbacks.Diagnosis(collapse),
    ]
    if probe:
        watches.append(callbacks.KNN(measure, parts.knn_every, parts.epochs))
    with contextlib.ExitStack() as stack:
        stack.callback(bar.close)
        if first:
            board = stack.enter_context(
                contextlib.closing(SummaryWriter(str(run_dir / "tensorboard")))
            )
            runs.keep_metrics(run_dir, first_epoch)
            if first_epoch == 0:
                _begin(parts, run_dir, board, accuracy)
            watches += [
                callbacks.Record(run_dir, board, parts.schedule, parts.steps),
                callbacks.Checkpoint(run_dir, parts.checkpoint_every, parts.epochs),
            ]
        watches += [callbacks.CollapseWatch(say, parts.flags, parts.stop_on_collapse), bar]
        model.fit(
            dataset,
            epochs=parts.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=parts.steps,
            verbose=0,
            callbacks=watches,
        )
    return _finish(parts, run_dir, encode, first_epoch, began) if first else {}


def _begin(parts, run_dir, board, knn_accuracy):
    """Writes what does not change: environment, flags, a picture of the views, kNN before."""
    runs.write_environment(run_dir, parts.facts["backend"], distribute.devices(), parts.source)
    board.add_text("flags", "    " + flagfile.write(parts.flags).replace("\n", "\n    "))
    with distribute.alone():
        grid = parts.preview(pairs=16)
    (run_dir / "plots").mkdir(exist_ok=True)
    plots.write_png(run_dir / "plots" / "views.png", grid)
    board.add_image("augmented_pairs", grid, 0, dataformats="HWC")
    if knn_accuracy is not None:
        callbacks.record(run_dir, board, callbacks.row(0, 0, {"knn_accuracy": knn_accuracy}))


def _finish(parts, run_dir, encode, first_epoch, began):
    """Exports the encoder, draws the pictures and writes result.json."""
    probe = parts.probe
    rows = runs.read_metrics(run_dir)
    trained = [row for row in rows if row["epoch"] > 0]
    earlier = sum(row["seconds"] for row in trained if row["epoch"] <= first_epoch)
    title = f"{parts.facts['method']} on {parts.source.name}"
    plots.curves(rows, run_dir / "plots" / "curves.png", title)
    shown = probe.queries or probe.bank if probe else parts.source
    plots.embedding_map(
        monitors.features(encode, parts.recipe, shown),
        shown.labels,
        shown.class_names,
        run_dir / "plots" / "embedding.png",
        f"features of {shown.name} after {parts.epochs} epochs (t-SNE)",
        seed=parts.seed,
    )
    encoder = parts.encoder()
    encoder.set_weights(parts.model.encoder.get_weights())
    peak_memory = distribute.peak_memory()
    export.save_encoder(encoder, run_dir, parts.recipe.eval_crop)
    result = {
        **parts.facts,
        "loss": trained[-1]["loss"],
        "z_std": trained[-1]["z_std"],
        **{name: trained[-1][name] for name in diagnose.MEASURES},
        "knn_accuracy": trained[-1]["knn_accuracy"],
        "knn_accuracy_random_init": rows[0]["knn_accuracy"] if probe else None,
        "knn": monitors.knn_protocol(probe) if probe else None,
        "parameters": sum(math.prod(v.shape) for v in parts.model.trainable_variables),
        "images_per_second": float(np.median([row["images_per_second"] for row in trained])),
        "peak_memory_mb": peak_memory and round(peak_memory / 2**20, 1),
        "wall_seconds": round(time.perf_counter() - began + earlier, 1),
    }
    runs.write_json(run_dir / "result.json", result)
    return {**result, "run_dir": str(run_dir)}
