"""What the projector of TensorBoard is given is what it serves."""

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import projector
from simsiam_keras.__main__ import main
from simsiam_keras.data.base import ArraySource


def source(n=7, labels=True, channels=3):
    images = np.zeros((n, 20, 20, channels), np.uint8)
    images[:] = (30 * np.arange(n) % 256)[:, None, None, None]
    names = [f"a\tb {i}.png" for i in range(n)]
    known = {"labels": np.arange(n) % 2} if labels else {}
    return ArraySource("few", images, class_names=("cat", "dog"), names=names, **known)


def features(n, d=3):
    return np.random.default_rng(0).normal(size=(n, d)).astype("float32")


def read(folder):
    text = (folder / projector.CONFIG).read_text("utf-8")
    return dict(re.findall(r'(\w+): "?([^"\n]*)"?', text))


def test_files_say_what_they_were_given(tmp_path):
    shown, x = source(), features(7)
    assert projector.write(tmp_path, x, shown) == 7
    known = read(tmp_path)
    table = np.loadtxt(tmp_path / known["tensor_path"], delimiter="\t")
    np.testing.assert_allclose(table, x, rtol=1e-5)
    lines = (tmp_path / known["metadata_path"]).read_text("utf-8").splitlines()
    assert lines[:3] == ["name\tlabel", "a b 0.png\tcat", "a b 1.png\tdog"] and len(lines) == 8
    image, side = np.asarray(Image.open(tmp_path / known["image_path"])), projector.SIDE
    assert image.shape == (3 * side, 3 * side, 3) and known["single_image_dim"] == str(side)
    for i in range(7):
        assert image[i // 3 * side + 5, i % 3 * side + 5].tolist() == [30 * i] * 3


def test_without_labels_there_is_no_heading(tmp_path):
    projector.write(tmp_path, features(4), source(4, labels=False, channels=1))
    lines = (tmp_path / read(tmp_path)["metadata_path"]).read_text("utf-8").splitlines()
    assert lines == [f"a b {i}.png" for i in range(4)]


def test_several_labels_are_named():
    shown = source(2)
    shown.labels = np.array([[1, 1], [0, 0]])
    assert projector.metadata(shown, [0, 1]).splitlines()[1:] == [
        "a b 0.png\tcat, dog",
        "a b 1.png\t-",
    ]


def test_many_are_drawn_from_and_stay_together(tmp_path, monkeypatch):
    monkeypatch.setattr(projector, "MOST", 5)
    shown, x = source(30), features(30)
    shown.missing = {0: "gone", 3: "gone"}
    rows = shown.rows()
    assert projector.write(tmp_path, x[rows], shown, seed=1) == 5
    table = np.loadtxt(tmp_path / "projector" / "features.tsv", delimiter="\t")
    lines = (tmp_path / "projector" / "metadata.tsv").read_text("utf-8").splitlines()[1:]
    numbers = [int(re.search(r"(\d+)\.png", line)[1]) for line in lines]
    np.testing.assert_allclose(table, x[numbers], rtol=1e-5)
    assert not {0, 3} & set(numbers)


def test_a_sprite_is_never_larger_than_the_projector_takes():
    columns = int(np.ceil(np.sqrt(projector.MOST)))
    assert columns * min(projector.SIDE, projector.SPRITE // columns) <= projector.SPRITE


FLAGS = ["--recipe=digits", "--augment=device", "--encoder=resnet10", "--width=4"]
FLAGS += ["--output_dim=8", "--epochs=1", "--warmup_epochs=0", "--batch_size=256"]


@pytest.mark.slow
def test_tensorboard_serves_a_run(tmp_path):
    run_dir = tmp_path / "run"
    assert main(["pretrain", *FLAGS, "--projector", f"--run_dir={run_dir}"]) == 0
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={tmp_path}"]
    command += ["--port=0", "--host=127.0.0.1", "--load_fast=false"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}
    errors = tmp_path / "errors"
    with open(errors, "w") as file:
        board = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        end = time.monotonic() + 180
        while not (found := re.search(r"http://[\w.]+:\d+/", errors.read_text())):
            assert time.monotonic() < end and board.poll() is None, errors.read_text()[-2000:]
            time.sleep(0.3)

        def fetch(path):
            address = f"{found[0]}data/plugin/projector/{path}"
            with urllib.request.urlopen(address, timeout=60) as answer:
                return answer.read()

        while not (runs := json.loads(fetch("runs"))):
            assert time.monotonic() < end
            time.sleep(0.5)
        assert runs == ["run/tensorboard"]
        asked = "run=run%2Ftensorboard&name=features"
        info = json.loads(fetch("info?run=run%2Ftensorboard"))["embeddings"]
        (about,) = [one for one in info if one["tensorName"] == "features"]
        table = np.loadtxt(run_dir / "tensorboard/projector/features.tsv", delimiter="\t")
        assert about["tensorShape"] == list(table.shape) == [360, 32]
        served = np.frombuffer(fetch(f"tensor?{asked}"), "float32").reshape(table.shape)
        np.testing.assert_allclose(served, table, rtol=1e-5)
        assert fetch(f"metadata?{asked}&num_rows=360").startswith(b"name\tlabel\nimage 0\t")
        picture = Image.open(io.BytesIO(fetch(f"sprite_image?{asked}")))
        assert picture.size == (19 * projector.SIDE, 19 * projector.SIDE)
    finally:
        board.terminate()
        board.wait()
