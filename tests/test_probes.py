"""`linear-probe` and `knn`, beyond their numbers: protocols, sweeps, folders."""

import json

import numpy as np
import pytest

from simsiam_keras import crops, encoders, export
from simsiam_keras.__main__ import main
from simsiam_keras.data import sources
from simsiam_keras.evaluation import knn


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    export.save_encoder(encoders.twin((16, 16, 3)), path)
    return path / "encoder.keras"


def run(command, encoder, *flags, folder=None):
    argv = [command, f"--encoder={encoder}", "--dataset=digits", *flags]
    assert main([*argv, *([f"--run_dir={folder}"] if folder else [])]) == 0
    return folder and json.loads((folder / "result.json").read_text())


def test_one_left_out_never_finds_itself():
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(40, 5))
    bank[7] = bank[3]  # a copy, which may be found
    similarity, index = knn.leave_one_out(bank, 3)
    unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    expected = -np.sort(-cosines, axis=1)[:, :3]
    np.testing.assert_allclose(similarity, expected, atol=1e-6)
    assert (index != np.arange(40)[:, None]).all() and index[7, 0] == 3 and index[3, 0] == 7


def test_copies_of_one_vector_fill_no_list_with_itself():
    _, index = knn.leave_one_out(np.ones((6, 2)), 2)
    assert index.shape == (6, 2)
    found = knn.leave_one_out(np.ones((2, 2)), 5)[1]
    assert found.shape == (2, 1)
    with pytest.raises(ValueError, match="must hold two vectors"):
        knn.leave_one_out(np.ones((1, 2)), 1)


def test_knn_sweeps_and_leaves_one_out(encoder, tmp_path):
    plain = run("knn", encoder, "--knn_k=5", folder=tmp_path / "plain")
    swept = run("knn", encoder, "--knn_k=5", "--sweep", folder=tmp_path / "swept")
    assert swept["knn_accuracy"] == plain["knn_accuracy"] and "sweep" not in plain
    best = max(swept["sweep"], key=lambda row: row["leave_one_out"])
    assert (best["k"], best["temperature"]) == (swept["best_k"], swept["best_temperature"])
    flags = [f"--knn_k={best['k']}", f"--knn_temperature={best['temperature']}"]
    alone = run("knn", encoder, *flags, "--leave_one_out", folder=tmp_path / "one")
    assert alone["knn_accuracy"] == best["leave_one_out"]
    assert alone["queries"] == alone["bank"] == 1437
    asked = run("knn", encoder, *flags, folder=tmp_path / "asked")
    assert asked["knn_accuracy"] == swept["knn_accuracy_best"]


def test_another_call_takes_another_folder(encoder, capfd):
    place = encoder.parent
    for flags in (["--knn_k=3"], ["--knn_k=4"], ["--knn_k=5"]):
        run("knn", encoder, *flags)
    assert json.loads((place / "knn_3" / "result.json").read_text())["k"] == 5
    assert main(["knn", f"--encoder={encoder}", "--dataset=digits", "--knn_k=4"]) == 2
    assert "knn_2 holds a finished run" in capfd.readouterr().err


def test_each_class_and_the_first_five(encoder, tmp_path):
    result = run("linear-probe", encoder, "--epochs=5", folder=tmp_path / "p")
    digits = sources.load("digits", split="test")
    counts = np.bincount(digits.labels)
    shares = [result["per_class"][str(c)] for c in range(10)]
    assert np.average(shares, weights=counts) == pytest.approx(result["linear_accuracy"])
    assert result["linear_accuracy"] < result["top_5_accuracy"] <= 1
    assert (tmp_path / "p" / "plots" / "confusion.png").exists()


def test_logistic_regression_is_an_optimizer(encoder, tmp_path):
    result = run("linear-probe", encoder, "--optimizer=logistic", folder=tmp_path / "p")
    assert result["learning_rate"] is None and "scikit-learn's logistic" in result["protocol"]
    found = np.load(tmp_path / "p" / "classifier.npz")
    loaded = export.load_encoder(encoder)
    digits = sources.load("digits", split="test")
    from simsiam_keras.evaluation import features

    x = features(loaded, digits, 16)
    predicted = found["classes"][np.argmax(x @ found["weights"] + found["bias"], axis=1)]
    assert np.mean(predicted == digits.labels) == pytest.approx(result["linear_accuracy"], abs=3e-3)
    flags = ["--optimizer=logistic", "--protocol=paper", f"--run_dir={tmp_path / 'q'}"]
    assert main(["linear-probe", f"--encoder={encoder}", "--dataset=digits", *flags]) == 2


def test_crops_differ_by_epoch_and_are_of_their_images(encoder):
    loaded, source = export.load_encoder(encoder), sources.load("digits")
    of = crops.features(loaded, source, flip=False, seed=3, batch_size=500)
    first, again, later = of(0), of(0), of(1)
    assert first.shape == (1437, loaded.dim)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, later)
    whole = crops.features(loaded, source, flip=False, seed=3, batch_size=500, min_crop=1.0)(0)
    from simsiam_keras.evaluation import features

    plain = features(loaded, source, 16)
    whole, plain = whole[:200], plain[:200]
    near = ((plain**2).sum(1) - 2 * whole @ plain.T).argmin(axis=1)
    assert np.mean(near == np.arange(200)) > 0.9  # crops of nearly all are of the image of the row


def test_crops_are_mirrored_as_the_views_of_the_run_were(tmp_path):
    path = tmp_path / "encoder.keras"
    assert crops.mirrored("auto", path)
    for recipe, expected in (("digits", False), ("cifar", True)):
        (tmp_path / "flags.cfg").write_text(f"--recipe={recipe}\n")
        assert crops.mirrored("auto", path) == expected
        assert crops.mirrored("auto", tmp_path / "encoder") == expected
    assert not crops.mirrored("off", path)
    assert crops.mirrored("auto", tmp_path / "other.keras")


def test_the_papers_protocol_trains_on_crops(encoder, tmp_path):
    flags = ["--epochs=3", "--learning_rates=1,3"]
    cached = run("linear-probe", encoder, *flags, folder=tmp_path / "a")
    paper = run("linear-probe", encoder, *flags, "--protocol=paper", folder=tmp_path / "b")
    assert "features of new crops each epoch" in paper["protocol"]
    assert paper["learning_rate"] == cached["learning_rate"]
    assert paper["linear_accuracy"] != cached["linear_accuracy"]
    assert paper["linear_accuracy_pixels"] == cached["linear_accuracy_pixels"]
