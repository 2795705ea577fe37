"""Whether training helped, in words: beside the encoder at random, and beside the pixels."""

import keras

from simsiam_keras.verdicts import below

NAMES = {"knn_accuracy": "kNN", "mean_average_precision": "mean average precision"}


def verdict(start, pixels, last, queries):
    """One sentence on what training has come to.

    Args:
        start: `{name: value}` of the encoder before training, as `monitors.knn_measure` gives it.
        pixels: likewise, of the pixels themselves.
        last: likewise, after training; it may hold more.
        queries: how many images were classified.

    Returns:
        A sentence.
    """
    ((name, before),) = start.items()
    after, plain = last[name], pixels[name]
    numbers = (
        f"{NAMES[name]} is {_percent(after)} after training, {_percent(before)} at random "
        f"initialization, {_percent(plain)} of the pixels themselves ({queries:,} images)"
    )
    if below(after, before, queries):
        return f"Training made the features worse than at random initialization: {numbers}."
    if below(after, plain, queries):
        return f"Training has not paid yet, the pixels themselves are better: {numbers}."
    better = [
        what
        for what, other in (("the random encoder", before), ("the pixels", plain))
        if below(other, after, queries)
    ]
    if not better:
        return f"Training changed nothing that {queries:,} images could tell: {numbers}."
    return f"Training helped, the features are better than {' and '.join(better)}: {numbers}."


def _percent(share):
    return f"{100 * share:.1f} %"


class Watch(keras.callbacks.Callback):
    """Says once, as soon as it is measured, that training has made the features worse.

    Args:
        start: as in `verdict`.
        queries: as in `verdict`.
        say: function of a sentence.
    """

    def __init__(self, start, queries, say):
        super().__init__()
        ((self.name, self.start),) = start.items()
        self.queries, self.say, self.said = queries, say, False

    def on_epoch_end(self, epoch, logs=None):
        value = logs.get(self.name)
        if self.said or value is None or not below(value, self.start, self.queries):
            return
        self.said = True
        self.say(
            f"Warning, epoch {epoch + 1}: the features are worse than before training, "
            f"{NAMES[self.name]} {_percent(value)} instead of {_percent(self.start)}. Views that "
            "show the same thing (`preview`, --min_crop), more steps (a smaller --batch_size) or "
            "another method (--method=simclr, vicreg) may help."
        )
