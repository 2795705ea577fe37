"""How far the measures without labels can be trusted, by the accuracies of runs that have labels.

    python -m benchmarks.label_free_runs --dataset=cifar10 --output=saved_models/label_free
    python -m benchmarks.label_free --runs=saved_models/label_free --output=label_free.md

Reads metrics.jsonl and the results of every run of `benchmarks/results`, where studies and
compares are recorded, and of the new runs, which alone have LiDAR and alpha-ReQ. Spearman's rank
correlation between runs, of each at its last epoch, and within a run, over its epochs; and what it
would cost to go by a measure where the labels would have chosen another run or epoch.
"""

import argparse
import io
import json
import math
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from benchmarks import common
from simsiam_keras import plateau
from simsiam_keras.quality import LABEL_FREE
from simsiam_keras.verdicts import COLLAPSED, COLLAPSED_LOCALLY, is_number

RESULTS = common.ROOT / "benchmarks" / "results"
RECORDED = {
    "digits, study": "study/digits",
    "CIFAR-10, study": "study/cifar10",
    "digits, family": "compare/digits",
}
NEW = {"CIFAR-10, new": "cifar10", "digits, new": "digits"}
# Name in a row, name here, and what is correlated: the higher, the better it is said to be.
MEASURES = (
    ("lidar", "LiDAR", lambda x: x),
    ("alpha_req", "alpha-ReQ, low", lambda x: -x),
    ("alpha_req", "alpha-ReQ, near 1", lambda x: -abs(x - 1)),
    ("feature_rank", "RankMe of features", lambda x: x),
    ("output_rank", "RankMe of outputs", lambda x: x),
    ("z_std", "std·√d", lambda x: x),
    ("eigenvalue_share", "share of one direction, low", lambda x: -x),
    ("uniformity", "uniformity, low", lambda x: -x),
    ("alignment", "alignment, low", lambda x: -x),
    ("loss", "loss, low", lambda x: -x),
)
DRAWN = ("LiDAR", "alpha-ReQ, low", "RankMe of features", "std·√d")
QUERIES = {"digits": 360, "CIFAR-10": 1000}
DRAWS = 2000  # of the bootstrap


class Run(NamedTuple):
    """A run: its setting, which its seeds share, its rows and its linear accuracy."""

    setting: str
    rows: list
    linear: float


def recorded(archive):
    """The runs of a runs.tar.xz."""
    files = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if Path(member.name).name in ("metrics.jsonl", "result.json"):
                files[member.name.removeprefix("./")] = tar.extractfile(member).read()
    return runs_of({name: io.BytesIO(text).read().decode() for name, text in files.items()})


def in_folder(folder):
    """The runs that `label_free_runs` wrote."""
    files = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.name in ("metrics.jsonl", "result.json"):
            files[path.relative_to(folder).as_posix()] = path.read_text()
    return runs_of(files)


def runs_of(files):
    """Runs with a linear classifier, of texts by name."""
    found = []
    for name, text in files.items():
        folder, _, last = name.rpartition("/")
        linear = [files[n] for n in files if n.startswith(f"{folder}/linear")]
        if last == "metrics.jsonl" and linear:
            rows = [json.loads(line) for line in text.splitlines()]
            rows = [row for row in rows if row["epoch"] > 0]
            setting = folder.rpartition("/seed")[0] or folder
            found.append(Run(setting, rows, json.loads(linear[0])["linear_accuracy"]))
    return found


def spearman(a, b):
    """Spearman's rank correlation; NaN where either does not vary."""
    a, b = rankdata(a), rankdata(b)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / scale if scale else math.nan


def interval(values, groups, statistic, draws=DRAWS):
    """The statistic of all values, and the 95 % interval of a bootstrap of whole groups.

    Args:
        values: list of what the statistic takes a list of.
        groups: of each value; the seeds of a setting are no independent runs.
        statistic: function of a list of values to a number.
        draws: resamples.
    """
    by_group = {}
    for value, group in zip(values, groups, strict=True):
        by_group.setdefault(group, []).append(value)
    members, random = list(by_group.values()), np.random.default_rng(0)
    found = []
    for _ in range(draws):
        chosen = random.integers(0, len(members), len(members))
        found.append(statistic([value for i in chosen for value in members[i]]))
    found = [value for value in found if math.isfinite(value)]
    low, high = np.percentile(found, [2.5, 97.5]) if found else (math.nan, math.nan)
    return statistic(values), float(low), float(high)


