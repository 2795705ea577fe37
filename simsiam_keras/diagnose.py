"""Reads a run and says in plain words whether it collapsed, when, and what to try.

The verdicts are one table of rules and the advice another; the training run asks the same rules.
Keras is not imported: the answer is instant, also about a run that is still training.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from simsiam_keras import runs

# What `evaluation.collapse` adds to a row of metrics.jsonl, and what to call it.
MEASURES = {
    "feature_rank": "rank",
    "output_rank": "rank z",
    "alignment": "align",
    "uniformity": "uniform",
    "eigenvalue_share": "share",
}
COLUMNS = {"epoch": "epoch", "loss": "loss", "z_std": "std·√d", **MEASURES, "knn_accuracy": "kNN"}

# Chosen from runs of 10 epochs on the digits (flags/digits.cfg), its whole 120 epochs, and 8 epochs
# on 4,000 images of CIFAR-10 (flags/cifar10_cpu.cfg). Runs that learn keep z_std above .99 and a
# share below .35 on the digits; CIFAR-10 begins at .76 and .85. Without stop-gradient z_std falls
# to .42 with a share of .98, without predictor to .63 with .95. At a hundred times the rate z_std
# stays at .98 and only the share, .95, and the rank, 2, tell. A predictor that stays random ends at
# a loss of -.13 where the trained one is at -.39.
COLLAPSED = 0.5  # z_std below it
COLLAPSED_LOCALLY = 0.9  # eigenvalue_share above it
PATIENCE = 5  # epochs that either has to last
HIGH_LOSS = -0.3
EARLY = 20  # epochs before which an unfinished run is not blamed for learning slowly
KNN_FALL = 0.03  # more than chance on a few hundred queries
PAPER_RATE = 0.05  # --base_lr on ImageNet; .03 on CIFAR-10
HIGH_RATE, LOW_RATE = 10 * PAPER_RATE, PAPER_RATE / 10
SMALL_BATCH = 64  # the smallest of the paper's table 2
FEW_STEPS = 1000


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        rows: the rows of metrics.jsonl; keys may be missing, as in files of older versions.
        flags: `{name: text}`, as in flags.cfg.
        finished: whether there is a result.json.
    """

    rows: list
    flags: dict
    finished: bool = False

    def trained(self):
        """The rows of trained epochs; epoch 0 is the random initialization."""
        return [row for row in self.rows if row["epoch"] > 0]

    def points(self, key):
        """`[(epoch, value)]` where the value was measured."""
        return [(row["epoch"], row[key]) for row in self.rows if _number(row.get(key))]

    def last(self, key):
        """The last value that was measured; NaN without one."""
        return (self.points(key) or [(0, math.nan)])[-1][1]

    def since(self, key, bad):
        """The epoch from which on a value has been bad, for `PATIENCE` epochs at least, or None."""
        trained = [point for point in reversed(self.points(key)) if point[0] > 0]
        streak = list(itertools.takewhile(lambda point: bad(point[1]), trained))
        return streak[-1][0] if len(streak) >= PATIENCE else None

    def flag(self, name, default):
        """A flag as a value of its default's type; the default where the run has no such flag."""
        text = self.flags.get(name)
        return default if text is None else type(default)(text)

    def facts(self):
        """What a sentence may mention."""
        knn = [_percent(value) for _, value in self.points("knn_accuracy")] or ["unknown"]
        facts = {name: self.last(name) for name in ("step", *COLUMNS)}
        return facts | {
            "epochs": len(self.trained()),
            "planned": self.flag("epochs", 0),
            "first_knn": knn[0],
            "last_knn": knn[-1],
            "batch": _images_at_a_time(self),
            "knn_every": self.flag("knn_every", 0),
            "base_lr": self.flag("base_lr", PAPER_RATE),
            "min_crop": self.flag("min_crop", 0.0) or "the recipe's",
            "collapsed": COLLAPSED,
            "collapsed_locally": _percent(COLLAPSED_LOCALLY),
            "share": _percent(self.last("eigenvalue_share")),
            "patience": PATIENCE,
            "early": EARLY,
        }


class Rule(NamedTuple):
    """A verdict: its name, when it holds, and how to say it.

    Attributes:
        verdict: the name.
        since: function of a `Run`: the epoch from which on the verdict holds, 0 for all along;
            None where it does not hold.
        sentence: a template of `Run.facts` and `since`.
    """

    verdict: str
    since: Callable
    sentence: str


class Advice(NamedTuple):
    """What to try: for which verdicts, in which runs, in words.

    Attributes:
        verdicts: names of verdicts.
        applies: function of a `Run`.
        sentence: a template of `Run.facts`.
        cause: whether it explains the verdict alone, so that no other advice is needed.
    """

    verdicts: tuple
    applies: Callable
    sentence: str
    cause: bool = False


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


