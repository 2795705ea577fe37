"""How far the probabilities of a classifier may be believed, as PNG."""

import numpy as np

from simsiam_keras import plots
from simsiam_keras.classifier import calibration
from simsiam_keras.study.figures import BLUE, GREY


def reliability(path, before, after):
    """Draws what share is right at each confidence, before and after the temperature.

    Args:
        path: PNG to write.
        before: confidences and whether they were right, two arrays `[n]`.
        after: likewise.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(9, 4.6), layout="constrained")
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
    plots.save(figure, path)
