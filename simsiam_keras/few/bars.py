"""A bar with the time left, on a terminal; elsewhere a line now and then."""

import contextlib
import datetime
import time

from rich import progress

SECONDS_BETWEEN_LINES = 30


@contextlib.contextmanager
def bar(what, total, done, console):
    """Shows how far something is.

    Args:
        what: is counted, in a word or two.
        total: number of all.
        done: how many there were before.
        console: a `rich.console.Console`.

    Yields:
        A function of how many more there are.
    """
    began = last = None
    first = done

    def line(more):
        nonlocal began, last, first, done
        done += more
        now = time.monotonic()
        if began is None:  # the first one compiled
            began, last, first = now, now, done
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left = round((total - done) * (now - began) / (done - first))
        console.print(
            f"{what}: {done} of {total}, left {datetime.timedelta(seconds=left)}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )

    if not console.is_terminal:
        yield line
        return
    with progress.Progress(
        progress.TextColumn("{task.description} {task.completed:.0f}/{task.total}"),
        progress.BarColumn(bar_width=20),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(compact=True),
        console=console,
        speed_estimate_period=300,
        transient=True,
    ) as shown:
        task = shown.add_task(what, total=total, completed=done)
        yield lambda more: shown.advance(task, more)
