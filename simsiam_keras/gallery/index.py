"""FAISS indices beside a file of vectors: built once, saved, memory-mapped, checked for recall."""

import json
import math
from pathlib import Path

import numpy as np

from simsiam_keras import cards, runs
from simsiam_keras.errors import reading, writing
from simsiam_keras.evaluation.knn import unit
from simsiam_keras.gallery import exact

KINDS = ("hnsw", "ivf")
LINKS, EFFORT, SEARCH_EFFORT = 32, 200, 128  # of HNSW
LEAST_OF_A_LIST = 39  # vectors, FAISS's own rule
SAMPLE = 200  # vectors of the gallery that recall is measured with


def path_of(vectors, kind):
    """Where the index of a file of vectors lies."""
    return Path(f"{vectors}.{kind}.faiss")


def found(vectors, kind, reader, rebuild, say):
    """The index of a file of vectors; it is built where there is none.

    Args:
        vectors: path of the file.
        kind: one of `KINDS`.
        reader: its `vectors.Reader`.
        rebuild: build it in any case.
        say: function of a sentence.

    Returns:
        A memory-mapped FAISS index of normalized vectors by their inner product.

    Raises:
        ImportError: without faiss.
        ValueError: if the vectors are no longer those that it was built of, or it is damaged.
    """
    faiss = _faiss()
    path, content = path_of(vectors, kind), cards.digest(vectors)
    card = Path(f"{path}.json")
    if rebuild or not (path.exists() and card.exists()):
        say(f"Builds {path} of {len(reader):,} vectors.")
        _save(faiss, _built(faiss, kind, reader), path)
        recall = recall_of(_read(faiss, path), reader)
        runs.write_json(card, {"vectors": content, "kind": kind, "recall_at_10": recall})
    with reading(card, "give --rebuild_index"):
        known = json.loads(card.read_text("utf-8"))
        same, recall = known["vectors"] == content, float(known["recall_at_10"])
    if not same:
        raise ValueError(
            f"{vectors} has changed since {path} was built of it; give --rebuild_index, or "
            "--index=exact, which needs none"
        )
    say(f"Of the ten nearest by exact search {path.name} finds {100 * recall:.1f} %.")
    return _read(faiss, path)


def search(index, queries, k):
    """As `exact.neighbours`, by an index; fewer than k where it finds no more: number -1."""
    return index.search(unit(queries), k)


def recall_of(index, reader, k=10):
    """The share of the true k nearest that an index finds, of vectors of the gallery.

    Args:
        index: a FAISS index.
        reader: the `vectors.Reader` that it was built of.
        k: neighbours; default 10.

    Returns:
        A float within [0, 1].
    """
    chosen = np.random.default_rng(0).permutation(len(reader))[:SAMPLE]
    queries = _chosen(reader, np.sort(chosen))
    _, true = exact.neighbours(reader.chunks(), queries, k)
    _, answered = search(index, queries, true.shape[1])
    hits = [len(set(a) & set(b)) for a, b in zip(true.tolist(), answered.tolist(), strict=True)]
    return float(np.sum(hits) / true.size)


def _chosen(reader, numbers):
    parts, first = [], 0
    for chunk in reader.chunks():
        inside = numbers[(numbers >= first) & (numbers < first + len(chunk))]
        parts.append(chunk[inside - first])
        first += len(chunk)
    return np.concatenate(parts)


def _built(faiss, kind, reader):
    dim, n = reader.about.dim, len(reader)
    inner = faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, LINKS, inner)
        index.hnsw.efConstruction, index.hnsw.efSearch = EFFORT, SEARCH_EFFORT
    else:
        lists = max(1, min(round(4 * math.sqrt(n)), n // LEAST_OF_A_LIST))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, inner)
        index.nprobe = max(1, lists // 8)
        rows = np.sort(np.random.default_rng(0).permutation(n)[: 256 * lists])
        index.train(unit(_chosen(reader, rows)))
    for chunk in reader.chunks():
        index.add(unit(chunk))
    return index


def _save(faiss, index, path):
    temporary = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            faiss.write_index(index, str(temporary))
            runs.settle(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _read(faiss, path):
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged; give --rebuild_index") from error


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "--index needs faiss: pip install -r requirements-tools.txt, or take --index=exact"
        ) from error
    return faiss
