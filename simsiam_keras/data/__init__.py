"""Images: where they come from (`sources`) and how they reach `fit` (`pipeline`)."""

from simsiam_keras.data.balanced import balanced_order
from simsiam_keras.data.pipeline import (
    evaluation_batches,
    sample_images,
    steps_per_epoch,
    training_images,
    training_views,
)
from simsiam_keras.data.sources import (
    ArraySource,
    EncodedSource,
    NoSuchSplit,
    Source,
    few_labels,
    load,
    splits,
)

__all__ = [
    "ArraySource",
    "EncodedSource",
    "NoSuchSplit",
    "Source",
    "balanced_order",
    "evaluation_batches",
    "few_labels",
    "load",
    "sample_images",
    "splits",
    "steps_per_epoch",
    "training_images",
    "training_views",
]
