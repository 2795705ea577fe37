"""Going on from an encoder's weights: the heads alone at first, then slowly the whole.

python examples/warm_start.py --weights=saved_models/photos/encoder.keras --dataset=folder:more
"""

import argparse

import keras

import simsiam_keras as ss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True, help=".keras file of an encoder")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--output", default="encoder.keras")
    arguments = parser.parse_args()

    source = ss.data.load(arguments.dataset)
    encoder = keras.saving.load_model(arguments.weights)
    size = encoder.input_shape[1]
    model = ss.SimSiam(
        encoder,
        projector=ss.heads.projector(64),
        predictor=ss.heads.predictor(32),
        augmenter=ss.augment.Views("cifar", size=size),
    )
    steps = len(source) // 64

    def images(epochs):
        return ss.data.training_images(source, 64, size=round(1.5 * size), epochs=epochs)

    encoder.trainable = False  # its batch normalization keeps its statistics too
    model.compile(ss.optimizers.SGD(0.05, momentum=0.9))
    model.fit(images(1), steps_per_epoch=steps, epochs=1, verbose=2)

    encoder.trainable = True
    rate = ss.schedules.cosine(0.005, arguments.epochs * steps)
    model.compile(ss.optimizers.SGD(rate, momentum=0.9, weight_decay=1e-4))
    model.fit(images(arguments.epochs), steps_per_epoch=steps, epochs=arguments.epochs, verbose=2)
    encoder.save(arguments.output)


if __name__ == "__main__":
    main()
