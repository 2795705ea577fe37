"""Losses as pure functions of backend tensors: values for each sample, `[n]`.

No stop-gradient is written here: which branch is held constant is the method's decision.
"""

from simsiam_keras.losses.base import (
    EPSILON,
    BatchMean,
    at_least_float32,
    check_temperature,
    l2_normalize,
)
from simsiam_keras.losses.contrastive import contrastive, distances, nt_xent, triplet
from simsiam_keras.losses.decorrelation import vicreg
from simsiam_keras.losses.similarity import (
    SIMILARITIES,
    NegativeCosineSimilarity,
    cross_entropy_similarity,
    negative_cosine_similarity,
    regression,
    swapped_prediction,
)

__all__ = [
    "EPSILON",
    "SIMILARITIES",
    "BatchMean",
    "NegativeCosineSimilarity",
    "at_least_float32",
    "check_temperature",
    "contrastive",
    "cross_entropy_similarity",
    "distances",
    "l2_normalize",
    "negative_cosine_similarity",
    "nt_xent",
    "regression",
    "swapped_prediction",
    "triplet",
    "vicreg",
]
