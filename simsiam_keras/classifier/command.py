"""`fine-tune`: an encoder and labels to a calibrated classifier, beside the linear probe."""

import dataclasses
import functools
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

from simsiam_keras import devices, export, inputs, interrupts, plots, runs, settings
from simsiam_keras.classifier import calibration, figures, files, labels, network, probe, report
from simsiam_keras.crops import mirrored
from simsiam_keras.evaluation.linear import held_out_split
from simsiam_keras.few import finetune, images
from simsiam_keras.few.command import encoder_of
from simsiam_keras.progress import counted, saying

SHARES = ("validation_fraction", "labels_fraction", "layer_decay", "min_crop")


@settings.own
def fine_tune(cfg, console=None):
    """Trains an encoder with a classifier on labels; returns the content of its result.json.

    A stratified part of the labels is held out. The last layer begins as the logistic regression of
    the frozen features of the others, so that training begins at the linear probe. The epoch that
    is best on the held-out part is left, and calibrated on it, where it is better than the probe by
    more than chance; otherwise the linear probe of all labels is.

    Args:
        cfg: a `config.FineTune`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        A dict with the accuracies, the calibration and what was written.

    Raises:
        ValueError: if the encoder, the data or their labels cannot be used.

    Reference:
        Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-
        Distribution, 2022, https://arxiv.org/abs/2202.10054
    """
    console = console or Console(stderr=True)
    say = saying(console)
    began = time.perf_counter()
    _check(cfg)
    path = encoder_of(cfg.encoder)
    encoder = export.load_encoder(path, cfg.trust_encoder)
    flip = mirrored(cfg.flip, path)
    train_set, test_set, test_part = inputs.train_and_test(cfg, say, encoder)
    labels.check(cfg, train_set, test_set)
    train_set = labels.drawn(train_set, cfg)
    locked = runs.locked(_folder(cfg, path), dataclasses.asdict(cfg))
    with locked as run_dir, interrupts.unmistaken():
        runs.write_environment(run_dir, keras.backend.backend(), devices.names(), train_set)
        data = _read((train_set, test_set), encoder, run_dir, console)
        found = _trained(cfg, encoder, data, flip, run_dir, console)
        names = labels.names(train_set, data.values)
        result = _measured(cfg, found, data, names, encoder, run_dir)
        result |= {
            "protocol": _protocol(cfg, found, data, flip, test_part),
            "train_images": len(data.train_numbers),
            "test_images": len(data.test_numbers),
            "dataset": cfg.dataset,
            "encoder": cfg.encoder,
            "seed": cfg.seed,
            "wall_seconds": round(time.perf_counter() - began, 1),
        }
        without = inputs.without_row((train_set, test_set), say)
        runs.write_json(run_dir / "result.json", {**result, "without_row": without})
    for sentence in filter(None, (result["verdict"], result["not_sure"])):
        say(sentence)
    left_out = ("class_accuracies", "confusion", "protocol", "verdict", "not_sure", "sure")
    shown = {name: value for name, value in result.items() if name not in left_out}
    return {**shown, "sure": result["sure"], "run_dir": str(run_dir)}


@dataclasses.dataclass(frozen=True, eq=False)
class _Data:
    """Images uint8 `[n, side, side, c]`, their frozen features and numbers of classes.

    Attributes:
        values: labels that the numbers stand for, ascending.
    """

    train: np.ndarray
    train_features: np.ndarray
    train_numbers: np.ndarray
    test: np.ndarray
    test_features: np.ndarray
    test_numbers: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """The network that is left, and logits of the test images by what was compared.

    Attributes:
        net: a `few.finetune.Network`.
        trained: a `network.Trained`.
        probe: by the linear probe of all labels.
        tuned: by the best epoch.
        held_out: logits and numbers of images that what is left was not trained on.
        fit: how many labels were trained on.
    """

    net: finetune.Network
    trained: network.Trained
    probe: np.ndarray
    tuned: np.ndarray
    held_out: tuple
    fit: int

    @property
    def left(self):
        """Logits of the test images by what is left."""
        return self.tuned if self.trained.better else self.probe


def _check(cfg):
    for name in SHARES:
        value = getattr(cfg, name)
        if value > 1 or (value <= 0 and name in ("min_crop", "validation_fraction")):
            low = "(0" if name in ("min_crop", "validation_fraction") else "[0"
            raise ValueError(f"--{name} must be in {low}, 1]. Received: {value}")
    if cfg.validation_fraction == 1:
        raise ValueError("--validation_fraction must be below 1, to leave labels to learn from")


def _folder(cfg, path):
    if cfg.run_dir:
        return Path(cfg.run_dir)
    return inputs.free(inputs.beside(path, "fine_tune"), dataclasses.asdict(cfg))


def _read(both, encoder, run_dir, console):
    """The images of both parts and their features, every image decoded once."""
    found = []
    for source in both:
        with console.status(f"reading {source.name}"):
            kept = images.kept(source, encoder.image_size, encoder.eval_crop, run_dir)
        found.append((kept, source.labels[source.rows()]))
    (train, train_labels), (test, test_labels) = found
    values = np.unique(train_labels)
    if len(values) < 2 or len(np.setdiff1d(test_labels, values)):
        raise ValueError(
            f"{both[0].name} has no readable training image of every class; repair the images that "
            "cannot be decoded"
        )
    return _Data(
        train=train,
        train_features=_features(encoder, train, console),
        train_numbers=np.searchsorted(values, train_labels),
        test=test,
        test_features=_features(encoder, test, console),
        test_numbers=np.searchsorted(values, test_labels),
        values=values,
    )


