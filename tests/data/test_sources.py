"""Sources of arrays: digits and npz files, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest

from simsiam_keras.data import sources
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
        ({"images": GREY, "labels": np.arange(3)}, r"`labels` must be integers.*shape=\(3,\)"),
        ({"images": GREY, "labels": np.array([0.0, 1])}, "`labels` must be integers.*float64"),
        ({"images": GREY, "labels": np.array([-1, 0])}, "`labels` must be >= 0.*minimum=-1"),
        (
            {"images": GREY, "labels": np.array([0, 2]), "class_names": np.array(["a", "b"])},
            "`class_names` must name every label.*2 names, largest label=2",
        ),
    ],
)
def test_npz_refusals(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        sources.load(write_npz(tmp_path / "a.npz", **arrays))


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