def of_pairs(pairs):
    return spearman(*zip(*pairs, strict=True)) if len(pairs) > 1 else math.nan


def collapsed(run):
    last = run.rows[-1]
    share = last.get("eigenvalue_share") or 0
    return last["z_std"] < COLLAPSED or share > COLLAPSED_LOCALLY


def between(runs, key, sign):
    """`(value, linear accuracy)` and setting of each run that has the measure."""
    found = [(run, run.rows[-1].get(key)) for run in runs]
    kept = [(run, value) for run, value in found if is_number(value)]
    return [(sign(value), run.linear) for run, value in kept], [run.setting for run, _ in kept]


def within(runs, key, sign, least=4):
    """Correlations with kNN over the epochs of each run that has so many, and settings."""
    values, settings = [], []
    for run in runs:
        rows = [row for row in run.rows if is_number(row.get("knn_accuracy"))]
        pairs = [(sign(row[key]), row["knn_accuracy"]) for row in rows if is_number(row.get(key))]
        found = of_pairs(pairs) if len(pairs) >= least else math.nan
        if math.isfinite(found):
            values.append(found)
            settings.append(run.setting)
    return values, settings


def lost_epochs(runs, key, sign):
    """kNN that is lost by the epoch of the best measure, against the best epoch, in points."""
    lost = []
    for run in runs:
        rows = [row for row in run.rows if is_number(row.get("knn_accuracy"))]
        rows = [row for row in rows if is_number(row.get(key))]
        if len(rows) > 1:
            chosen = max(rows, key=lambda row: sign(row[key]))
            best = max(row["knn_accuracy"] for row in rows)
            lost.append(100 * (best - chosen["knn_accuracy"]))
    return lost


def lost_runs(runs, key, sign):
    """Linear accuracy that is lost by the run of the best measure, in points; NaN without any."""
    pairs, _ = between(runs, key, sign)
    if not pairs:
        return math.nan
    return 100 * (max(run.linear for run in runs) - max(pairs)[1])


def ended(runs, queries, patience=2):
    """What `--stop_when=plateau` would have done: `[(share of the epochs, kNN lost), ...]`.

    Args:
        runs: those whose kNN was measured at least three times more than `patience`.
        queries: how many images were classified; None to go by the measure without labels.
        patience: as in `plateau.reached`; default 2, as these runs have few measurements.
    """
    found = []
    for run in runs:
        known = [row for row in run.rows if is_number(row.get("knn_accuracy"))]
        if len(known) < patience + 3:
            continue
        # In a run without labels, and with what it measured at the same epochs.
        seen = known if queries else [{**row, "knn_accuracy": None} for row in known]
        stops = (n for n in range(1, len(known)) if plateau.reached(seen[:n], patience, 1, queries))
        last = next(stops, len(known)) - 1
        lost = 100 * (known[-1]["knn_accuracy"] - known[last]["knn_accuracy"])
        found.append((known[last]["epoch"] / known[-1]["epoch"], lost))
    return found


def spelled(found):
    value, low, high = found
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if math.isfinite(value) else "-"


def table(groups, cell):
    """A row for each measure, a column for each group of runs."""
    rows = [
        [name, *(cell(runs, key, sign) for runs in groups.values())] for key, name, sign in MEASURES
    ]
    return common.table(["", *groups], rows)


def of_runs(runs, key, sign):
    values, settings = between(runs, key, sign)
    return spelled(interval(values, settings, of_pairs)) if len(values) > 4 else "-"


def of_epochs(runs, key, sign):
    values, settings = within(runs, key, sign)
    return spelled(interval(values, settings, np.mean)) if len(values) > 2 else "-"


def of_choices(runs, key, sign):
    lost = lost_epochs(runs, key, sign)
    run = lost_runs(runs, key, sign)
    return f"{_mean(lost)}; {run:.1f}" if math.isfinite(run) else "-"


def _mean(lost):
    return f"{np.mean(lost):.1f}" if lost else "-"


