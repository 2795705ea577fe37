"""Weighted nearest-neighbour classification of frozen features."""

import math

import numpy as np
from keras import ops

from simsiam_keras.evaluation.blocks import blocks
from simsiam_keras.evaluation.checks import check_features, check_labels
from simsiam_keras.evaluation.precision import mean_average_precision, strata


def knn_measure(bank, bank_labels, queries, query_labels, k=200, temperature=0.1):
    """What weighted nearest neighbours are measured by: accuracy, or of several labels the mAP.

    Args:
        bank: as in `knn_accuracy`.
        bank_labels: array `[n]`, or 0 and 1 `[n, classes]`.
        queries: as in `knn_accuracy`.
        query_labels: likewise, of the queries.
        k: as in `knn_accuracy`.
        temperature: as in `knn_accuracy`.

    Returns:
        `{"knn_accuracy": float}` or `{"mean_average_precision": float}`.

    Raises:
        ValueError: as in `knn_accuracy`, and if no query has one of several labels.
    """
    found = nearest_neighbours(bank, queries, k)
    return measured(*found, bank_labels, query_labels, temperature)


def measured(similarity, index, bank_labels, query_labels, temperature):
    """What `knn_measure` gives of neighbours that are found.

    Args:
        similarity: `[m, k]`, as from `nearest_neighbours`.
        index: `[m, k]`, likewise.
        bank_labels: array `[n]`, or 0 and 1 `[n, classes]`.
        query_labels: likewise, of the queries.
        temperature: as in `knn_accuracy`.

    Returns:
        As `knn_measure`.
    """
    _check_temperature(temperature)
    if np.ndim(bank_labels) == 1:
        query_labels = check_labels(query_labels, similarity, "query_labels")
        predicted = _voted(similarity, index, bank_labels, temperature)
        return {"knn_accuracy": float(np.mean(predicted == query_labels))}
    votes = _shares(similarity, index, bank_labels, temperature)
    query_labels = check_labels(query_labels, similarity, "query_labels", several=True)
    return {"mean_average_precision": mean_average_precision(query_labels, votes)}


def leave_one_out(bank, k):
    """The k nearest neighbours of each vector among all others.

    Args:
        bank: as in `nearest_neighbours`, n >= 2.
        k: number of neighbours, >= 1; capped to n - 1.

    Returns:
        As `nearest_neighbours`.

    Raises:
        ValueError: as `nearest_neighbours`, or if there is one vector.
    """
    if len(bank) < 2:
        raise ValueError("`bank` must hold two vectors, to leave one out. Received: one")
    k = effective_k(k, len(bank) - 1)
    similarity, index = nearest_neighbours(bank, bank, k + 1)
    # Itself, or the last one where copies of it fill the list.
    own = index == np.arange(len(index))[:, None]
    own[:, -1] |= ~own.any(axis=1)
    return tuple(x[~own].reshape(-1, k) for x in (similarity, index))


def knn_votes(bank, bank_labels, queries, k=200, temperature=0.1, query_chunk=1024):
    """The share of its nearest neighbours' weight that has each of several labels.

    `votes_c = sum_{i in N_k} y_ic w_i / sum_{i in N_k} w_i` with `w_i = exp(s_i / tau)`, as in
    `knn_predict`; in [0, 1], and so to be compared between queries.

    Args:
        bank: as in `knn_predict`.
        bank_labels: 0 and 1, `[n, classes]`.
        queries: as in `knn_predict`.
        k: as in `knn_predict`.
        temperature: as in `knn_predict`.
        query_chunk: queries compared at a time. Defaults to 1024.

    Returns:
        float64 `[m, classes]`.

    Raises:
        ValueError: as in `knn_predict`.

    Example:
        >>> bank = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> knn_votes(bank, [[1, 1, 0], [0, 1, 0]], [[1.0, 1.0]]).tolist()
        [[0.5, 1.0, 0.0]]
    """
    _check_temperature(temperature)
    bank_labels = check_labels(bank_labels, bank, "bank_labels", several=True)
    return _shares(*nearest_neighbours(bank, queries, k, query_chunk), bank_labels, temperature)


def _shares(similarity, index, bank_labels, temperature, query_chunk=1024):
    bank_labels = np.asarray(bank_labels)
    votes = np.empty((len(similarity), bank_labels.shape[1]))
    for start in range(0, len(similarity), query_chunk):
        rows = slice(start, start + query_chunk)
        s = similarity[rows].astype("float64")
        weight = np.exp((s - s[:, :1]) / temperature)
        weight /= weight.sum(axis=1, keepdims=True)
        votes[rows] = np.einsum("mk,mkc->mc", weight, bank_labels[index[rows]])
    return votes


