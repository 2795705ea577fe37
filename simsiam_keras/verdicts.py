"""When a run has collapsed or does not learn, and what to try: a table of rules, one of advice."""

import math
from collections.abc import Callable
from typing import NamedTuple

# Chosen from runs of 10 epochs on the digits (flags/digits.cfg), its whole 120 epochs, and 8 epochs
# on 4,000 images of CIFAR-10 (flags/cifar10_cpu.cfg). Runs that learn keep z_std above .99 and a
# share below .35 on the digits; CIFAR-10 begins at .76 and .85. Without stop-gradient z_std falls
# to .42 with a share of .98, without predictor to .63 with .95. At a hundred times the rate z_std
# stays at .98 and only the share, .95, and the rank, 2, tell.
COLLAPSED = 0.5  # z_std below it
COLLAPSED_LOCALLY = 0.9  # eigenvalue_share above it
PATIENCE = 5  # epochs that either has to last
EARLY = 20  # epochs before which an unfinished run is not blamed for learning slowly
KNN_FALL = 0.03  # more than chance on a few hundred queries
FAR = 10  # times the paper's rate, or below it
SMALL_BATCH = 64  # the smallest of the paper's table 2
FEW_STEPS = 1000


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


def percent(share):
    """A share in percent, as text."""
    return f"{100 * share:.1f} %"


def is_number(value):
    """Whether there is a finite number."""
    return value is not None and math.isfinite(value)


def _diverged(run):
    return next((row["epoch"] for row in run.trained() if not is_number(row.get("loss"))), None)


def _untrained(run):
    return None if run.trained() else 0


def _collapsed(run):
    return run.since("z_std", lambda value: value < COLLAPSED)


def _collapsed_locally(run):
    return run.since("eigenvalue_share", lambda value: value > COLLAPSED_LOCALLY)


def _too_early(run):
    epochs = len(run.trained())
    unsettled = not run.finished and epochs < min(EARLY, run.flag("epochs", EARLY))
    return 0 if epochs < PATIENCE or (unsettled and _high_loss(run) is not False) else None


def _high_loss(run):
    """Whether the loss is higher than a model that learns has it; None where nobody can tell."""
    threshold = run.member.high_loss
    if threshold is None:
        return None
    return run.last("loss") > threshold


def _not_learning(run):
    cosine = run.flag("similarity", "cosine") == "cosine"  # the other has a loss of another range
    return 0 if cosine and _high_loss(run) else None


def _knn_falls(run):
    points = run.knn()
    epoch, best = max(points, key=lambda point: point[1], default=(0, math.nan))
    return epoch if points and points[-1][1] < best - KNN_FALL else None


def _no_gain(run):
    points = run.knn()
    compared = len(points) > 1 and points[0][0] == 0
    return 0 if compared and points[-1][1] <= points[0][1] else None


def _knn_unknown(run):
    return 0 if len(run.knn()) < 2 else None


def _always(run):
    return 0


def _times_the_papers_rate(run):
    """The learning rate as a multiple of the method's paper's; 1 where that says nothing."""
    rate = run.member.rate
    return run.flag("base_lr", rate) / rate if rate else 1.0


def _far_above_the_paper(run):
    return _times_the_papers_rate(run) > FAR


def images_at_a_time(run):
    """Images that batch normalization sees."""
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
        lambda run: run.flag("mining", "") == "hard",
        "--mining=hard is the cause: from random weights the hardest triplets draw all outputs "
        "together, until every distance is the same and the loss is the margin. Set it to all.",
        cause=True,
    ),
    Advice(
        ("diverged", *USELESS),
        _far_above_the_paper,
        "Lower --base_lr: it is {base_lr:g}, the paper's is {rate}.",
    ),
    Advice(
        ("not learning", "no gain yet"),
        lambda run: _times_the_papers_rate(run) < 1 / FAR,
        "Raise --base_lr: it is {base_lr:g}, the paper's is {rate}.",
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
        lambda run: images_at_a_time(run) < SMALL_BATCH,
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
        lambda run: run.flag("predictor_lr", "") == "decayed",
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
        lambda run: not run.knn(),
        "Give a small labelled set with --probe_dataset, and kNN will say.",
    ),
    Advice(
        ("healthy, kNN unknown",),
        lambda run: run.knn(),
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
