"""The encoder with a layer for labels, trained whole in plain Keras.

python examples/fine_tune.py --encoder=saved_models/digits/encoder.keras --per_class=10
"""

import argparse

import keras
import numpy as np

import simsiam_keras as ss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", required=True, help=".keras file")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--per_class", type=int, default=10, help="labelled images of each class")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", default="classifier.keras")
    arguments = parser.parse_args()

    encoder = keras.saving.load_model(arguments.encoder)
    size = encoder.input_shape[1]

    def arrays(source):
        batches = list(ss.data.evaluation_batches(source, size=size))
        return [np.concatenate(column) for column in zip(*batches, strict=True)]

    train = ss.data.few_labels(ss.data.load(arguments.dataset), arguments.per_class)
    x, y = arrays(train)
    test_x, test_y = arrays(ss.data.load(arguments.dataset, split="test"))

    logits = keras.layers.Dense(int(y.max()) + 1, name="classes")(encoder.outputs[0])
    classifier = keras.Model(encoder.inputs, logits)
    for layer in encoder.layers:  # of few images the statistics would be noise
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    classifier.fit(x, y, batch_size=32, epochs=arguments.epochs, verbose=2)
    _, accuracy = classifier.evaluate(test_x, test_y, verbose=0)
    print(f"test accuracy {accuracy:.3f} with {len(y)} labels")
    classifier.save(arguments.output)


if __name__ == "__main__":
    main()
