"""View whitening: its definition by loops, what it leaves alone, and a run that ends with it."""

import json

import keras
import numpy as np
import pytest

from simsiam_keras import export, whitening
from simsiam_keras.__main__ import main
from simsiam_keras.errors import RunFailed
from tests import tiny

FEW = ["--dataset=digits", "--recipe=digits", "--encoder=resnet10", "--width=4"]
FEW += ["--output_dim=8", "--epochs=1", "--knn_every=0"]


def pairs(n=40, d=5, seed=0):
    """Features as images: `[n, d]` of two views, in two batches."""
    rng = np.random.default_rng(seed)
    centre, scale = rng.normal(size=(n, d)) + 3, np.arange(1, d + 1)
    x1, x2 = (centre + scale * rng.normal(size=(n, d)) for _ in range(2))
    return [(x1[:25], x2[:25]), (x1[25:], x2[25:])]


def by_loops(batches):
    """For each image the covariance of its two views about their own mean, and the mean of all."""
    found, rows = [], []
    for x1, x2 in batches:
        for a, b in zip(x1, x2, strict=True):
            middle = (a + b) / 2
            found.append(np.outer(a - middle, a - middle) + np.outer(b - middle, b - middle))
            rows += [a, b]
    return np.mean(rows, axis=0), np.mean(found, axis=0)


def test_the_scatter_is_that_of_loops():
    mean, within = whitening.scatter(lambda x: x, pairs())
    expected_mean, expected = by_loops(pairs())
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-12)
    np.testing.assert_allclose(within, expected, rtol=1e-12)
    every = np.concatenate([x for batch in pairs() for x in batch])
    assert not np.allclose(within, np.cov(every.T), rtol=0.1)  # that of all, a wrong formula


def test_views_scatter_alike_in_all_directions_without_shrinkage():
    _, within = whitening.scatter(lambda x: x, pairs())
    w = whitening.transform(within, 1e-9)
    after = w.T @ within @ w
    np.testing.assert_allclose(after / after[0, 0], np.eye(5), atol=1e-6)


def test_the_transform_of_a_diagonal_is_known():
    w = whitening.transform(np.diag([0.0, 1.0, 4.0]), 0.5)
    np.testing.assert_allclose(w, np.diag([1, 1 / np.sqrt(1.5), 1 / np.sqrt(3)]), atol=1e-12)


def test_it_turns_with_the_features_and_ignores_their_scale():
    _, within = whitening.scatter(lambda x: x, pairs())
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    w = whitening.transform(within, 0.3)
    np.testing.assert_allclose(
        whitening.transform(turn.T @ within @ turn, 0.3), turn.T @ w @ turn, atol=1e-12
    )
    np.testing.assert_allclose(whitening.transform(9 * within, 0.3), w, atol=1e-12)
    assert np.linalg.norm(whitening.transform(within, 1e9) - np.eye(5)) < 1e-8


def test_views_that_never_differ_leave_the_features():
    np.testing.assert_array_equal(whitening.transform(np.zeros((4, 4)), 0.3), np.eye(4))


def test_the_encoder_is_followed_by_it():
    encoder, images = tiny.tiny_encoder(), tiny.images(6)
    batches = [(tiny.images(8, seed=1), tiny.images(8, seed=2))]

    def encode(x):
        return tiny.numpy(encoder(x, training=False))

    found = whitening.whitened(encoder, encode, batches, 0.3)
    mean, within = by_loops([tuple(encode(x).astype("float64") for x in batches[0])])
    expected = (encode(images) - mean) @ whitening.transform(within, 0.3)
    np.testing.assert_allclose(tiny.numpy(found(images)), expected, rtol=1e-4, atol=1e-5)
    assert found.layers[:-1] == encoder.layers


def test_features_that_are_not_finite_end_the_run():
    with pytest.raises(RunFailed, match="features of views are NaN or infinite"):
        whitening.scatter(lambda x: x * np.nan, pairs())


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["host", "device"])
def test_a_run_leaves_it_in_its_encoder(augment, tmp_path, capsys):
    assert main(["pretrain", *FEW, f"--augment={augment}", f"--run_dir={tmp_path / 'plain'}"]) == 0
    flags = [f"--augment={augment}", "--view_whitening=0.3", f"--run_dir={tmp_path / 'run'}"]
    assert main(["pretrain", *FEW, *flags]) == 0
    assert "after training and view whitening" in capsys.readouterr().err.replace("\n", " ")
    plain, result = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("plain", "run")
    )
    assert result["knn_accuracy_not_whitened"] == plain["knn_accuracy"]
    assert result["loss"] == plain["loss"]
    model = keras.saving.load_model(tmp_path / "run" / "encoder.keras")
    before = keras.saving.load_model(tmp_path / "plain" / "encoder.keras")
    layer = model.get_layer(whitening.NAME)
    images = tiny.noise(16)
    expected = tiny.numpy(before(images)) @ tiny.numpy(layer.kernel) + tiny.numpy(layer.bias)
    np.testing.assert_allclose(tiny.numpy(model(images)), expected, rtol=1e-3, atol=1e-4)
    saved = export.load_encoder(tmp_path / "run" / "encoder")
    np.testing.assert_allclose(saved(images.astype("float32")), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_best_is_left_without_it_where_it_harms(tmp_path, monkeypatch, capsys):
    def worthless(within, shrinkage):  # in its place, a layer that tells nothing of an image
        return 1e-6 * np.ones_like(within)

    monkeypatch.setattr(whitening, "transform", worthless)
    flags = ["--view_whitening=0.3", "--keep=best", f"--run_dir={tmp_path}"]
    assert main(["pretrain", *FEW, *flags]) == 0
    assert "View whitening is left out: kNN of the bank is " in capsys.readouterr().err
    result = json.loads((tmp_path / "result.json").read_text())
    assert "knn_accuracy_not_whitened" not in result
    model = keras.saving.load_model(tmp_path / "encoder.keras")
    assert whitening.NAME not in [layer.name for layer in model.layers]
