"""Exact search by cosine similarity in vectors that are read a part at a time."""

import numpy as np

from simsiam_keras.evaluation import knn
from simsiam_keras.evaluation.blocks import blocks

ROWS = 16384  # of vectors in memory that are compared at a time


def neighbours(bank, queries, k):
    """The k vectors of a bank that are most similar to each query.

    Memory is that of a part, its similarities and the answers, however large the bank.

    Args:
        bank: float32 `[n, d]`, or an iterable of consecutive parts of it.
        queries: `[m, d]`.
        k: at least 1; of a smaller bank all are given.

    Returns:
        `(similarities, numbers)`, float32 and int64 `[m, min(k, n)]`: cosines, the highest first,
        and the rows of the bank.
    """
    parts = blocks(bank, ROWS) if isinstance(bank, np.ndarray) else _numbered(bank)
    return knn.nearest_of_chunks(parts, np.asarray(queries), k)


def _numbered(parts):
    first = 0
    for part in parts:
        yield first, part
        first += len(part)
