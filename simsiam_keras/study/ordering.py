"""Mean and spread over seeds, and whether our settings stand in the paper's order."""

import itertools
import math
import statistics
from dataclasses import dataclass

# Two numbers of the paper closer than this, in percent, have no order: its five trials of the same
# setting spread by .1 (figure 2), and it calls differences of .2 "random variations" (section 4.3).
PAPER_DIFFERENCE = 0.5


def mean_std(values):
    """Mean and sample standard deviation over seeds, `sqrt(sum (x - mean)^2 / (n - 1))`.

    Args:
        values: n >= 1 numbers.

    Returns:
        `(mean, std)`; std is None for n = 1, where there is no spread.

    Example:
        >>> mean_std([1.0, 2.0, 3.0])
        (2.0, 1.0)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def standard_error(a, b):
    """Standard error of the difference of two means, `sqrt(s_a^2 / n_a + s_b^2 / n_b)`.

    A side of one seed has no spread and adds nothing, so with single seeds it is 0.

    Args:
        a: n_a >= 1 numbers.
        b: n_b >= 1 numbers.

    Returns:
        A number >= 0.

    Example:
        >>> standard_error([1.0, 3.0], [5.0])
        1.0
    """
    return math.sqrt(sum(statistics.variance(x) / len(x) for x in (a, b) if len(x) > 1))


def compare(a, b, paper_a, paper_b):
    """Compares the order of two settings with the paper's.

    Undecided where our means differ by no more than their `standard_error`.

    Args:
        a: our values of one setting, over seeds.
        b: our values of the other.
        paper_a: the paper's number of the one.
        paper_b: the paper's number of the other, not equal to `paper_a`.

    Returns:
        "agrees", "disagrees" or "undecided".

    Example:
        >>> compare([90.0, 92.0], [70.0, 71.0], paper_a=67.7, paper_b=0.1)
        'agrees'
    """
    difference = statistics.fmean(a) - statistics.fmean(b)
    if abs(difference) <= standard_error(a, b):
        return "undecided"
    return "agrees" if (difference > 0) == (paper_a > paper_b) else "disagrees"


@dataclass(frozen=True)
class Order:
    """How the pairs of an experiment's settings stand against the paper.

    Attributes:
        agrees: pairs of labels in the paper's order, the better one in the paper first.
        undecided: pairs too close to tell.
        disagrees: pairs in the other order.
        unmeasured: number of pairs of which a setting has no number of ours.
        spread: whether any setting has several seeds.
    """

    agrees: tuple
    undecided: tuple
    disagrees: tuple
    unmeasured: int
    spread: bool

    @property
    def measured(self):
        """Number of pairs of which both settings have numbers of ours."""
        return len(self.agrees) + len(self.undecided) + len(self.disagrees)

    @property
    def short(self):
        """Pairs that agree, of those measured, for a table."""
        if not self.measured:
            return "–"
        undecided = f", {len(self.undecided)} undecided" if self.undecided else ""
        return f"{len(self.agrees)} of {self.measured}{undecided}"


def order(settings):
    """Compares every pair of settings that the paper tells apart.

    Args:
        settings: (label, paper's number or None, our values over seeds, maybe none) of each.

    Returns:
        An `Order`.
    """
    pairs = {"agrees": [], "undecided": [], "disagrees": []}
    unmeasured = 0
    known = [setting for setting in settings if setting[1] is not None]
    for pair in itertools.combinations(known, 2):
        (better, high, a), (worse, low, b) = sorted(pair, key=lambda setting: -setting[1])
        if round(high - low, 6) < PAPER_DIFFERENCE:
            continue
        if a and b:
            pairs[compare(a, b, high, low)].append((better, worse))
        else:
            unmeasured += 1
    spread = any(len(values) > 1 for _, _, values in settings)
    return Order(**{k: tuple(v) for k, v in pairs.items()}, unmeasured=unmeasured, spread=spread)


def sentence(found):
    """An `Order` in words."""
    if not found.measured:
        return "no two settings that the paper tells apart have been measured."
    parts = [f"{len(found.agrees)} of {found.measured} pairs are in the paper's order"]
    if found.undecided:
        parts.append(f"{len(found.undecided)} undecided ({_spell(found.undecided)})")
    if found.disagrees:
        parts.append(f"{len(found.disagrees)} the other way round ({_spell(found.disagrees)})")
    if found.unmeasured:
        parts.append(f"{found.unmeasured} not measured")
    if not found.spread:
        parts.append("one seed, so a difference of any size counts")
    return "; ".join(parts) + "."


def _spell(pairs):
    return ", ".join(f"{better} > {worse}" for better, worse in pairs)
