"""The images most like one.

python examples/search.py --encoder=saved_models/digits/encoder.keras --dataset=digits --query=3
"""

import argparse

import simsiam_keras as ss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", required=True, help=".keras file or SavedModel folder")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--query", type=int, default=0, help="number of an image")
    parser.add_argument("--k", type=int, default=5)
    arguments = parser.parse_args()

    encoder, source = ss.load_encoder(arguments.encoder), ss.data.load(arguments.dataset)
    x = ss.evaluation.features(encoder, source, encoder.image_size, encoder.eval_crop)
    query = x[arguments.query : arguments.query + 1]
    similarity, index = ss.evaluation.nearest_neighbours(x, query, arguments.k + 1)
    for value, i in zip(similarity[0], index[0], strict=True):
        label = "" if source.labels is None else f"  label {source.labels[i]}"
        print(f"{value:.4f}  {source.name_of(i)}{label}")


if __name__ == "__main__":
    main()
