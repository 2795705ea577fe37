"""`worth`: an encoder beside what can be had without it, with few labels and with all."""

import contextlib
import dataclasses
import math
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

from simsiam_keras import cards, devices, export, inputs, interrupts, runs, settings
from simsiam_keras.crops import mirrored
from simsiam_keras.evaluation import hog
from simsiam_keras.few import cells, draws, report, rows
from simsiam_keras.few.table import Table
from simsiam_keras.progress import saying
from simsiam_keras.start import FILE

ENCODER = "encoder.keras"
# What may be asked for otherwise of cells that are there.
FREE = {"labels_per_class", "draws", "finetune", "batch_size", "trust_encoder"}


@settings.own
def worth(cfg, console=None):
    """Compares an encoder at several numbers of labels; returns the content of its result.json.

    Args:
        cfg: a `config.Worth`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict with the best row of each number of labels, the verdict and where the report is.

    Raises:
        ValueError: if the encoder, the data or their labels cannot be used.
        Interrupted: after a signal, with what is measured so far in the folder.
    """
    console = console or Console(stderr=True)
    began = time.perf_counter()
    numbers, tuning = draws.parsed(cfg.labels_per_class), _tuning(cfg)
    path = encoder_of(cfg.encoder)
    encoder = export.load_encoder(path, cfg.trust_encoder)
    start = _start(path, encoder, cfg.trust_encoder)
    say = saying(console)
    train_set, test_set, test_part = inputs.train_and_test(cfg, say, encoder)
    check(cfg, train_set, test_set)
    flip = mirrored(cfg.flip, path)
    titles, left_out = rows.titles(train_set, cfg.finetune, start, hog.missing(), _trained(path))
    for title, why in left_out.items():
        say(f"{title}: left out, it {why}")
    folder = _folder(cfg, path)
    flags = dataclasses.asdict(cfg)
    if any(folder.glob("cells/*.json")):
        runs.refuse_other_flags(folder, flags, "an unfinished `worth`", FREE)
    with runs.locked(folder, flags) as run_dir:
        runs.write_environment(run_dir, keras.backend.backend(), devices.names(), train_set)
        table = Table(cfg, run_dir, titles, encoder, start, (train_set, test_set), flip, console)
        with _told(table):
            table.fill(numbers, tuning, _identity(path, start, train_set, test_set))
        found = report.gathered(table, cfg, test_part, left_out)
        runs.write_json(run_dir / "worth.json", found)
        report.write(run_dir, found, table.right())
        result = {
            "best": found["best"],
            "verdict": found["verdict"],
            "train_images": found["train_images"],
            "test_images": found["test_images"],
            "report": str(run_dir / "report.md"),
            "figure": str(run_dir / report.FIGURE),
            "dataset": cfg.dataset,
            "encoder": cfg.encoder,
            "seed": cfg.seed,
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
        without = inputs.without_row((train_set, test_set), say)
        runs.write_json(run_dir / "result.json", {**result, "without_row": without})
    return {**result, "verdict": " ".join(found["verdict"]), "run_dir": str(run_dir)}


def encoder_of(path):
    """The `.keras` file of an encoder or of a run folder.

    Raises:
        ValueError: if there is none.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        raise ValueError(
            f"{path} is a SavedModel, which cannot be trained on; give the .keras file beside it "
            f"({path}.keras) or the run folder"
        )
    if path.is_dir():
        if not (path / ENCODER).is_file():
            raise ValueError(
                f"{path} has no {ENCODER}: the run has not finished. Let it finish, or write the "
                "encoder of its last checkpoint with `export` and give that file"
            )
        return path / ENCODER
    return path


def check(cfg, train_set, test_set):
    """Refuses labels that few of a class mean nothing for.

    Raises:
        ValueError: if images have several labels, there is one class, or the test images have one
            that the training images lack.
    """
    for source in (train_set, test_set):
        if source.labels.ndim == 2:
            raise ValueError(
                "`worth` draws labels of each class and so needs one for each image; "
                f"{source.name} has several. `linear-probe` and `knn` take those"
            )
    classes = np.unique(train_set.labels)
    if len(classes) < 2:
        raise ValueError(f"`worth` needs two classes or more; {train_set.name} has {len(classes)}")
    strange = np.setdiff1d(test_set.labels, classes).tolist()
    if strange:
        names = [train_set.class_names[i] if train_set.class_names else str(i) for i in strange]
        raise ValueError(
            f"the test images of {cfg.dataset} have classes without a training image: "
            f"{', '.join(map(str, names[:5]))}; take these images out, or give another --test_split"
        )


def _tuning(cfg):
    try:
        rates = tuple(sorted({float(rate) for rate in cfg.finetune_rates.split(",")}))
    except ValueError:
        rates = (math.nan,)
    if not all(0 < rate < math.inf for rate in rates):
        raise ValueError(
            "--finetune_rates must be numbers > 0 separated by commas. "
            f"Received: {cfg.finetune_rates}"
        )
    if not 0 < cfg.finetune_min_crop <= 1:
        raise ValueError(
            f"--finetune_min_crop must be in (0, 1]. Received: {cfg.finetune_min_crop}"
        )
    return cells.Tuning(rates, cfg.finetune_epochs, cfg.finetune_steps, cfg.seed)


def _start(path, encoder, trust):
    if not path.with_name(FILE).is_file() or path.name != ENCODER:
        return None
    start = export.load_encoder(path.with_name(FILE), trust)
    if (start.image_size, start.channels) != (encoder.image_size, encoder.channels):
        raise ValueError(
            f"{start.path} takes other images than {path} (side {start.image_size} and "
            f"{encoder.image_size}, channels {start.channels} and {encoder.channels}); move it "
            "away, and there is no row for it"
        )
    return start


def _trained(path):
    """What an encoder is called: only that of a run is known to come from self-supervision."""
    of_a_run = path.name == ENCODER and path.with_name("flags.cfg").is_file()
    return "after self-supervision" if of_a_run else "the encoder"


def _folder(cfg, path):
    if cfg.run_dir:
        return Path(cfg.run_dir)
    return inputs.free(inputs.beside(path, "worth"), dataclasses.asdict(cfg))


def _identity(path, start, train_set, test_set):
    return {
        "encoder": cards.digest(path),
        "start": cards.digest(start.path) if start else None,
        "train": train_set.fingerprint,
        "test": test_set.fingerprint,
    }


@contextlib.contextmanager
def _told(table):
    """Within, a signal says what is kept and what is lost."""
    try:
        with interrupts.unmistaken():
            yield
    except interrupts.Interrupted as stop:
        done, total = table.done()
        raise interrupts.Interrupted(
            stop.number,
            f"{done} of {total or '?'} cells are kept in {table.folder}, the one that was being "
            "measured is lost; the same command goes on",
        ) from None
