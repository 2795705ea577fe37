"""What is explored: which splits, and that names, labels and vectors stay together."""

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from simsiam_keras import config, encoders, export
from simsiam_keras.explore import collection


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    export.save_encoder(encoders.resnet10((8, 8, 3), width=2), path)
    return path / "encoder.keras"


def photographs(folder, names, size=(20, 16)):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        wide = (size[0] + i, size[1])  # of different sizes, or they are decoded at once
        Image.new("RGB", wide, (9 * i % 256, 0, 0)).save(folder / name)


def of(encoder, tmp_path, **flags):
    cfg = config.make("explore", encoder=str(encoder), **flags)
    said = []
    return collection.of(cfg, tmp_path, Console(quiet=True), said.append), said


def test_all_takes_every_split_and_numbers_classes_alike(encoder, tmp_path):
    folder = tmp_path / "photos"
    names = ["train/b/1.png", "train/c/2.png", "test/a/3.png", "test/b/4.png"]
    photographs(folder, names)
    found, _ = of(encoder, tmp_path, dataset=f"folder:{folder}")
    assert sorted(found.names) == sorted(names) and found.root == str(folder)
    for name, split, label in zip(found.names, found.splits, found.labels, strict=True):
        part, kind, _ = name.split("/")
        assert (split, found.class_names[label]) == (part, kind)
    red = [found.pictures.read(i, 8)[0, 0, 0] for i in range(4)]
    assert red == [9 * names.index(name) for name in found.names]
    one, _ = of(encoder, tmp_path, dataset=f"folder:{folder}", split="train")
    assert one.root == str(folder / "train") and one.names == ["b/1.png", "c/2.png"]
    two, _ = of(encoder, tmp_path, dataset=f"folder:{folder}", split="test,train")
    assert two.splits == ["test"] * 2 + ["train"] * 2
    np.testing.assert_array_equal(two.vectors[2:], one.vectors)


def test_a_flat_test_has_no_labels(encoder, tmp_path):
    folder = tmp_path / "photos"
    photographs(folder, ["train/b/1.png", "train/c/2.png", "test/3.png", "test/4.png"])
    found, _ = of(encoder, tmp_path, dataset=f"folder:{folder}")
    known = dict(zip(found.names, found.labels.tolist(), strict=True))
    assert known == {"train/b/1.png": 0, "train/c/2.png": 1, "test/3.png": -1, "test/4.png": -1}


def test_a_folder_that_is_not_divided_is_taken_whole(encoder, tmp_path):
    folder = tmp_path / "photos"
    photographs(folder, ["1.png", "2.png", "3.png"])
    found, _ = of(encoder, tmp_path, dataset=f"folder:{folder}")
    assert found.names == ["1.png", "2.png", "3.png"] and found.labels is None
    assert set(found.splits) == {"all"}


def test_a_table_divides_and_labels(encoder, tmp_path):
    folder = tmp_path / "photos"
    photographs(folder, [f"{i}.png" for i in range(6)])
    rows = [f"{i}.png,{'xy'[i % 2]},{'train' if i < 4 else 'test'}" for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,split", *rows]), "utf-8")
    labels = str(tmp_path / "labels.csv")
    found, _ = of(encoder, tmp_path, dataset=f"folder:{folder}", labels=labels)
    facts = zip(found.names, found.splits, found.labels.tolist(), strict=True)
    expected = {(f"{i}.png", "train" if i < 4 else "test", i % 2) for i in range(6)}
    assert set(facts) == expected and found.class_names == ["x", "y"]


def test_a_picture_that_cannot_be_decoded_has_no_row(encoder, tmp_path):
    folder = tmp_path / "photos"
    photographs(folder, [f"{i:03d}.png" for i in range(120)])
    (folder / "050.png").write_bytes((folder / "050.png").read_bytes()[:60])
    found, _ = of(encoder, tmp_path, dataset=f"folder:{folder}")
    assert "050.png" not in found.names and len(found) == len(found.vectors) == 119
    after = found.names.index("051.png")
    assert found.pictures.read(after, 8)[0, 0, 0] == 9 * 51 % 256


def test_several_labels_are_said_to_be_left_out(encoder, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    labels = np.eye(3, dtype="int64")[[0, 1, 2, 0, 1, 2]]
    labels[0, 1] = 1
    np.savez(tmp_path / "few.npz", train_images=images, train_labels=labels)
    found, said = of(encoder, tmp_path, dataset=f"npz:{tmp_path / 'few.npz'}")
    assert found.labels is None and any("several labels" in line for line in said)
    assert found.root == "" and found.names[2] == "image 2"
