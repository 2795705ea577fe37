"""What looks at a model while it trains: nearest neighbours, and measures of collapse."""

import dataclasses
import math
import warnings

import keras
import numpy as np
from sklearn.model_selection import StratifiedKFold

from simsiam_keras import devices, distribute, evaluation
from simsiam_keras.evaluation import collapse, encoded, knn, linear, precision
from simsiam_keras.quality import CHOICE

HELD_OUT = 0.2  # of a labelled set without a test split
PIXEL_BYTES = 2**29  # of all pixels that are compared as they are, in float32
FIFTH = "a fifth held out"
CHOSEN_BY = 5_000  # images of the bank that say which epoch is best, at the least if it has them


@dataclasses.dataclass(frozen=True)
class Probe:
    """Labelled images of the kNN monitor, and how it votes.

    Attributes:
        bank: a `data.Source` with labels.
        queries: another, or None where a fifth of the bank is held out.
        split: what the queries' split is called.
        k: neighbours.
        temperature: of the votes.
    """

    bank: object
    queries: object
    split: str
    k: int
    temperature: float


@dataclasses.dataclass(frozen=True)
class Monitored:
    """What the monitors look at, on one device of this process; `update` before each look."""

    encoder: keras.Model
    projector: keras.Model
    update: object


def monitored(model, make_copy):
    """The model's encoder and projector, or copies where these can only compute together.

    Args:
        model: a method, with `encoder` and `projector`.
        make_copy: function without arguments to another such model.

    Returns:
        A `Monitored`.
    """
    if not distribute.spread():
        return Monitored(model.encoder, model.projector, lambda: None)
    with distribute.alone():
        own = make_copy()

    def update():
        own.encoder.set_weights(model.encoder.get_weights())
        own.projector.set_weights(model.projector.get_weights())

    return Monitored(own.encoder, own.projector, update)


def encoder_of(monitored):
    """A function of uint8 images to the features of the encoder as it then is."""

    def encode(images):
        with distribute.alone():
            monitored.update()
            # `predict` divides a batch over replicas; `predict_on_batch` would give all to each.
            at_a_time = min(256, devices.images_at_a_time(images.shape))
            return monitored.encoder.predict(images, batch_size=at_a_time, verbose=0)

    return encode


def encode_with(encoder):
    """As `encoder_of`, of an encoder that is on one device of this process."""
    return encoder_of(Monitored(encoder, None, lambda: None))


def features(encode, recipe, source):
    """The features of the images of a source, float32 `[n, d]`."""
    return evaluation.features(encode, source, recipe.size, recipe.eval_crop, batch_size=2048)


def held_out(labels):
    """The rows of a labelled set that stay, and the fifth of each class that is held out.

    Of an image with several labels the rarest counts.

    Args:
        labels: `[n]`, or 0 and 1 `[n, classes]`.

    Returns:
        Two arrays of row numbers.

    Raises:
        ValueError: if no label comes twice.
    """
    return linear.held_out_split(precision.strata(labels), HELD_OUT, seed=0)


def not_measurable(bank, queries):
    """Why nearest neighbours of some labels would tell nothing; "" where they tell something.

    Args:
        bank: labels `[n]` or `[n, classes]`.
        queries: likewise, or None where a fifth of the bank is held out.
    """
    if len(np.unique(precision.strata(bank))) < 2:
        return "all of its images have the same label"
    if queries is None:
        strata = precision.strata(bank)
        if np.unique(strata, return_counts=True)[1].max() < 2:
            return "each of its labels has a single image"
        queries = bank[held_out(bank)[1]]
    return "" if np.ndim(bank) == 1 or queries.any() else "none of its images has a label"


def knn_measure(encode, recipe, probe, choice=False):
    """Measures a probe's queries, or a fifth of its bank, by weighted nearest neighbours.

    Args:
        encode: function of uint8 images to features.
        recipe: the augmentation recipe, of the images' size.
        probe: a `Probe`.
        choice: add `CHOICE`, the same of the bank by itself, where there are queries beside it.

    Returns:
        `{"knn_accuracy": float}`, or of several labels `{"mean_average_precision": float}`.
    """
    bank, bank_labels = _features_and_labels(encode, recipe, probe.bank)
    if probe.queries is not None:
        queries, query_labels = _features_and_labels(encode, recipe, probe.queries)
    else:
        kept, rest = held_out(bank_labels)
        queries, query_labels = bank[rest], bank_labels[rest]
        bank, bank_labels = bank[kept], bank_labels[kept]
    k = knn.chosen_k(probe.k, bank_labels)
    measured = knn.knn_measure(bank, bank_labels, queries, query_labels, k, probe.temperature)
    if choice and probe.queries is not None and not not_measurable(bank_labels, None):
        measured |= _choice(bank, bank_labels, probe)
    return measured


