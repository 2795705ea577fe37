"""Reads a run and says in plain words whether it collapsed, when, and what to try.

The verdicts are a table of `verdicts`, what to try one of `advice`; the training run asks the same
rules. Keras is not imported: the answer is instant, also about a run that is still training.
"""

import dataclasses
import itertools
import math
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from simsiam_keras import advice, config, flagfile, runs, verdicts
from simsiam_keras.errors import reading
from simsiam_keras.family import FAMILY
from simsiam_keras.verdicts import is_number, percent

# What `evaluation.collapse` adds to a row of metrics.jsonl, and what to call it.
MEASURES = {
    "feature_rank": "rank",
    "output_rank": "rank z",
    "alignment": "align",
    "uniformity": "uniform",
    "eigenvalue_share": "share",
    "alpha_req": "alpha",
    "lidar": "LiDAR",
}
# What fits a terminal of 80 columns, so not the two that say least: see docs/label_free.md.
COLUMNS = {"epoch": "epoch", "loss": "loss", "z_std": "std·√d", **MEASURES, "knn_accuracy": "kNN"}
COLUMNS["mean_average_precision"] = "kNN mAP"
del COLUMNS["alpha_req"], COLUMNS["lidar"]


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        rows: the rows of metrics.jsonl; keys may be missing, as in files of older versions.
        flags: values by name, or their texts, as in flags.cfg.
        finished: whether there is a result.json.
    """

    rows: list
    flags: dict
    finished: bool = False

    def trained(self):
        """The rows of trained epochs; epoch 0 is what training began from."""
        return [row for row in self.rows if row["epoch"] > 0]

    def before(self, key):
        """What the row of epoch 0 says, or None."""
        return next((row.get(key) for row in self.rows if row["epoch"] == 0), None)

    def points(self, key):
        """`[(epoch, value)]` where the value was measured."""
        return [(row["epoch"], row[key]) for row in self.rows if is_number(row.get(key))]

    def knn(self):
        """`[(epoch, value)]` of kNN: its accuracy, or of several labels the mean precision."""
        return next(filter(None, map(self.points, verdicts.KNN)), [])

    def best(self):
        """`(epoch, value)` of the best kNN; NaN without one."""
        return max(self.knn(), key=lambda point: point[1], default=(0, math.nan))

    def pixels(self):
        """What kNN gives of the pixels themselves, or None."""
        return next(
            filter(is_number, (self.before(f"{name}_pixels") for name in verdicts.KNN)), None
        )

    def queries(self):
        """How many images kNN classified; None in runs of older versions."""
        queries = self.before("knn_queries")
        return queries if is_number(queries) and queries >= 1 else None

    def last(self, key):
        """The last value that was measured; NaN without one."""
        return (self.points(key) or [(0, math.nan)])[-1][1]

    def since(self, key, bad):
        """The epoch from which on a value has been bad for `PATIENCE` epochs, or None."""
        trained = [point for point in reversed(self.points(key)) if point[0] > 0]
        streak = list(itertools.takewhile(lambda point: bad(point[1]), trained))
        return streak[-1][0] if len(streak) >= verdicts.PATIENCE else None

    def flag(self, name, default):
        """A flag as a value of its default's type; the default where the run has no such flag."""
        value = self.flags.get(name)
        return default if value is None else type(default)(flagfile.spell(value))

    @property
    def member(self):
        """The method's entry in the family."""
        return FAMILY[self.flag("method", "simsiam")]

    def facts(self):
        """What a sentence may mention."""
        knn = [percent(value) for _, value in self.knn()] or ["unknown"]
        facts = {name: self.last(name) for name in ("step", *COLUMNS)}
        return facts | {
            "epochs": len(self.trained()),
            "planned": self.flag("epochs", 0),
            "first_knn": knn[0],
            "last_knn": knn[-1],
            "best_epoch": self.best()[0],
            "best_knn": percent(self.best()[1]),
            "start": "the start weights'" if self.flag("weights", "") else "the random encoder's",
            "pixels": percent(math.nan if self.pixels() is None else self.pixels()),
            "queries": f"{self.queries() or 0:,}",
            "method": self.flag("method", "simsiam"),
            "batch": advice.images_at_a_time(self),
            "knn_every": self.flag("knn_every", 0),
            "base_lr": self.flag("base_lr", self.member.rate or math.nan),
            "rate": self.member.rate,
            "min_crop": self.flag("min_crop", 0.0) or "the recipe's",
            "collapsed": verdicts.COLLAPSED,
            "collapsed_locally": percent(verdicts.COLLAPSED_LOCALLY),
            "share": percent(self.last("eigenvalue_share")),
            "patience": verdicts.PATIENCE,
            "early": verdicts.EARLY,
        }


class Finding(NamedTuple):
    """A verdict on a run.

    Attributes:
        verdict: name of the rule.
        since: the epoch from which on it holds, 0 for all along.
        sentence: the verdict in words.
        advice: a list of sentences.
    """

    verdict: str
    since: int
    sentence: str
    advice: list


