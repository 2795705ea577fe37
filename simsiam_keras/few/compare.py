"""Which row of the table is better than which, and whether by more than chance."""

import math

import numpy as np

# What self-supervision has to be better than, and fine-tuning, each beside its alternative.
PAIRS = (
    ("trained", "start"),
    ("trained", "random"),
    ("trained", "pixels"),
    ("trained", "hog"),
    ("finetuned", "start_finetuned"),
    ("finetuned", "scratch"),
)
ERRORS = 2.0  # standard errors of a difference, within which two rows are alike


def difference(a, b):
    """How much better one row is than another at one number of labels, and its standard error.

    Both were tested on the same images after the same draws, so that it is their difference that
    counts. Draws and test images are two samples at once: the variance of a mean over both is at
    most that of the means of draws plus that of the means of images,

        error^2 = var_draws(mean over images) / draws + var_images(mean over draws) / images

    With one draw the first term is not known and 0: the error is that of the test images alone.

    Args:
        a: 0 and 1, `[draws, images]`, what was classified rightly.
        b: likewise, of the same draws and images.

    Returns:
        `(difference, error)`, shares.

    Example:
    >>> difference([[1, 1, 1, 1]], [[0, 0, 0, 0]])
    (1.0, 0.0)

    Reference:
        Cameron, Gelbach & Miller, Robust Inference with Multiway Clustering, 2011, section 2; the
        part that draws and images have in common is not taken off, which errs on the safe side.
    """
    d = np.asarray(a, "float64") - np.asarray(b, "float64")
    error = d.mean(0).var(ddof=1) / d.shape[1] if d.shape[1] > 1 else 0.0
    if d.shape[0] > 1:
        error += d.mean(1).var(ddof=1) / d.shape[0]
    return float(d.mean()), math.sqrt(error)


def compared(a, b):
    """`"better"`, `"worse"` or `"alike"`: `difference` against two standard errors."""
    found, error = difference(a, b)
    if abs(found) <= ERRORS * error:
        return "alike"
    return "better" if found > 0 else "worse"


def sentences(right, titles, numbers):
    """What the table says in words.

    Args:
        right: `{(row, number): [draws, images]}` of 0 and 1.
        titles: `{row: title}`.
        numbers: labels per class, in order.

    Returns:
        A list of sentences.
    """
    found = []
    for number in numbers:
        rows = [row for row in titles if (row, number) in right]
        if rows:
            found.append(_best(right, titles, number, rows))
    found += [
        _against(right, titles, numbers, ours, other)
        for ours, other in PAIRS
        if ours in titles and other in titles
    ]
    return found


def _best(right, titles, number, rows):
    best = max(rows, key=lambda row: np.mean(right[row, number]))
    alike = [
        titles[row]
        for row in rows
        if row != best and compared(right[best, number], right[row, number]) == "alike"
    ]
    beside = f"; not told apart from it: {', '.join(alike)}" if alike else ""
    share = f"{100 * np.mean(right[best, number]):.1f} %"
    return f"With {labels(number)} the best is {titles[best]}, {share}{beside}."


def _against(right, titles, numbers, ours, other):
    verdicts = {}
    for number in numbers:
        if (ours, number) in right and (other, number) in right:
            verdict = compared(right[ours, number], right[other, number])
            verdicts.setdefault(verdict, []).append(number)
    words = {"better": "better than", "worse": "worse than", "alike": "not told apart from"}
    parts = [
        f"{words[verdict]} it with {_listed(verdicts[verdict])}"
        for verdict in words
        if verdict in verdicts
    ]
    return f"{_capital(titles[ours])} against {titles[other]}: {'; '.join(parts)}."


def labels(number):
    """A number of labels per class in words."""
    if number == "all":
        return "all labels"
    return f"{number} label{'s' if number > 1 else ''} per class"


def _listed(numbers):
    few = [str(number) for number in numbers if number != "all"]
    parts = [f"{', '.join(few)} per class"] if few else []
    return " and ".join(parts + ["all labels"] * ("all" in numbers))


def _capital(text):
    return text[:1].upper() + text[1:]
