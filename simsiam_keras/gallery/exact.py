"""Exact search by cosine similarity, a chunk of the vectors at a time."""

import numpy as np

CHUNK_BYTES = 2**25  # of similarities that are compared at a time
_TINY = 1e-12


def unit(vectors):
    """Vectors `[n, d]` divided by their lengths, float32; a zero vector stays one."""
    vectors = np.asarray(vectors, "float32")
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype="float64"))
    return vectors / np.maximum(lengths, _TINY)[:, None].astype("float32")


def neighbours(bank, queries, k):
    """The k vectors of a bank that are most similar to each query.

    Memory is that of a chunk, its similarities and the answers, however large the bank.

    Args:
        bank: float32 `[n, d]`, or an iterable of consecutive parts of it.
        queries: `[m, d]`.
        k: at least 1; of a smaller bank all are given.

    Returns:
        `(similarities, numbers)`, float32 and int64 `[m, min(k, n)]`: cosines, the highest first,
        and the rows of the bank; of equal ones the first row first.
    """
    queries = unit(queries)
    best = np.empty((len(queries), 0), "float32")
    numbers, first = np.empty((len(queries), 0), np.int64), 0
    for chunk in _parts(bank, max(1, len(queries))):
        similarities = queries @ unit(chunk).T
        rows = np.broadcast_to(np.arange(first, first + len(chunk)), similarities.shape)
        best, numbers = _best(
            np.concatenate([best, similarities], 1), np.concatenate([numbers, rows], 1), k
        )
        first += len(chunk)
    return best, numbers


def _parts(bank, queries):
    every = max(1, CHUNK_BYTES // (4 * queries))
    for chunk in [bank] if isinstance(bank, np.ndarray) else bank:
        for first in range(0, len(chunk), every):
            yield chunk[first : first + every]


def _best(similarities, numbers, k):
    if similarities.shape[1] > k:  # the k-th highest and all that equal it, whatever their order
        least = np.partition(similarities, -k, axis=1)[:, -k, None]
        order = np.lexsort((numbers, np.where(similarities >= least, -similarities, np.inf)))
        order = order[:, :k]
    else:
        order = np.lexsort((numbers, -similarities))
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(numbers, order, 1)
