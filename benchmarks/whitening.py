"""What view whitening does to an encoder's features: nearest neighbours, and few labels.

    python -m benchmarks.whitening --encoder=ENCODER.keras --dataset=folder:trashnet

Prints a table over the shrinkage: kNN of the test images by the training images, and linear
accuracy with ten labels of each class and with all of them (scikit-learn's logistic regression, C
by held-out labels, mean and deviation over draws), beside the same features as they are.
"""

import argparse
import os

SHRINKAGES = (1.0, 0.3, 0.1, 0.03)
K = (5, 20, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--recipe", default="imagenet")
    parser.add_argument("--images", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--queries", type=int, default=0, help="test images; 0: all")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import numpy as np

    from benchmarks import common
    from simsiam_keras import config, evaluation, export, views, whitening
    from simsiam_keras.augment.recipe import named
    from simsiam_keras.data import sources, subsets
    from simsiam_keras.evaluation import knn, logistic

    def part(split, count):
        source = sources.load(arguments.dataset, split=split)
        rows = np.random.default_rng(arguments.seed).permutation(len(source))
        return subsets.subset(source, np.sort(rows[: count or None]), source.name)

    encoder = export.load_encoder(arguments.encoder)
    train, test = part("train", arguments.images), part("test", arguments.queries)
    x, y = (
        evaluation.features(encoder, source, encoder.image_size, encoder.eval_crop)
        for source in (train, test)
    )
    labels, true = train.labels[train.rows()], test.labels[test.rows()]
    cfg = config.make("pretrain", augment="device", seed=arguments.seed)
    recipe = named(arguments.recipe, encoder.image_size)
    pairs = views.many_pairs(cfg, recipe, train, whitening.IMAGES)
    mean, within = whitening.scatter(encoder, pairs)
    draws = [
        np.concatenate(
            [
                np.random.default_rng([arguments.seed, draw, c]).permutation(
                    np.flatnonzero(labels == c)
                )[:10]
                for c in np.unique(labels)
            ]
        )
        for draw in range(arguments.draws)
    ]

    def linear(a, b, rows):
        scaled = logistic.scaling(a)
        fitted = logistic.fit(scaled(a[rows]), labels[rows], arguments.seed)
        return 100 * np.mean(fitted.predict(scaled(b)) == true)

    print(f"{common.machine()}\n")
    ks = [knn.chosen_k(k, labels) for k in K]
    heads = [f"kNN({k})" for k in ks]
    print(f"| shrinkage | {' | '.join(heads)} | 10 labels per class | all labels |")
    print("|---" * (len(ks) + 3) + "|")
    for shrinkage in (None, *SHRINKAGES):
        w = np.eye(len(mean)) if shrinkage is None else whitening.transform(within, shrinkage)
        offset = 0 if shrinkage is None else mean
        a, b = (((f - offset) @ w).astype("float32") for f in (x, y))
        near = [f"{100 * knn.knn_accuracy(a, labels, b, true, k):.1f}" for k in ks]
        few = [linear(a, b, rows) for rows in draws]
        name = "not whitened" if shrinkage is None else f"{shrinkage:g}"
        whole = linear(a, b, np.arange(len(labels)))
        print(
            f"| {name} | {' | '.join(near)} | {np.mean(few):.1f} ± {np.std(few, ddof=1):.1f} "
            f"| {whole:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
