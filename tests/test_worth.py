"""A run ends with whether it helped, and says early when it harms."""

import json

import numpy as np
import pytest

from simsiam_keras import build, config, monitors, worth
from simsiam_keras.__main__ import main
from simsiam_keras.data import sources

FEW = ["--recipe=digits", "--encoder=resnet10", "--width=4", "--output_dim=8", "--epochs=1"]


def said(before, plain, after, n=400, name="knn_accuracy", **more):
    found = {f"{name}_random_init": before, f"{name}_pixels": plain, name: after}
    return worth.verdict({f"{name}_last": after, "kept_epoch": 1, **found, **more}, n)


def test_the_verdict_is_of_what_is_worse():
    assert said(0.8, 0.7, 0.6).startswith("Training made the features worse than they were at")
    assert said(0.5, 0.9, 0.6).startswith("Training has not paid yet")
    assert "better than the random encoder and the pixels" in said(0.5, 0.6, 0.9)
    assert "better than the random encoder:" in said(0.5, 0.9, 0.9)
    assert said(0.7, 0.7, 0.7).startswith("Training changed nothing that 400 images could tell")


def test_chance_is_no_verdict():
    # One standard error of a difference of shares of about 1/2 is sqrt(2 / 4n).
    assert said(0.5, 0.0, 0.46, n=400).startswith("Training helped, the features are better than")
    assert "at random initialization" in said(0.5, 0.0, 0.46, n=400)
    assert said(0.5, 0.0, 0.46, n=4000).startswith("Training made the features worse")


def test_it_names_numbers_and_measure():
    assert "kNN is 60.0 % after training, 80.0 % at random initialization, 70.0 %" in said(
        0.8, 0.7, 0.6
    )
    assert "mean average precision is 60.0 %" in said(0.8, 0.7, 0.6, 400, "mean_average_precision")


def test_known_weights_stand_beside_what_came_of_them():
    better = said(0.3, 0.4, 0.9, knn_accuracy_start=0.8)
    assert "better than the weights it started from, the random encoder and the pixels" in better
    assert "80.0 % of the weights it started from, 30.0 % at random" in better
    same = said(0.3, 0.4, 0.81, knn_accuracy_start=0.8)
    assert same.startswith("Training on your images added nothing that can be told from chance")
    worse = said(0.3, 0.4, 0.7, knn_accuracy_start=0.8)
    assert worse.startswith("Training made the features worse than they were with those weights")


def test_an_earlier_epoch_that_is_left_is_named():
    found = said(0.5, 0.6, 0.9, knn_accuracy_last=0.7, kept_epoch=3)
    assert "90.0 % after training in epoch 3 (70.0 % in the last)" in found


def watched(values, start=0.8, pixels=0.7, known=False):
    spoken = []
    row = {"knn_accuracy": start, "knn_accuracy_pixels": pixels, "knn_queries": 400}
    watch = worth.Watch(row, known, spoken.append)
    for epoch, value in enumerate(values):
        watch.on_epoch_end(epoch, {} if value is None else {"knn_accuracy": value})
    return spoken


def test_harm_is_told_once_when_it_is_measured():
    (before,) = watched([None, 0.79, 0.7, 0.7])
    assert "epoch 3: the features are worse than before training" in before
    assert "kNN 70.0 % instead of 80.0 %" in before
    before, pixels = watched([0.7, 0.6, 0.5])
    assert "epoch 2: the features are worse than the pixels themselves" in pixels


def test_below_the_pixels_from_the_start_is_no_news():
    assert watched([0.5, 0.5], start=0.5, pixels=0.9) == []


def test_advice_is_of_the_start():
    assert "--weights" in watched([0.6])[0]
    assert "--encoder_lr_scale=0.1" in watched([0.6], known=True)[0]