def knn_accuracy(
    bank,
    bank_labels,
    queries,
    query_labels,
    k=200,
    temperature=0.1,
    query_chunk=1024,
    bank_chunk=16384,
):
    """Computes the share of queries that `knn_predict` classifies correctly.

    In [0, 1]. A query whose class is absent from the bank counts as wrong.

    Args:
        bank: array or memory map `[n, d]`, n >= 1: features of the labelled images.
        bank_labels: array `[n]`; any values, not necessarily contiguous.
        queries: array or memory map `[m, d]`, m >= 1.
        query_labels: array `[m]`.
        k: number of neighbours, >= 1; capped to n, see `effective_k`. Defaults to 200.
        temperature: tau > 0. Defaults to 0.1.
        query_chunk: queries compared at a time. Defaults to 1024.
        bank_chunk: bank rows compared at a time. Defaults to 16384.

    Returns:
        The accuracy, a float.

    Raises:
        ValueError: if an argument is outside its range, the lengths differ, or a feature is
            not finite.

    Example:
        >>> import numpy as np
        >>> bank = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> knn_accuracy(bank, [3, 7], [[5.0, 1.0], [0.0, 2.0]], [3, 7], k=1)
        1.0

    Reference:
        Wu et al. 2018, section 3.4, https://arxiv.org/abs/1805.01978
    """
    query_labels = check_labels(query_labels, queries, "query_labels")
    predicted = knn_predict(bank, bank_labels, queries, k, temperature, query_chunk, bank_chunk)
    return float(np.mean(predicted == query_labels))


def knn_predict(
    bank, bank_labels, queries, k=200, temperature=0.1, query_chunk=1024, bank_chunk=16384
):
    """Classifies each query by the weighted vote of its nearest neighbours.

    `class = argmax_c sum_{i in N_k, y_i = c} exp(s_i / tau)`, s_i the cosine similarity to the
    bank's vector i and N_k the k most similar. Equal votes go to the lowest label. A zero vector
    has similarity 0 to everything. Features may be of any scale and need no normalization.

    Args:
        bank: array or memory map `[n, d]`, n >= 1.
        bank_labels: array `[n]`.
        queries: array or memory map `[m, d]`, m >= 1.
        k: number of neighbours, >= 1; capped to n. Defaults to 200.
        temperature: tau > 0. Defaults to 0.1.
        query_chunk: queries compared at a time. Defaults to 1024.
        bank_chunk: bank rows compared at a time. Defaults to 16384.

    Returns:
        The predicted labels `[m]`, of `bank_labels`' type.

    Raises:
        ValueError: if an argument is outside its range, the lengths differ, or a feature is
            not finite.

    Reference:
        Wu et al. 2018, section 3.4, https://arxiv.org/abs/1805.01978
    """
    _check_temperature(temperature)
    bank_labels = check_labels(bank_labels, bank, "bank_labels")
    found = nearest_neighbours(bank, queries, k, query_chunk, bank_chunk)
    return _voted(*found, bank_labels, temperature, query_chunk)


def _voted(similarity, index, bank_labels, temperature, query_chunk=1024):
    classes, bank_class = np.unique(bank_labels, return_inverse=True)
    predicted = np.empty(len(similarity), classes.dtype)
    for start in range(0, len(similarity), query_chunk):
        rows = slice(start, start + query_chunk)
        s = similarity[rows].astype("float64")
        # Relative to the nearest neighbour: the same argmax, and no overflow at a small tau.
        weight = np.exp((s - s[:, :1]) / temperature)
        n = len(s)
        bins = np.arange(n)[:, None] * len(classes) + bank_class[index[rows]]
        votes = np.bincount(bins.ravel(), weight.ravel(), n * len(classes))
        predicted[rows] = classes[votes.reshape(n, -1).argmax(1)]
    return predicted


