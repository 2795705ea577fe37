"""Methods beside each other on the same images: the grid, and a report with the paper's table 4."""

from dataclasses import fields
from pathlib import Path

from simsiam_keras import config, options, runs
from simsiam_keras.family import FAMILY, own_flags
from simsiam_keras.study import cells, figures, ordering, report, runner

EPOCHS = (100, 200, 400, 800)  # of the paper's table 4
# As of a study, without the loss, which every method has on a scale of its own.
COLUMNS = (
    *(column for column in report.COLUMNS if column[0] != "loss"),
    ("images_per_second", "images/s", 1, 0),
    ("peak_memory_mb", "peak memory, MB", 1, 0),
)
CURVES = (("knn_accuracy", "kNN accuracy (%)", 100), ("z_std", "std of outputs × √d", 1))
USES = {
    "negatives": "negatives",
    "momentum": "momentum",
    "clustering": "clustering",
    "supervised": "labels",
}


def run(cfg, console=None):
    """Trains what a comparison still needs, and writes its report.

    Args:
        cfg: a `config.Compare`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict that says what was run, what was measured, and where the report is.

    Raises:
        ValueError: if the folder holds something else.
        RunFailed: if every run has failed.
    """
    return runner.fill("compare", cfg, grid(cfg, config.study_dir(cfg)), write, console)


def compared(cfg):
    """The names of the methods of a `config.Compare`."""
    return cfg.methods.split(",")


def own(cfg, method):
    """What a method has to itself.

    Args:
        cfg: a `config.Compare`.
        method: its name.

    Returns:
        Values by flag, `method` among them.
    """
    path = Path(cfg.recipes.format(method=method))
    here = {cfg.method: cfg}  # whose own flags are those of the recipe
    if cfg.recipes and path.exists():
        recipe = config.parse("pretrain", [f"--flagfile={path}"])
    else:  # or its paper's heads and constants, with the optimizer of the recipe
        recipe = here.get(method) or runner.setting(cfg, {"method": method, **defaults(method)})
    names = (*own_flags(method), *(field.name for field in fields(options.Optimizer)))
    return {"method": method} | {name: getattr(recipe, name) for name in names}


def defaults(method):
    """A method's own flags as its paper has them, values by name."""
    return {field.name: field.default for field in fields(FAMILY[method].flags)}


def grid(cfg, folder):
    """The runs of a comparison, the first seed of every method before the second of any.

    Args:
        cfg: a `config.Compare`.
        folder: the comparison's folder.

    Returns:
        A dict of `cells.Cell` to what its method has to itself.
    """
    return {
        cells.Cell(method, seed, folder / "runs" / method / f"seed{seed}"): own(cfg, method)
        for seed in runner.seeds(cfg)
        for method in compared(cfg)
    }


def write(folder):
    """Writes report.md, report.html and plots/ of a comparison, finished or not.

    Args:
        folder: the comparison's folder.

    Returns:
        A dict: kNN accuracies by method, and the report's path.
    """
    folder = Path(folder)
    cfg = config.parse("compare", [f"--flagfile={folder / 'flags.cfg'}"])
    settings = _settings(cfg, folder)
    (folder / "plots").mkdir(exist_ok=True)
    text = "\n".join([*_introduction(cfg, folder, settings), *_body(cfg, folder, settings)])
    runs.write_atomically(folder / "report.md", text + "\n")
    runs.write_atomically(folder / "report.html", report.to_html(text, folder))
    found = {one.label: report.spell(one.values("knn_accuracy"), 100, 1) for one in settings}
    return {"kNN %": found, "report": str(folder / "report.md")}


def _settings(cfg, folder):
    mine = {method: [] for method in compared(cfg)}
    for cell in grid(cfg, folder):
        mine[cell.name].append(cell)
    return [
        report.Setting(FAMILY[method].title, FAMILY[method], tuple(runs_of_method))
        for method, runs_of_method in mine.items()
    ]


def _introduction(cfg, folder, settings):
    finished, counted = report.progress([cell for one in settings for cell in one.cells])
    lines = [
        f"# {', '.join(one.label for one in settings)} on {report.plain(cfg.dataset)}",
        "",
        f"{counted} Same images, encoder, epochs, "
        "batches, augmentation and seeds; heads, loss and optimizer are each method's own.",
        "",
    ]
    if finished:
        rest = (
            "the rest from each method's own flagfile"
            + (f" (`{cfg.recipes}`)" if cfg.recipes else "")
            + " where there is one; all flags are in `runs/METHOD/seed0/flags.cfg`."
        )
        lines += report.protocol(cfg, min(finished, key=lambda c: (c.seed, c.name)), rest)
        at_a_time = f", {cfg.jobs} runs at a time on a share of the processors each"
        lines += [
            f"- images/s: median over epochs{at_a_time if cfg.jobs > 1 else ''}. Peak memory: of "
            "the accelerator, without one of the whole process.",
            "",
        ]
    return lines


def _body(cfg, folder, settings):
    columns = [c for c in COLUMNS if any(one.values(c[0]) for one in settings)]
    labels = any(one.row.supervised for one in settings)
    uses = [key for key in USES if key != "supervised" or labels]
    heads = ["method", *(head for _, head, _, _ in columns), "parameters, M"]
    align = [":--", *["--:"] * (len(heads) - 1), *[":-:"] * len(uses), "--:"]
    heads += [*(USES[key] for key in uses), "seeds"]
    lines = ["## Measured here", "", report.line(heads), report.line(align)]
    for one in settings:
        numbers = [report.spell(one.values(key), *how) for key, _, *how in columns]
        sizes = sorted(set(one.values("parameters")))
        size = ", ".join(f"{x / 1e6:.2f}" for x in sizes) or "–"
        needs = ["yes" if getattr(one.row, key) else "–" for key in uses]
        lines.append(report.line([one.label, *numbers, size, *needs, report.finished_seeds(one)]))
    lines += ["", "Parameters are those that are trained, heads included.", ""]
    groups = [
        (one.label, [runs.read_metrics(cell.folder) for cell in one.cells]) for one in settings
    ]
    if any(rows for _, seeds in groups for rows in seeds):
        figures.curves(groups, folder / "plots" / "curves.png", CURVES)
        caption = "mean over seeds, lowest to highest shaded"
        lines += [f"![kNN accuracy and spread of the outputs: {caption}](plots/curves.png)", ""]
    for key, title in report.ORDERED:
        if any(one.values(key) for one in settings):
            # After 100 epochs, as the paper's other numbers are.
            paper = [one.row.paper and one.row.paper[0] for one in settings]
            compared = [
                (one.label, number, one.values(key))
                for one, number in zip(settings, paper, strict=True)
            ]
            found = ordering.order(compared)
            lines += [f"By {title} accuracy, {ordering.sentence(found)}", ""]
    lines += [line for one in settings for line in report.failures(folder, one)]
    return [*lines, "", *_paper(cfg)]


def _paper(cfg):
    members = [FAMILY[method] for method in compared(cfg)]
    heads = ["method", *(f"{n} epochs" for n in EPOCHS)]
    lines = [
        "## In the paper",
        "",
        "Table 4: ImageNet, ResNet-50, linear classification, accuracy in percent.",
        "",
        report.line(heads),
        report.line([":--", *["--:"] * len(EPOCHS)]),
    ]
    for member in members:
        numbers = [f"{x:.1f}" for x in member.paper] if member.paper else ["–"] * len(EPOCHS)
        lines.append(report.line([member.title, *numbers]))
    return lines
