"""A folder of photographs to an encoder.

python examples/own_photographs.py --dataset=folder:photos --size=64 --epochs=60
"""

import argparse

import simsiam_keras as ss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="digits", help="digits, folder:PATH or npz:FILE")
    parser.add_argument("--size", type=int, default=16, help="side of the views in pixels")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", default="encoder", help="folder to write")
    arguments = parser.parse_args()

    source = ss.data.load(arguments.dataset)
    size, batch_size = arguments.size, min(64, len(source))
    encoder = ss.encoders.resnet10((size, size, 3), stem="stride2", width=16)
    model = ss.SimSiam(
        encoder,
        projector=ss.heads.projector(64),
        predictor=ss.heads.predictor(32),
        augmenter=ss.augment.Views("cifar", size=size),
    )
    steps = len(source) // batch_size
    rate = ss.schedules.cosine(0.05, arguments.epochs * steps)
    model.compile(ss.optimizers.SGD(rate, momentum=0.9, weight_decay=5e-4))

    def knn():
        if source.labels is None:
            return "no labels"
        x = ss.evaluation.features(model.predict, source, size)
        half = len(x) // 2
        first, second = (
            source.labels[source.rows()][part] for part in (slice(half), slice(half, None))
        )
        return f"{ss.evaluation.knn_accuracy(x[:half], first, x[half:], second, k=20):.3f}"

    print("kNN before", knn())
    images = ss.data.training_images(
        source, batch_size, size=round(1.5 * size), epochs=arguments.epochs
    )
    model.fit(images, steps_per_epoch=steps, epochs=arguments.epochs, verbose=2)
    print("kNN after", knn())
    print("written", ", ".join(map(str, ss.export.save_encoder(encoder, arguments.output))))


if __name__ == "__main__":
    main()