def nearest_neighbours(bank, queries, k, query_chunk=1024, bank_chunk=16384):
    """Finds the k bank vectors of highest cosine similarity to each query.

    The bank is checked and then read once, in chunks, into a running top k. Memory holds the
    queries, one chunk of the bank and one `[query_chunk, bank_chunk]` block of similarities; of a
    memory map opened with mode `"r"`, one chunk. Equal similarities are ordered by bank index,
    where the backend's `top_k` does so (TensorFlow and JAX do).

    Args:
        bank: array or memory map `[n, d]`, n >= 1, of any float dtype.
        queries: array or memory map `[m, d]`, m >= 1.
        k: number of neighbours, >= 1; capped to n.
        query_chunk: queries compared at a time, >= 1. Defaults to 1024.
        bank_chunk: bank rows compared at a time, >= 1. Defaults to 16384.

    Returns:
        Similarities in [-1, 1], highest first, and bank indices, both `[m, min(k, n)]`.

    Raises:
        ValueError: if an argument is outside its range, the widths differ, or a feature is
            not finite.
    """
    k = effective_k(k, len(bank))
    for name, chunk in (("query_chunk", query_chunk), ("bank_chunk", bank_chunk)):
        if chunk < 1:
            raise ValueError(f"`{name}` must be >= 1. Received: {name}={chunk}")
    bank, queries = np.asarray(bank), np.asarray(queries)
    check_features(bank, "bank")
    check_features(queries, "queries")
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(
            "`queries` must be as wide as `bank`. "
            f"Received: queries {queries.shape[1]}, bank {bank.shape[1]}"
        )
    return nearest_of_chunks(blocks(bank, bank_chunk), queries, k, query_chunk)


def nearest_of_chunks(chunks, queries, k, query_chunk=1024):
    """As `nearest_neighbours`, of a bank that comes in parts and is not checked.

    Args:
        chunks: iterable of (number of its first row, `[rows, d]`).
        queries: array `[m, d]`, m >= 1.
        k: as in `nearest_neighbours`.
        query_chunk: as in `nearest_neighbours`.

    Returns:
        As `nearest_neighbours`.
    """
    similarity = np.full((len(queries), k), -np.inf, "float32")
    index = np.zeros((len(queries), k), "int64")
    queries, n = unit(queries), 0
    for first, chunk in chunks:
        n = first + len(chunk)
        keys = ops.transpose(unit(chunk))
        for start in range(0, len(queries), query_chunk):
            rows = slice(start, start + query_chunk)
            scores = ops.matmul(queries[rows], keys)
            values, columns = ops.top_k(scores, min(k, len(chunk)))
            found = np.concatenate([similarity[rows], ops.convert_to_numpy(values)], 1)
            where = np.concatenate([index[rows], first + ops.convert_to_numpy(columns)], 1)
            order = np.argsort(-found, axis=1, kind="stable")[:, :k]
            similarity[rows] = np.take_along_axis(found, order, 1)
            index[rows] = np.take_along_axis(where, order, 1)
    return similarity[:, :n], index[:, :n]


def effective_k(k, bank_size):
    """Caps the number of neighbours to the size of the bank.

    Args:
        k: neighbours asked for, >= 1.
        bank_size: vectors in the bank.

    Returns:
        `min(k, bank_size)`.

    Raises:
        ValueError: if k < 1.
    """
    if k < 1:
        raise ValueError(f"`k` must be >= 1. Received: k={k}")
    return min(k, bank_size)


def chosen_k(k, labels):
    """The number of neighbours for a bank: what is asked for, or the rule of small sets.

    The papers' k = 200 is of banks with a thousand images of each class. Of a smaller one it takes
    the square root of its size, the rule of thumb, and no more than its median class has.

    Args:
        k: neighbours asked for; 0: by the rule.
        labels: of the bank, `[n]`, or 0 and 1 `[n, classes]`.

    Returns:
        At least 1 and at most n; by the rule at most 200.

    Example:
    >>> chosen_k(0, np.repeat(range(10), 5000)), chosen_k(0, np.repeat(range(10), 144))
    (200, 37)
    """
    if k:
        return effective_k(k, len(labels))
    classes = strata(labels)
    sizes = np.unique(classes[classes >= 0], return_counts=True)[1]
    typical = int(np.median(sizes)) if len(sizes) else len(labels)
    return max(1, min(200, math.isqrt(len(labels)), typical))


def _check_temperature(temperature):
    if not temperature > 0:
        raise ValueError(f"`temperature` must be > 0. Received: temperature={temperature}")


def unit(x):
    """Vectors `[n, d]` divided by their lengths, float32; a zero vector stays one."""
    x = np.asarray(x, "float32")
    # float64, so that the squares of very small or large features neither vanish nor overflow.
    norm = np.sqrt(np.einsum("nd,nd->n", x, x, dtype="float64"))
    scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
    return np.multiply(x, scale[:, None], out=np.empty_like(x), casting="same_kind")
