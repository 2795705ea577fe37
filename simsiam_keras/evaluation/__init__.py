"""Measures of a frozen encoder's features: kNN, linear classification, verification."""

from simsiam_keras.evaluation.features import features, features_to_file
from simsiam_keras.evaluation.knn import effective_k, knn_accuracy, knn_predict, nearest_neighbours
from simsiam_keras.evaluation.linear import LinearProbe, linear_probe
from simsiam_keras.evaluation.precision import mean_average_precision
from simsiam_keras.evaluation.verification import (
    best_threshold,
    pair_similarity,
    roc_auc,
    sample_pairs,
    verify,
)

__all__ = [
    "LinearProbe",
    "best_threshold",
    "effective_k",
    "features",
    "features_to_file",
    "knn_accuracy",
    "knn_predict",
    "linear_probe",
    "mean_average_precision",
    "nearest_neighbours",
    "pair_similarity",
    "roc_auc",
    "sample_pairs",
    "verify",
]
