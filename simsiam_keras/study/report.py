"""The report on a study, read from its run folders: report.md, and report.html in one file."""

import base64
import dataclasses
import re
import shlex
from importlib import resources
from pathlib import Path

from simsiam_keras import config, flagfile, options, runs
from simsiam_keras.study import cells, figures, grids, ordering

# Result's key, heading, factor, decimals. A column without a number is left out.
COLUMNS = (
    ("knn_accuracy", "kNN %", 100, 1),
    ("linear_accuracy", "linear %", 100, 1),
    ("z_std", "std·√d", 1, 2),
    ("loss", "loss", 1, 3),
    ("feature_rank", "effective rank", 1, 1),
)
ORDERED = (("linear_accuracy", "linear"), ("knn_accuracy", "kNN"))


def write(study_dir):
    """Writes report.md, report.html and plots/ of a study, finished or not.

    Args:
        study_dir: the study's folder.

    Returns:
        A dict: what the order of the settings says of each experiment, and the report's path.
    """
    study_dir = Path(study_dir)
    cfg = config.parse("study", [f"--flagfile={study_dir / 'flags.cfg'}"])
    experiments = read(study_dir, cfg)
    (study_dir / "plots").mkdir(exist_ok=True)
    text = "\n".join(
        [
            *_introduction(study_dir, cfg, experiments),
            *(line for one in experiments for line in _section(study_dir, one)),
        ]
    )
    runs.write_atomically(study_dir / "report.md", text + "\n")
    runs.write_atomically(study_dir / "report.html", to_html(text, study_dir))
    order = {
        one.study.name: ", ".join(f"{title} {short}" for title, short in _orders(one))
        for one in experiments
    }
    return {"in the paper's order": order, "report": str(study_dir / "report.md")}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of an experiment with its runs.

    Attributes:
        label: its name.
        row: the `grids.Row`.
        cells: its runs, finished or not.
    """

    label: str
    row: object
    cells: tuple

    def values(self, key):
        """The numbers of a key of result.json, over the seeds that have ended with one."""
        found = [cell.result().get(key) for cell in self.cells if cell.outcome()]
        return [value for value in found if value is not None]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A `grids.Study` with its settings."""

    study: object
    settings: tuple

    def compared(self, key):
        """What `ordering.order` takes, for a key of result.json."""
        return [(one.label, one.row.paper, one.values(key)) for one in self.settings]


def read(study_dir, cfg):
    """The experiments that the folder's flags name or of which it has runs of their own.

    Args:
        study_dir: the study's folder.
        cfg: its `config.Study`.

    Returns:
        A list of `Experiment`.
    """
    begun = {path.name for path in study_dir.glob("runs/*")} - {cells.RECIPE}
    asked = {study.name for study in grids.chosen(cfg)}
    experiments = []
    for study in grids.possible(cfg):
        settings = tuple(_setting(row, cfg, study_dir) for row in study.rows)
        names = {cell.name for one in settings for cell in one.cells}
        if study.name in asked or names & begun:
            experiments.append(Experiment(study, settings))
    return experiments


def _setting(row, cfg, study_dir):
    """A row with the runs that were asked for, and those of other seeds that are there."""
    folder = study_dir / "runs" / cells.name(cells.changes(row, cfg))
    seeds = set(range(cfg.seed, cfg.seed + cfg.seeds))
    seeds |= {int(path.stem.removeprefix("seed")) for path in folder.glob("seed*.json")}
    return Setting(
        cells.label(row, cfg), row, tuple(cells.of_row(row, cfg, study_dir, sorted(seeds)))
    )


