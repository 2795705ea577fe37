"""Whether training helped, in words: beside its start, the encoder at random, and the pixels."""

import keras

from simsiam_keras import monitors
from simsiam_keras.quality import choice
from simsiam_keras.verdicts import below, percent

NAMES = {"knn_accuracy": "kNN", "mean_average_precision": "mean average precision"}

# What stands beside a measurement: suffix of its name, what a sentence calls it, and alone.
RANDOM, PIXELS = "random_init", "pixels"


def beside(recipe, probe, measured, random_encoder):
    """What a run's first measurement is compared with, for the row of epoch 0.

    Args:
        recipe: the augmentation recipe.
        probe: a `monitors.Probe`.
        measured: `{name: value}` of the encoder before training.
        random_encoder: function without arguments to the encoder at random; None where that is what
            was measured.

    Returns:
        `{"knn_queries": n, "NAME_pixels": value, "NAME_random_init": value}`.
    """
    name = name_of(measured)
    pixels = monitors.pixels_measure(recipe, probe)[name]
    at_random = measured[name]
    if random_encoder:
        encode = monitors.encode_with(random_encoder())
        at_random = monitors.knn_measure(encode, recipe, probe)[name]
    found = {f"{name}_{PIXELS}": pixels, f"{name}_{RANDOM}": at_random}
    return {"knn_queries": monitors.queries_of(probe), **found}


def name_of(measured):
    """Which of `NAMES` was measured."""
    return next(name for name in NAMES if measured.get(name) is not None)


def result(rows, kept, known, whitened=None):
    """The numbers that a run closes with: of what it leaves, and of what is beside that.

    Args:
        rows: of metrics.jsonl, with labels.
        kept: number of the epoch whose encoder is left.
        known: whether training started from known weights.
        whitened: what was measured of that encoder with `--view_whitening`; default None.

    Returns:
        A dict for result.json.
    """
    first, name = rows[0], name_of(rows[0])
    of = {row["epoch"]: row for row in rows}
    best = max((row for row in rows if choice(row) is not None), key=choice)
    found = {name: of[kept][name], f"{name}_last": rows[-1][name]}
    found |= {f"{name}_best": best[name], "best_epoch": best["epoch"], "kept_epoch": kept}
    if whitened:
        found |= {name: whitened[name], f"{name}_not_whitened": found[name]}
    if known:
        found[f"{name}_start"] = first[name]
    return found | {f"{name}_{other}": first[f"{name}_{other}"] for other in (RANDOM, PIXELS)}


def verdict(found, queries):
    """One sentence on what training has come to.

    Args:
        found: from `result`.
        queries: how many images were classified.

    Returns:
        A sentence.
    """
    name = name_of(found)
    after, at_random, plain = (found[f"{name}{end}"] for end in ("", "_random_init", "_pixels"))
    start = found.get(f"{name}_start")
    others = {"the random encoder": at_random, "the pixels": plain}
    words = [f"{percent(at_random)} at random initialization", f"{percent(plain)} of the pixels"]
    if start is not None:
        others = {"the weights it started from": start, **others}
        words.insert(0, f"{percent(start)} of the weights it started from")
    last, plainly = found[f"{name}_last"], found.get(f"{name}_not_whitened")
    left = ""
    if last != (after if plainly is None else plainly):
        left = f" in epoch {found['kept_epoch']} ({percent(last)} in the last)"
    if plainly is not None:
        left += f" and view whitening ({percent(plainly)} without)"
    numbers = (
        f"{NAMES[name]} is {percent(after)} after training{left}, {', '.join(words)} "
        f"({queries:,} images)"
    )
    training = "Training" if plainly is None else "Training with view whitening"
    before, what = at_random, "at random initialization"
    if start is not None:
        before, what = start, "with those weights"
    if below(after, before, queries):
        return f"{training} made the features worse than they were {what}: {numbers}."
    if below(after, plain, queries):
        return f"{training} has not paid yet, the pixels themselves are better: {numbers}."
    better = [name for name, other in others.items() if below(other, after, queries)]
    if start is not None and not below(start, after, queries):
        return (
            f"{training} on your images added nothing that can be told from chance to the weights "
            f"it started from: {numbers}."
        )
    if not better:
        return f"{training} changed nothing that {queries:,} images could tell: {numbers}."
    return f"{training} helped, the features are better than {_listed(better)}: {numbers}."


def _listed(names):
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


class Watch(keras.callbacks.Callback):
    """Says once, as soon as it is measured, that features are worse than at the start, or pixels.

    Args:
        first: the row of epoch 0, with `beside`.
        known: whether training started from known weights.
        say: function of a sentence.
    """

    def __init__(self, first, known, say):
        super().__init__()
        self.name, self.say = name_of(first), say
        self.queries = first["knn_queries"]
        pixels = first[f"{self.name}_{PIXELS}"]
        what = "the weights that training started from" if known else "before training"
        self.others = {what: first[self.name]}
        if not below(first[self.name], pixels, self.queries):  # else it is no news yet
            self.others["the pixels themselves"] = pixels
        advice = (
            "a lower rate for the encoder (--encoder_lr_scale=0.1), --freeze_encoder_epochs"
            if known
            else "more steps (a smaller --batch_size), another method (--method=simclr, vicreg), "
            "known weights (--weights)"
        )
        self.advice = (
            f"Views that show the same thing (`preview`, --min_crop), or {advice} may help"
        )

    def on_epoch_end(self, epoch, logs=None):
        value = logs.get(self.name)
        if value is None:
            return
        for what in [w for w, other in self.others.items() if below(value, other, self.queries)]:
            other = self.others.pop(what)
            self.say(
                f"Warning, epoch {epoch + 1}: the features are worse than {what}, "
                f"{NAMES[self.name]} {percent(value)} instead of {percent(other)}. {self.advice}."
            )
