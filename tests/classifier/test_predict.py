"""The command `predict`: its table, what it compares, and what it refuses."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import cards
from simsiam_keras.classifier import calibration, files
from simsiam_keras.data import pipeline, sources
from tests.classifier import made
from tests.few import small

FIXED = ["file", "label", "probability", "second_label", "second_probability", "sure"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A classifier of `a`, `b` and `c`, of pictures in folders."""
    folder = tmp_path_factory.mktemp("tuned")
    run = small.run_folder(folder / "run", seed=3)
    data = made.folder(folder / "photos", 20, split="train")
    made.folder(folder / "photos", 10, split="test", seed=1)
    flags = [f"--encoder={run}", f"--dataset={data}", f"--run_dir={folder / 'out'}"]
    assert made.fine_tune(*flags, "--validation_fraction=0.4") == 0
    return folder / "out"


def test_the_table_has_a_row_for_each_image(tuned, tmp_path, capsys):
    data = made.folder(tmp_path / "more", 7, seed=5)
    before = cards.digest(tmp_path / "more"), cards.digest(tuned)
    table = tmp_path / "labels.csv"
    flags = [f"--classifier={tuned}", f"--dataset={data}", f"--output={table}", "--batch_size=4"]
    assert made.predict(*flags, "--precision=0.6") == 0
    assert before == (cards.digest(tmp_path / "more"), cards.digest(tuned))
    rows = made.read(table)
    assert list(rows[0]) == [*FIXED, "p_a", "p_b", "p_c"]
    source = sources.load(data, split="all")
    assert [row["file"] for row in rows] == source.names
    images = np.concatenate([x for x, _ in pipeline.evaluation_batches(source, small.SIDE)])
    classifier = files.load(tuned)
    expected = classifier(images)
    np.testing.assert_allclose(made.numbers_of(table), expected, atol=1e-5)
    sure = calibration.sure(classifier.card.thresholds, 0.6)
    for row, values in zip(rows, expected, strict=True):
        order = np.argsort(-values)
        assert (row["label"], row["second_label"]) == ("abc"[order[0]], "abc"[order[1]])
        assert float(row["probability"]) == pytest.approx(values.max(), abs=1e-5)
        assert float(row["second_probability"]) == pytest.approx(np.sort(values)[1], abs=1e-5)
        assert row["sure"] == ("yes" if values.max() >= sure.threshold else "no")
    right = np.array([row["label"] == row["file"][0] for row in rows])
    shown = shown_by(capsys)
    assert float(shown["accuracy"]) == pytest.approx(right.mean(), abs=1e-3)
    error = calibration.calibration_error(expected.max(-1), right)
    assert float(shown["calibration_error"]) == pytest.approx(error, abs=1e-3)
    assert int(shown["sure"]) == sum(row["sure"] == "yes" for row in rows)


def shown_by(capsys):
    """The closing table, texts by name."""
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    return {parts[1].strip(): parts[2].strip() for parts in lines if parts[1].strip()}


def test_what_is_sure_was_right_as_often_on_held_out_images(tuned):
    card = files.load(tuned).card
    for precision in (0.5, 0.7, 0.9):
        found = calibration.sure(card.thresholds, precision)
        if found:
            assert found.right / found.images >= precision
    assert card.held_out in (24, 60)  # of the fine-tuned network or of the linear probe


def test_names_that_are_hard_to_write_come_back(tmp_path):
    run, data = small.run_folder(tmp_path / "run"), made.named(tmp_path / "data.npz")
    out, table = tmp_path / "out", tmp_path / "labels.csv"
    assert made.fine_tune(f"--encoder={run}", f"--dataset={data}", f"--run_dir={out}") == 0
    photos = tmp_path / "photos"
    made.folder(photos, 1)
    hard = ['comma, and "quote"', "new\nline", "日本", "=1+1", os.fsdecode(b"\xff")]
    for i, name in enumerate(hard):
        source = next((photos / "abc"[i % 3]).glob("*.png"))
        (photos / "a" / f"{name}.png").write_bytes(source.read_bytes())
    flags = [f"--classifier={out}", f"--dataset=folder:{photos}", f"--output={table}"]
    assert made.predict(*flags) == 0
    rows = made.read(table)
    assert {f"a/{name}.png" for name in hard} <= {row["file"] for row in rows}
    assert list(rows[0]) == [*FIXED, *(f"p_{name}" for name in made.NAMES)]
    assert {row["label"] for row in rows} <= set(made.NAMES)


def test_damaged_images_are_listed_and_the_others_labelled(tuned, tmp_path, capsys):
    data = made.folder(tmp_path / "photos", 4)
    names = sorted((tmp_path / "photos").rglob("*.png"))
    broken = names[:5]
    for path in broken[:3]:
        path.write_bytes(b"no picture")
    for path in broken[3:]:
        path.write_bytes(path.read_bytes()[:-60])
    table = tmp_path / "labels.csv"
    assert made.predict(f"--classifier={tuned}", f"--dataset={data}", f"--output={table}") == 0
    rows = made.read(table)
    assert len(rows) == 12
    without = {row["file"] for row in rows if not row["label"]}
    assert without == {str(p.relative_to(tmp_path / "photos")) for p in broken}
    assert all(row["sure"] == "no" and not row["p_a"] for row in rows if not row["label"])
    captured = capsys.readouterr()
    assert "5 of 12 images have no row" in captured.err
    for path in names:
        path.write_bytes(b"no picture")
    table.unlink()
    assert made.predict(f"--classifier={tuned}", f"--dataset={data}", f"--output={table}") == 2
    assert not table.exists() and "cannot be decoded" in capsys.readouterr().err


