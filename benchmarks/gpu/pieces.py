"""An encoder as files of 15 MiB at most, kernels in bfloat16, and back.

    python -m benchmarks.gpu.pieces OUT encoder.keras

makes the encoder again of what `benchmarks.gpu.cifar10` left in OUT: `flags.cfg` within
results.json says what it is, `encoder-0.npz`, `encoder-1.npz`, ... hold its weights. Biases and
statistics of batch normalization stay in float32. In the files a bfloat16 is an unsigned integer.
"""

import json
import sys
from pathlib import Path

import numpy as np

MOST = 15 * 2**20  # bytes


def packed(weights):
    """`{name: array}` to a list of such dicts, each of `MOST` bytes at most where that can be.

    Arrays of two axes or more become bfloat16, as uint16, under `name:bfloat16`.
    """
    import ml_dtypes

    pieces, room = [], 0
    for name, array in weights.items():
        if array.ndim > 1:
            name, array = f"{name}:bfloat16", array.astype(ml_dtypes.bfloat16).view("uint16")
        if array.nbytes > room:
            pieces.append({})
            room = MOST
        pieces[-1][name] = array
        room -= array.nbytes
    return pieces


def unpacked(pieces):
    """Weights by name, float32, of what `packed` made."""
    import ml_dtypes

    found = {}
    for piece in pieces:
        for name, array in piece.items():
            if name.endswith(":bfloat16"):
                name, array = name.removesuffix(":bfloat16"), array.view(ml_dtypes.bfloat16)
            found[name] = np.asarray(array, "float32")
    return found


def write(encoder, folder):
    """Writes the pieces of a `keras.Model` into a folder; returns their names."""
    weights = {weight.path: np.asarray(weight) for weight in encoder.weights}
    names = []
    for i, piece in enumerate(packed(weights)):
        names.append(f"encoder-{i}.npz")
        np.savez(folder / names[-1], **piece)
    return names


def assemble(folder):
    """The encoder that pieces in a folder were made of, with weights rounded to bfloat16."""
    from simsiam_keras import build, config

    flags = json.loads((folder / "results.json").read_text())["train"]["flags"]
    cfg = config.parse("pretrain", [line for line in flags.splitlines() if line.startswith("--")])
    encoder = build.plain_encoder(cfg, build.recipe(cfg).size)
    weights = unpacked(np.load(path) for path in sorted(folder.glob("encoder-*.npz")))
    encoder.set_weights([weights[weight.path] for weight in encoder.weights])
    return encoder


if __name__ == "__main__":
    assemble(Path(sys.argv[1])).save(sys.argv[2])