def _percent(share):
    return f"{100 * share:.1f} %"


def _number(value):
    return value is not None and math.isfinite(value)


def _diverged(run):
    return next((row["epoch"] for row in run.trained() if not _number(row.get("loss"))), None)


def _untrained(run):
    return None if run.trained() else 0


def _collapsed(run):
    return run.since("z_std", lambda value: value < COLLAPSED)


def _collapsed_locally(run):
    return run.since("eigenvalue_share", lambda value: value > COLLAPSED_LOCALLY)


def _too_early(run):
    epochs = len(run.trained())
    unsettled = not run.finished and epochs < min(EARLY, run.flag("epochs", EARLY))
    return 0 if epochs < PATIENCE or (unsettled and run.last("loss") > HIGH_LOSS) else None


def _not_learning(run):
    # Another method or similarity has a loss of another range.
    cosine = run.flag("similarity", "cosine") == "cosine"
    return 0 if _simsiam(run) and cosine and run.last("loss") > HIGH_LOSS else None


def _knn_falls(run):
    points = run.points("knn_accuracy")
    epoch, best = max(points, key=lambda point: point[1], default=(0, math.nan))
    return epoch if points and points[-1][1] < best - KNN_FALL else None


def _no_gain(run):
    points = run.points("knn_accuracy")
    compared = len(points) > 1 and points[0][0] == 0
    return 0 if compared and points[-1][1] <= points[0][1] else None


def _knn_unknown(run):
    return 0 if len(run.points("knn_accuracy")) < 2 else None


def _always(run):
    return 0


def _simsiam(run):
    return run.flag("method", "simsiam") == "simsiam"


def _far_above_the_paper(run):
    return _simsiam(run) and run.flag("base_lr", PAPER_RATE) > HIGH_RATE


def _images_at_a_time(run):
    return run.flag("batch_size", SMALL_BATCH) // run.flag("gradient_accumulation", 1)


# The first that holds is the verdict.
RULES = (
    Rule("not trained yet", _untrained, "No epoch has been completed yet."),
    Rule("diverged", _diverged, "The loss was not a number in epoch {since}, which ended the run."),
    Rule(
        "collapsed",
        _collapsed,
        "The outputs are collapsing to one constant: std·√d has been below {collapsed:g} since "
        "epoch {since} and is {z_std:.2f} (about 1 is healthy, 0 is the same output for every "
        "image), although the loss, {loss:.2f}, looks good.",
    ),
    Rule(
        "collapsed locally",
        _collapsed_locally,
        "The outputs have collapsed into few directions: since epoch {since} one direction has had "
        "more than {collapsed_locally} of their variance, now {share}, and their "
        "effective rank is {output_rank:.1f}. The std·√d of {z_std:.2f} alone would not show "
        "it.",
    ),
    Rule(
        "too early to tell",
        _too_early,
        "It is too early to tell: {epochs} of {planned} epochs are trained, the loss is "
        "{loss:.2f}, and nothing speaks of a collapse so far.",
    ),
    Rule(
        "not learning",
        _not_learning,
        "The model is not learning: the loss is still {loss:.2f} after {epochs} epochs, where -1 "
        "means that the views agree, and kNN went from {first_knn} to {last_knn}. The outputs have "
        "not collapsed (std·√d {z_std:.2f}).",
    ),
    Rule(
        "views too different",
        _knn_falls,
        "The views agree (loss {loss:.2f}) and the outputs have not collapsed (std·√d "
        "{z_std:.2f}), but kNN has fallen since epoch {since}, to {last_knn}: what the views have "
        "in common is probably not what tells the classes apart.",
    ),
    Rule(
        "no gain yet",
        _no_gain,
        "Nothing has collapsed (std·√d {z_std:.2f}) and the loss has fallen to {loss:.2f}, but "
        "kNN, {last_knn}, is not above the random initialization's {first_knn}.",
    ),
    Rule(
        "healthy, kNN unknown",
        _knn_unknown,
        "The outputs are spread over the sphere (std·√d {z_std:.2f}) and the loss has fallen to "
        "{loss:.2f}. Whether the features are useful is not known: kNN has not been measured after "
        "training.",
    ),
    Rule(
        "healthy",
        _always,
        "The run is healthy: the outputs are spread over the sphere (std·√d {z_std:.2f}), the loss "
        "has fallen to {loss:.2f}, and kNN went from {first_knn} to {last_knn}.",
    ),
)
COLLAPSES = ("collapsed", "collapsed locally")
USELESS = (*COLLAPSES, "not learning", "views too different", "no gain yet")

