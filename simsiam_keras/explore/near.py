"""Cosine similarity of every image with every other, a chunk at a time."""

import numpy as np

CHUNK = 512  # rows that are compared with all others at once


def nearest(x, k, on_chunk=None):
    """The k nearest other images of each, by exact search.

    Args:
        x: l2-normalized `[n, d]`, n >= 2.
        k: neighbours, at most n - 1 are given.
        on_chunk: called with the number of images done after each chunk.

    Returns:
        Similarities float32 and indices int64 `[n, k]`, most similar first.
    """
    k = min(k, len(x) - 1)
    similarity, index = np.empty((len(x), k), "float32"), np.empty((len(x), k), np.int64)
    for first, block in _blocks(x, 0):
        rows = np.arange(len(block))
        block[rows, first + rows] = -np.inf  # itself, before copies of it
        part = np.argpartition(-block, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(block, part, 1)
        order = np.lexsort((part, -values), axis=1)
        index[first : first + len(block)] = np.take_along_axis(part, order, 1)
        similarity[first : first + len(block)] = np.take_along_axis(values, order, 1)
        if on_chunk:
            on_chunk(len(block))
    return similarity, index


def groups(x, threshold, on_chunk=None):
    """Images that are joined by pairs above a threshold.

    Only what is joined is kept, never the pairs, which may be n² in number.

    Args:
        x: l2-normalized `[n, d]`.
        threshold: cosine similarity from which on two images are joined.
        on_chunk: as in `nearest`.

    Returns:
        The group of each image, int64 `[n]`: equal numbers for images that a chain of pairs joins.
    """
    group = np.arange(len(x))
    for first, block in _blocks(x, 1):
        rows, columns = np.nonzero(block >= threshold)
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


def _blocks(x, upper):
    """Yields the first row of each chunk and its similarities to all, or with `upper` to later."""
    for first in range(0, len(x), CHUNK):
        yield first, x[first : first + CHUNK] @ (x[first:] if upper else x).T
