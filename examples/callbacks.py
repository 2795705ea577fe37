"""Keras's callbacks with `fit`: the best model kept, an early stop, TensorBoard, a rate of epochs.

python examples/callbacks.py --epochs=20
"""

import argparse
from pathlib import Path

import keras

import simsiam_keras as ss


class KNN(keras.callbacks.Callback):
    """Adds `val_knn` to the logs, for the callbacks that come after it."""

    def __init__(self, bank, queries, size):
        super().__init__()
        self.bank, self.queries, self.size = bank, queries, size

    def on_epoch_end(self, epoch, logs=None):
        a, b = (
            ss.evaluation.features(self.model.predict, source, self.size)
            for source in (self.bank, self.queries)
        )
        labels = self.bank.labels, self.queries.labels
        logs["val_knn"] = ss.evaluation.knn_accuracy(a, labels[0], b, labels[1], k=37)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", default="callbacks")
    arguments = parser.parse_args()
    folder = Path(arguments.output)

    train, test = ss.data.load("digits"), ss.data.load("digits", split="test")
    model = ss.SimSiam(
        ss.encoders.resnet10((16, 16, 3), stem="stride2", width=16),
        projector=ss.heads.projector(64),
        predictor=ss.heads.predictor(32),
        augmenter=ss.augment.Views("digits"),
    )
    # A number, not a schedule: LearningRateScheduler sets it.
    model.compile(ss.optimizers.SGD(0.05, momentum=0.9, weight_decay=5e-4))
    best = dict(monitor="val_knn", mode="max")
    callbacks = [
        KNN(train, test, 16),
        keras.callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True, **best),
        keras.callbacks.EarlyStopping(patience=5, **best),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 * 0.95**epoch),
        keras.callbacks.CSVLogger(folder / "log.csv"),
    ]
    if keras.backend.backend() == "tensorflow":  # it imports TensorFlow on any backend
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
    folder.mkdir(exist_ok=True)
    model.fit(train.images, batch_size=64, epochs=arguments.epochs, callbacks=callbacks, verbose=2)
    kept = keras.saving.load_model(folder / "best.keras")
    print("kept", type(kept).__name__, "as", folder / "best.keras")


if __name__ == "__main__":
    main()
