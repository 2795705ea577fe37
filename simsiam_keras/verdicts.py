"""When a run has collapsed, does not learn or has harmed: a table of rules."""

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
ERRORS = 2.0  # standard errors of a difference, below which two measurements are alike
KNN = ("knn_accuracy", "mean_average_precision")  # the second where images have several labels


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


def percent(share):
    """A share in percent, as text."""
    return f"{100 * share:.1f} %"


def is_number(value):
    """Whether there is a finite number."""
    return value is not None and math.isfinite(value)


def below(a, b, n):
    """Whether a share of n is below another of n by more than chance, `ERRORS` standard errors.

    Example:
    >>> below(0.80, 0.83, 400), below(0.80, 0.83, 4000)
    (False, True)
    """
    return b - a > ERRORS * math.sqrt(max(0.0, a * (1 - a) + b * (1 - b)) / n)


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


def _worse_than_the_start(run):
    points, queries = run.knn(), run.queries()
    compared = queries and len(points) > 1 and points[0][0] == 0
    return points[-1][0] if compared and below(points[-1][1], points[0][1], queries) else None


def _worse_than_the_pixels(run):
    points, pixels, queries = run.knn(), run.pixels(), run.queries()
    compared = queries and pixels is not None and points and points[-1][0] > 0
    return points[-1][0] if compared and below(points[-1][1], pixels, queries) else None


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
        "worse than at the start",
        _worse_than_the_start,
        "Training has made the features worse: kNN, {last_knn}, is below {start} {first_knn} by "
        "more than the chance of {queries} images. The outputs have not collapsed (std·√d "
        "{z_std:.2f}).",
    ),
    Rule(
        "views too different",
        _knn_falls,
        "The views agree (loss {loss:.2f}) and the outputs have not collapsed (std·√d "
        "{z_std:.2f}), but kNN has fallen since epoch {since}, to {last_knn}: what the views have "
        "in common is probably not what tells the classes apart.",
    ),
    Rule(
        "worse than the pixels",
        _worse_than_the_pixels,
        "Training has not paid yet: kNN of the features, {last_knn}, is below that of the pixels "
        "themselves, {pixels}, by more than the chance of {queries} images; it began at "
        "{first_knn}. The outputs have not collapsed (std·√d {z_std:.2f}).",
    ),
    Rule(
        "no gain yet",
        _no_gain,
        "Nothing has collapsed (std·√d {z_std:.2f}) and the loss has fallen to {loss:.2f}, but "
        "kNN, {last_knn}, is not above {start} {first_knn}.",
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
WORSE = ("worse than at the start", "worse than the pixels")
USELESS = (*COLLAPSES, "not learning", "views too different", "no gain yet", *WORSE)
