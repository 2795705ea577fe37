"""Images: where they come from (`sources`) and how they reach `fit` (`pipeline`)."""

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
    load,
    splits,
)

__all__ = [
    "ArraySource",
    "EncodedSource",
    "NoSuchSplit",
    "Source",
    "evaluation_batches",
    "load",
    "sample_images",
    "splits",
    "steps_per_epoch",
    "training_images",
    "training_views",
]