def _introduction(study_dir, cfg, experiments):
    started = {cell for one in experiments for setting in one.settings for cell in setting.cells}
    finished, counted = progress(started)
    every = len(grids.possible(cfg)) == len(grids.STUDIES)
    method = "" if every else f" with {plain(cfg.method)}"
    lines = [
        f"# The paper's experiments{method} on {plain(cfg.dataset)}",
        "",
        f"{counted} The paper's numbers are of SimSiam, "
        "ImageNet, ResNet-50, 100 epochs, linear classification: compare the order of the "
        "settings, not the values.",
        "",
    ]
    lines += ["| pairs of settings in the paper's order | linear | kNN |", "| :-- | --: | --: |"]
    for one in experiments:
        lines.append(line([one.study.title, *(short for _, short in _orders(one))]))
    lines.append("")
    if finished:
        own = (
            f"d = {cfg.output_dim}, base learning rate {cfg.base_lr:g}, predictor's rate "
            f"{cfg.predictor_lr}; all flags are in `flags.cfg`."
        )
        first = min(finished, key=lambda cell: (cell.seed, cell.name))
        lines += [*protocol(cfg, first, own), ""]
    return lines


def progress(every):
    """The cells that have finished without failing, and a sentence of how far the grid is."""
    failed = [cell for cell in every if cell.error()]
    finished = [cell for cell in every if cell.outcome() and not cell.error()]
    return finished, (
        f"{len(finished)} of {len(every)} runs have finished, {len(failed)} have failed, "
        f"{len(every) - len(finished) - len(failed)} are to come."
    )


