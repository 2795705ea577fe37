"""Fills the grid of a study, a process for each run, and writes the report."""

import contextlib
import datetime
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace

from rich import progress
from rich.console import Console

from simsiam_keras import config, runs
from simsiam_keras.errors import RunFailed
from simsiam_keras.study import cells, report
from simsiam_keras.study.grids import STUDIES

REPORT_EVERY = 60  # seconds; a report of all experiments takes 3 to write


def run(cfg, console=None):
    """Runs what a study still needs, and writes its report; returns where it is.

    A run that fails is a row of the report. A run that collapses has not failed.

    Args:
        cfg: a `config.Study`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict that says what was run, how the order of the settings compares, and where the
        report is.

    Raises:
        ValueError: if the folder holds something else, or the recipe itself cannot be run.
        RunFailed: if every run has failed.
    """
    if cfg.job_addresses:
        raise ValueError(
            "study trains one run after another, each in one process; --job_addresses is for "
            f"pretrain. Received: job_addresses={cfg.job_addresses}"
        )
    console = console or Console(stderr=True)
    study_dir = config.study_dir(cfg)
    _refuse_another_recipe(study_dir, cfg)
    grid = cells.grid(chosen(cfg), recipe(cfg), study_dir, seeds(cfg))
    with runs.locked(study_dir, config.to_flagfile(cfg)), _terminated_like_interrupted():
        try:
            _fill(cfg, grid, console)
        finally:
            summary = report.write(study_dir)
    failed = sum(cell.error() is not None for cell in grid)
    if failed == len(grid):
        raise RunFailed(f"every run failed; {study_dir / 'report.md'} says why")
    return {"runs": len(grid), "failed": failed, **summary, "run_dir": str(study_dir)}


def recipe(cfg):
    """The recipe that a study varies, a `config.Pretrain`."""
    shared = {field.name: getattr(cfg, field.name) for field in fields(config.Pretrain)}
    # A collapse is a result here, so that every run has the same number of epochs.
    return config.Pretrain(**{**shared, "stop_on_collapse": False})


def chosen(cfg):
    """The experiments that `--study` names."""
    return [study for study in STUDIES if cfg.study in ("all", study.name)]


def seeds(cfg):
    """The seeds of a study."""
    return range(cfg.seed, cfg.seed + cfg.seeds)


def _refuse_another_recipe(study_dir, cfg):
    path = study_dir / "flags.cfg"
    if not any(study_dir.glob("runs/*/*.json")):
        return
    before = recipe(config.parse("study", [f"--flagfile={path}"]))
    free = {flag.removeprefix("--") for flag in runs.FREE_TO_CHANGE} | {"seed"}
    changed = [
        f"--{field.name}: {getattr(before, field.name)} there, {getattr(cfg, field.name)} here"
        for field in fields(before)
        if field.name not in free
        and getattr(before, field.name) != getattr(recipe(cfg), field.name)
    ]
    if changed:
        raise ValueError(
            f"{study_dir} holds a study of another recipe ({', '.join(changed)}); "
            "repeat its flags to go on with it, or give another --run_dir"
        )


@contextlib.contextmanager
def _terminated_like_interrupted():
    # Only the main thread may; elsewhere, as in a notebook's worker, a termination stays one.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fill(cfg, grid, console):
    waiting = [cell for cell in grid if not cell.settled(cfg.linear, cfg.retry_failed)]
    done = len(grid) - len(waiting)
    console.print(
        f"{len(grid)} runs in {config.study_dir(cfg)}, {done} of them finished already",
        soft_wrap=True,
        highlight=False,
    )
    with _Bar(len(grid), done, recipe(cfg).epochs, console) as bar:
        written = time.monotonic()
        while waiting:
            cell = waiting[0]
            bar.begin(waiting, measured_seconds(grid))
            error = _run(cfg, cell, grid[cell], bar)
            waiting.pop(0)
            bar.end(cell, error, time_left(waiting, measured_seconds(grid)))
            if time.monotonic() - written > REPORT_EVERY:
                report.write(config.study_dir(cfg))
                written = time.monotonic()


