"""`embed`: the Parquet says of each vector what it is of; parts and updates give the same."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from simsiam_keras import cards, encoders, export
from simsiam_keras.__main__ import main
from simsiam_keras.gallery import embed, vectors


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    export.save_encoder(encoders.resnet10((16, 16, 3), width=4), path)
    return path / "encoder.keras"


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat, big/a.png", "cat, big/ü.png", "dog/b.png", "dog/deep/c.png", "dog/d.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype="uint8")).save(path)
    (tmp_path / "photos" / "dog" / "broken.png").write_bytes(b"no picture at all")
    for i in range(120):  # or one damaged image of six would be too many
        Image.fromarray(np.full((8, 8, 3), i, "uint8")).save(tmp_path / "photos/dog" / f"x{i}.png")
    return tmp_path / "photos"


def run(encoder, folder, out, *flags, code=0):
    argv = [f"--encoder={encoder}", f"--dataset=folder:{folder}", f"--run_dir={out}", *flags]
    assert main(["embed", *argv]) == code
    return vectors.read(out / vectors.NAME) if code == 0 else None


def test_each_row_says_what_it_is(encoder, folder, tmp_path):
    found = run(encoder, folder, tmp_path / "out")
    assert found.names[0] == "cat, big/a.png" and "cat, big/ü.png" in found.names
    assert "dog/broken.png" not in found.names and len(found.names) == 125
    assert found.class_names == ["cat, big", "dog"] and found.encoder == cards.digest(encoder)
    assert found.root == str(folder) and found.image_size == 16
    loaded = export.load_encoder(encoder)
    for row in (0, 3, 60, 124):
        path = found.path(row)
        assert found.class_names[found.labels[row]] == found.names[row].split("/")[0]
        assert found.rows.sizes[row] == os.path.getsize(path)
        image = Image.open(path)
        side = min(image.size)
        image = image.resize(
            (round(image.width * 16 / side), round(image.height * 16 / side)), Image.BILINEAR
        )
        left = (image.width - 16) // 2
        expected = loaded(np.asarray(image)[None, :16, left : left + 16])[0]
        others = np.linalg.norm(found.vectors - expected, axis=1)
        assert np.argmin(others) == row
    np.testing.assert_array_equal(found.vectors, np.load(tmp_path / "out" / "features.npy"))
    np.testing.assert_array_equal(found.labels, np.load(tmp_path / "out" / "labels.npy"))


def test_other_programs_read_the_columns(encoder, folder, tmp_path):
    run(encoder, folder, tmp_path / "out", "--format=parquet")
    table = pq.read_table(tmp_path / "out" / vectors.NAME)
    assert table["class"][0].as_py() == "cat, big" and table["split"][0].as_py() == "train"
    assert len(table["vector"][0].as_py()) == 64 // 16 * 8 == len(table["vector"][5].as_py())
    assert not (tmp_path / "out" / "features.npy").exists()
    assert not (tmp_path / "out" / ".features.npy").exists()


def test_shards_are_the_whole(encoder, folder, tmp_path):
    whole = run(encoder, folder, tmp_path / "whole")
    for i in (1, 2, 3):
        run(encoder, folder, tmp_path / f"part{i}", f"--shard={i}/3")
    parts = vectors.read(f"{tmp_path}/part*/vectors.parquet")
    assert sorted(parts.names) == whole.names
    order = np.argsort(parts.names)
    np.testing.assert_allclose(parts.vectors[order], whole.vectors, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(parts.labels[order], whole.labels)


def test_splits_of_a_folder_are_read_together(encoder, folder, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(folder / "dog", tmp_path / "both" / split / "dog")
        shutil.copytree(folder / "dog" / "deep", tmp_path / "both" / split / "a")
    (tmp_path / "both" / "test" / "a" / "c.png").unlink()
    for split in ("train", "test"):
        run(encoder, tmp_path / "both", tmp_path / split, f"--split={split}")
    paths = [str(tmp_path / split / vectors.NAME) for split in ("test", "train")]
    found = vectors.read(",".join(paths))
    assert found.root == str(tmp_path / "both") and found.splits[0] == "test"
    singles = [vectors.read(path) for path in paths]
    assert [found.path(i) for i in range(len(found.names))] == [
        single.path(i) for single in singles for i in range(len(single.names))
    ]
    assert all(name.startswith(f"{s}/") for name, s in zip(found.names, found.splits, strict=True))
    some = vectors.Reader(",".join(paths)).some([0, len(found.names) - 1])
    assert some[0]["path"] == found.path(0) and os.path.exists(some[0]["path"])
    elsewhere = dataclasses.replace(singles[0].about, root="", dataset="npz:a")
    vectors.write(tmp_path / "npz.parquet", elsewhere, singles[0].rows, singles[0].vectors)
    with pytest.raises(ValueError, match="no folder has in common"):
        vectors.read(f"{paths[0]},{tmp_path / 'npz.parquet'}")


def test_an_update_takes_what_is_new_or_changed(encoder, folder, tmp_path, capfd):
    out = tmp_path / "out"
    before = run(encoder, folder, out)
    # Vectors that nothing has made, so that it shows which are kept.
    marked = before.vectors + 100
    vectors.write(out / vectors.NAME, before.about, before.rows, marked)
    os.remove(folder / "dog" / "d.png")
    os.utime(folder / "dog" / "b.png", (1, 1))  # touched, but the same
    Image.fromarray(np.full((20, 24, 3), 7, "uint8")).save(folder / "dog" / "deep" / "c.png")
    shutil.copy(folder / "dog" / "x9.png", folder / "cat, big" / "new.png")
    after = run(encoder, folder, out, "--update")
    result = json.loads((out / "result.json").read_text())
    assert (result["new"], result["kept"], result["gone"]) == (2, 123, 1)
    fresh = {"cat, big/new.png", "dog/deep/c.png"}
    for name, vector in zip(after.names, after.vectors, strict=True):
        if name in fresh:
            assert np.abs(vector).max() < 50
        else:
            np.testing.assert_array_equal(vector, marked[before.names.index(name)])
    twin = after.vectors[after.names.index("cat, big/new.png")]
    plain = before.vectors[before.names.index("dog/x9.png")]
    np.testing.assert_allclose(twin, plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after.vectors, np.load(out / "features.npy"))
    assert not {"dog/d.png"} & set(after.names)


def test_an_update_of_another_encoder_or_folder_is_refused(encoder, folder, tmp_path, capfd):
    out = tmp_path / "out"
    run(encoder, folder, out)
    content = (out / vectors.NAME).read_bytes()
    export.save_encoder(encoders.resnet10((16, 16, 3), width=4), tmp_path / "other")
    shutil.copytree(tmp_path / "other", encoder.parent, dirs_exist_ok=True)
    run(encoder, folder, out, "--update", code=2)
    assert "has vectors of another encoder" in capfd.readouterr().err
    run(encoder, tmp_path, out, "--update", code=2)
    assert "other flags (--dataset" in capfd.readouterr().err
    assert (out / vectors.NAME).read_bytes() == content


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_shard_is_one_of_its_number(text):
    with pytest.raises(ValueError, match=r"--shard must be such as 3/16"):
        embed.shard_of(text)


def test_several_labels_and_none(tmp_path):
    several = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    for labels, many in ((several, True), (None, False), (np.array([2, -1, 0]), False)):
        about = vectors.About("npz:a", "", ["a", "b", "c"], many, 2, "sha256:0", 8, 1.0, None, 3)
        nothing = np.full(3, -1)
        rows = vectors.Rows(["0", "1", "2"], ["train"] * 3, labels, nothing, nothing, [None] * 3)
        values = np.arange(6, dtype="float32").reshape(3, 2)
        vectors.write(tmp_path / "v.parquet", about, rows, values)
        found = vectors.read(tmp_path / "v.parquet")
        if labels is None:
            assert found.labels is None
        else:
            np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.vectors, values)
        assert found.about == about and found.path(0) is None


def test_many_rows_come_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "GROUP_BYTES", 40)
    values = np.random.default_rng(0).normal(size=(33, 3)).astype("float32")
    about = vectors.About("npz:a", "", None, False, 3, "sha256:0", 8, 1.0, None, 3)
    nothing = np.full(33, -1)
    rows = vectors.Rows(
        list(map(str, range(33))), ["all"] * 33, None, nothing, nothing, [None] * 33
    )
    vectors.write(tmp_path / "v.parquet", about, rows, values)
    chunks = list(vectors.Reader(tmp_path / "v.parquet").chunks())
    assert [len(chunk) for chunk in chunks] == [3] * 11
    np.testing.assert_array_equal(np.concatenate(chunks), values)


def test_what_is_no_file_of_vectors_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(ValueError, match="no file of vectors that `embed` wrote, or it is damaged"):
        vectors.read(tmp_path / "a.parquet")
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="no file of vectors"):
        vectors.read(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="There is no"):
        vectors.read(tmp_path / "none.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no .parquet"):
        vectors.read(tmp_path / "empty")