def protocol(cfg, cell, own):
    """What the numbers were measured on and how, a list of lines.

    Args:
        cfg: a `config.Grid`.
        cell: a finished run, whose files tell.
        own: what to say of the settings that are not the encoder's and the data's.

    Returns:
        Lines of Markdown.
    """
    environment = runs.read_json(cell.folder / "environment.json", "run that again in a new folder")
    result, data = cell.result(), environment["data"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    lines = [
        f"- Data: {data['images']:,} images of {data['name']}.",
        f"- Recipe: {cfg.encoder}, stem {cfg.stem}, width {cfg.width}, batch {cfg.batch_size}, "
        f"{cfg.epochs} epochs, {own}",
        "- Numbers are of the last epoch, mean ± sample standard deviation over seeds. Loss and "
        "std·√d are those of training.",
    ]
    if result.get("knn"):
        lines.append(
            "- kNN: k = {k}, T = {temperature}, a bank of {bank:,} images without augmentation, "
            "queries: {queries}.".format(**result["knn"])
        )
    if "linear_accuracy" in result:
        lines.append(
            f"- Linear: {result['optimizer'].upper()} on frozen features without augmentation, "
            f"the best of {len(result['learning_rates'])} learning rates on held-out training "
            "images; each run's is in `linear_probe_sgd/result.json`."
        )
    return [
        *lines,
        f"- Order: pairs of settings that differ by {ordering.PAPER_DIFFERENCE} points or more in "
        "the paper. A pair is undecided where our means differ by no more than the standard error "
        "of their difference, √(s₁²/n₁ + s₂²/n₂).",
        f"- Machine: {environment['platform']}, {environment['processors']} processors, "
        f"{', '.join(environment['devices'])}, {environment['backend']}; {versions}.",
        f"- Command: `{command(cfg)}`",
    ]


def command(cfg):
    """The command that gives a `config.Grid`, with every flag that is not at its default."""
    defaults = dataclasses.asdict(type(cfg)())  # with the stem of the default recipe
    defaults["method"] = options.Pretrain.method  # the fields are those of another
    changed = [
        f"--{name}={flagfile.spell(getattr(cfg, name))}"
        for name, default in defaults.items()
        if getattr(cfg, name) != default
    ]
    name = type(cfg).__name__.lower()
    return shlex.join(["python", "-m", "simsiam_keras", name, *changed])


def _orders(experiment):
    """(measure, pairs in the paper's order of those measured) of an experiment."""
    return [(title, ordering.order(experiment.compared(key)).short) for key, title in ORDERED]


def _section(study_dir, experiment):
    study, settings = experiment.study, experiment.settings
    lines = [f"## {study.title}", "", f"The paper: {study.reference}.", "", *_table(settings), ""]
    for key, title in ORDERED:
        if any(setting.values(key) for setting in settings):
            found = ordering.order(experiment.compared(key))
            lines += [f"By {title} accuracy, {ordering.sentence(found)}", ""]
    for title, path in _pictures(study_dir, experiment):
        lines += [f"![{title}]({path})", ""]
    failed = [each for one in settings for each in failures(study_dir, one)]
    return [*lines, *failed, ""] if failed else lines


def failures(study_dir, setting):
    """A line for each sentence that runs of a setting failed with."""
    seeds = {}
    for cell in setting.cells:
        if cell.error():
            seeds.setdefault(cell.error(), []).append(cell)
    for error, failed in seeds.items():
        numbers = ", ".join(str(cell.seed) for cell in failed)
        which = f"seed{'s' if len(failed) > 1 else ''} {numbers}"
        logs = [cell.log.relative_to(study_dir) for cell in failed if cell.log.exists()]
        where = f" (`{logs[0]}`)" if logs else ""
        yield f"- {setting.label}, {which}, failed: {plain(error)}{where}"


def _table(settings):
    columns = [c for c in COLUMNS if any(setting.values(c[0]) for setting in settings)]
    heads = ["setting", *(head for _, head, _, _ in columns), "seeds", "paper %", "in the paper"]
    yield line(heads)
    yield line([":--", *["--:"] * (len(columns) + 2), ":--"])
    for setting in settings:
        numbers = [spell(setting.values(key), *how) for key, _, *how in columns]
        paper = "–" if setting.row.paper is None else f"{setting.row.paper:.1f}"
        yield line([setting.label, *numbers, finished_seeds(setting), paper, setting.row.remark])


def finished_seeds(setting):
    """How many runs of a setting have finished and failed, for a table."""
    finished = len(setting.values("loss"))
    failed = sum(cell.error() is not None for cell in setting.cells)
    text = f"{finished} of {len(setting.cells)}"
    return f"{text}, {failed} failed" if failed else text


def spell(values, factor=1, decimals=2):
    """Mean and standard deviation as text, e.g. `92.9 ± 0.6`.

    Args:
        values: numbers over seeds; none gives a dash, one gives no spread.
        factor: what they are multiplied by. Defaults to 1.
        decimals: digits after the point. Defaults to 2.

    Returns:
        A string.
    """
    if not values:
        return "–"
    mean, std = ordering.mean_std([factor * value for value in values])
    text = f"{mean:.{decimals}f}"
    text = text if std is None else f"{text} ± {std:.{decimals}f}"
    return text.replace("-", "−")


def line(parts):
    """A row of a Markdown table."""
    return "| " + " | ".join(plain(part) for part in parts) + " |"


def plain(text):
    """Text without a meaning in Markdown."""
    return re.sub(r"([|*_<`\[\]\\])", r"\\\1", text)


def _pictures(study_dir, experiment):
    """Draws an experiment; yields (caption, path within the folder)."""
    name, settings = experiment.study.name, experiment.settings
    if name == "stop_gradient":
        groups = [
            (one.label, [runs.read_metrics(cell.folder) for cell in one.cells]) for one in settings
        ]
        if any(rows for _, seeds in groups for rows in seeds):
            figures.curves(groups, study_dir / "plots" / "figure_2.png")
            yield (
                "Figure 2 of the paper from these runs: mean over seeds, lowest to highest shaded",
                "plots/figure_2.png",
            )
    rows = [
        (one.label, {key: one.values(key) for key, *_ in figures.MEASURES}, one.row.paper)
        for one in settings
    ]
    if any(found for _, values, _ in rows for found in values.values()):
        before = [x for one in settings for x in one.values("knn_accuracy_random_init")]
        figures.settings(rows, before, study_dir / "plots" / f"{name}.png")
        yield f"{experiment.study.title}: ours and the paper's", f"plots/{name}.png"


def to_html(text, folder):
    """A report as one HTML file that needs nothing else.

    Args:
        text: Markdown; its pictures are PNG files within `folder`.
        folder: where the pictures are.

    Returns:
        HTML, with the pictures inside.
    """
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)

    def inline(match):
        data = base64.b64encode((Path(folder) / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="([^"]+\.png)"', inline, body)
    style = resources.files(__package__).joinpath("report.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_title(body)}</title>\n<style>\n{style}</style>\n{body}</html>\n"
    )


def _title(body):
    return re.search("<h1>(.*?)</h1>", body)[1]
