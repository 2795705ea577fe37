"""Labels that training does not need never stop it: the monitor is adapted or skipped, in words."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import build, config, inputs
from simsiam_keras.__main__ import main
from tests.data.pictures import fill
from tests.data.test_layouts import make

SMALL = (
    "--recipe=digits --image_size=16 --encoder=resnet10 --stem=stride2 --width=4 --output_dim=16 "
    "--predictor_hidden=4 --batch_size=8 --epochs=1 --jit=off --knn_k=5"
).split()


def probe_of(*flags):
    """The monitor of some flags, and what is said about it."""
    cfg, said = config.parse("pretrain", [*SMALL, *flags]), []
    return inputs.probe(cfg, build.source(cfg), said.append), " ".join(said)


KINDS = {
    "a test split": ("train/a*6 train/b*6 test/a*2 test/b*2", 4, ""),
    "no test split": ("a*6 b*6", None, "No test split in .*a fifth of the 12 images"),
    "a flat test": (
        "train/a*6 train/b*6 test*4",
        None,
        r"The test split of .* has no such labels \(no folder for each class\): a fifth",
    ),
    "a test of one image": (
        "train/a*6 train/b*6 test/a*1",
        None,
        "The test split of .* cannot be used: a fifth.*at least 2 images",
    ),
    "a class with one image": ("a*6 b*1", None, "a fifth"),
    "Testing": ("Training/a*6 Training/b*6 Testing/a*2 Testing/b*2", 4, ""),
}
NONE = {
    "flat": (".*9", r"No labels: kNN is skipped \(no folder for each class\).*--probe_dataset"),
    "an image a folder": ("1*1 2*1 3*1 4*1", r"kNN is skipped \(a folder for each image, "),
    "classes of one image": ("1*1 2*1", "kNN is skipped: each of its labels has a single image"),
    "good ones": (
        "train/good*6 test/good*2 test/bad*2",
        "kNN is skipped: all of its images have the same label",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_who_is_classified(tmp_path, name):
    layout, queries, said = KINDS[name]
    probe, text = probe_of(f"--dataset=folder:{make(tmp_path, layout)}")
    found = None if probe.queries is None else len(probe.queries)
    assert found == queries
    assert_said(said, text)


@pytest.mark.parametrize("name", NONE)
def test_when_nobody_is(tmp_path, name):
    layout, said = NONE[name]
    probe, text = probe_of(f"--dataset=folder:{make(tmp_path, layout)}")
    assert probe is None
    assert_said(said, text)


def assert_said(pattern, text):
    assert re.search(pattern, text) if pattern else not text


def test_a_labelled_set_beside_a_table(tmp_path):
    make(tmp_path, "photos*6 a.csv=id,kind;;000,x;;001,y;;002,x;;003,y;;004,x")
    fill(tmp_path / "other" / "a", 5)
    fill(tmp_path / "other" / "b", 5)
    flags = [f"--dataset=folder:{tmp_path}/photos", f"--labels={tmp_path}/a.csv"]
    probe, _ = probe_of(*flags)
    assert len(probe.bank) == 5 and probe.bank.class_names == ("x", "y")
    probe, text = probe_of(*flags, f"--probe_dataset=folder:{tmp_path}/other")
    assert len(probe.bank) == 10 and probe.bank.class_names == ("a", "b")  # the table is not theirs
    assert f"data: {tmp_path}/other" in text


def test_methods_with_labels_need_one_for_each_image(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, (9, 3))
    np.savez(tmp_path / "a.npz", images=np.zeros((9, 8, 8), "uint8"), labels=labels)
    cfg = config.parse(
        "pretrain",
        ["--method=siamese_triplet", f"--dataset=npz:{tmp_path}/a.npz", "--batch_size=8"],
    )
    with pytest.raises(ValueError, match="needs one label for each image; npz:.* has several"):
        build.source(cfg)


def test_a_run_says_what_it_understood_and_measures_several_labels(tmp_path, capfd):
    rng = np.random.default_rng(0)
    arrays = {f"{s}_images": rng.integers(0, 256, (24, 16, 16), "uint8") for s in ("train", "test")}
    arrays |= {f"{s}_labels": rng.integers(0, 2, (24, 14), "uint8") for s in ("train", "test")}
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    run, flags = tmp_path / "run", [f"--dataset=npz:{tmp_path}/chestmnist.npz"]
    assert main(["pretrain", *SMALL, *flags, f"--run_dir={run}"]) == 0
    said = capfd.readouterr().err
    assert said.startswith(f"data: {tmp_path}/chestmnist.npz, split train of train, test\n")
    assert "24 images of 14 classes" in said and "grey: 24" in said
    assert said.index("has 14 labels for each image") < said.index("simsiam starts in")
    result = json.loads((run / "result.json").read_text())
    assert 0.3 < result["mean_average_precision"] < 0.9 and result["knn_accuracy"] is None
    assert result["mean_average_precision_random_init"] is not None
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["mean_average_precision"] == result["mean_average_precision"]
    data = json.loads((run / "environment.json").read_text())["data"]
    assert data["images"] == 24 and data["splits"] == ["train", "test"] and data["notes"]
    assert main(["diagnose", f"--run_dir={run}"]) == 0
    assert "kNN mAP" in capfd.readouterr().out


def test_a_preview_says_what_is_not_read(tmp_path, capfd):
    make(tmp_path, "photos*4 photos/a.cr2=x photos/b.svg=x photos/c.SVG=x")
    flags = [f"--dataset=folder:{tmp_path}/photos", f"--output={tmp_path / 'v.png'}"]
    assert main(["preview", "--augment=device", *flags]) == 0
    said = capfd.readouterr().err
    assert "4 images, no labels" in said and "ignored: .svg: 2, .cr2: 1" in said


def test_a_run_names_what_its_monitor_could_not_decode(tmp_path, capfd):
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30 + i % 3, 30, 3), "uint8")).save(path)
    path.write_bytes(path.read_bytes()[:-60])  # the last, whose header is whole
    run = tmp_path / "run"
    assert main(["pretrain", *SMALL, f"--dataset=folder:{tmp_path}/data", f"--run_dir={run}"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["without_row"] == {"count": 1, "files": [str(path)]}
    assert result["knn"]["bank"] in (31, 32) and result["knn"]["queries"] == "a fifth held out"
    assert "1 of 40 images have no row" in capfd.readouterr().err
    assert (run / "plots" / "embedding.png").exists()
