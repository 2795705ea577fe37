"""A row of features is the image beside which it stands: of damaged images there is none."""

import json

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import encoders, export, inputs
from simsiam_keras.__main__ import main
from simsiam_keras.data import sources
from simsiam_keras.evaluation import features, features_to_file


def brightness(images):
    return images.reshape(len(images), -1).astype("float32").mean(axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path):
    """Classes a and b, image i as bright as 4 i, of sizes that vary; the last of a is cut off."""
    number = 0
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(30):
            noise = np.random.default_rng(number).integers(-2, 3, (40 + i % 5, 40, 3))
            pixels = (4 * number + 2 + noise).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i:02}.jpg", quality=95)
            number += 1
    cut_off(tmp_path / "data" / "a" / "29.jpg")
    return tmp_path / "data"


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-60])


def test_a_damaged_image_has_no_row(folder, tmp_path):
    source = sources.load(f"folder:{folder}")
    assert len(source) == 60  # its header is whole
    found = features(brightness, source, 8, batch_size=7)
    streamed = features_to_file(tmp_path / "x.npy", brightness, source, 8, batch_size=7)
    again = np.load(tmp_path / "x.npy")
    assert found.shape == streamed.shape == again.shape == (59, 1)
    rows = source.rows()
    assert 29 not in rows and len(rows) == 59 and list(source.missing) == [29]
    for each in (found, streamed, again):
        assert np.abs(each[:, 0] - (4 * rows + 2)).max() < 2  # each is its own image's
    assert (tmp_path / "x.npy").stat().st_size == 59 * 4 + 128
    assert source.read(29).shape == source.read(30).shape  # training goes on with the next


def test_a_file_of_which_the_first_batch_is_lost(folder, tmp_path):
    for i in range(3):
        cut_off(folder / "a" / f"0{i}.jpg")
    source = sources.load(f"folder:{folder}")
    found = features_to_file(tmp_path / "x.npy", brightness, source, 8, batch_size=3)
    assert len(found) == 56 and np.abs(found[:, 0] - (4 * source.rows() + 2)).max() < 2


def test_a_disk_that_is_lost_is_an_error(folder):
    source = sources.load(f"folder:{folder}")
    for path in folder.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="Ten images in a row.*a/09.jpg"):
        features(brightness, source, 8)
    assert source.lost is not None


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    export.save_encoder(encoders.resnet10((16, 16, 3), width=4), path)
    return path / "encoder.keras"


def run(command, encoder, out, *flags):
    assert main([command, f"--encoder={encoder}", f"--run_dir={out}", *flags]) == 0
    return json.loads((out / "result.json").read_text())


def test_embed_names_its_rows(folder, encoder, tmp_path, capfd):
    (folder / "b" / "x\ny.jpg").write_bytes((folder / "b" / "00.jpg").read_bytes())
    result = run("embed", encoder, tmp_path / "out", f"--dataset=folder:{folder}")
    lines = (tmp_path / "out" / "files.txt").read_text().splitlines()
    labels = np.load(tmp_path / "out" / "labels.npy")
    assert len(lines) == len(labels) == len(np.load(tmp_path / "out" / "features.npy")) == 60
    assert "a/29.jpg" not in lines and lines[-1] == "b/x\\ny.jpg"
    assert [line[0] for line in lines] == ["ab"[label] for label in labels]
    assert result["without_row"] == {"count": 1, "files": [f"{folder}/a/29.jpg"]}
    assert "1 of 61 images have no row" in capfd.readouterr().err


@pytest.mark.parametrize(
    "command, flags", [("knn", ["--knn_k=5"]), ("linear-probe", ["--epochs=2"])]
)
def test_without_a_test_split_a_fifth_is_held_out(folder, encoder, tmp_path, capfd, command, flags):
    result = run(command, encoder, tmp_path / "out", f"--dataset=folder:{folder}", *flags)
    error = capfd.readouterr().err
    assert "No test split" in error and "a fifth of the 60 images is held out" in error
    assert "60 images of 2 classes: a: 30, b: 30" in error
    assert "a fifth held out of train" in result.get("protocol", result.get("test_part"))
    counts = [result.get("bank", result.get("train_images"))]
    counts.append(result.get("queries", result.get("test_images")))
    assert sum(counts) == 59 and counts[1] in (11, 12)
    assert result["without_row"]["files"] == [f"{folder}/a/29.jpg"]
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["data"]["place"] == str(folder)


@pytest.mark.parametrize("command, flags", [("knn", []), ("linear-probe", ["--epochs=2"])])
def test_several_labels_are_measured_by_precision(encoder, tmp_path, command, flags):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 16, 16), dtype="uint8")
    labels = rng.integers(0, 2, (60, 14), dtype="uint8")
    np.savez(tmp_path / "chestmnist.npz", train_images=images, train_labels=labels)
    result = run(
        command, encoder, tmp_path / "o", f"--dataset=npz:{tmp_path}/chestmnist.npz", *flags
    )
    assert 0.3 < result["mean_average_precision"] < 0.9
    assert result.get("linear_accuracy") is None and "knn_accuracy" not in result


def test_a_typed_test_split_is_not_replaced(folder, encoder, tmp_path, capfd):
    flags = [f"--encoder={encoder}", f"--dataset=folder:{folder}", f"--run_dir={tmp_path / 'out'}"]
    assert main(["knn", *flags, "--test_split=tset"]) == 2
    assert "`split` must be one of train, all" in capfd.readouterr().err
    assert main(["knn", *flags, f"--dataset=folder:{folder}/a"]) == 2
    assert "has no labels (no folder for each class)" in capfd.readouterr().err


def test_what_is_said_of_lost_images_is_cut(folder):
    source = sources.load(f"folder:{folder}")
    source.missing = {i: ValueError("cut off") for i in range(8)}
    said = []
    found = inputs.without_row([source], said.append)
    assert found["count"] == 8 and len(found["files"]) == 8
    assert "8 of 60 images have no row" in said[0] and said[0].endswith("and 3 more")
