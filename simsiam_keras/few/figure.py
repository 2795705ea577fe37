"""Accuracy over labels, with error bars."""

import math

import numpy as np

from simsiam_keras.study.figures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, YELLOW

# Colours of the colour-blind; markers and lines say it again. Ours are solid and thick.
STYLES = {
    "pixels": (GREY, ":", "s"),
    "hog": (YELLOW, ":", "D"),
    "random": (PURPLE, "--", "v"),
    "start": (GREEN, "--", "^"),
    "trained": (BLUE, "-", "o"),
    "start_finetuned": (GREEN, "-.", "P"),
    "finetuned": (ORANGE, "-", "o"),
    "scratch": (BLACK, "-.", "X"),
}


def draw(found, right, path):
    """Draws the table: a line for each row, bars of one standard deviation over draws.

    At one draw, that of all labels, the bar is the standard error of the test images.

    Args:
        found: what `report.gathered` returns.
        right: `{(row, number): [draws, images]}` of 0 and 1.
        path: PNG to write.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    numbers = found["labels_per_class"]
    picture = Figure(figsize=(9, 6.2), layout="constrained")
    ax = picture.subplots()
    for i, row in enumerate(found["rows"]):
        colour, line, marker = STYLES[row["name"]]
        shift = (i - (len(found["rows"]) - 1) / 2) * 0.035
        shares = [right[row["name"], number].mean(1) for number in numbers]
        ax.errorbar(
            np.arange(len(numbers)) + shift,
            [100 * share.mean() for share in shares],
            yerr=[100 * spread(share, found["test_images"]) for share in shares],
            label=row["title"],
            **{"color": colour, "linestyle": line, "marker": marker, "capsize": 3},
            linewidth=2.4 if line == "-" else 1.6,
        )
    chance = 100 / found["classes"]
    ax.axhline(chance, color=GREY, linewidth=1)
    ax.annotate(
        f"chance {chance:.0f} %",
        (1, chance),
        (-4, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        **{"ha": "right", "fontsize": 10, "color": GREY},
    )
    ax.set_xticks(range(len(numbers)), [_tick(found, number) for number in numbers])
    ax.set_xlabel("labels per class", fontsize=13)
    ax.set_ylabel(f"accuracy on {found['test_images']:,} test images (%)", fontsize=13)
    ax.tick_params(labelsize=12)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    picture.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=12)
    picture.savefig(path, dpi=150)


def spread(shares, images):
    """Standard deviation over draws; of one draw the standard error over test images."""
    if len(shares) > 1:
        return float(np.std(shares, ddof=1))
    return math.sqrt(shares[0] * (1 - shares[0]) / images)


def _tick(found, number):
    return f"all ({found['train_images']:,})" if number == "all" else str(number)
