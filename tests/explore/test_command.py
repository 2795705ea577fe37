"""`explore` and `duplicates`, from photographs to what they write."""

import base64
import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import config, encoders, export
from simsiam_keras.__main__ import main
from simsiam_keras.explore import command, near, sprites


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    export.save_encoder(encoders.resnet10((16, 16, 3), width=4), path)
    return path / "encoder.keras"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """`train` and `test` of two classes, whose sizes differ."""
    folder = tmp_path_factory.mktemp("set") / "photos"
    random = np.random.default_rng(0)
    for part, n in (("train", 14), ("test", 6)):
        for i in range(n):
            path = folder / part / "ab"[i % 2] / f"{i:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype="uint8"))
            pixels.resize((70 + 2 * i, 50), Image.Resampling.BICUBIC).save(path, quality=95)
    shutil.copy(folder / "train" / "a" / "00.jpg", folder / "test" / "a" / "copy.jpg")
    return folder


def data_of(page):
    text = page.read_text("utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def unpacked(part):
    return np.frombuffer(base64.b64decode(part["data"]), "<" + part["kind"])


def test_the_page_has_every_split_and_the_neighbours_of_the_features(encoder, photos, tmp_path):
    out, embedded = tmp_path / "out", tmp_path / "embedded"
    known = [f"--encoder={encoder}", f"--dataset=folder:{photos}"]
    assert main(["explore", *known, "--map=pca", f"--run_dir={out}", "--neighbours=4"]) == 0
    data = data_of(out / "explore.html")
    assert sorted({name.split("/")[0] for name in data["names"]}) == ["test", "train"]
    assert all((photos / name).is_file() for name in data["names"]) and len(data["names"]) == 21
    assert data["root"] == str(photos)
    label, _, split = data["colourings"]
    assert (label["names"], split["names"]) == (["a", "b"], ["test", "train"])
    classes = [label["names"][i] for i in unpacked(label["of"])]
    assert classes == [name.split("/")[1] for name in data["names"]]
    assert not (out / ".features.npy").exists()
    # The nearest ones are those of the features that `embed` writes.
    for part in ("test", "train"):
        flags = [f"--split={part}", f"--run_dir={embedded / part}"]
        assert main(["embed", *known, *flags]) == 0
    x = np.concatenate([np.load(embedded / p / "features.npy") for p in ("test", "train")])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    _, index = near.nearest(x, 4)
    np.testing.assert_array_equal(unpacked(data["nearest"]["index"]).reshape(21, 4), index)
    # And a file of vectors gives the same page but for its names.
    again = tmp_path / "again"
    vectors = embedded / "train" / "vectors.parquet"
    flags = ["--map=pca", "--neighbours=4", f"--run_dir={again}"]
    assert main(["explore", f"--vectors={vectors}", *flags]) == 0
    data = data_of(again / "explore.html")
    assert data["missing"] == [] and data["root"] == str(photos / "train")
    _, index = near.nearest(x[7:], 4)
    np.testing.assert_array_equal(unpacked(data["nearest"]["index"]).reshape(14, 4), index)


def test_images_of_no_folder_are_shown_alike_by_both_ways(encoder, tmp_path):
    known = [f"--encoder={encoder}", "--dataset=digits"]
    flags = ["--map=pca", "--split=test"]
    assert main(["explore", *known, *flags, f"--run_dir={tmp_path / 'a'}"]) == 0
    assert main(["embed", *known, "--split=test", f"--run_dir={tmp_path / 'v'}"]) == 0
    vectors = f"--vectors={tmp_path / 'v'}"
    assert main(["explore", vectors, "--map=pca", f"--run_dir={tmp_path / 'b'}"]) == 0
    first, second = (data_of(tmp_path / name / "explore.html") for name in "ab")
    assert first["sprites"]["sheets"] == second["sprites"]["sheets"]
    assert first["names"] == second["names"] and first["root"] == second["root"] == ""
    assert len(first["colourings"][0]["names"]) == 10


def test_where_the_page_would_be_too_large_thumbnails_shrink_and_then_lie_beside(
    encoder, photos, tmp_path
):
    sides = []
    for number, megabytes in enumerate((50, 0.08, 0.02)):
        out = tmp_path / str(number)
        flags = ["--map=pca", f"--page_mb={megabytes}", f"--run_dir={out}"]
        known = [f"--encoder={encoder}", f"--dataset=folder:{photos}"]
        assert main(["explore", *known, *flags]) == 0
        sprite = data_of(out / "explore.html")["sprites"]
        sides.append(sprite["side"])
        size = (out / "explore.html").stat().st_size
        if number < 2:
            assert size <= 1e6 * megabytes
            assert sprite["sheets"][0].startswith("data:image/jpeg;base64,")
        else:
            files = [out / source for source in sprite["sheets"]]
            with Image.open(files[0]) as image:
                assert image.size == (21 * sprite["side"], sprite["side"])
    assert sides[0] == sprites.SIDES[0] > sides[1] >= sprites.SIDES[-1]


def rows_of(out):
    with open(out / "groups.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_copies_are_found_and_every_file_stays(encoder, photos, tmp_path):
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    known = [f"--encoder={encoder}", f"--dataset=folder:{photos}"]
    flags = ["--threshold=0.9999999", f"--run_dir={tmp_path / 'out'}"]
    assert main(["duplicates", *known, *flags]) == 0
    rows = rows_of(tmp_path / "out")
    files = {row["file"]: row for row in rows}
    assert set(files) >= {"train/a/00.jpg", "test/a/copy.jpg"}
    kept, copy = files["test/a/copy.jpg"], files["train/a/00.jpg"]  # of equals by name
    assert kept["keep"] == "yes" and copy["keep"] == "no" and copy["exact_copy"] == "yes"
    assert float(copy["similarity"]) == pytest.approx(1, abs=1e-4)
    assert int(kept["width"]) == 70 and int(kept["bytes"]) == len(before[photos / kept["file"]])
    assert {p: p.read_bytes() for p in photos.rglob("*") if p.is_file()} == before
    result = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert result["exact_copies"] >= 1 and result["besides_the_kept"] >= 1


def test_the_threshold_is_measured_with_the_encoder_that_made_the_vectors(
    encoder, photos, tmp_path, capfd
):
    out = tmp_path / "vectors"
    data = f"--dataset=folder:{photos}"
    assert main(["embed", f"--encoder={encoder}", data, f"--run_dir={out}"]) == 0
    flags = [f"--vectors={out}", f"--encoder={encoder}", f"--run_dir={tmp_path / 'a'}"]
    assert main(["duplicates", *flags]) == 0
    result = json.loads((tmp_path / "a" / "result.json").read_text("utf-8"))
    assert 0.5 < result["threshold"] < 1 and "95 % of 42 copies" in result["chosen"]
    assert main(["duplicates", f"--vectors={out}", f"--run_dir={tmp_path / 'b'}"]) == 0
    assert json.loads((tmp_path / "b" / "result.json").read_text("utf-8"))["threshold"] == 0.95
    other = tmp_path / "other"
    export.save_encoder(encoders.resnet10((16, 16, 3), width=4), other)
    flags = [f"--vectors={out}", f"--encoder={other / 'encoder.keras'}"]
    assert main(["duplicates", *flags, f"--run_dir={tmp_path / 'c'}"]) == 2
    assert "is not the one that made" in capfd.readouterr().err


def test_what_cannot_be_meant_is_refused(encoder, tmp_path, capfd):
    known = f"--encoder={encoder}"
    for flags, said in (
        (["explore"], "--vectors or --encoder is required"),
        (["duplicates", known, "--threshold=1.5"], "--threshold must be"),
        (["duplicates", known, "--threshold=high"], "--threshold must be"),
        (["duplicates", known, "--dataset=digits", "--split=test"], "compares files"),
        (["explore", known, "--map=circle"], "map"),
        (["explore", f"--vectors={tmp_path / 'none.parquet'}"], "none.parquet"),
    ):
        assert main([*flags, f"--run_dir={tmp_path / 'out'}"]) == 2
        assert said in capfd.readouterr().err


def test_a_finished_page_is_not_overwritten(encoder, photos, tmp_path, capfd):
    flags = [f"--encoder={encoder}", f"--dataset=folder:{photos}", "--map=pca"]
    for code in (0, 2):
        assert main(["explore", *flags, f"--run_dir={tmp_path / 'out'}"]) == code
    assert "give another --run_dir" in capfd.readouterr().err


def test_the_defaults_of_a_script():
    cfg = config.make("duplicates", vectors="x.parquet")
    assert (cfg.threshold, cfg.split) == ("auto", "all")
    assert config.make("explore", vectors="x.parquet").page_mb == 50


def test_a_second_call_lies_beside_the_first(encoder, photos, tmp_path):
    shutil.copytree(encoder.parent, tmp_path / "run")
    known = [f"--encoder={tmp_path / 'run' / 'encoder.keras'}", f"--dataset=folder:{photos}"]
    for folder in ("explore", "explore_2", "explore_3"):
        assert main(["explore", *known, "--map=pca"]) == 0
        assert (tmp_path / "run" / folder / command.PAGE).is_file()
    for folder in ("duplicates", "duplicates_2"):
        assert main(["duplicates", *known, "--threshold=0.9"]) == 0
        assert (tmp_path / "run" / folder / "groups.csv").is_file()
