"""worth.json, report.md and the figure: one table, one picture and what they say in words."""

import dataclasses
import shlex
import statistics

import numpy as np

from simsiam_keras import config, flagfile, runs
from simsiam_keras.few import compare, draws, figure
from simsiam_keras.study import report as markdown
from simsiam_keras.study.ordering import mean_std

FIGURE = "accuracy_over_labels.png"


def gathered(table, cfg, test_part, left_out):
    """All that the report says, as worth.json has it.

    Args:
        table: a filled `table.Table`.
        cfg: a `config.Worth`.
        test_part: what the test images are, in words.
        left_out: `{title: why}` of rows that cannot be measured.

    Returns:
        A dict.
    """
    right = table.right()
    rows = []
    for name, title in table.titles.items():
        cells = {str(n): _numbers(table, right, name, n) for n in table.numbers}
        rows.append({"name": name, "title": title, "accuracy": cells})
    best = {}
    for number in table.numbers:
        row = max(table.titles, key=lambda each: right[each, number].mean())
        best[str(number)] = f"{table.titles[row]} {_share(right[row, number])}"
    counts = np.unique(table.labels, return_counts=True)[1]
    return {
        "rows": rows,
        "left_out": left_out,
        "labels_per_class": table.numbers,
        "beyond": table.beyond,
        "smaller": {str(number): classes for number, classes in table.smaller.items()},
        "draws": cfg.draws,
        "best": best,
        "verdict": compare.sentences(right, table.titles, table.numbers),
        "classes": len(counts),
        "train_images": len(table.labels),
        "train_images_of_a_class": [int(counts.min()), int(counts.max())],
        "test_images": int(next(iter(right.values())).shape[1]),
        "test_part": test_part,
        "protocol": protocol(cfg, table),
        "command": command(cfg),
        "dataset": cfg.dataset,
        "encoder": cfg.encoder,
        "identity": table.identity,
    }


def _numbers(table, right, name, number):
    measured = [cell.measured() for cell in table.cells_of(name, number)]
    accuracies = right[name, number].mean(1).tolist()
    mean, std = mean_std(accuracies)
    chosen = {}
    for key in ("C", "learning_rate"):
        values = [found[key] for found in measured if key in found]
        if values:
            chosen[key] = values
    return {
        "mean": mean,
        "std": std,
        "draws": accuracies,
        "labels": measured[0]["labels"],
        **chosen,
        "seconds": round(statistics.fmean(found["seconds"] for found in measured), 2),
    }


def write(folder, found, right):
    """Writes report.md and the figure.

    Args:
        folder: where to.
        found: what `gathered` returns.
        right: as `compare.sentences` takes it; test images give the figure's bars at all labels.
    """
    figure.draw(found, right, folder / FIGURE)
    runs.write_atomically(folder / "report.md", text(found))


def text(found):
    """The report, Markdown."""
    numbers = found["labels_per_class"]
    lines = [
        f"# What {markdown.plain(found['encoder'])} is worth on {markdown.plain(found['dataset'])}",
        "",
        *(f"- {sentence}" for sentence in found["verdict"]),
        "",
        "Better and worse: by more than two standard errors of the difference, on the same draws "
        "and test images, over both of which it spreads.",
        "",
        markdown.line(["test accuracy, %", *map(draws.heading, numbers)]),
        markdown.line([":--", *["--:"] * len(numbers)]),
    ]
    for row in found["rows"]:
        cells = [markdown.spell(row["accuracy"][str(n)]["draws"], 100, 1) for n in numbers]
        lines.append(markdown.line([row["title"], *cells]))
    lines += [f"| {markdown.plain(title)} | {why} |" for title, why in found["left_out"].items()]
    lines += ["", *notes(found), "", f"![Accuracy over labels]({FIGURE})", ""]
    lines += [*(f"- {line}" for line in found["protocol"]), f"- Command: `{found['command']}`"]
    return "\n".join(lines) + "\n"


def notes(found):
    """What the numbers of the table are of, a list of lines."""
    low, high = found["train_images_of_a_class"]
    lines = [
        f"Mean ± sample standard deviation over {found['draws']} draws of labels, on "
        f"{found['test_images']:,} test images ({found['test_part']}). `all`: the "
        f"{found['train_images']:,} training images, {low} to {high} of a class, one fit and so no "
        f"spread. k = {found['classes']} classes: chance is {100 / found['classes']:.1f} % where "
        "they are equally frequent."
    ]
    for number, classes in found["smaller"].items():
        word = "class has" if classes == 1 else "classes have"
        lines.append(f"{number} per class: {classes} {word} fewer, and give all that there are.")
    if found["beyond"]:
        numbers = ", ".join(map(str, found["beyond"]))
        lines.append(f"No class has more than {numbers}: that is `all`.")
    return lines


def protocol(cfg, table):
    """How it was measured, a list of sentences."""
    lines = [
        "Linear: logistic regression on features standardized by all training images; C by the "
        "likelihood of held-out labels, 1 where a class has one. The same for every row.",
        "HOG: 9 orientations, cells of 8x8 pixels, blocks of 2x2, L2-Hys.",
        "Random encoder: the same network at one random initialization.",
    ]
    if cfg.finetune:
        lines.append(
            f"Fine-tuned and from scratch: Adam, cosine, {cfg.finetune_epochs} epochs and no fewer "
            f"than {cfg.finetune_steps} steps of {cfg.finetune_batch} views (crops of "
            f"{cfg.finetune_min_crop:g} of the area or more, "
            f"{'' if table.flip else 'not '}mirrored); learning rate among {cfg.finetune_rates} by "
            "a held-out fifth of the labels from 5 per class on, the middle one below that. "
            "Fine-tuning begins with the row's linear classifier and "
            + ("learns" if cfg.finetune_batch_norm == "learned" else "keeps")
            + " batch normalization; from scratch begins at random, another in each draw."
        )
    return lines


def command(cfg):
    """The command that gives this, with every flag that is not at its default."""
    plain = config.make("worth", encoder=cfg.encoder)
    changed = [
        f"--{field.name}={flagfile.spell(getattr(cfg, field.name))}"
        for field in dataclasses.fields(cfg)
        if field.name == "encoder" or getattr(cfg, field.name) != getattr(plain, field.name)
    ]
    return shlex.join(["python", "-m", "simsiam_keras", "worth", *changed])


def _share(right):
    return f"{100 * right.mean():.1f} %"