def _features(encoder, kept, console, rows=256):
    found = []
    with counted("images, features", len(kept), 0, console) as advance:
        for first in range(0, len(kept), rows):
            found.append(encoder(np.asarray(kept[first : first + rows])))
            advance(len(found[-1]))
    return np.concatenate(found)


def _trained(cfg, encoder, data, flip, run_dir, console):
    numbers, classes = data.train_numbers, len(data.values)
    fit, held = held_out_split(numbers, cfg.validation_fraction, cfg.seed)
    with console.status("linear probe"):
        linear = probe.of(data.train_features, numbers, cfg.seed)
        head = probe.of(data.train_features, numbers, cfg.seed, fit).layer
    _, total = network.steps_of(cfg, len(fit))
    net = finetune.Network(
        encoder.model,
        classes=classes,
        flip=flip,
        min_crop=cfg.min_crop,
        learn_statistics=cfg.batch_norm == "learned",
        batch_size=cfg.train_batch_size,
        seed=cfg.seed,
        optimizer=network.optimizer(cfg.lr, cfg.layer_decay, total),
    )
    rows = []

    def measured(row):
        rows.append(row)
        runs.write_metrics(run_dir, rows)
        if not console.is_terminal:
            saying(console)(
                f"epoch {row['epoch']}/{cfg.epochs}: held-out accuracy "
                f"{100 * row['held_out_accuracy']:.1f} %, {row['seconds']:.0f} s"
            )

    with counted("fine-tuning, steps", total, 0, console) as advance:
        trained = network.train(
            net,
            encoder.model.get_weights(),
            head,
            (data.train, numbers),
            (fit, held),
            cfg,
            on_step=functools.partial(advance, 1),
            on_epoch=measured,
        )
    tuned = network.logits_of(net, data.test, np.arange(len(data.test)))
    held_out = trained.logits, numbers[held]
    if not trained.better:
        net.encoder.set_weights(encoder.model.get_weights())
        net.head.set_weights(linear.layer)
        held_out = linear.out_of_fold()
    probed = data.test_features @ linear.layer[0] + linear.layer[1]
    return _Found(net, trained, probed, tuned, held_out, len(fit))


def _measured(cfg, found, data, names, encoder, run_dir):
    """Writes classifier and pictures; the numbers of result.json."""
    test, trained = (found.left, data.test_numbers), found.trained
    temperature = calibration.temperature(*found.held_out)
    calibrated, thresholds = report.calibrated(found.held_out, test, temperature)
    accuracies, counts = report.classes(*test, names)
    card = files.Card(
        classes=names,
        image_shape=list(found.net.shape),
        eval_crop=encoder.eval_crop,
        stored_range=encoder.stored_range,
        temperature=temperature,
        thresholds=thresholds,
        held_out=len(found.held_out[1]),
    )
    (run_dir / "plots").mkdir(exist_ok=True)
    title = f"{counts.sum():,} test images"
    plots.confusion(counts, names, run_dir / "plots" / "confusion.png", title)
    figures.reliability(
        run_dir / "plots" / "reliability.png",
        *(report.confidence(*test, degree) for degree in (1.0, temperature)),
    )
    written = files.save(run_dir, network.finished(found.net, temperature), card)
    return {
        **report.table(found.probe, found.tuned, data.test_numbers),
        "verdict": report.verdict(found.probe, found.tuned, data.test_numbers),
        "left": "fine-tuned" if trained.better else "linear probe",
        "accuracy": report.accuracy(*test),
        "best_epoch": trained.best_epoch,
        "epochs": len(trained.rows) - 1,
        "held_out_images": len(data.train_numbers) - found.fit,
        "held_out_accuracy": trained.rows[trained.best_epoch]["held_out_accuracy"],
        "held_out_accuracy_linear": trained.rows[0]["held_out_accuracy"],
        "calibrated_on": len(found.held_out[1]),
        **calibrated,
        "not_sure": report.not_sure(thresholds, len(found.held_out[1]), calibration.PRECISION),
        "classes": len(names),
        "class_accuracies": accuracies,
        "confusion": counts.tolist(),
        "written": [str(path) for path in written],
    }


def _protocol(cfg, found, data, flip, test_part):
    steps, total = network.steps_of(cfg, found.fit)
    kind = "learned" if cfg.batch_norm == "learned" else "kept"
    return (
        f"Adam, {total // network.WARMUP} steps of warm-up and a cosine over {total} steps of "
        f"{cfg.train_batch_size} views (crops of {cfg.min_crop:g} of the area or more, "
        f"{'' if flip else 'not '}mirrored), at most {cfg.epochs} epochs of {steps} steps, ended "
        f"after {cfg.patience} without a better one; learning rate {cfg.lr:g}, times "
        f"{cfg.layer_decay:g} for each group of layers below the last; batch normalization {kind}; "
        f"classes {'balanced' if cfg.class_balance == 'balanced' else 'as they come'}; begins as "
        f"the logistic regression of {found.fit} labels, {len(data.train_numbers) - found.fit} are "
        "held out to choose the epoch. Linear: logistic regression of all "
        f"{len(data.train_numbers)}, which is left unless the best epoch is no less accurate on "
        "those held out and likelier than the best of so many would be by chance in 5 %; it is "
        f"then calibrated on labels held out in turn. Tested on {test_part}; seed {cfg.seed}."
    )