ADVICE = (
    Advice(
        USELESS,
        lambda run: run.flag("stop_gradient", "true") == "false",
        "--stop_gradient=false is the cause: without the stop-gradient a constant output is the "
        "best solution (section 4.1 of the paper). Set it to true.",
        cause=True,
    ),
    Advice(
        USELESS,
        lambda run: run.flag("predictor", "mlp") == "none",
        "--predictor=none is the cause: without a predictor the gradient is that of the loss "
        "without stop-gradient, halved (section 4.2 of the paper). Set it to mlp.",
        cause=True,
    ),
    Advice(
        ("not learning",),
        lambda run: run.flag("predictor", "mlp") == "fixed",
        "--predictor=fixed is the cause: with a predictor that stays random the loss remains high "
        "(section 4.2 of the paper). Set it to mlp.",
        cause=True,
    ),
    Advice(
        COLLAPSES,
        lambda run: (
            run.flag("method", "") == "siamese_triplet" and run.flag("mining", "") == "hard"
        ),
        "--mining=hard is the cause: from random weights the hardest triplets draw all outputs "
        "together, until every distance is the same and the loss is the margin. Set it to all.",
        cause=True,
    ),
    Advice(
        ("diverged", *USELESS),
        _far_above_the_paper,
        "Lower --base_lr: it is {base_lr:g}, the paper's is 0.03 to 0.05.",
    ),
    Advice(
        ("not learning", "no gain yet"),
        lambda run: _simsiam(run) and run.flag("base_lr", PAPER_RATE) < LOW_RATE,
        "Raise --base_lr: it is {base_lr:g}, the paper's is 0.03 to 0.05.",
    ),
    Advice(
        ("diverged", *COLLAPSES),
        lambda run: not _far_above_the_paper(run),
        "Halve --base_lr (now {base_lr:g}).",
    ),
    Advice(
        ("not learning", "no gain yet"),
        lambda run: run.last("step") < FEW_STEPS,
        "Train longer: {step:.0f} optimizer steps are few. Raise --epochs, or lower --batch_size "
        "for more steps in each.",
    ),
    Advice(
        COLLAPSES,
        lambda run: _images_at_a_time(run) < SMALL_BATCH,
        "Raise --batch_size: batch normalization sees {batch} images at a time, the paper's "
        "smallest is 64.",
    ),
    Advice(
        ("diverged",),
        lambda run: run.flag("precision", "float32") == "mixed_float16",
        "Use --precision=mixed_bfloat16 or float32: float16 overflows at 65504.",
    ),
    Advice(
        ("diverged",),
        lambda run: run.flag("warmup_epochs", 0) == 0,
        "Add --warmup_epochs, so that the rate begins low.",
    ),
    Advice(
        ("not learning", "views too different", "no gain yet"),
        lambda run: True,
        "Raise --min_crop (now {min_crop}), so that both crops keep the subject; look at the pairs "
        "with `python -m simsiam_keras preview`.",
    ),
    Advice(
        (*COLLAPSES, "no gain yet"),
        lambda run: _simsiam(run) and run.flag("predictor_lr", "decayed") == "decayed",
        "Try --predictor_lr=constant: the predictor then keeps up with the outputs (section 4.2 of "
        "the paper).",
    ),
    Advice(
        ("views too different", "no gain yet"),
        lambda run: not run.finished,
        "Or wait: kNN often falls before it rises.",
    ),
    Advice(
        ("healthy, kNN unknown",),
        lambda run: not run.points("knn_accuracy"),
        "Give a small labelled set with --probe_dataset, and kNN will say.",
    ),
    Advice(
        ("healthy, kNN unknown",),
        lambda run: run.points("knn_accuracy"),
        "Wait for the next kNN: it is measured every {knn_every} epochs (--knn_every).",
    ),
    Advice(
        ("not trained yet", "too early to tell"),
        lambda run: not run.finished,
        "Ask again after {patience} epochs, better after {early}.",
    ),
    Advice(
        ("too early to tell",),
        lambda run: run.finished,
        "Train longer: raise --epochs (now {planned}).",
    ),
)


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
    console = console or Console()
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
    return Run(
        runs.read_metrics(path),
        parse_flags(flags.read_text()) if flags.exists() else {},
        (path / "result.json").exists(),
    )


def parse_flags(text):
    """`{name: value}` of the text of a resolved flagfile, both strings."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip().removeprefix("--"): value for name, value in pairs}


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
        for rule in RULES
        if (since := rule.since(run)) is not None
    )
    facts = run.facts() | {"since": since}
    found = [a for a in ADVICE if verdict in a.verdicts and a.applies(run)]
    found = [advice for advice in found if advice.cause] or found
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
    measured = [row for row in run.rows if _number(row.get("knn_accuracy"))]
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
    if key == "knn_accuracy":
        return _percent(value)
    return f"{value:.1f}" if key.endswith("rank") else f"{value:.2f}"
