"""The encoder of the best epoch so far, of which the run leaves one."""

import math
from pathlib import Path

import keras

from simsiam_keras import checkpoints
from simsiam_keras.errors import RunFailed
from simsiam_keras.quality import choice

NAME = "best.npz"


class Keeper(keras.callbacks.Callback):
    """Keeps the encoder of the epoch that `quality.choice` finds best.

    The start stays unless an epoch exceeds it by more than one standard error of its share,
    `sqrt(c (1 - c) / n)`: training has to show that it helped.

    Args:
        run_dir: the run folder.
        rows: the rows so far; the last one is the epoch's.
        epoch: epochs completed; what was kept later is passed over, as it is trained anew.
        images: n, how many images choose.
    """

    def __init__(self, run_dir, rows, epoch, images):
        super().__init__()
        self.run_dir, self.rows, self.images = run_dir, rows, images
        self.value = value_of(run_dir, epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.look(self.model.encoder, self.rows[-1])

    def look(self, encoder, row):
        """Keeps an encoder if its row is better than all before."""
        value = choice(row)
        if value is not None and row["epoch"] == 0:
            value += math.sqrt(value * (1 - value) / self.images)
        if value is not None and (self.value is None or value > self.value):
            save(self.run_dir, encoder, row["epoch"], value)
            self.value = value


def save(run_dir, encoder, epoch, value):
    """Writes an encoder in the place of the one that was kept before.

    Args:
        run_dir: the run folder.
        encoder: a built `keras.Model`.
        epoch: epochs completed.
        value: what it was chosen by.
    """
    variables = checkpoints.numbered("encoder", encoder.variables)
    arrays = {name: keras.ops.convert_to_numpy(v) for name, v in variables.items()}
    card = {"format": checkpoints.FORMAT, "epoch": epoch, "step": 0, "seconds": 0.0}
    card |= {"run": None, "rows": [], "value": value}
    checkpoints.write(Path(run_dir) / NAME, arrays, card)


def value_of(run_dir, epoch):
    """What the encoder that is kept was chosen by; None where none is kept, or not whole."""
    try:
        card, _ = checkpoints.read(Path(run_dir) / NAME)
        return float(card["value"]) if card["epoch"] <= epoch else None
    except (checkpoints.Damaged, KeyError, TypeError):
        return None


def restore(run_dir, encoder):
    """Gives an encoder the weights that are kept.

    Returns:
        The number of its epoch, or None where none is kept.

    Raises:
        RunFailed: if the file is damaged.
    """
    path = Path(run_dir) / NAME
    if not path.exists():
        return None
    try:
        card, arrays = checkpoints.read(path)
    except checkpoints.Damaged as error:
        raise RunFailed(
            f"{path} is damaged ({error}); delete it, and the run leaves the last epoch's encoder"
        ) from error
    checkpoints.assign(path, arrays, checkpoints.numbered("encoder", encoder.variables))
    return card["epoch"]
