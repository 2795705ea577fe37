"""Measures of a frozen encoder's features: kNN and linear classification."""

from simsiam_keras.evaluation.knn import effective_k, knn_accuracy, knn_predict, nearest_neighbours
from simsiam_keras.evaluation.linear import LinearProbe, linear_probe

__all__ = [
    "LinearProbe",
    "effective_k",
    "knn_accuracy",
    "knn_predict",
    "linear_probe",
    "nearest_neighbours",
]
