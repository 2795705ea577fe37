"""Fills a grid of runs, a process for each, and has its report written."""

import contextlib
import datetime
import os
import signal
import statistics
import subprocess
import threading
import time
from concurrent import futures
from dataclasses import asdict, fields

from rich import progress
from rich.console import Console

from simsiam_keras import config, runs
from simsiam_keras.errors import RunFailed
from simsiam_keras.study import cells, grids, measure, report

REPORT_EVERY = 60  # seconds; a report of all experiments takes 3 to write


def run(cfg, console=None):
    """Runs what a study still needs, and writes its report; returns where it is.

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
    grid = cells.grid(grids.chosen(cfg), recipe(cfg), config.study_dir(cfg), seeds(cfg))
    return fill("study", cfg, grid, report.write, console)


def fill(command, cfg, grid, write_report, console=None):
    """Runs what a grid still needs, and writes its report.

    A run that fails is a row of the report. A run that collapses has not failed.

    Args:
        command: name of the command.
        cfg: a `config.Grid`.
        grid: a dict of `cells.Cell` to changes of the recipe.
        write_report: function of the grid's folder to a dict of what the report says.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict of the numbers of runs and failures, what the report says, and `run_dir`.

    Raises:
        ValueError: if the folder holds something else, or the recipe itself cannot be run.
        RunFailed: if every run has failed.
    """
    if cfg.job_addresses:
        raise ValueError(
            f"{command} trains one run after another, each in one process; --job_addresses is for "
            f"pretrain. Received: job_addresses={cfg.job_addresses}"
        )
    console = console or Console(stderr=True)
    folder = config.study_dir(cfg)
    if any(folder.glob("runs/*/*.json")):
        # What is said of the grid, how many seeds and which experiments, may change.
        free = {field.name for field in fields(cfg)} - {field.name for field in fields(recipe(cfg))}
        runs.refuse_other_flags(folder, asdict(recipe(cfg)), f"a {command}", free | {"seed"})
    with runs.locked(folder, asdict(cfg)):
        try:
            _fill(cfg, grid, write_report, console)
        finally:
            summary = write_report(folder)
    failed = sum(cell.error() is not None for cell in grid)
    if failed == len(grid):
        raise RunFailed(f"every run failed; {folder / 'report.md'} says why")
    return {"runs": len(grid), "failed": failed, **summary, "run_dir": str(folder)}


def recipe(cfg):
    """The recipe that a grid varies, a `config.Pretrain`."""
    # A collapse is a result here, so that every run has the same number of epochs.
    return setting(cfg, {"stop_on_collapse": False})


def setting(cfg, changes):
    """A configuration of `pretrain` that a grid trains with.

    Args:
        cfg: a `config.Grid` or `config.Pretrain`.
        changes: values by flag that are different; of another `method` all that are its own.

    Returns:
        A `config.Pretrain`.

    Raises:
        ValueError: if the changes do not go with the rest.
    """
    known = fields(config.of("pretrain", changes.get("method", cfg.method)))
    values = {field.name: getattr(cfg, field.name) for field in known if hasattr(cfg, field.name)}
    return config.make("pretrain", **{**values, **changes})


def seeds(cfg):
    """The seeds of a grid."""
    return range(cfg.seed, cfg.seed + cfg.seeds)


def _fill(cfg, grid, write_report, console):
    waiting = [cell for cell in grid if not cell.settled(cfg.linear, cfg.retry_failed)]
    done = len(grid) - len(waiting)
    console.print(
        f"{len(grid)} runs in {config.study_dir(cfg)}, {done} of them finished already",
        soft_wrap=True,
        highlight=False,
    )
    slots = list(range(cfg.jobs))  # free shares of the processors
    first = next(iter(grid))  # a mistake in the flags that it is refused for is everyone's
    stop = threading.Event()
    with _Bar(len(grid), done, recipe(cfg).epochs, cfg.jobs, console) as bar:
        written = time.monotonic()
        running = {}
        with futures.ThreadPoolExecutor(cfg.jobs) as pool:
            try:
                while waiting or running:
                    while waiting and slots and not _on_trial(first, running):
                        cell, slot = waiting.pop(0), slots.pop(0)
                        job = pool.submit(_run, cfg, cell, grid[cell], slot, stop, cell == first)
                        running[job] = cell, slot
                        bar.begin(cell)
                    ended, _ = futures.wait(running, 1, futures.FIRST_COMPLETED)
                    for job in ended:
                        cell, slot = running.pop(job)
                        slots.append(slot)
                        bar.end(cell, job.result(), waiting, measured_seconds(grid))
                    bar.tick(waiting, measured_seconds(grid))
                    if ended and time.monotonic() - written > REPORT_EVERY:
                        write_report(config.study_dir(cfg))
                        written = time.monotonic()
            finally:
                stop.set()  # what is still running ends too; its checkpoints stay


def _on_trial(first, running):
    """Whether the first run of a grid has begun and is not training yet."""
    begun = any(cell == first for cell, _ in running.values())
    return begun and not (first.folder / "environment.json").exists()


def _run(cfg, cell, changed, slot, stop, first):
    """Runs a cell to its end and records it; returns None, or why it failed."""
    began = time.monotonic()
    try:
        trained = setting(recipe(cfg), {**changed, "seed": cell.seed, "run_dir": str(cell.folder)})
    except ValueError as refusal:  # flags of the recipe that do not go with the row's
        code, error = 2, str(refusal)
    else:
        command = measure.command(trained, cfg.linear, processors(slot, cfg.jobs))
        code = _run_process(command, trained.backend, cell.log, stop)
        error = _last_words(cell.log, code) if code else None
    if stop.is_set():
        return None  # ended from outside, and so neither finished nor failed
    if code == 2 and first:
        raise ValueError(error)  # nothing else could be run either
    cell.settle(time.monotonic() - began, error, cfg.linear)
    return error


def processors(slot, jobs):
    """The share of this machine's processors that one of several runs at a time computes on.

    Args:
        slot: number of the run among those at a time, from 0.
        jobs: how many there are at a time.

    Returns:
        A list of numbers, empty where one run takes all or the system cannot divide them.
    """
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return []
    every = sorted(os.sched_getaffinity(0))
    return every[slot::jobs] or [every[slot % len(every)]]


def _run_process(command, backend, log, stop):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C and the study's signal would be two
        )
        try:
            while not stop.is_set():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=0.5)
        finally:
            process.terminate()  # does nothing to a process that has ended
            process.wait()
    return process.returncode


def _last_words(log, code):
    lines = [
        line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()
    ]
    words = lines[-1] if lines else "it printed nothing"
    if code < 0:  # nowhere but on POSIX
        name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
        cause = " (out of memory?)" if name == "SIGKILL" else ""
        return f"ended by {name}{cause} after: {words}"
    return words


def measured_seconds(grid):
    """Seconds of the runs that have succeeded, a list by setting."""
    seconds = {}
    for cell in grid:
        if cell.outcome() and not cell.error():
            seconds.setdefault(cell.name, []).append(cell.outcome()["seconds"])
    return seconds


def time_left(cells, seconds, elapsed=0.0, share=0.0, jobs=1):
    """Estimates the seconds to the end of a grid.

    A run takes as long as others of its setting did, or, where there are none, as the mean of all.

    Args:
        cells: the cells that have not finished, running or waiting.
        seconds: measured seconds, a list by setting.
        elapsed: seconds that the running ones have been running, added up. Defaults to 0.
        share: the shares of them that are done, added up; they tell how long a run takes while
            none has been measured. Defaults to 0.
        jobs: how many run at a time. Defaults to 1.

    Returns:
        Seconds >= 0; None while there is nothing to judge by.
    """
    measured = [s for times in seconds.values() for s in times]
    if not measured:
        if not share:
            return None
        measured = [elapsed / share]
    typical = statistics.fmean(measured)
    total = sum(statistics.fmean(seconds.get(cell.name, [typical])) for cell in cells)
    return max(0.0, total - elapsed) / jobs


class _Bar:
    """One bar over all runs on a terminal; everywhere one line for each run that ends."""

    def __init__(self, total, done, epochs, jobs, console):
        self.total, self.done, self.epochs, self.jobs = total, done, epochs, jobs
        self.console, self.running = console, {}
        self.bar = progress.Progress(
            progress.TextColumn("{task.fields[done]}/{task.total} runs"),
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
            "study", total=self.total, completed=self.done, done=self.done, shown="", left="?"
        )
        return self

    def __exit__(self, *error):
        self.bar.stop()

    def begin(self, cell):
        self.running[cell] = time.monotonic()

    def tick(self, waiting, seconds):
        if self.bar.disable:
            return
        share = sum(self._share(cell) for cell in self.running)
        self.bar.update(
            self.task,
            completed=self.done + share,
            done=self.done,
            shown=", ".join(f"{cell.name} seed {cell.seed}" for cell in self.running),
            left=_clock(self._left(waiting, seconds, share)),
        )

    def _share(self, cell):
        rows = runs.read_metrics(cell.folder)
        return rows[-1]["epoch"] / self.epochs if rows else 0.0

    def _left(self, waiting, seconds, share=0.0):
        now = time.monotonic()
        elapsed = sum(now - began for began in self.running.values())
        return time_left([*self.running, *waiting], seconds, elapsed, share, self.jobs)

    def end(self, cell, error, waiting, seconds):
        self.done += 1
        del self.running[cell]
        self.console.print(
            f"[{self.done}/{self.total}] {cell.name} seed {cell.seed}: {_measured(cell, error)}, "
            f"{cell.outcome()['seconds']:.0f} s, left {_clock(self._left(waiting, seconds))}",
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
