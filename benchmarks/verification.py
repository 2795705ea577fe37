"""Same or different digit? The supervised siamese losses beside a softmax classifier.

    python -m benchmarks.verification

Every contender trains the same encoder on the same few labelled digits, with the same one random
view of each image, balanced batches, optimizer and steps; only the loss differs. Pairs of the test
digits are then told apart by the cosine of the encoder's features. `untrained` is the encoder at
its random initialization, `pixels` the images themselves.
"""

import argparse
import functools
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks import common
from simsiam_keras import encoders
from simsiam_keras.augment import DIGITS, host
from simsiam_keras.data import (
    balanced_order,
    evaluation_batches,
    few_labels,
    load,
    subsets,
    training_views,
)
from simsiam_keras.evaluation import verification
from simsiam_keras.methods.siamese import SiameseContrastive, SiameseTriplet

PER_CLASS = (5, 10, 50)
RARE, FRACTION = (0, 1, 2, 3, 4), 0.05
BATCH = 40  # ten classes with four images each
MEASURES = ("roc_auc", "accuracy", "accuracy_best_threshold")
ENCODERS = {
    "twin": lambda: encoders.twin((DIGITS.size, DIGITS.size, 3)),
    "resnet10": lambda: encoders.resnet10((DIGITS.size, DIGITS.size, 3), stem="cifar", width=16),
}


def settings(source):
    """Labelled training images by the name of a setting, as functions of the seed."""
    few = {f"{n} per class": functools.partial(few_labels, source, n) for n in PER_CLASS}
    rare = functools.partial(with_rare_classes, source)
    return {**few, "classes 0 to 4 rare": rare, "all": lambda seed: source}


def with_rare_classes(source, seed):
    """Random images of the rare classes, at least a pair of each, and all of the others."""
    random, kept = np.random.default_rng(seed), []
    for c in np.unique(source.labels):
        images = random.permutation(np.flatnonzero(source.labels == c))
        kept.append(images[: max(2, round(FRACTION * len(images)))] if c in RARE else images)
    return subsets.subset(source, np.sort(np.concatenate(kept)), f"{source.name}, some rare")


def softmax(encoder, classes):
    """A classifier on the encoder, and what turns a labelled batch into its input and target."""
    head = keras.layers.Dense(classes, activation="softmax")
    model = keras.Model(encoder.input, head(encoder.output))
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    return model, lambda batch: (batch["views"][0], batch["labels"])


def siamese(method, encoder, classes, **arguments):
    model = method(encoder, **arguments)
    model.compile(keras.optimizers.Adam(1e-3))
    return model, lambda batch: batch


CONTENDERS = {
    "softmax": softmax,
    "contrastive": functools.partial(siamese, SiameseContrastive),
    "triplet, hard": functools.partial(siamese, SiameseTriplet, mining="hard"),
    "triplet, all": functools.partial(siamese, SiameseTriplet, mining="all"),
}


def pictures(source):
    return np.concatenate([x for x, _ in evaluation_batches(source, size=DIGITS.size)])


def trained(contender, make_encoder, source, steps, seed):
    """The encoder after training; untrained where there is no contender."""
    keras.utils.set_random_seed(seed)
    encoder = make_encoder()
    if contender is None:
        return encoder
    model, example = contender(encoder, len(np.unique(source.labels)))
    per_epoch = len(source) // BATCH
    order = functools.partial(balanced_order, source.labels, BATCH, 0, seed)
    epochs = -(-steps // per_epoch)
    views = host.Views(DIGITS, views=1)
    batches = training_views(
        source, views, BATCH, seed, epochs=epochs, order=order, with_labels=True
    )
    model.fit(batches.map(example).take(steps), verbose=0)
    return encoder


def measure(features, source, test):
    """Verification on all test digits, and on those of the rare classes alone."""
    a, b = features(source), features(test)
    found = verification.verify(a, source.labels, b, test.labels)
    rare = np.isin(test.labels, RARE)
    among_rare = verification.verify(a, source.labels, b[rare], test.labels[rare])
    return {**{name: found[name] for name in MEASURES}, "rare_auc": among_rare["roc_auc"]}


def run(make_encoder, steps, seeds):
    """Measures of every seed, `{setting: {contender: [measures]}}`."""
    source, test = load("digits", split="train"), load("digits", split="test")
    results = {}
    for setting, part in settings(source).items():
        results[setting] = {"pixels": [], "untrained": [], **{name: [] for name in CONTENDERS}}
        for seed in seeds:
            few = part(seed=seed)

            def pixels(images):
                return pictures(images).reshape(len(images), -1).astype("float32")

            results[setting]["pixels"].append(measure(pixels, few, test))
            for name, contender in {"untrained": None, **CONTENDERS}.items():
                encoder = trained(contender, make_encoder, few, steps, seed)

                def features(images, encoder=encoder):
                    return encoder.predict(pictures(images), verbose=0)

                results[setting][name].append(measure(features, few, test))
                keras.backend.clear_session()
            print(setting, seed, flush=True)
    return results


def spell(rows, name):
    values = [row[name] for row in rows]
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


def report(results, encoder, steps, seeds, machine):
    lines = [
        f"# Verification of digit pairs with `{encoder}`\n\n",
        common.setting(
            "benchmarks.verification", machine, [common.versions(["tensorflow", "keras"])]
        ),
        f"- protocol: {steps} steps of {BATCH} images, Adam at 1e-3, one view of each with the "
        f"digits recipe, seeds {', '.join(map(str, seeds))} (of the labelled images too), mean ± "
        "standard deviation\n",
        "- pairs: 6,000 of the 360 test digits, half of them of one class; accuracy at the "
        "threshold that is best on pairs of the training digits, and at the best one of the test "
        "pairs; `rare` is the ROC AUC among test digits of classes 0 to 4\n",
    ]
    head = ["loss", "ROC AUC, %", "accuracy, %", "at the best threshold, %", "rare, AUC %"]
    for setting, contenders in results.items():
        title = setting
        if "rare" in setting:
            title += f" ({100 * FRACTION:g} % of their images, all of the others)"
        lines.append(f"\n## {title[0].upper()}{title[1:]}\n\n")
        rows = [
            [name, *(spell(found, measure) for measure in (*MEASURES, "rare_auc"))]
            for name, found in contenders.items()
        ]
        lines.append(common.table(head, rows))
    return "".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=ENCODERS, default="twin")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", help="Markdown file to write")
    arguments = parser.parse_args()
    machine, seeds = common.machine(), range(arguments.seeds)
    results = run(ENCODERS[arguments.encoder], arguments.steps, seeds)
    text = report(results, arguments.encoder, arguments.steps, seeds, machine)
    common.publish(text, arguments.output)


if __name__ == "__main__":
    main()
