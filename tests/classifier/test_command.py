"""The command `fine-tune` from flags to files, on small pictures."""

import json
import os
import re
import signal
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from simsiam_keras import cards, export
from simsiam_keras.classifier import calibration, files, labels, report
from simsiam_keras.data import pipeline, sources
from simsiam_keras.evaluation import logistic
from tests.classifier import made
from tests.conftest import ROOT
from tests.few import small
from tests.test_backends import OTHERS, call


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run folder, a data set with hard names, and what `fine-tune` leaves of them."""
    folder = tmp_path_factory.mktemp("tuned")
    run = small.run_folder(folder / "run", seed=3)
    data = made.named(folder / "data.npz")
    before = cards.digest(run)
    assert (
        made.fine_tune(f"--encoder={run}", f"--dataset={data}", f"--run_dir={folder / 'out'}") == 0
    )
    assert cards.digest(run) == before  # nothing outside of the output folder
    assert {path.name for path in folder.iterdir()} == {"run", "data.npz", "out"}
    return folder / "out", data, run


def result_of(folder):
    return json.loads((folder / "result.json").read_text("utf-8"))


def test_the_folder_has_what_it_should(tuned):
    names = {path.name for path in tuned[0].iterdir()} - {".lock"}
    assert names == {
        *("classifier", "classifier.keras", "classifier.json", "plots", "metrics.jsonl"),
        *("flags.cfg", "environment.json", "result.json"),
    }
    pictures = {path.name for path in (tuned[0] / "plots").iterdir()}
    assert pictures == {"confusion.png", "reliability.png"}
    rows = [json.loads(line) for line in (tuned[0] / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]


def images_of(data, split, size=small.SIDE):
    source = sources.load(data, split=split)
    parts = [images for images, _ in pipeline.evaluation_batches(source, size)]
    return np.concatenate(parts), source.labels


def test_the_numbers_are_those_of_the_files(tuned):
    """Read with Keras alone: accuracies, the confusion matrix and the calibration errors."""
    folder, data, run = tuned
    result = result_of(folder)
    model = keras.saving.load_model(folder / "classifier.keras", safe_mode=True, compile=False)
    images, numbers = images_of(data, "test")
    found = model.predict(images, verbose=0)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    right = found.argmax(-1) == numbers
    assert result["accuracy"] == pytest.approx(right.mean())
    named = {"linear probe": "linear_accuracy", "fine-tuned": "fine_tuned_accuracy"}
    assert result["accuracy"] == pytest.approx(result[named[result["left"]]])
    counts = np.zeros((3, 3), int)
    for true, said in zip(numbers, found.argmax(-1), strict=True):
        counts[true, said] += 1
    assert result["confusion"] == counts.tolist() and result["confusion"] != counts.T.tolist()
    for i, name in enumerate(made.NAMES):
        assert result["class_accuracies"][name] == pytest.approx(right[numbers == i].mean())
    error = calibration.calibration_error(found.max(-1), right)
    assert result["calibration_error_test_after"] == pytest.approx(error, abs=0.02)
    assert result["majority_accuracy"] == pytest.approx(1 / 3)


def test_the_linear_rows_are_logistic_regressions_of_frozen_features(tuned):
    folder, data, run = tuned
    encoder = export.load_encoder(run / "encoder.keras")
    (train, numbers), (test, test_numbers) = (images_of(data, s) for s in ("train", "test"))
    features, test_features = encoder(train), encoder(test)
    scaled = logistic.scaling(features)
    fitted = logistic.fit(scaled(features), numbers, 0)
    expected = (fitted.predict(scaled(test_features)) == test_numbers).mean()
    result = result_of(folder)
    assert result["linear_accuracy"] == pytest.approx(expected, abs=0.02)
    assert result["train_images"] == 60 and result["held_out_images"] == 12
    left = result["left"] == "linear probe"
    assert result["calibrated_on"] == files.load(folder).card.held_out == (60 if left else 12)


def test_names_are_in_every_form(tuned):
    tf = pytest.importorskip("tensorflow")
    folder, data, _ = tuned
    card = json.loads((folder / "classifier.json").read_text("utf-8"))
    assert card["classes"] == list(made.NAMES)
    assert card["digest"] == {n: cards.digest(folder / n) for n in files.FORMS}
    with zipfile.ZipFile(folder / "classifier.keras") as archive:
        assert json.loads(archive.read("classifier.json"))["classes"] == list(made.NAMES)
    module = tf.saved_model.load(str(folder / "classifier"))
    names = module.signatures["classes"]()["names"].numpy()
    assert [name.decode() for name in names] == list(made.NAMES)
    images = images_of(data, "test")[0][:5]
    expected = files.load(folder)(images)
    np.testing.assert_allclose(module.serve(images), expected, atol=1e-5)
    (served,) = module.signatures["serving_default"](tf.constant(images)).values()
    np.testing.assert_allclose(served, expected, atol=1e-5)


LOADS = """
import sys, json, zipfile, keras, numpy as np
assert not any(name.startswith("simsiam_keras") for name in sys.modules)
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
images = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(images, verbose=0))
print(json.loads(zipfile.ZipFile(sys.argv[1]).read("classifier.json"))["classes"])
"""


def test_the_keras_file_needs_no_code_of_the_package(tuned, tmp_path):
    images = images_of(tuned[1], "test")[0][:4]
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", LOADS, tuned[0] / "classifier.keras"]
    command += [tmp_path / "images.npy", tmp_path / "found.npy"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith(str(list(made.NAMES)))
    np.testing.assert_allclose(
        np.load(tmp_path / "found.npy"), files.load(tuned[0])(images), atol=1e-5
    )


def test_a_finished_one_is_not_repeated(tuned, capsys):
    folder, data, run = tuned
    assert made.fine_tune(f"--encoder={run}", f"--dataset={data}", f"--run_dir={folder}") == 2
    assert "holds a finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--encoder={folder}/nothing"], "nothing is no encoder; give a .keras file"),
        (["--encoder={folder}/empty"], "empty has no encoder.keras"),
        (["--encoder={folder}/run/encoder"], "is a SavedModel, which cannot be trained on"),
        (["--encoder={folder}/run", "--classes=4"], "--classes=4 were expected, .* has 3"),
        (["--encoder={folder}/run", "--labels_fraction=1.5"], "must be in .0, 1.. Received: 1.5"),
        (["--encoder={folder}/run", "--layer_decay=2"], "--layer_decay must be in .0, 1."),
        (["--encoder={folder}/run", "--min_crop=0"], "--min_crop must be in .0, 1."),
        (["--encoder={folder}/run", "--validation_fraction=1"], "must be below 1, to leave"),
        (["--encoder={folder}/run", "--labels_per_class=1"], "--labels_per_class=2 or more"),
        (
            ["--encoder={folder}/run", "--labels_per_class=5", "--labels_fraction=0.5"],
            "both say how many labels to take",
        ),
        (["--encoder={folder}/run", "--dataset=npz:{folder}/several.npz"], "needs one label for"),
        (["--encoder={folder}/run", "--dataset=npz:{folder}/strange.npz"], "without a training im"),
        (["--encoder={folder}/run", "--dataset=npz:{folder}/one.npz"], "it|held out|two classes"),
        (["--encoder={folder}/run", "--dataset=npz:{folder}/none.npz"], "has no labels"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    flags, sentence, tmp_path, capsys, monkeypatch
):

    small.run_folder(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    small.data_set(tmp_path / "data.npz")
    images, numbers = small.pictures(10, 1)
    several, plain = (1 - np.eye(3, dtype=int)[x] for x in (numbers, small.pictures(8, 0)[1]))
    small.data_set(tmp_path / "several.npz", train_labels=plain, test_labels=several)
    small.data_set(tmp_path / "strange.npz", test_labels=np.where(numbers == 2, 7, numbers))
    small.data_set(tmp_path / "one.npz", train_labels=np.zeros(24, int), test_labels=0 * numbers)
    small.data_set(tmp_path / "none.npz", train_labels=None, test_labels=None)
    before = cards.digest(tmp_path)
    flags = [flag.format(folder=tmp_path) for flag in flags]
    out = tmp_path / "out"
    given = [f"--dataset=npz:{tmp_path}/data.npz", f"--run_dir={out}", *flags]
    assert made.fine_tune(*given) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "simsiam_keras:" in line]
    assert len(said) == 1 and re.search(sentence, said[0]), said
    assert not out.exists() and cards.digest(tmp_path) == before


def test_labels_are_drawn_of_each_class():
    source = sources.load("digits")
    cfg = made.configuration(labels_per_class=7)
    assert np.bincount(labels.drawn(source, cfg).labels).tolist() == [7] * 10
    counts = np.bincount(source.labels)
    tenth = np.bincount(labels.fraction(source, 0.1).labels)
    assert tenth.tolist() == [round(0.1 * n) for n in counts]
    assert np.bincount(labels.fraction(source, 1e-6).labels).tolist() == [1] * 10
    assert len(labels.fraction(source, 1.0)) == len(source)
    one, other = (labels.fraction(source, 0.1, seed).fingerprint for seed in (0, 1))
    assert one != other


def test_the_verdict_is_by_two_standard_errors():
    numbers = np.zeros(100, int)
    right, wrong = np.array([1.0, 0.0]), np.array([0.0, 1.0])

    def logits(count):
        return np.array([right] * count + [wrong] * (100 - count))

    assert "cannot be told apart: +2.0 points" in report.verdict(logits(60), logits(62), numbers)
    assert "is better than the linear probe by 10.0" in report.verdict(
        logits(60), logits(70), numbers
    )
    worse = report.verdict(logits(70), logits(60), numbers)
    assert "is worse than the linear probe by 10.0" in worse
    assert "+0.0 points" in report.verdict(logits(60), logits(60), numbers)


KILLED = """
import os, signal, sys
from simsiam_keras.__main__ import main
from simsiam_keras.classifier import {module} as module
original = module.{name}
def killed(*arguments, **named):
    original(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
module.{name} = killed
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["files.saved_model.write", "figures.reliability", "network._steps"]
)
def test_a_kill_leaves_nothing_that_is_taken_for_whole(place, tmp_path):
    """At any moment the folder has no result, and the same command then starts again."""
    run, data = small.run_folder(tmp_path / "run"), made.named(tmp_path / "data.npz")
    out = tmp_path / "out"
    flags = [*made.QUICK, f"--encoder={run}", f"--dataset={data}", f"--run_dir={out}"]
    module, _, name = place.partition(".")
    code = KILLED.format(module=module, name=name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "fine-tune", *map(str, flags)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert out.exists() and not (out / "result.json").exists()
    assert not (out / "classifier.json").exists()
    with pytest.raises(ValueError, match="is no classifier"):
        files.load(out)
    assert made.fine_tune(f"--encoder={run}", f"--dataset={data}", f"--run_dir={out}") == 0
    assert {p.name for p in out.iterdir() if p.name.startswith(".")} == {".lock"}
    assert files.load(out).card.classes == list(made.NAMES)


def test_an_interrupt_says_that_the_same_command_starts_again(tmp_path, capsys, monkeypatch):
    from simsiam_keras.classifier import network

    run, data = small.run_folder(tmp_path / "run"), small.data_set(tmp_path / "data.npz", 10)
    flags = [f"--encoder={run}", f"--dataset={data}", f"--run_dir={tmp_path / 'out'}"]
    monkeypatch.setattr(network, "_steps", lambda *_: signal.raise_signal(signal.SIGINT))
    assert made.fine_tune(*flags) == 130
    assert "the same command starts again" in capsys.readouterr().err
    monkeypatch.undo()
    assert made.fine_tune(*flags, "--labels_fraction=0.5", "--class_balance=balanced") == 0
    assert result_of(tmp_path / "out")["train_images"] == 15


def test_a_classifier_that_is_changed_or_none_is_refused(tuned, tmp_path):
    def refused(path, sentence):
        with pytest.raises(ValueError, match=sentence):
            files.load(path)

    refused(tmp_path, "is no classifier: there is no classifier.keras")
    refused(tmp_path / "x.keras", "no such .keras file")
    refused(tuned[0] / "classifier", "is a SavedModel, which is for servers")
    refused(tuned[2] / "encoder.keras", "no classifier.json inside")
    whole = (tuned[0] / "classifier.keras").read_bytes()
    alone = tmp_path / "classifier.keras"
    alone.write_bytes(whole)  # without its card
    assert files.load(alone).card.classes == list(made.NAMES)
    (tmp_path / "classifier.json").write_bytes((tuned[0] / "classifier.json").read_bytes())
    assert files.load(alone).card == files.load(tuned[0]).card
    alone.write_bytes(whole + b"x")
    refused(alone, "is not the file whose digest")
    (tmp_path / "classifier.json").unlink()
    alone.write_bytes(whole[: len(whole) // 2])
    refused(alone, "cannot be read")


@pytest.mark.parametrize(
    "changed",
    [
        {"classes": ["a", "b"]},
        {"classes": ["a", "a", "b"]},
        {"classes": "abc"},
        {"image_shape": [12, 12, 1]},
        {"eval_crop": 0},
        {"eval_crop": "x"},
        {"thresholds": [[1, 2]]},
        {"temperature": None},
    ],
)
def test_a_card_that_is_wrong_is_refused(changed, tuned, tmp_path):
    path = tmp_path / "classifier.keras"
    with zipfile.ZipFile(tuned[0] / "classifier.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "classifier.json":
                content = json.dumps({**json.loads(content), **changed})
            new.writestr(name, content)
    with pytest.raises(ValueError, match="classifier.json"):
        files.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_other_backends_train_and_their_classifier_is_the_same_here(backend, tuned, tmp_path):
    folder, data, run = tuned
    flags = [*made.QUICK, f"--encoder={run}", f"--dataset={data}", f"--run_dir={tmp_path / 'out'}"]
    call(backend, "-m", "simsiam_keras", "fine-tune", *flags)
    found, expected = result_of(tmp_path / "out"), result_of(folder)
    assert found["linear_accuracy"] == pytest.approx(expected["linear_accuracy"], abs=0.05)
    assert (tmp_path / "out" / "classifier.json").exists()
    images, numbers = images_of(data, "test")
    probabilities = files.load(tmp_path / "out")(images)
    accuracy = (probabilities.argmax(-1) == numbers).mean()
    assert accuracy == pytest.approx(found["accuracy"], abs=0.02)
    table = tmp_path / "labels.csv"
    flags = [f"--classifier={folder}", f"--dataset={data}", "--split=test", f"--output={table}"]
    call(backend, "-m", "simsiam_keras", "predict", *flags)
    assert made.predict(*flags[:-1], f"--output={tmp_path / 'here.csv'}") == 0
    theirs, ours = (made.numbers_of(p) for p in (table, tmp_path / "here.csv"))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
