"""The commands, as functions of their configurations."""

import dataclasses
from pathlib import Path

from rich.console import Console

from simsiam_keras import (
    build,
    checkpoints,
    config,
    distribute,
    inputs,
    interrupts,
    plots,
    preflight,
    runs,
    settings,
    train,
    views,
)
from simsiam_keras.data import ranges
from simsiam_keras.progress import saying


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
    runs.make_folder(path.parent)
    recipe = build.recipe(cfg)
    grid = views.preview(cfg, recipe, source, cfg.pairs)
    plots.write_png(path, grid)
    return {
        "pairs": min(cfg.pairs, len(source)),
        "value_range": ranges.described(source.value_range) or "8 bits, as they are",
        "recipe": str(recipe),
        "written": str(path),
    }
