"""Sources of arrays: digits and npz files, and what is refused."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from simsiam_keras.data import npz, sources
from tests.conftest import ROOT
from tests.data.pictures import fill


def test_digits_are_scaled_and_divided_once_for_all():
    train, test, everything = (sources.load("digits", split=s) for s in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1437, 360, 1797)
    assert train.image_shape == (8, 8, 3)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    assert everything.images.min() == 0 and everything.images.max() == 255
    # scikit-learn's first digit is a 0 whose row 0 is 0 0 5 13 9 1 0 0, of 16
    row = [0, 0, 80, 207, 143, 16, 0, 0]
    assert everything.images[0, 0].tolist() == [[v] * 3 for v in row]
    assert everything.class_names == tuple("0123456789")
    both = [i.tobytes() for s in (train, test) for i in s.images]
    assert sorted(both) == sorted(i.tobytes() for i in everything.images)
    counts = np.bincount(test.labels)
    assert counts.min() >= 34 and counts.max() <= 38
    assert train.fingerprint == sources.load("digits").fingerprint != test.fingerprint


def test_digits_have_no_other_split():
    with pytest.raises(sources.NoSuchSplit, match="train, test, all.*Received: split=val"):
        sources.load("digits", split="val")


# npz.


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


GREY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "images, expected",
    [
        (GREY, GREY[..., None] * np.ones(3, np.uint8)),
        (GREY[..., None], GREY[..., None] * np.ones(3, np.uint8)),
        (GREY.reshape(2, 2, 2, 3), GREY.reshape(2, 2, 2, 3)),
        (np.full((2, 1, 1, 4), (255, 0, 0, 128), np.uint8), np.full((2, 1, 1, 3), (255, 127, 127))),
        (np.full((2, 1, 1), 0.5, np.float32), np.full((2, 1, 1, 3), 128)),
        (np.ones((2, 1, 1, 3)), np.full((2, 1, 1, 3), 255)),
    ],
)
def test_npz_layouts(tmp_path, images, expected):
    source = sources.load(write_npz(tmp_path / "a.npz", images=images))
    assert source.images.dtype == np.uint8
    assert np.array_equal(source.images, expected)
    assert np.array_equal(source.read(1), expected[1])
    assert source.labels is None and source.class_names is None


def test_npz_splits(tmp_path):
    spec = write_npz(
        tmp_path / "a.npz",
        train_images=np.zeros((3, 2, 2), np.uint8),
        train_labels=np.array([0, 1, 1], np.int32),
        test_images=np.ones((2, 2, 2), np.uint8),
        class_names=np.array(["cat", "dog"]),
    )
    train, test = sources.load(spec), sources.load(spec, split="test")
    assert (len(train), len(test)) == (3, 2)
    assert train.labels.tolist() == [0, 1, 1] and train.labels.dtype == np.int64
    assert train.class_names == ("cat", "dog") and test.labels is None
    assert sources.splits(spec) == ("train", "test")
    with pytest.raises(sources.NoSuchSplit, match="train, test.*Received: split=val"):
        sources.load(spec, split="val")


def test_npz_fingerprint_follows_images_and_labels(tmp_path):
    changed = GREY.copy()
    changed[1, 2, 3] += 1
    variants = [
        {"images": GREY},
        {"images": changed},
        {"images": GREY, "labels": np.array([0, 1])},
        {"images": GREY, "labels": np.array([1, 0])},
    ]
    specs = [write_npz(tmp_path / f"{i}.npz", **v) for i, v in enumerate(variants)]
    prints = [sources.load(spec).fingerprint for spec in specs]
    assert len(set(prints)) == 4
    assert prints[0] == sources.load(specs[0]).fingerprint
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x": GREY}, r"arrays: x.*Received: split=train"),
        ({"images": GREY[:1]}, "at least 2 images.*1 image"),
        ({"images": GREY[0]}, r"`images` must be \[n, h, w\].*shape=\(3, 4\)"),
        ({"images": GREY.reshape(2, 3, 2, 2)}, r"1, 3 or 4 channels.*\(2, 3, 2, 2\)"),
        ({"images": GREY.astype(np.int64)}, "must be uint8.*dtype=int64"),
        ({"images": GREY.astype(np.float32)}, r"within \[0, 1\].*0.0 to 23.0"),
        ({"images": np.full((2, 1, 1), np.nan)}, r"within \[0, 1\].*nan"),
    ],
)
def test_npz_refusals(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        sources.load(write_npz(tmp_path / "a.npz", **arrays))


NONE = [
    (np.arange(3), r"`labels` must hold one label for each of the 2 images.*shape=\(3,\)"),
    (np.array([0.0, 1]), "`labels` must be integers or texts.*float64"),
    (np.array([-1, 0]), "`labels` must be >= 0. Received: -1 to 0"),
    (np.array([0, 2**64 - 1], np.uint64), "`labels` must be >= 0.*0 to 18446744073709551615"),
    (np.array([["a"], [{}]], object), r"saved as objects; save it with `.astype\(str\)`"),
    (np.array([[0, 1], [2, 0]]), "0 and 1 where an image has several labels"),
    (np.zeros((2, 2, 2)), r"one label for each of the 2 images.*shape=\(2, 2, 2\)"),
]


@pytest.mark.parametrize("labels, why", NONE)
def test_labels_that_cannot_be_used_are_none_and_said_to_be(tmp_path, labels, why):
    source = sources.load(write_npz(tmp_path / "a.npz", images=GREY, labels=labels))
    assert source.labels is None and len(source) == 2
    assert re.search(why, source.found.unlabelled) and "\n" not in source.found.unlabelled


LABELLED = [
    (np.array([[3], [1]], np.uint8), None, [3, 1], None, ("1", "3")),
    (np.array([True, False]), None, [1, 0], None, ("0", "1")),
    (np.array(["dog", "cat"]), None, [1, 0], ("cat", "dog"), ("cat", "dog")),
    (np.array([["dog"], ["cat"]]), None, [1, 0], ("cat", "dog"), ("cat", "dog")),
    (np.array([b"dog", "c\xe4t".encode()]), None, [1, 0], ("c\xe4t", "dog"), ("c\xe4t", "dog")),
    (
        np.array(["dog", "cat"]),
        ["dog", "cow", "cat"],
        [0, 2],
        ("dog", "cow", "cat"),
        ("dog", "cat"),
    ),
    (np.array(["dog", "cat"]), ["dog"], [1, 0], ("cat", "dog"), ("cat", "dog")),
    (np.array([1, 0]), [b"dog", b"cat"], [1, 0], ("dog", "cat"), ("dog", "cat")),
    (np.array([1, 2]), ["dog", "cat"], [1, 2], None, ("1", "2")),  # a name is lacking
    (np.array([0, 1]), np.array(["a", None]), [0, 1], None, ("0", "1")),  # objects
    (np.array([[0, 1], [1, 0]]), ["a", "b"], [1, 0], ("a", "b"), ("a", "b")),  # one of each row
    (np.array([[0, 1], [1, 1]]), ["a", "b"], [[0, 1], [1, 1]], ("a", "b"), ("a", "b")),
    (np.zeros((2, 14)), None, [[0] * 14] * 2, None, tuple(map(str, range(14)))),
]


@pytest.mark.parametrize("labels, names, numbers, classes, told", LABELLED)
def test_labels_of_npz(tmp_path, labels, names, numbers, classes, told):
    arrays = {"images": GREY, "labels": labels}
    arrays.update({} if names is None else {"class_names": np.array(names)})
    source = sources.load(write_npz(tmp_path / "a.npz", **arrays))
    assert source.labels.tolist() == numbers and source.labels.dtype == np.int64
    assert source.class_names == classes and source.found.unlabelled == ""
    assert tuple(name for name, _ in source.found.classes) == told


def test_splits_of_npz_share_the_numbers_of_texts(tmp_path):
    texts = {"train_labels": np.array(["b", "c"]), "test_labels": np.array(["c", "a"])}
    spec = write_npz(tmp_path / "a.npz", train_images=GREY, test_images=GREY, **texts)
    assert sources.load(spec).labels.tolist() == [1, 2]
    test = sources.load(spec, split="test")
    assert test.labels.tolist() == [2, 0] and test.class_names == ("a", "b", "c")


def test_names_of_medmnist_and_of_keras(tmp_path):
    label = np.array([[1], [0]], np.uint8)
    medical = {f"{s}_{w}": GREY if w == "images" else label
               for s in ("train", "val", "test") for w in ("images", "labels")}  # fmt: skip
    spec = write_npz(tmp_path / "pneumoniamnist.npz", **medical)
    for split in ("train", "val", "validation", "test"):
        source = sources.load(spec, split=split)
        assert source.labels.tolist() == [1, 0] and source.found.modes == (("grey", 2),)
    spec = write_npz(
        tmp_path / "mnist.npz", x_train=GREY, y_train=[3, 4], x_test=GREY, y_test=[1, 1]
    )
    assert sources.splits(spec) == ("train", "test")
    assert sources.load(spec, split="test").labels.tolist() == [1, 1]


def test_npz_that_does_not_fit_is_refused_from_its_header(tmp_path, monkeypatch):
    spec = write_npz(tmp_path / "a.npz", images=np.zeros((1000, 10, 10), np.uint8))
    read = []
    monkeypatch.setattr(npz._Archive, "array", lambda *_: read.append(1))
    monkeypatch.setattr(
        npz, "memory_bytes", lambda: 2 * (100_000 + 300_000) - 1
    )  # as it is, as RGB
    with pytest.raises(ValueError, match=r"`images` of .*a.npz must fit into half of the memory"):
        sources.load(spec)
    assert not read


def test_npz_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        sources.load(f"npz:{tmp_path}/missing.npz")
    (tmp_path / "text.npz").write_text("text")
    np.save(tmp_path / "one.npy", GREY)
    for name in ("text.npz", "one.npy"):
        with pytest.raises(ValueError, match="must be a .npz file"):
            sources.load(f"npz:{tmp_path}/{name}")


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
from simsiam_keras import data
folder, file = sys.argv[1:]
for spec in ("digits", f"folder:{folder}", f"npz:{file}"):
    source = data.load(spec)
    images, labels = next(data.evaluation_batches(source, 8))
    (batch,) = next(data.training_images(source, 2, size=8))
    print(spec.split(":")[0], images.shape, batch.shape)
try:
    data.load("cifar10")
except ImportError as error:
    print(error)
"""


def test_files_need_no_tensorflow(tmp_path):
    fill(tmp_path / "images", 3)
    np.savez(tmp_path / "a.npz", images=GREY)
    arguments = [sys.executable, "-c", WITHOUT_TENSORFLOW, tmp_path / "images", tmp_path / "a.npz"]
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, refusal = done.stdout.splitlines()
    assert lines == [
        "digits (256, 8, 8, 3) (2, 8, 8, 3)",
        "folder (3, 8, 8, 3) (2, 8, 8, 3)",
        "npz (2, 8, 8, 3) (2, 8, 8, 3)",
    ]
    assert "needs tensorflow and tensorflow-datasets: install them" in refusal
