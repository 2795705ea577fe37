"""`explore` and `duplicates`, in order."""

import dataclasses
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from simsiam_keras import inputs, runs, settings
from simsiam_keras.evaluation.knn import unit
from simsiam_keras.explore import (
    clusters,
    collection,
    copies,
    groups,
    map,
    near,
    page,
    sprites,
)
from simsiam_keras.progress import saying

PAGE = "explore.html"
SAFETY = 0.97  # of the page's megabytes that are planned for
BESIDE = 64  # pixels of thumbnails that are files of their own


@settings.own
def explore(cfg, console=None):
    """Writes a page with a map of all images; returns the content of its result.json.

    Args:
        cfg: an `options.Explore`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict that says what was written.

    Raises:
        ValueError: if the encoder, the data or the vectors cannot be used.
        ImportError: if a map is asked for whose package is missing.
    """
    console, began = console or Console(stderr=True), time.perf_counter()
    say = saying(console)
    with runs.locked(_folder(cfg, "explore"), dataclasses.asdict(cfg)) as run_dir:
        found = collection.of(cfg, run_dir, console, say)
        n = len(found)
        if n < 2:
            raise ValueError(f"A map needs two images at least. Received: {n} of {found.title}")
        layout = map.chosen(cfg.map, n)
        with _bar(console) as bar:
            bar.add_task(f"{map.TITLES[layout]} of {n:,} images", total=None)
            points = map.coordinates(found.vectors, layout, cfg.seed)
        count = min(n, cfg.clusters) or clusters.number(n)
        cluster = clusters.of(found.vectors, count, cfg.seed)
        say(f"{cluster.max() + 1} clusters by k-means: --clusters asks for others.")
        nearest = near.nearest(found.vectors, cfg.neighbours)
        about = [
            ("laid out by", map.TITLES[layout]),
            ("in", f"{cluster.max() + 1} clusters"),
            ("encoder", _shown(found.encoder)),
        ]
        names = clusters.names(cluster, found.labels, found.class_names)
        content = page.content(found, points, cluster, names, nearest, about)
        sheets, size, beside = _write(run_dir / PAGE, content, found, cfg.page_mb, console)
        for number, why in list(sheets.missing.items())[:5]:
            say(f"No thumbnail of {found.names[number]}: {why}")
        result = {
            "page": str(run_dir / PAGE),
            "images": n,
            "megabytes": round(size / 1e6, 1),
            "thumbnails": f"{sheets.side} pixels, " + ("files beside it" if beside else "in it"),
            "unreadable": len(sheets.missing),
            "map": layout,
            "clusters": int(cluster.max() + 1),
            "neighbours": nearest[1].shape[1],
            "dataset": found.title,
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
        _finish(run_dir, result, [found.names[i] for i in sheets.missing])
    return {**result, "run_dir": str(run_dir)}


@settings.own
def duplicates(cfg, console=None):
    """Finds files that show the same, and names the best of each group; deletes nothing.

    Args:
        cfg: an `options.Duplicates`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict that says what was found and written.

    Raises:
        ValueError: if the encoder, the data or the vectors cannot be used, or images are no files.
    """
    console, began = console or Console(stderr=True), time.perf_counter()
    say = saying(console)
    with runs.locked(_folder(cfg, "duplicates"), dataclasses.asdict(cfg)) as run_dir:
        found = collection.of(cfg, run_dir, console, say)
        if not found.root:
            raise ValueError(
                "`duplicates` compares files: give --dataset=folder:PATH, or vectors of one. "
                f"Received: {found.title}"
            )
        threshold, why = copies.threshold(cfg, found, say)
        with _bar(console) as bar:
            task = bar.add_task("comparing", total=len(found))
            x = unit(found.vectors)
            group = near.groups(x, threshold, lambda done: bar.advance(task, done))
        members = groups.of(found, x, group)
        groups.write_csv(run_dir / groups.CSV, members)
        shown = groups.write_page(run_dir / groups.PAGE, found, members, why, cfg.page_groups)
        more = sum(not member.keep for member in members)
        result = {
            "groups": len({member.group for member in members}),
            "files_in_groups": len(members),
            "besides_the_kept": more,
            "exact_copies": sum(member.exact for member in members),
            "files": len(found),
            "threshold": round(threshold, 4),
            "chosen": why,
            "csv": str(run_dir / groups.CSV),
            "page": str(run_dir / groups.PAGE),
            "groups_on_the_page": shown,
            "dataset": found.title,
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
        _finish(run_dir, result, [])
    return {**result, "run_dir": str(run_dir)}


def _folder(cfg, name):
    """By default beside what is read."""
    if cfg.run_dir:
        return Path(cfg.run_dir)
    if cfg.vectors:
        path = Path(cfg.vectors.split(",")[0])
        return inputs.free((path if path.is_dir() else path.parent) / name)
    return inputs.free(inputs.beside(cfg.encoder, name))


def _write(path, content, found, megabytes, console):
    """Writes the page with thumbnails as large as fit; the sheets, bytes, and whether beside it."""
    n, most = len(found), int(megabytes * 1e6)
    bare = len(page.filled(content, sprites.Sheets(1, 1, 1, [], {}), []))
    side = sprites.best_side(found.pictures, n, (SAFETY * most - bare) * 3 / 4)
    with _bar(console) as bar:
        task = bar.add_task("thumbnails", total=n)
        while side is not None:
            sheets = sprites.make(found.pictures, n, side, lambda: bar.advance(task))
            if bare + sheets.size * 4 / 3 <= most:
                return sheets, page.write(path, content, sheets), False
            # Foreseen by a sample, and so sometimes wrong.
            side = next((smaller for smaller in sprites.SIDES if smaller < side), None)
            bar.reset(task)
        sheets = sprites.make(found.pictures, n, BESIDE, lambda: bar.advance(task))
    return sheets, page.write(path, content, sheets, beside=True), True


def _finish(run_dir, result, unreadable):
    runs.write_json(run_dir / "result.json", {**result, "without_thumbnail": unreadable[:1000]})


def _shown(encoder):
    """An encoder for people: a path, or the beginning of a digest."""
    return encoder[:19] if encoder.startswith("sha256:") else encoder


def _bar(console):
    return Progress(console=console, transient=True, disable=not console.is_terminal)
