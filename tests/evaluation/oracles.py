"""Verification by the definitions, in loops over scalars."""

import itertools
import math

import numpy as np

# Of four classes, in no order.
LABELS = np.array([2, 3, 5, 9])[np.random.default_rng(0).integers(0, 4, 90)]


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    length = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    return dot / length if length else 0.0


def area(s, same):
    """P(s_+ > s_-) + P(s_+ = s_-) / 2, over all pairs of a same and a different pair."""
    wins, n = 0.0, 0
    for i, j in itertools.product(range(len(s)), repeat=2):
        if same[i] and not same[j]:
            n += 1
            wins += 1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0
    return wins / n


def accuracy(s, same, t):
    return sum((a >= t) == b for a, b in zip(s, same, strict=True)) / len(s)


def highest_accuracy(s, same):
    """The best of every threshold that could matter: each similarity, and one above all."""
    return max(accuracy(s, same, t) for t in [*s, 2.0])


def every_pair(labels):
    """The set of the same pairs and that of the different ones."""
    kinds = {True: set(), False: set()}
    for i, j in itertools.combinations(range(len(labels)), 2):
        kinds[bool(labels[i] == labels[j])].add((i, j))
    return kinds