def _run(cfg, cell, changed, bar):
    """Runs a cell to its end and records it; returns None, or why it failed."""
    began = time.monotonic()
    try:
        setting = replace(recipe(cfg), **changed, seed=cell.seed, run_dir=str(cell.folder))
    except ValueError as refusal:  # flags of the recipe that do not go with the row's
        code, error = 2, str(refusal)
    else:
        code = _run_process(setting, cfg.linear, cell.log, bar)
        error = _last_words(cell.log, code) if code else None
    if code == 2 and cell.name == cells.RECIPE:
        raise ValueError(error)  # nothing else could be run either
    cell.settle(time.monotonic() - began, error, cfg.linear)
    return error


def _run_process(setting, linear, log, bar):
    flags = config.to_flagfile(setting).splitlines()
    command = [sys.executable, "-m", "simsiam_keras.study.measure"]
    environment = {**os.environ, "KERAS_BACKEND": setting.backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as output:
        process = subprocess.Popen(
            [*command, "linear" if linear else "knn", *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
        )
        try:
            while True:
                try:
                    return process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    bar.tick(setting.run_dir)
        finally:
            process.terminate()  # does nothing to a process that has ended
            process.wait()


def _last_words(log, code):
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    words = lines[-1] if lines else "it printed nothing"
    if code < 0:
        cause = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{cause} after: {words}"
    return words


def measured_seconds(grid):
    """Seconds of the runs that have succeeded, a list by setting."""
    seconds = {}
    for cell in grid:
        if cell.outcome() and not cell.error():
            seconds.setdefault(cell.name, []).append(cell.outcome()["seconds"])
    return seconds


def time_left(waiting, seconds, elapsed=0.0, share=0.0):
    """Estimates the seconds to the end of a grid.

    A run takes as long as others of its setting did, or, where there are none, as the mean of all.

    Args:
        waiting: the cells that have not finished, the one that is running first.
        seconds: measured seconds, a list by setting.
        elapsed: seconds that the first has been running. Defaults to 0.
        share: the share of the first that is done, in [0, 1]; it tells how long a run takes while
            none has been measured. Defaults to 0.

    Returns:
        Seconds >= 0; None while there is nothing to judge by.
    """
    measured = [s for times in seconds.values() for s in times]
    if not measured:
        if not share:
            return None
        measured = [elapsed / share]
    typical = statistics.fmean(measured)
    total = sum(statistics.fmean(seconds.get(cell.name, [typical])) for cell in waiting)
    return max(0.0, total - elapsed)


class _Bar:
    """One bar over all runs on a terminal; everywhere one line for each run that ends."""

    def __init__(self, total, done, epochs, console):
        self.total, self.done, self.epochs, self.console = total, done, epochs, console
        self.bar = progress.Progress(
            progress.TextColumn("run {task.fields[number]}/{task.total}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[shown]}", markup=False),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left {task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self):
        self.bar.start()
        self.task = self.bar.add_task(
            "study", total=self.total, completed=self.done, number=self.done, shown="", left="?"
        )
        return self

    def __exit__(self, *error):
        self.bar.stop()

    def begin(self, waiting, seconds):
        self.waiting, self.seconds, self.began = list(waiting), seconds, time.monotonic()
        cell = waiting[0]
        self._update(0.0, shown=f"{cell.name} seed {cell.seed}", number=self.done + 1)

    def tick(self, run_dir):
        if self.bar.disable:
            return
        rows = runs.read_metrics(run_dir)
        self._update(rows[-1]["epoch"] / self.epochs if rows else 0.0)

    def _update(self, share, **shown):
        elapsed = time.monotonic() - self.began
        left = time_left(self.waiting, self.seconds, elapsed, share)
        self.bar.update(self.task, completed=self.done + share, left=_clock(left), **shown)

    def end(self, cell, error, left):
        self.done += 1
        self.bar.update(self.task, completed=self.done, left=_clock(left))
        self.console.print(
            f"[{self.done}/{self.total}] {cell.name} seed {cell.seed}: {_measured(cell, error)}, "
            f"{cell.outcome()['seconds']:.0f} s, left {_clock(left)}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


def _measured(cell, error):
    if error:
        return f"failed: {error}"
    result = cell.result()
    percent = [
        f"{title} {100 * result[key]:.1f} %"
        for title, key in (("kNN", "knn_accuracy"), ("linear", "linear_accuracy"))
        if result.get(key) is not None
    ]
    return ", ".join([*percent, f"std·√d {result['z_std']:.2f}"])


def _clock(seconds):
    return "?" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