def _choice(bank, labels, probe):
    """What `--keep=best` goes by: kNN of parts of the bank by its rest, no query choosing."""
    values, sizes = [], []
    for kept, rest in _parts(labels):
        k = knn.chosen_k(probe.k, labels[kept])
        part = (bank[kept], labels[kept], bank[rest], labels[rest])
        ((_, value),) = knn.knn_measure(*part, k, probe.temperature).items()
        values.append(value)
        sizes.append(len(rest))
    return {CHOICE: float(np.average(values, weights=sizes))}


def _parts(labels):
    """`(rest, part)` of fifths of the bank, each class divided alike: as many as `CHOSEN_BY` asks.

    All of them are asked for but in a large bank: the more images choose, the less does chance.
    """
    folds = StratifiedKFold(round(1 / HELD_OUT), shuffle=True, random_state=0)
    strata = precision.strata(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than parts
        folds = list(folds.split(strata, strata))
    asked = max(1, math.ceil(CHOSEN_BY * len(folds) / len(labels)))
    return folds[: min(asked, len(folds))]


def choosing(probe):
    """How many images say which epoch is best."""
    if probe.queries is None:
        return queries_of(probe)
    labels = probe.bank.labels[probe.bank.rows()]
    return sum(len(rest) for _, rest in _parts(labels))


def pixels_measure(recipe, probe):
    """What `knn_measure` gives of the pixels themselves, at 32 px or less.

    Where there are many images, they are made smaller, so that the bank takes 512 MB at most, but
    no smaller than 8 px.

    Args:
        recipe: the augmentation recipe.
        probe: a `Probe`.

    Returns:
        As `knn_measure` does.
    """
    channels = probe.bank.channels
    side = encoded.pixel_side(recipe.size, channels, len(probe.bank), PIXEL_BYTES)
    return knn_measure(encoded.flat, dataclasses.replace(recipe, size=side), probe)


def queries_of(probe):
    """How many images a probe classifies."""
    if probe.queries is not None:
        return len(probe.queries.rows())
    return len(held_out(probe.bank.labels[probe.bank.rows()])[1])


def _features_and_labels(encode, recipe, source):
    found = features(encode, recipe, source)
    return found, source.labels[source.rows()]


def knn_protocol(probe):
    """What `knn_measure` did, for result.json."""
    rows = probe.bank.rows()
    if probe.queries is None:
        rows = rows[held_out(probe.bank.labels[rows])[0]]
    return {
        "k": knn.chosen_k(probe.k, probe.bank.labels[rows]),
        "temperature": probe.temperature,
        "bank": len(rows),
        "queries": f"{probe.split} split" if probe.queries else FIFTH,
    }


def collapse_measures(monitored, pairs, jit_compile):
    """A function that measures collapse on views of the same images, `{name: number}`.

    Features and outputs are those of inference, with the moving statistics: what a user of the
    encoder gets, the same for an image whatever the others, and without a trace in the model. Not
    at random initialization, where these statistics are those of no batch.

    Args:
        monitored: a `Monitored`.
        pairs: `(x1, x2)` or further views, each uint8 `[n, height, width, 3]`.
        jit_compile: as in `keras.Model.compile`.
    """
    with distribute.alone():
        inputs = keras.Input(monitored.encoder.input_shape[1:])
        features = monitored.encoder(inputs, training=False)
        outputs = monitored.projector(features, training=False)
        network = keras.Model(inputs, [features, outputs])
        network.compile(jit_compile=jit_compile)

    def forward(images):
        # `predict` would take longer to set up than this to compute. Of several replicas each one
        # computes all images, and the results come one after the other.
        n = len(images)
        return [np.asarray(y[:n], "float32") for y in network.predict_on_batch(images)]

    def measure():
        with distribute.alone():
            monitored.update()
            (features, z1), *others = map(forward, pairs)
        outputs = [z1, *(z for _, z in others)]
        # Inference can overflow where training did not; a monitor must not end the run.
        finite = all(np.isfinite(y).all() for y in (features, *outputs))
        return collapse.measure(features, *outputs) if finite else {}

    return measure
