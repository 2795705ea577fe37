"""`search`, from photographs to answers."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import encoders, export
from simsiam_keras.__main__ import main
from simsiam_keras.data import images as codec
from simsiam_keras.gallery import pictures, search, sheets


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    export.save_encoder(encoders.resnet10((16, 16, 3), width=4), path)
    return path / "encoder.keras"


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype="uint8")).save(path)
    return tmp_path / "photos"


def run(encoder, gallery, query, out, *flags):
    argv = [f"--encoder={encoder}", f"--gallery={gallery}", f"--query={query}", f"--run_dir={out}"]
    return main(["search", *argv, *flags])


def answers(out):
    return [json.loads(line) for line in (out / search.ANSWERS).read_text().splitlines()]


def test_a_photograph_finds_itself_first(encoder, folder, tmp_path, capsys):
    queries = [folder / "a" / "04.png", folder / "b" / "07.png"]
    flags = [f"--gallery_dir={tmp_path / 'vectors'}", "--k=3"]
    text = ",".join(map(str, queries))
    assert run(encoder, f"folder:{folder}", text, tmp_path / "out", *flags) == 0
    found = answers(tmp_path / "out")
    for query, answer in zip(queries, found, strict=True):
        assert answer["query"] == str(query) == answer["found"][0]["path"]
        assert answer["found"][0]["similarity"] == pytest.approx(1, abs=1e-5)
        assert [f["rank"] for f in answer["found"]] == [1, 2, 3]
        assert answer["found"][0]["class"] == query.parent.name
        values = [f["similarity"] for f in answer["found"]]
        assert values == sorted(values, reverse=True)
    assert "04.png" in capsys.readouterr().out
    picture = np.asarray(Image.open(tmp_path / "out" / "sheet.png"))
    x, y = sheets.GAP, sheets.GAP
    shown = picture[y : y + sheets.SIDE, x : x + sheets.SIDE]
    expected = pictures.tile(pictures.Paths(queries), 0, sheets.SIDE)
    np.testing.assert_array_equal(shown, expected)
    second = picture[y : y + sheets.SIDE, x + sheets.SIDE + sheets.GAP :][:, : sheets.SIDE]
    np.testing.assert_array_equal(second, expected)


def test_what_is_new_in_the_folder_is_found(encoder, folder, tmp_path):
    vectors_dir = tmp_path / "vectors"
    flags = [f"--gallery_dir={vectors_dir}", "--k=1"]
    query = folder / "a" / "04.png"
    assert run(encoder, f"folder:{folder}", query, tmp_path / "one", *flags) == 0
    shutil.move(query, tmp_path / "query.png")
    gallery, query = f"folder:{folder}", tmp_path / "query.png"
    assert run(encoder, gallery, query, tmp_path / "two", *flags) == 0
    assert answers(tmp_path / "two")[0]["found"][0]["name"] != "a/04.png"
    shutil.copy(query, folder / "b" / "other.png")
    assert run(encoder, gallery, query, tmp_path / "three", *flags) == 0
    assert answers(tmp_path / "three")[0]["found"][0]["name"] == "b/other.png"
    parquet = vectors_dir / "vectors.parquet"
    assert run(encoder, parquet, query, tmp_path / "four", "--k=1") == 0
    assert answers(tmp_path / "four") == answers(tmp_path / "three")


def test_mistakes_are_said_in_a_sentence(encoder, folder, tmp_path, capsys):
    flags = [f"--gallery_dir={tmp_path / 'vectors'}"]
    gallery, out = f"folder:{folder}", tmp_path / "out"
    (tmp_path / "text.jpg").write_text("no image")
    assert run(encoder, gallery, tmp_path / "text.jpg", out, *flags) == 2
    assert "text.jpg is no image that can be read" in capsys.readouterr().err
    assert run(encoder, gallery, tmp_path / "none.jpg", out, *flags) == 2
    assert "there is no file" in capsys.readouterr().err
    assert not out.exists() and not (tmp_path / "vectors").exists()
    assert run(encoder, gallery, folder / "a" / "04.png", tmp_path / "good", *flags) == 0
    export.save_encoder(encoders.resnet10((16, 16, 3), width=8), tmp_path / "other")
    parquet = tmp_path / "vectors" / "vectors.parquet"
    other = tmp_path / "other" / "encoder.keras"
    assert run(other, parquet, folder / "a" / "04.png", out) == 2
    assert "has vectors of another encoder (32 wide" in capsys.readouterr().err
    assert run(encoder, tmp_path / "nothing", folder / "a" / "04.png", out) == 2
    assert "There is no" in capsys.readouterr().err
    assert run(encoder, folder, folder / "a" / "04.png", out) == 2
    assert f"for a folder of images say --gallery=folder:{folder}" in capsys.readouterr().err
    inside = tmp_path / "text.jpg" / "out"  # below a file
    assert run(encoder, parquet, folder / "a" / "04.png", inside) == 1
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_the_saved_model_is_the_same_encoder(encoder, folder, tmp_path):
    flags = [f"--gallery_dir={tmp_path / 'vectors'}", "--k=2"]
    query = folder / "a" / "04.png"
    assert run(encoder, f"folder:{folder}", query, tmp_path / "one", *flags) == 0
    parquet = tmp_path / "vectors" / "vectors.parquet"
    assert run(encoder.parent / "encoder", parquet, query, tmp_path / "two", "--k=2") == 0
    assert answers(tmp_path / "two")[0]["found"][0]["name"] == "a/04.png"


def test_a_file_that_is_gone_is_grey(tmp_path):
    shown = pictures.tile_or_grey(pictures.Paths([tmp_path / "none.png"]), 0, 8)
    assert (shown == pictures.GREY).all()


def answer_on_the_sheet(out):
    """The picture of the first answer to the first query, in the middle."""
    picture = np.asarray(Image.open(out / search.SHEET))
    x, y, side = 2 * sheets.GAP + sheets.SIDE, sheets.GAP, sheets.SIDE
    return picture[y : y + side, x : x + side]


def test_images_without_files_are_shown_while_their_data_are_there(
    encoder, folder, tmp_path, capsys
):
    query = folder / "a" / "04.png"
    images = np.full((3, 16, 16, 3), [[[[9]]], [[[99]]], [[[199]]]], "uint8")
    images[1] = np.asarray(Image.open(query).crop((5, 0, 25, 20)).resize((16, 16)))
    np.savez(tmp_path / "few.npz", test_images=images)
    argv = [f"--encoder={encoder}", f"--dataset=npz:{tmp_path / 'few.npz'}", "--split=test"]
    assert main(["embed", *argv, f"--run_dir={tmp_path / 'vectors'}"]) == 0
    gallery, out = tmp_path / "vectors" / "vectors.parquet", tmp_path / "out"
    assert run(encoder, gallery, query, out, "--k=1") == 0
    assert answers(out)[0]["found"][0]["name"] == "image 1"
    shown = answer_on_the_sheet(out)
    np.testing.assert_array_equal(shown, codec.resize_and_crop(images[1], sheets.SIDE))
    (tmp_path / "few.npz").unlink()
    assert run(encoder, gallery, query, tmp_path / "later", "--k=1") == 0
    assert answers(tmp_path / "later") == answers(out)
    assert (answer_on_the_sheet(tmp_path / "later") == pictures.GREY).all()
    assert "has no pictures of the gallery" in capsys.readouterr().err
