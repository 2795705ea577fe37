"""What a classifier confuses, and how far its probabilities may be believed, as PNG."""

import warnings

import numpy as np

from simsiam_keras import runs
from simsiam_keras.classifier import calibration
from simsiam_keras.study.figures import BLUE, GREY

NUMBERED = 20  # classes, of which each cell has its number written in it
LONGEST = 24  # letters of a name


def confusion(path, counts, names):
    """Draws a confusion matrix: a row for each true class, shaded by its share of the row.

    Args:
        path: PNG to write.
        counts: images by true and by said class `[classes, classes]`.
        names: of the classes.
    """
    classes = len(names)
    side = 2.5 + 0.45 * min(classes, 40)
    figure = _figure((side + 1, side))
    ax = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.set(xlabel="classified as", ylabel="is")
    if classes <= 2 * NUMBERED:
        ticks = range(classes), [_plain(name) for name in names]
        ax.set_xticks(*ticks, rotation=45, ha="right")
        ax.set_yticks(*ticks)
        for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
            text.set_parse_math(False)  # a name may hold two dollars
    if classes <= NUMBERED:
        for i, j in np.ndindex(*counts.shape):
            colour = "white" if shares[i, j] > 0.5 else "black"
            ax.text(j, i, str(counts[i, j]), color=colour, ha="center", va="center", fontsize=9)
    ax.set_title(f"{counts.sum():,} test images", fontsize=10)
    _save(figure, path)


def reliability(path, before, after):
    """Draws what share is right at each confidence, before and after the temperature.

    Args:
        path: PNG to write.
        before: confidences and whether they were right, two arrays `[n]`.
        after: likewise.
    """
    figure = _figure((9, 4.6))
    for ax, (confidence, right), title in zip(
        figure.subplots(1, 2, sharey=True), (before, after), ("before", "after"), strict=True
    ):
        count, mean, share = calibration.reliability(confidence, right)
        some = count > 0
        error = calibration.calibration_error(confidence, right)
        ax.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        ax.bar(
            (np.arange(len(count)) + 0.5) / len(count),
            count / count.sum(),
            width=0.9 / len(count),
            color=GREY,
            alpha=0.25,
            label="share of images",
        )
        ax.plot(mean[some], share[some], color=BLUE, marker="o", label="right")
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability that is said")
        ax.set_title(f"{title} the temperature: ECE {100 * error:.1f} %", fontsize=10)
        ax.legend(loc="upper left", fontsize=9)
        ax.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share that is right")
    _save(figure, path)


def _plain(name):
    """A name as a picture can show it: bytes that are no text replaced, in one short line."""
    name = " ".join(name.encode(errors="replace").decode().split())
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


def _figure(size):
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    return Figure(figsize=size, layout="constrained")


def _save(figure, path):
    path.parent.mkdir(exist_ok=True)
    with runs.atomic_file(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font has not
        figure.savefig(file, dpi=110, format="png")
