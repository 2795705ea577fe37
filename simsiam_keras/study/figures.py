"""The pictures of a report: the paper's figure 2 from our runs, and one of every experiment."""

import statistics

from simsiam_keras.study.ordering import mean_std

# Okabe & Ito's colours, which the colour-blind tell apart; markers and line styles say it again.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, BLACK, GREY = "#E69F00", "#000000", "#666666"
CURVES = (
    ("loss", "training loss", 1),
    ("z_std", "std of outputs × √d", 1),
    ("knn_accuracy", "kNN accuracy (%)", 100),
)
STYLES = (
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (YELLOW, "-"),
    (BLACK, "--"),
    (GREY, "-."),
    (BLUE, ":"),
)
MEASURES = (("knn_accuracy", "kNN", BLUE, "o"), ("linear_accuracy", "linear", GREEN, "s"))


def curves(groups, path, measures=CURVES):
    """Draws loss, std x sqrt(d) and kNN accuracy over the epochs, as figure 2 of the paper does.

    Lines are means over seeds, bands reach from the lowest to the highest seed.

    Args:
        groups: (label, list of the metrics rows of every seed) of up to eight settings.
        path: PNG to write.
        measures: (key, label, factor) of each panel.
    """
    bands = {key: [_band(seeds, key, scale) for _, seeds in groups] for key, _, scale in measures}
    panels = [(key, label) for key, label, _ in measures if any(bands[key])]
    last = max(row["epoch"] for _, seeds in groups for rows in seeds for row in rows)
    figure, axes = _figure(len(panels), (13 / 3 * len(panels), 4.1))
    for ax, (key, label) in zip(axes, panels, strict=True):
        for (name, _), band, style in zip(groups, bands[key], STYLES, strict=False):
            if band:
                _curve(ax, band, name, *style)
        ax.set(xlabel="epoch", ylabel=label, xlim=(-0.02 * last, 1.02 * last))
        ax.locator_params(axis="x", integer=True)
        if key == "z_std":
            ax.axhline(1, color=GREY, linestyle=":", linewidth=1.2)
            ax.set_ylim(0, 1.2)
            _note(ax, 0.7, 1.06, "spread over the sphere")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    _save(figure, path)


def _curve(ax, band, label, colour, line):
    epochs, low, mean, high = zip(*band, strict=True)
    marker = "o" if len(epochs) <= 30 else None
    ax.plot(epochs, mean, line, color=colour, label=label, linewidth=2.2, marker=marker)
    ax.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def _band(seeds, key, scale):
    """(epoch, lowest, mean, highest) over the seeds, at the epochs that any has measured."""
    by_epoch = {}
    for rows in seeds:
        for row in rows:
            if row.get(key) is not None:
                by_epoch.setdefault(row["epoch"], []).append(scale * row[key])
    return [(e, min(v), statistics.fmean(v), max(v)) for e, v in sorted(by_epoch.items())]


def settings(rows, before, path):
    """Draws the accuracies of an experiment's settings beside the paper's.

    Args:
        rows: (label, values by measure in [0, 1] over seeds, paper's percent or None), from the
            top.
        before: kNN accuracies in [0, 1] of the recipe at random initialization, maybe none.
        path: PNG to write.
    """
    figure, (ours, paper) = _figure(2, (11, 1.6 + 0.55 * len(rows)), sharey=True)
    drawn = [measure for measure in MEASURES if any(values[measure[0]] for _, values, _ in rows)]
    for measure, shift in zip(drawn, (-0.14, 0.14) if len(drawn) == 2 else (0,), strict=True):
        _dots(ours, rows, measure, shift)
    if before:
        mean = 100 * statistics.fmean(before)
        ours.axvline(mean, color=GREY, linestyle=":", label="kNN before training")
    for y, (_, values, number) in enumerate(rows):
        if not any(values[key] for key, *_ in drawn):
            _note(ours, 0.5, y, "not measured")
        if number is None:
            _note(paper, 0.5, y, "no number given")
            continue
        paper.plot(number, y, "D", color=ORANGE, markersize=8)
        paper.annotate(
            f"{number:.1f}", (number, y), (0, 10), textcoords="offset points", ha="center"
        )
    paper.margins(x=0.12)
    ours.set(yticks=range(len(rows)), ylim=(len(rows) - 0.5, -0.5))
    ours.set_yticklabels([label for label, _, _ in rows])
    ours.set_xlabel("our accuracy (%)")
    paper.set_xlabel("paper: ImageNet linear accuracy (%)")
    if ours.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    _save(figure, path)


def _dots(ax, rows, measure, shift):
    """A measure's mean and standard deviation over seeds, with the seeds themselves faint."""
    key, label, colour, marker = measure
    for y, (_, values, _) in enumerate(rows):
        found = [100 * value for value in values[key]]
        if not found:
            continue
        mean, std = mean_std(found)
        ax.plot(found, [y + shift] * len(found), marker, color=colour, alpha=0.3, markersize=5)
        ax.errorbar(mean, y + shift, xerr=std, fmt=marker, color=colour, capsize=4, label=label)
        label = None  # once in the legend


def _note(ax, x, y, text):
    """Small grey text around a share of the width and a value of the y axis."""
    ax.text(
        x,
        y,
        text,
        transform=ax.get_yaxis_transform(),
        **{"ha": "center", "va": "center", "fontsize": 11, "color": GREY},
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )


def _figure(columns, size, **options):
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05, w_pad=0.08)
    axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=12)
        ax.xaxis.label.set_size(13)
        ax.yaxis.label.set_size(13)
    return figure, axes


def _save(figure, path):
    for legend in figure.legends:
        for text in legend.get_texts():
            text.set_fontsize(13)
    figure.savefig(path, dpi=150)