def test_what_is_left_and_what_was_best_and_last():
    rows = [
        {
            "epoch": 0,
            "knn_accuracy": 0.5,
            "knn_accuracy_pixels": 0.4,
            "knn_accuracy_random_init": 0.3,
        },
        {"epoch": 1, "knn_accuracy": 0.7, "knn_of_the_bank": 0.6},
        {"epoch": 2, "knn_accuracy": None},
        {"epoch": 3, "knn_accuracy": 0.9, "knn_of_the_bank": 0.5},
    ]
    found = worth.result(rows, kept=1, known=True)
    assert found == {
        "knn_accuracy": 0.7,
        "knn_accuracy_last": 0.9,
        "knn_accuracy_best": 0.7,  # by the bank, as no query may choose
        "best_epoch": 1,
        "kept_epoch": 1,
        "knn_accuracy_start": 0.5,
        "knn_accuracy_random_init": 0.3,
        "knn_accuracy_pixels": 0.4,
    }


def loops(bank, bank_labels, queries, labels, k):
    """Nearest neighbours by cosine, each of weight exp(s / .1)."""
    right = 0
    for query, label in zip(queries, labels, strict=True):
        near = []
        for row, of in zip(bank, bank_labels, strict=True):
            cosine = sum(query * row) / (sum(query**2) * sum(row**2)) ** 0.5
            near.append((cosine, of))
        votes = {}
        for cosine, of in sorted(near, reverse=True)[:k]:
            votes[of] = votes.get(of, 0) + np.exp(cosine / 0.1)
        right += max(votes, key=votes.get) == label
    return right / len(labels)


def test_pixels_are_measured_as_features_are():
    rng = np.random.default_rng(0)
    means = rng.uniform(105, 150, (3, 8, 8, 3))
    labels = np.arange(60) % 3
    images = np.clip(means[labels] + rng.normal(0, 60, (60, 8, 8, 3)), 0, 255).astype("uint8")
    bank = sources.ArraySource("a", images[:40], labels[:40])
    queries = sources.ArraySource("b", images[40:], labels[40:])
    recipe = build.recipe(config.parse("pretrain", ["--recipe=digits", "--image_size=8"]))
    probe = monitors.Probe(bank, queries, "test", 5, 0.1)
    flat = images.reshape(60, -1).astype("float64")
    expected = loops(flat[:40], labels[:40], flat[40:], labels[40:], 5)
    assert monitors.pixels_measure(recipe, probe) == {"knn_accuracy": pytest.approx(expected)}
    assert 0.5 < expected < 1
    wrong = loops(255 - flat[:40], labels[:40], flat[40:], labels[40:], 5)
    assert wrong != pytest.approx(expected)


def test_many_images_are_compared_smaller(monkeypatch):
    monkeypatch.setattr(monitors, "PIXEL_BYTES", 20 * 10 * 10 * 3 * 4)
    seen = []
    monkeypatch.setattr(monitors, "knn_measure", lambda encode, recipe, probe: seen.append(recipe))
    recipe = build.recipe(config.parse("pretrain", ["--image_size=16"]))
    for n in (1, 20, 2000):
        bank = sources.ArraySource("a", np.zeros((n, 4, 4, 3), "uint8"), np.arange(n))
        monitors.pixels_measure(recipe, monitors.Probe(bank, bank, "test", 5, 0.1))
    assert [recipe.size for recipe in seen] == [16, 10, 8]


def test_a_run_says_whether_it_helped(tmp_path, capsys):
    assert main(["pretrain", *FEW, f"--run_dir={tmp_path / 'run'}"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0.85 < result["knn_accuracy_pixels"] < 0.97  # raw pixels of the digits: 92.8 at 8 px
    assert result["verdict"] in " ".join(capsys.readouterr().err.split())
    assert "Training" in result["verdict"] and "(360 images)" in result["verdict"]


@pytest.mark.slow
def test_without_labels_there_is_no_verdict(tmp_path):
    flags = [*FEW, "--probe_dataset=none", f"--run_dir={tmp_path / 'run'}"]
    assert main(["pretrain", *flags]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "verdict" not in result and "knn_accuracy_pixels" not in result
