"""Any Keras model from images to vectors as the encoder.

python examples/custom_encoder.py --epochs=20
"""

import argparse

import keras

import simsiam_keras as ss


def encoder_of(size):
    """A small network: images `[n, size, size, 3]`, values 0..255, to features `[n, 64]`."""
    images = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)  # which SimSiam cannot do without
        x = keras.layers.ReLU()(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", default="custom")
    arguments = parser.parse_args()

    encoder = encoder_of(16)
    model = ss.SimSiam(
        encoder,
        projector=ss.heads.projector(64),
        predictor=ss.heads.predictor(32),
        augmenter=ss.augment.Views("digits"),
    )
    model.compile(ss.optimizers.SGD(0.05, momentum=0.9, weight_decay=5e-4))
    images = ss.data.load("digits").images
    history = model.fit(images, batch_size=64, epochs=arguments.epochs, verbose=2).history
    print(f"loss {history['loss'][-1]:.3f}, z_std {history['z_std'][-1]:.3f}")
    print("written", ", ".join(map(str, ss.export.save_encoder(encoder, arguments.output))))


if __name__ == "__main__":
    main()
