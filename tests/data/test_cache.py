"""Images that are decoded once: the same pixels, in bounded memory, whatever becomes of files."""

import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import config, runs, views
from simsiam_keras.__main__ import main
from simsiam_keras.augment.recipe import RECIPES, needed_side
from simsiam_keras.data import cache, pipeline, sources, subsets
from simsiam_keras.data import images as codec
from tests.data.pictures import RED, fill, solid

SIDE = 16


@pytest.fixture
def decoded(monkeypatch):
    """The items that are decoded from now on."""
    found, decode = [], codec.decode

    def counted(item, *options, **named):
        found.append(item)
        return decode(item, *options, **named)

    monkeypatch.setattr(codec, "decode", counted)
    return found


def kept(folder, kind, place="", side=SIDE):
    source = sources.load(f"folder:{folder}")
    return source, cache.keep_decoded(source, kind, str(place), side)


def batches(source, augment, epochs=2):
    if augment == "device":
        made = pipeline.training_images(source, 6, SIDE, epochs=epochs)
        return [images for (images,) in made]
    pairs = pipeline.training_views(source, views.host(RECIPES["digits"]), 6, epochs=epochs)
    return [np.stack(pair) for pair in pairs.as_numpy_iterator()]


@pytest.mark.parametrize("augment", ["device", "host"])
def test_no_pixel_depends_on_it(augment, photos, tmp_path):
    side = SIDE if augment == "device" else needed_side(RECIPES["digits"])
    expected = batches(kept(photos, "none")[0], augment)
    assert not np.array_equal(expected[0], expected[4])
    for kind in ("memory", "disk", "disk"):  # written, and read
        found = batches(kept(photos, kind, tmp_path / "cache", side)[0], augment)
        assert len(found) == len(expected) == 8
        assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_an_image_is_decoded_once(kind, photos, tmp_path, decoded):
    def counted(kind):
        source = sources.load(f"folder:{photos}")
        decoded.clear()  # of which there may have been some to see that sizes vary
        cache.keep_decoded(source, kind, str(tmp_path / "cache"), SIDE)
        batches(source, "device", epochs=3)
        return sorted(map(source.items.index, decoded))

    assert counted(kind) == list(range(24))
    assert counted(kind) == ([] if kind == "disk" else list(range(24)))
    assert len(counted("none")) == 72


def test_only_what_training_reads_is_kept(photos, decoded):
    source = sources.load(f"folder:{photos}")
    cache.keep_decoded(source, "memory", "", SIDE)
    before = source.store.size
    for _ in range(2):
        list(pipeline.evaluation_batches(source, 8))
        source.read(0)
    assert source.store.size == before
    batches(source, "device", epochs=1)
    assert source.store.size > before


def test_memory_is_bounded(photos, monkeypatch):
    monkeypatch.setattr(cache, "memory_bytes", lambda: 4 * 20_000)
    source, sentence = kept(photos, "memory")
    assert sentence.startswith("Decoded images would take about") and "--cache=disk" in sentence
    expected = batches(kept(photos, "none")[0], "device")
    assert all(map(np.array_equal, batches(source, "device"), expected))
    assert 10_000 < source.store.size <= 20_000
    assert source.store.size == sum(x.nbytes for x in source.store._images.values())


def test_its_size_is_said(photos, tmp_path):
    source, sentence = kept(photos, "memory")
    batches(source, "device")
    said = float(sentence.split("about ")[1].split(" GB")[0]) * 1e9
    assert sentence.endswith("for 24 images.")
    assert said == pytest.approx(source.store.size, rel=0.5)
    assert f"kept in {tmp_path / 'cache'}: about" in kept(photos, "disk", tmp_path / "cache")[1]


def test_what_is_in_memory_anyway_is_left_alone(tmp_path, photos):
    assert kept(fill(tmp_path / "small", 3), "memory")[1] == ""
    source, sentence = kept(photos, "memory", side=None)
    assert sentence == "" and source.store is None


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


