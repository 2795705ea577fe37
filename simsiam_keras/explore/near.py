"""Cosine similarity of every image with every other, a chunk at a time."""

import numpy as np

from simsiam_keras.gallery import exact

CHUNK = 512  # rows that are compared with all others at once
ROUNDING = 1e-6  # by which the cosine of a vector with itself misses 1 in float32


def nearest(vectors, k):
    """The k nearest other images of each, by exact search.

    Args:
        vectors: `[n, d]`, n >= 2.
        k: neighbours, at most n - 1 are given.

    Returns:
        Similarities float32 and indices int64 `[n, k]`, most similar first.
    """
    n = len(vectors)
    similarity, index = exact.neighbours(vectors, vectors, min(k, n - 1) + 1)
    itself = index == np.arange(n)[:, None]
    itself[~itself.any(1), -1] = True  # behind more copies of it than were asked for
    return similarity[~itself].reshape(n, -1), index[~itself].reshape(n, -1)


def groups(x, threshold, on_chunk=None):
    """Images that are joined by pairs above a threshold.

    Only what is joined is kept, never the pairs, which may be n² in number.

    Args:
        x: l2-normalized `[n, d]`.
        threshold: cosine similarity from which on two images are joined.
        on_chunk: called with the number of images done after each chunk.

    Returns:
        The group of each image, int64 `[n]`: equal numbers for images that a chain of pairs joins.
    """
    group = np.arange(len(x))
    for first in range(0, len(x), CHUNK):
        block = x[first : first + CHUNK] @ x[first:].T
        rows, columns = np.nonzero(block >= threshold - ROUNDING)
        # What lies below the diagonal has been seen from the other side.
        above = columns > rows
        group = _joined(group, first + rows[above], first + columns[above])
        if on_chunk:
            on_chunk(len(block))
    return group


def _joined(group, a, b):
    """The groups after pairs of images are joined."""
    from scipy import sparse

    a, b = group[a], group[b]
    a, b = a[a != b], b[a != b]
    if not len(a):
        return group
    n = len(group)
    edges = sparse.coo_matrix((np.ones(len(a), bool), (a, b)), (n, n))
    _, part = sparse.csgraph.connected_components(edges, directed=False)
    return part[group].astype(np.int64)
