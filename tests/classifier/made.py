"""Configurations, pictures in folders, and a classifier, for the tests of this folder."""

import csv

import numpy as np
from PIL import Image

from simsiam_keras import config
from simsiam_keras.__main__ import main
from tests.few import small

NAMES = ("a, b", 'say "c"', "日本\nd")  # what a table must quote
QUICK = "--epochs=2 --steps=4 --train_batch_size=6 --batch_size=16".split()


def configuration(**changed):
    return config.make("fine-tune", encoder="x", **changed)


def folder(path, per_class=10, names=("a", "b", "c"), seed=0, split=""):
    """Pictures in a folder for each class; returns what `--dataset` names the whole."""
    images, labels = small.pictures(per_class, seed)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        inside = path / split / names[label]
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(inside / f"{i:03}.png")
    return f"folder:{path}"


def named(path, **changed):
    """A .npz file whose classes have names that are hard to write."""
    return small.data_set(path, 20, 20, class_names=np.array(NAMES), **changed)


def fine_tune(*flags):
    return main(["fine-tune", *QUICK, *map(str, flags)])


def predict(*flags):
    return main(["predict", *map(str, flags)])


def read(path):
    """The rows of a table as dicts."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def numbers_of(path):
    """The probabilities of all classes, an array `[n, classes]`."""
    return np.array([[float(v) for k, v in row.items() if k[:2] == "p_"] for row in read(path)])