def test_a_single_image_and_one_without_classes_are_labelled(tuned, tmp_path, capsys):
    made.folder(tmp_path / "photos", 1)
    flat = tmp_path / "flat"
    flat.mkdir()
    (path,) = (tmp_path / "photos" / "a").iterdir()
    (flat / "x.png").write_bytes(path.read_bytes())
    table = tmp_path / "new" / "labels.csv"
    flags = [f"--classifier={tuned}", f"--dataset=folder:{flat}", f"--output={table}"]
    assert made.predict(*flags) == 0
    assert [row["file"] for row in made.read(table)] == ["x.png"]
    assert "accuracy" not in shown_by(capsys)
    assert made.predict(*flags[:-1], f"--run_dir={tmp_path / 'run'}") == 0
    assert (tmp_path / "run" / "labels.csv").read_bytes() == table.read_bytes()


def test_classes_that_do_not_match_are_one_sentence(tuned, tmp_path, capsys):
    data = made.folder(tmp_path / "photos", 3, names=("a", "b", "dogs"))
    table = tmp_path / "labels.csv"
    flags = [f"--classifier={tuned}", f"--dataset={data}", f"--output={table}"]
    assert made.predict(*flags) == 0
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if "dogs" in line and "has classes" in line]
    assert len(said) == 1 and "labels are not compared" in said[0]
    assert len(made.read(table)) == 9 and "accuracy" not in captured.out
    table.unlink()
    labels = tmp_path / "labels_of.csv"
    names = sorted(
        str(p.relative_to(tmp_path / "photos")) for p in (tmp_path / "photos").rglob("*.png")
    )
    labels.write_text("file,label\n" + "".join(f"{n},{n.split('/')[0]}\n" for n in names), "utf-8")
    assert made.predict(*flags, f"--labels={labels}") == 2
    assert "has classes that the classifier has not: dogs" in capsys.readouterr().err
    assert not table.exists()


def test_fewer_classes_than_the_classifiers_are_compared(tuned, tmp_path, capsys):
    """Numbers of classes are not theirs: `b` and `c` are 0 and 1 here, 1 and 2 there."""
    data = made.folder(tmp_path / "photos", 4, names=("a", "b", "c"))
    for path in (tmp_path / "photos" / "a").iterdir():
        path.unlink()
    (tmp_path / "photos" / "a").rmdir()
    table = tmp_path / "labels.csv"
    assert made.predict(f"--classifier={tuned}", f"--dataset={data}", f"--output={table}") == 0
    right = np.mean([row["label"] == row["file"][0] for row in made.read(table)])
    assert float(shown_by(capsys)["accuracy"]) == pytest.approx(right, abs=1e-3)


def test_another_file_is_not_replaced_and_an_older_table_is(tuned, tmp_path, capsys):
    data = made.folder(tmp_path / "photos", 2)
    table = tmp_path / "labels.csv"
    flags = [f"--classifier={tuned}", f"--dataset={data}", f"--output={table}"]
    table.write_text("my notes\n", "utf-8")
    assert made.predict(*flags) == 2
    assert "`predict` did not write it" in capsys.readouterr().err
    assert table.read_text("utf-8") == "my notes\n"
    table.unlink()
    assert made.predict(*flags) == 0
    first = table.read_bytes()
    assert made.predict(*flags) == 0
    assert table.read_bytes() == first
    assert made.predict(*flags[:-1], f"--output={tmp_path}") == 2
    assert "which is a folder" in capsys.readouterr().err


def test_a_table_appears_when_it_is_whole(tuned, tmp_path, monkeypatch):
    data = made.folder(tmp_path / "photos", 4)
    table = tmp_path / "labels.csv"
    flags = [f"--classifier={tuned}", f"--dataset={data}", f"--output={table}", "--batch_size=3"]
    assert made.predict(*flags) == 0
    first, calls = table.read_bytes(), []
    call = files.Classifier.__call__

    def fails(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return call(self, images)

    monkeypatch.setattr(files.Classifier, "__call__", fails)
    assert made.predict(*flags) == 1
    assert calls == [3, 3, 3] and table.read_bytes() == first
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "labels.csv"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--classifier={out}/nothing"], "nothing is no classifier"),
        (["--classifier={out}", "--dataset=folder:{out}/none"], "There is no folder .*/none;"),
        (["--classifier={out}", "--precision=1"], "--precision must be in .0, 1.. Received: 1.0"),
    ],
)
def test_what_cannot_be_used_writes_nothing(flags, sentence, tuned, tmp_path, capsys):
    made.folder(tmp_path / "photos", 2)
    flags = [f"--dataset=folder:{tmp_path / 'photos'}", *(f.format(out=tuned) for f in flags)]
    assert made.predict(*flags, f"--output={tmp_path / 'labels.csv'}") == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert {p.name for p in tmp_path.iterdir()} == {"photos"}


def test_sizes_and_crop_are_those_of_the_training(tuned, tmp_path):
    """Photographs of other sizes come to the classifier as test images did."""
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i, size in enumerate([(40, 25), (13, 30), (12, 12)]):
        pixels = random.integers(0, 255, (*size, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    table = tmp_path / "labels.csv"
    data = f"folder:{tmp_path / 'photos'}"
    assert made.predict(f"--classifier={tuned}", f"--dataset={data}", f"--output={table}") == 0
    source = sources.load(data)
    images = np.concatenate([x for x, _ in pipeline.evaluation_batches(source, small.SIDE)])
    np.testing.assert_allclose(made.numbers_of(table), files.load(tuned)(images), atol=1e-5)
    card = json.loads((tuned / "classifier.json").read_text("utf-8"))
    assert card["image_shape"] == [small.SIDE, small.SIDE, 3] and card["eval_crop"] == 1.0
