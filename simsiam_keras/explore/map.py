"""Two coordinates for each vector, so that near ones lie near each other."""

import importlib.util
import warnings

import numpy as np

from simsiam_keras.evaluation.knn import unit

METHODS = ("auto", "umap", "tsne", "pca")
TITLES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
TSNE_MOST = 5000  # images, from which on t-SNE takes minutes
FEWEST = 10  # images, below which there are no neighbourhoods to draw
COMPONENTS = 50  # that t-SNE looks at


def chosen(layout, n):
    """The layout that `--map` means for n images: `auto` is UMAP where it is installed.

    Returns:
        `umap`, `tsne` or `pca`.

    Raises:
        ImportError: if UMAP is asked for and missing.
    """
    if n < FEWEST:
        return "pca"
    installed = importlib.util.find_spec("umap") is not None
    if layout == "umap" and not installed:
        raise ImportError("--map=umap needs umap-learn: pip install -r requirements-tools.txt")
    if layout != "auto":
        return layout
    return "umap" if installed else "tsne" if n <= TSNE_MOST else "pca"


def coordinates(vectors, layout, seed=0):
    """A map of vectors, the same for the same seed.

    Args:
        vectors: `[n, d]`; their directions count, as in kNN.
        layout: `umap`, `tsne` or `pca`.
        seed: of what is drawn; default 0.

    Returns:
        float32 `[n, 2]`, the longer side of whose frame is [0, 1], centred in both.

    Reference:
        McInnes et al., UMAP, 2018, https://arxiv.org/abs/1802.03426; van der Maaten & Hinton,
        Visualizing Data using t-SNE, JMLR 2008
    """
    x = unit(vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, of compilers, of spectra
        points = {"umap": _umap, "tsne": _tsne, "pca": _pca}[layout](x, seed)
    return framed(points)


def framed(points):
    """Points `[n, 2]` moved and scaled as one, so that their frame is within [0, 1]."""
    points = np.nan_to_num(np.asarray(points, "float64"))
    low, high = points.min(0), points.max(0)
    scale = max((high - low).max(), 1e-12)
    return (0.5 + (points - (low + high) / 2) / scale).astype("float32")


def _umap(x, seed):
    import umap

    neighbours = min(15, len(x) - 1)
    start = "spectral" if len(x) > 3 * FEWEST else "random"
    return umap.UMAP(
        n_neighbors=neighbours, metric="cosine", init=start, random_state=seed, n_jobs=1
    ).fit_transform(x)


def _tsne(x, seed):
    from sklearn.manifold import TSNE

    x = _components(x, min(COMPONENTS, *x.shape), seed)
    perplexity = min(30, (len(x) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(x)


def _pca(x, seed):
    points = _components(x, min(2, *x.shape), seed)
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def _components(x, count, seed):
    from sklearn.decomposition import PCA

    return PCA(count, random_state=seed).fit_transform(x)