def stops(groups):
    """A table of what a plateau ends, by kNN and by the measure that stands in for it."""
    rows = []
    for name, runs in groups.items():
        by = {"kNN": ended(runs, QUERIES[name.split(",")[0]]), LABEL_FREE: ended(runs, None)}
        for what, found in by.items():
            if found:
                share, lost = np.mean(found, axis=0)
                early = sum(share < 1 for share, _ in found)
                ends = f"{early} of {len(found)}"
                rows.append([f"{name}, by {what}", ends, f"{100 * share:.0f} %", f"{lost:+.1f}"])
    return common.table(["", "ended early", "epochs, mean", "kNN lost, points"], rows)


def draw(groups, path):
    """Linear accuracy over four measures, a mark for each run."""
    from matplotlib.figure import Figure

    shown = [measure for measure in MEASURES if measure[1] in DRAWN]
    names = [name for name in groups if name.endswith("new")]
    figure = Figure(figsize=(3.4 * len(shown), 3.1 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(shown), squeeze=False, sharey="row")
    for line, name in zip(axes, names, strict=True):
        for ax, (key, label, _) in zip(line, shown, strict=True):
            for bad, mark, colour in ((False, "o", "tab:blue"), (True, "x", "tab:red")):
                kept = [run for run in groups[name] if collapsed(run) == bad]
                pairs, _ = between(kept, key, lambda x: x)
                if pairs:
                    x, y = zip(*pairs, strict=True)
                    words = "collapsed, by diagnose" if bad else "not collapsed"
                    ax.scatter(x, 100 * np.array(y), marker=mark, color=colour, label=words)
            ax.set(xlabel=label.partition(",")[0])
            ax.grid(alpha=0.3)
        line[0].set(ylabel=f"{name.partition(',')[0]}, linear accuracy, %")
    handles, words = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def report(groups, machine):
    whole = {name: [run for run in runs if not collapsed(run)] for name, runs in groups.items()}
    counted = ", ".join(
        f"{name}: {len(runs)} ({len(whole[name])} not collapsed)" for name, runs in groups.items()
    )
    blind = ", ".join(
        f"{name} {_mean(lost_epochs(runs, 'epoch', lambda x: x))}; "
        f"{100 * (max(r.linear for r in runs) - np.mean([r.linear for r in runs])):.1f}"
        for name, runs in groups.items()
    )
    return (
        "# What the measures without labels can be trusted with\n\n"
        + common.setting("benchmarks.label_free", machine, [common.versions(["scipy", "keras"])])
        + f"- runs with a linear classifier: {counted}\n"
        "- Spearman's rank correlation, 1 where a measure orders runs or epochs as the labels do; "
        f"in brackets 95 % of {DRAWS:,} bootstrap samples of settings (the seeds of one stay "
        "together); `low` and `near 1`: of what is said to be better\n\n"
        "What follows is in [docs/label_free.md](../../docs/label_free.md).\n\n"
        "## Between runs: with linear accuracy, at the last epoch\n\n"
        f"{table(groups, of_runs)}\n"
        "## Between those that have not collapsed\n\n"
        "By the rules of `diagnose`, which need no labels and see a collapse well.\n\n"
        f"{table(whole, of_runs)}\n"
        "## Within a run: with kNN over its epochs, mean over runs\n\n"
        f"{table(groups, of_epochs)}\n"
        "## What it costs to go by them\n\n"
        "Points of kNN lost by the epoch that the measure likes best, mean over runs; then points "
        "of linear accuracy lost by the run that it likes best. The last epoch and a random run "
        f"lose: {blind}.\n\n"
        f"{table(groups, of_choices)}\n"
        "## What a plateau would have ended\n\n"
        "`--stop_when=plateau --patience=2` at the epochs whose kNN is known, against the end of "
        "the same run, whose learning rate came down.\n\n"
        f"{stops(groups)}\n"
        "![Linear accuracy of the new runs over four measures](label_free.png)\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="saved_models/label_free", help="of label_free_runs")
    parser.add_argument("--output", help="Markdown file to write, with a .png beside it")
    arguments = parser.parse_args()
    groups = {name: recorded(RESULTS / path / "runs.tar.xz") for name, path in RECORDED.items()} | {
        name: in_folder(Path(arguments.runs) / path) for name, path in NEW.items()
    }
    groups = {name: runs for name, runs in groups.items() if runs}
    common.publish(report(groups, common.machine()), arguments.output)
    if arguments.output:
        draw(groups, Path(arguments.output).with_suffix(".png"))


if __name__ == "__main__":
    main()
