"""The map and the clusters: what is near stays near, and the same seed gives the same."""

import importlib.util

import numpy as np
import pytest

from simsiam_keras.explore import clusters, map

INSTALLED = [
    "pca",
    "tsne",
    pytest.param(
        "umap",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(not importlib.util.find_spec("umap"), reason="needs umap-learn"),
        ],
    ),
]


def blobs(n=30, d=16, count=3, seed=0):
    """Directions around a few, and of which each is."""
    random = np.random.default_rng(seed)
    centres = np.eye(d)[:count] * 10
    of = np.arange(n) % count
    return (centres[of] + random.normal(size=(n, d))).astype("float32"), of


def own_neighbours(points, of):
    """The share of points whose nearest other is of the same blob."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return (of[distance.argmin(1)] == of).mean()


@pytest.mark.parametrize("method", INSTALLED)
def test_blobs_stay_together_and_a_seed_repeats(method):
    x, of = blobs(60)
    points = map.coordinates(x, method, seed=3)
    assert points.shape == (60, 2) and points.dtype == np.float32
    assert own_neighbours(points, of) == 1
    assert own_neighbours(np.random.default_rng(0).uniform(size=(60, 2)), of) < 0.7
    np.testing.assert_array_equal(points, map.coordinates(x, method, seed=3))


def test_lengths_of_vectors_do_not_count():
    x, _ = blobs()
    longer = x * np.linspace(1, 50, len(x))[:, None]
    np.testing.assert_allclose(map.coordinates(x, "pca"), map.coordinates(longer, "pca"), atol=1e-4)


def test_the_frame_is_filled_and_the_shape_kept():
    points = np.array([[-3, 10], [5, 10], [1, 12], [1, 8]])
    framed = map.framed(points)
    np.testing.assert_allclose(framed, [[0, 0.5], [1, 0.5], [0.5, 0.75], [0.5, 0.25]])
    assert np.isfinite(map.framed(np.full((4, 2), 7.0))).all()  # all at one place


@pytest.mark.parametrize("n, d", [(2, 1), (2, 8), (5, 3)])
def test_few_images_have_a_map(n, d):
    x = np.random.default_rng(0).normal(size=(n, d)).astype("float32")
    assert map.chosen("auto", n) == "pca"
    points = map.coordinates(x, "pca")
    assert points.shape == (n, 2) and np.isfinite(points).all()


def test_the_method_goes_by_what_is_installed(monkeypatch):
    monkeypatch.setattr(map.importlib.util, "find_spec", lambda name: None)
    assert map.chosen("auto", map.TSNE_MOST) == "tsne"
    assert map.chosen("auto", map.TSNE_MOST + 1) == "pca"
    assert map.chosen("tsne", 10**6) == "tsne"
    with pytest.raises(ImportError, match="requirements-tools.txt"):
        map.chosen("umap", 100)
    monkeypatch.setattr(map.importlib.util, "find_spec", lambda name: object())
    assert map.chosen("auto", 100) == "umap"


def test_clusters_are_the_blobs_largest_first():
    x, of = blobs(61, count=3)
    x, of = np.concatenate([x, x[of == 2] * 2]), np.concatenate([of, of[of == 2]])
    found = clusters.of(x, 3, seed=1)
    assert len({*zip(found.tolist(), of.tolist(), strict=True)}) == 3
    assert found[of == 2].max() == 0  # the largest
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()
    np.testing.assert_array_equal(found, clusters.of(x, 3, seed=1))


def test_clusters_are_called_by_what_most_of_them_are():
    cluster, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 0, 0, -1, -1])
    names = clusters.names(cluster, labels, ["cat", "dog"])
    assert names == ["1: dog 67 %", "2: cat 100 %", "3"]
    assert clusters.names(cluster, None, None) == ["1", "2", "3"]
    assert clusters.names(cluster, labels, None)[0] == "1: 1 67 %"