def diagnose(cfg, console=None):
    """Prints a verdict on a run, the numbers behind it, and what to try.

    Args:
        cfg: a `config.Diagnose`.
        console: a `rich.console.Console`, standard output by default.

    Returns:
        A dict of `verdict`, `since_epoch`, `epochs`, `finished` and `run_dir`.

    Raises:
        ValueError: if the folder holds no pretraining run.
    """
    console = console or Console(file=sys.stdout)  # a file: of its encoding
    run = read(cfg.run_dir)
    finding = judge(run)
    console.print(finding.sentence, highlight=False, markup=False)
    if run.rows:
        console.print(evidence(run, finding.since))
    for sentence in finding.advice:
        console.print(f"- {sentence}", highlight=False, markup=False)
    return {
        "verdict": finding.verdict,
        "since_epoch": finding.since,
        "epochs": f"{len(run.trained())} of {run.flags.get('epochs', 'unknown')}",
        "finished": run.finished,
        "run_dir": str(cfg.run_dir),
    }


def read(run_dir):
    """Reads a run folder, finished or not.

    Args:
        run_dir: the folder.

    Returns:
        A `Run`.

    Raises:
        ValueError: if the folder holds no pretraining run.
    """
    path = Path(run_dir)
    if not (path / "metrics.jsonl").exists():
        raise ValueError(
            f"--run_dir must be a folder that `pretrain` wrote; {path} has no metrics.jsonl"
        )
    flags = path / "flags.cfg"
    with reading(flags, "without it, too, the run can be diagnosed: move it away"):
        values = flagfile.values(flags) if flags.exists() else {}
        _check_flags(values)
    return Run(runs.read_metrics(path), values, runs.result(path) is not None)


def _check_flags(values):
    """Raises `ValueError` where a value is not of its flag's kind; other versions had others."""
    method = values.get("method", "simsiam")
    if method not in FAMILY:
        raise ValueError(f"--method={method:.40} is none of {', '.join(FAMILY)}")
    for field in dataclasses.fields(config.of("pretrain", method)):
        text, minimum = values.get(field.name), field.metadata["minimum"]
        if text is None or field.type not in (int, float):
            continue
        try:
            value = float(field.type(text))
            right = math.isfinite(value) and (minimum is None or value >= minimum)
        except (ValueError, OverflowError):
            right = False
        if not right:
            least = "" if minimum is None else f" >= {minimum}"
            raise ValueError(f"--{field.name} must be a number{least}. Received: {text:.40}")


def judge(run):
    """Finds the first rule that holds, and the advice that goes with it.

    Args:
        run: a `Run`.

    Returns:
        A `Finding`.

    Example:
    >>> rows = [{"epoch": e, "loss": -0.99, "z_std": 0.1} for e in range(1, 7)]
    >>> finding = judge(Run(rows, {"stop_gradient": "false"}))
    >>> finding.verdict, finding.since
    ('collapsed', 1)
    >>> finding.advice[0][:34]
    '--stop_gradient=false is the cause'
    """
    verdict, since, sentence = next(
        (rule.verdict, since, rule.sentence)
        for rule in verdicts.RULES
        if (since := rule.since(run)) is not None
    )
    facts = run.facts() | {"since": since}
    found = [a for a in advice.ADVICE if verdict in a.verdicts and a.applies(run)]
    found = [a for a in found if a.cause] or found
    return Finding(
        verdict, since, sentence.format(**facts), [a.sentence.format(**facts) for a in found]
    )


def evidence(run, since, limit=8):
    """A table of some epochs: the first, the last, the one that matters, and some between.

    Args:
        run: a `Run` with rows.
        since: the epoch that matters.
        limit: rows besides that one.

    Returns:
        A `rich.table.Table`, without columns that were never measured.
    """
    epochs = {epoch for epoch, _ in run.knn()}
    measured = [row for row in run.rows if row["epoch"] in epochs]
    rows = measured if len(measured) > 2 else run.rows
    count = min(limit, len(rows))
    chosen = [rows[round(i * (len(rows) - 1) / max(1, count - 1))] for i in range(count)]
    shown = {row["epoch"]: row for row in (*chosen, run.rows[-1])}
    shown |= {row["epoch"]: row for row in run.rows if row["epoch"] == since}
    columns = {k: v for k, v in COLUMNS.items() if any(row.get(k) is not None for row in run.rows)}
    table = Table(*columns.values())
    for epoch in sorted(shown):
        table.add_row(*(_spell(key, shown[epoch].get(key)) for key in columns))
    return table


def _spell(key, value):
    if value is None:
        return "-"
    if key == "epoch":
        return str(value)
    if key in ("knn_accuracy", "mean_average_precision"):
        return percent(value)
    return f"{value:.1f}" if key.endswith("rank") else f"{value:.2f}"
