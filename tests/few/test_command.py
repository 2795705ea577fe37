"""The command `worth` from flags to report, on small pictures in a file."""

import json
import re
import signal
import sys

import keras
import numpy as np
import pytest

from simsiam_keras import cards, export
from simsiam_keras.__main__ import main
from simsiam_keras.few import cells, finetune, rows, table
from tests.few import small
from tests.test_backends import OTHERS, call

QUICK = "--draws=2 --finetune_steps=2 --finetune_epochs=1 --finetune_batch=4".split()


def worth(*flags):
    return main(["worth", *QUICK, *map(str, flags)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run folder with start weights after `worth`, and every start that a network was given."""
    folder = tmp_path_factory.mktemp("worth")
    run = small.run_folder(folder / "run", seed=50, start=77)
    data = small.data_set(folder / "data.npz")
    before = cards.digest(run / "encoder.keras")
    starts = []
    fit = finetune.Network.fit

    def recorded(self, start, head, images, labels, *rest):
        starts.append((start, head))
        return fit(self, start, head, images, labels, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune.Network, "fit", recorded)
        assert worth(f"--encoder={run}", f"--dataset={data}", "--labels_per_class=1,2,5,9,all") == 0
    assert cards.digest(run / "encoder.keras") == before
    return run, data, starts


def read(run, name="worth.json"):
    return json.loads((run / "worth" / name).read_text())


def test_the_folder_has_what_it_should(made):
    names = {path.name for path in (made[0] / "worth").iterdir()} - {".lock"}
    files = {"worth.json", "result.json", "report.md", "accuracy_over_labels.png", "flags.cfg"}
    assert names == files | {"environment.json", "cells"}
    environment = read(made[0], "environment.json")
    assert environment["versions"]["keras"] and environment["data"]["fingerprint"]
    result = read(made[0], "result.json")
    assert result["test_images"] == 30 and result["train_images"] == 24
    assert result["verdict"] == read(made[0])["verdict"]


def test_every_row_is_there_and_every_cell(made):
    found = read(made[0])
    assert [row["name"] for row in found["rows"]] == list(table_of_rows())
    assert found["labels_per_class"] == [1, 2, 5, "all"] and found["beyond"] == [9]
    for row in found["rows"]:
        assert [len(row["accuracy"][n]["draws"]) for n in ("1", "2", "5", "all")] == [2, 2, 2, 1]
        assert [row["accuracy"][n]["labels"] for n in ("1", "2", "5", "all")] == [3, 6, 15, 24]
    assert len(list((made[0] / "worth" / "cells").iterdir())) == 8 * 7


def table_of_rows():
    return (
        *(rows.PIXELS, rows.HOG, rows.RANDOM, rows.START, rows.TRAINED),
        *(rows.START_FINETUNED, rows.FINETUNED, rows.SCRATCH),
    )


def test_the_table_is_what_the_cells_say(made):
    text = (made[0] / "worth" / "report.md").read_text()
    found = read(made[0])
    for row in found["rows"]:
        (line,) = re.findall(rf"^\| {re.escape(row['title'])} \| (.*) \|$", text, re.MULTILINE)
        for number, shown in zip(found["labels_per_class"], line.split(" | "), strict=True):
            paths = sorted((made[0] / "worth" / "cells").glob(f"{row['name']}_{number}_*.json"))
            right = [json.loads(path.read_text())["right"] for path in paths]
            shares = [each.count("1") / 30 for each in right]
            assert row["accuracy"][str(number)]["draws"] == pytest.approx(shares)
            expected = f"{100 * np.mean(shares):.1f}"
            if len(shares) > 1:
                expected += f" ± {100 * np.std(shares, ddof=1):.1f}"
            assert shown == expected
    assert all(f"- {sentence}\n" in text for sentence in found["verdict"])
    assert "30 test images (the test split)" in text and "k = 3 classes" in text


def same(weights, others):
    return all(np.array_equal(a, b) for a, b in zip(weights, others, strict=True))


def test_networks_begin_where_their_row_says(made):
    """A mix-up of the trained encoder, its start and a random one would be seen."""
    run, _, starts = made
    trained, start = (
        keras.saving.load_model(run / name, compile=False).get_weights()
        for name in ("encoder.keras", "start.keras")
    )
    # Of 2 draws of 1 and 2 labels a fit each, of 2 of 5 and of all one for each rate and the last.
    fits = 2 + 2 + 2 * 3 + 3
    assert len(starts) == 3 * fits
    assert all(same(w, start) and head for w, head in starts[:fits])
    assert all(same(w, trained) and head for w, head in starts[fits : 2 * fits])
    scratch = starts[2 * fits :]
    for weights, head in scratch:
        assert head is None
        for ours, theirs, first in zip(weights, trained, start, strict=True):
            if np.ndim(ours) == 4:
                assert not np.array_equal(ours, theirs) and not np.array_equal(ours, first)
    assert not same(scratch[0][0], scratch[1][0])  # another in each draw


def test_a_finished_one_is_not_repeated(made, capsys):
    run, data, _ = made
    assert worth(f"--encoder={run}", f"--dataset={data}", "--labels_per_class=1,2,5,9,all") == 2
    assert "holds a finished run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_other_backends_measure_the_same(made, backend, tmp_path):
    """Frozen features to the image; networks learn too. HOG is left out without scikit-image."""
    run, data, _ = made
    flags = [*QUICK, f"--encoder={run}", f"--dataset={data}", "--labels_per_class=1,2,5,9,all"]
    call(backend, "-m", "simsiam_keras", "worth", *flags, f"--run_dir={tmp_path / 'worth'}")
    expected = {row["name"]: row["accuracy"] for row in read(run)["rows"]}
    found = {row["name"]: row["accuracy"] for row in read(tmp_path)["rows"]}
    assert {*found, rows.HOG} == {*expected}
    for name in (rows.PIXELS, rows.START, rows.TRAINED):
        for number, cell in expected[name].items():
            assert found[name][number]["draws"] == pytest.approx(cell["draws"], abs=0.034), name
    assert all(0 <= cell["mean"] <= 1 for cell in found[rows.SCRATCH].values())


def test_an_interrupted_one_goes_on(tmp_path, capsys, monkeypatch):
    run, data = small.run_folder(tmp_path / "run"), small.data_set(tmp_path / "data.npz")
    flags = [f"--encoder={run}", f"--dataset={data}", "--labels_per_class=1,2", "--finetune=false"]
    keep, kept = cells.Cell.keep, []

    def stops(self, *arguments, **how):
        keep(self, *arguments, **how)
        kept.append(self.path)
        if len(kept) == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cells.Cell, "keep", stops)
    assert worth(*flags) == 130
    assert "5 of 16 cells are kept in" in capsys.readouterr().err
    times = {path: path.stat().st_mtime_ns for path in kept}
    assert worth(*flags, "--seed=1") == 2
    assert "--seed: 0 there, 1 here" in capsys.readouterr().err
    monkeypatch.setattr(cells.Cell, "keep", keep)
    assert worth(*flags) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}
    whole = small.run_folder(tmp_path / "whole")
    assert worth(*flags, f"--encoder={whole}", "--run_dir=" + str(whole / "worth")) == 0
    a, b = (
        [row["accuracy"]["2"]["draws"] for row in read(folder)["rows"]] for folder in (run, whole)
    )
    assert a == b


def test_cells_of_another_encoder_are_measured_again(tmp_path):
    run, data = small.run_folder(tmp_path / "run"), small.data_set(tmp_path / "data.npz")
    flags = [f"--encoder={run}", f"--dataset={data}", "--labels_per_class=2", "--finetune=false"]
    assert worth(*flags) == 0
    path = run / "worth" / "cells" / "trained_2_0.json"
    first = json.loads(path.read_text())["identity"]
    (run / "worth" / "result.json").unlink()
    small.run_folder(run, seed=7)
    assert worth(*flags) == 0
    assert json.loads(path.read_text())["identity"] != first


def test_without_scikit_image_the_row_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    run, data = small.run_folder(tmp_path / "run"), small.data_set(tmp_path / "data.npz")
    flags = [f"--encoder={run}", f"--dataset={data}", "--labels_per_class=2", "--finetune=false"]
    assert worth(*flags) == 0
    assert "HOG, 16 px: left out, it needs scikit-image: pip install -r" in capsys.readouterr().err
    assert [row["name"] for row in read(run)["rows"]] == ["pixels", "random", "trained"]
    assert "| HOG, 16 px | needs scikit-image: pip install" in (
        run / "worth" / "report.md"
    ).read_text("utf-8")


def test_a_class_with_fewer_is_told(tmp_path):
    images, labels = small.pictures(8, 0)
    kept = np.flatnonzero((labels < 2) | (np.cumsum(labels == 2) <= 3))
    data = small.data_set(
        tmp_path / "data.npz", train_images=images[kept], train_labels=labels[kept]
    )
    run = small.run_folder(tmp_path / "run")
    flags = [f"--encoder={run}", f"--dataset={data}", "--labels_per_class=5", "--finetune=false"]
    assert worth(*flags) == 0
    text = (run / "worth" / "report.md").read_text()
    assert "5 per class: 1 class has fewer, and give all that there are" in text


MULTI = 1 - np.eye(3, dtype="int64")[small.pictures(8, 0)[1]]  # two labels for an image
WRONG = {
    "several labels": (
        {
            "train_labels": MULTI,
            "test_labels": MULTI[:20],
            "test_images": small.pictures(8, 0)[0][:20],
        },
        [],
        "needs one for each image",
    ),
    "no labels": ({"train_labels": None}, [], "has no labels"),
    "one class": (
        {"train_labels": np.zeros(24, int), "test_labels": np.zeros(30, int)},
        [],
        "needs two classes",
    ),
    "a class of the test alone": (
        {"test_labels": np.where(np.arange(30) < 2, 5, 0)},
        [],
        "classes without a training image: 5",
    ),
    "labels": ({}, ["--labels_per_class=few"], "--labels_per_class must be numbers"),
    "rates": ({}, ["--finetune_rates=fast"], "--finetune_rates must be numbers > 0"),
    "crop": ({}, ["--finetune_min_crop=2"], "--finetune_min_crop must be in (0, 1]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_one_sentence(name, tmp_path, capsys):
    changed, flags, sentence = WRONG[name]
    data = small.data_set(tmp_path / "data.npz", **changed)
    run = small.run_folder(tmp_path / "run")
    assert worth(f"--encoder={run}", f"--dataset={data}", *flags) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in last and last.startswith("simsiam_keras: ")
    assert not (run / "worth").exists()


def test_what_is_no_encoder_is_named(tmp_path, capsys):
    run = small.run_folder(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for path, sentence in (
        (run / "encoder", "give the .keras file beside it"),
        (tmp_path / "empty", "has no encoder.keras: the run has not finished"),
        (tmp_path / "none", "is no encoder"),
    ):
        assert worth(f"--encoder={path}", "--dataset=digits") == 2
        assert sentence in capsys.readouterr().err
    assert worth("--dataset=digits") == 2
    assert "--encoder is required: a run folder or a .keras file" in capsys.readouterr().err


def test_the_model_of_a_loaded_encoder_gives_its_features(tmp_path):
    run = small.run_folder(tmp_path)
    loaded = export.load_encoder(run / "encoder.keras")
    images = small.pictures(2, 0)[0]
    np.testing.assert_allclose(loaded.model.predict(images, verbose=0), loaded(images), atol=1e-5)
    assert export.load_encoder(run / "encoder").model is None


def test_every_draw_from_scratch_has_a_seed_of_its_own():
    class Draw:
        number = 3

    assert table.scratch_seed(5, Draw) not in {5, table.scratch_seed(6, Draw)}
