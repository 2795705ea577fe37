"""A linear classifier on frozen features.

python examples/linear_probe.py --encoder=saved_models/digits/encoder.keras --dataset=digits
"""

import argparse

import simsiam_keras as ss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", required=True, help=".keras file or SavedModel folder")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--epochs", type=int, default=90)
    arguments = parser.parse_args()

    encoder = ss.load_encoder(arguments.encoder)
    parts = []
    for split in ("train", "test"):
        source = ss.data.load(arguments.dataset, split=split)
        x = ss.evaluation.features(encoder, source, encoder.image_size, encoder.eval_crop)
        parts += [x, source.labels[source.rows()]]
    probe = ss.evaluation.linear_probe(*parts, epochs=arguments.epochs)
    print(f"linear accuracy {probe.linear_accuracy:.3f}\n{probe.protocol}")


if __name__ == "__main__":
    main()