DAMAGE = {
    "a bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "its size": lambda data: data[:4] + data[8:12] + data[4:8] + data[12:],
    "its end": lambda data: data[:-1],
    "all but its head": lambda data: data[:10],
    "everything": lambda data: b"",
    "its kind": lambda data: b"text" + data[4:],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_written_again(name, photos, tmp_path):
    place = tmp_path / "cache"
    expected = batches(kept(photos, "disk", place)[0], "device")
    whole = {path: path.read_bytes() for path in files(place)}
    assert len(whole) == 24
    for path, data in whole.items():
        path.write_bytes(DAMAGE[name](data))
    assert all(map(np.array_equal, batches(kept(photos, "disk", place)[0], "device"), expected))
    assert {path: path.read_bytes() for path in files(place)} == whole


def test_an_image_that_has_changed_is_decoded_again(tmp_path):
    folder = tmp_path / "images"
    fill(folder, 3, (40, 40), "bmp")
    solid(RED, (50, 50)).save(folder / "z.bmp")
    before, _ = kept(folder, "disk", tmp_path / "cache")
    first = before.read(0, SIDE)
    path = before.items[0]
    about = os.stat(path)
    solid((9, 8, 7), (40, 40)).save(path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert os.stat(path).st_size == about.st_size
    after = kept(folder, "disk", tmp_path / "cache")[0].read(0, SIDE)
    assert after[0, 0].tolist() == [9, 8, 7] != first[0, 0].tolist()


def test_other_options_are_other_files(tmp_path):
    place, made = cache.Disk(tmp_path), np.zeros((1, 1, 3), "u1")
    options = [(8, None), (16, None), (8, (0.0, 1.0)), (8, "file")]
    for each in options:
        place.get(b"bytes", each, lambda: made)
    place.get(b"others", options[0], lambda: made)
    assert len(files(tmp_path)) == 5


def test_a_disk_that_takes_no_more_is_gone_without(photos, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder would be")
    source, _ = kept(photos, "disk", tmp_path / "cache")
    expected = batches(kept(photos, "none")[0], "device")
    assert all(map(np.array_equal, batches(source, "device"), expected))
    assert caplog.text.count("takes no more images") == 1


def test_what_a_killed_process_left_does_not_stay(photos, tmp_path):
    place = tmp_path / "cache"
    kept(photos, "disk", place)
    old, new = (files(place)[0].parent / f".{name}.1.2.partial" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    kept(photos, "disk", place)
    assert new.exists() and not old.exists()


def test_threads_may_write_the_same_image(tmp_path):
    place = cache.Disk(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype("u1")
    found = []

    def read():
        found.extend(place.get(b"bytes", 8, lambda: image) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160 and all(np.array_equal(x, image) for x in found)
    assert len(files(tmp_path)) == 1 and not place.full


def test_a_subset_keeps_its_own(photos):
    source, _ = kept(photos, "memory")
    assert subsets.subset(source, [0, 1], "two").store is None


RUN = (
    "--recipe=digits --encoder=resnet10 --stem=stride2 --width=4 --output_dim=16 --image_size=16 "
    "--predictor_hidden=4 --batch_size=12 --epochs=2 --jit=off"
).split()


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["host", "device"])
def test_a_run_is_the_same_with_it_and_without(augment, photos, tmp_path, capsys):
    rows = {}
    for kind in ("none", "memory", "disk"):
        flags = [f"--cache={kind}", f"--cache_dir={tmp_path / 'cache'}", f"--augment={augment}"]
        argv = ["pretrain", *RUN, f"--dataset=folder:{photos}", *flags]
        assert main([*argv, f"--run_dir={tmp_path / kind}"]) == 0
        said = capsys.readouterr().err
        assert ("Decoded images are kept in memory" in said) == (kind == "memory")
        assert (f"Decoded images are kept in {tmp_path / 'cache'}" in said) == (kind == "disk")
        lines = (tmp_path / kind / "metrics.jsonl").read_text().splitlines()
        rows[kind] = [json.loads(line) for line in lines]
    losses = {kind: [row["loss"] for row in found] for kind, found in rows.items()}
    assert losses["none"] == losses["memory"] == losses["disk"] and len(losses["none"]) == 2


def test_a_run_may_go_on_with_another_one():
    assert {"cache", "cache_dir"} <= runs.FREE_TO_CHANGE
    assert config.make("pretrain").cache == "memory"


def test_photographs_of_one_size_are_not_sent_to_the_device_whole(tmp_path):
    for i in range(3):
        Image.new("RGB", (2000, 1500), (i, i, i)).save(tmp_path / f"{i}.jpg")
    source = sources.load(f"folder:{tmp_path}")
    assert isinstance(source, sources.EncodedSource) and source.image_shape == (1500, 2000, 3)
    recipe = RECIPES["cifar"]
    assert views.canvas(source, recipe) == (72, 48)
    cfg = config.make("preview", augment="device", dataset=f"folder:{tmp_path}")
    assert views.preview(cfg, recipe, source, 2).shape[2] == 3
    images = next(pipeline.evaluation_batches(source, 32))[0]
    assert images.shape == (3, 32, 32, 3)
