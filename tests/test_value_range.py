"""What is deeper than 8 bits is scaled alike wherever an encoder is trained, measured and used."""

import json

import numpy as np
import pytest

from simsiam_keras import cards, config, runs
from simsiam_keras.__main__ import main
from simsiam_keras.data import base, sources, subsets
from tests.data.pictures import fill, png16

SMALL = (
    "--recipe=digits --encoder=resnet10 --stem=stride2 --width=4 --output_dim=16 "
    "--predictor_hidden=4 --batch_size=8 --epochs=1 --jit=off --knn_k=3"
).split()


def radiographs(folder, low, high, count=8):
    """Pictures of 12 bits in 16, with values from `low` to `high`."""
    random = np.random.default_rng(high)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            values = random.integers(low, high + 1, (24, 24, 1)).astype("u2")
            values[0, :2] = [[low], [high]]
            (folder / name / f"{i}.png").write_bytes(png16(values))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("radiographs")
    radiographs(path / "train", 100, 2000)
    radiographs(path / "test", 1000, 4000)
    return path


@pytest.fixture(scope="module")
def run(folder):
    path = folder / "run"
    assert main(["pretrain", *SMALL, f"--dataset=folder:{folder}", f"--run_dir={path}"]) == 0
    return path


def read(path):
    return json.loads(path.read_text())


def test_a_set_has_one_range(folder):
    train = sources.load(f"folder:{folder}")
    assert isinstance(train, base.ArraySource)
    low, high = train.value_range
    assert 100 <= low < 110 and 1990 < high <= 2000
    assert len(np.unique(train.images)) == 256  # divided by 257 they were 9
    alone = sources.load(f"folder:{folder}", split="test")
    alike = sources.load(f"folder:{folder}", split="test", value_range=train.value_range)
    assert alike.value_range == train.value_range != alone.value_range
    assert alike.images.mean() > alone.images.mean() + 20
    fixed = sources.load(f"folder:{folder}", value_range="0,4095")
    assert fixed.value_range == (0, 4095) and fixed.images.max() == round(2000 / 4095 * 255)
    part = subsets.few_labels(train, 2)
    assert part.value_range == train.value_range


def test_images_of_various_sizes_have_it_too(folder, tmp_path):
    radiographs(tmp_path, 100, 2000)
    (tmp_path / "a" / "9.png").write_bytes(png16(np.full((30, 20, 1), 4000, "u2")))
    source = sources.load(f"folder:{tmp_path}")
    assert isinstance(source, base.EncodedSource) and source.value_range[1] == 4001
    last = [str(item).endswith("9.png") for item in source.items].index(True)
    assert source.read(last).max() == 255 and source.read(0).max() < 130
    own = sources.load(f"folder:{tmp_path}", value_range="file")
    assert own.value_range == "file" and own.read(0).max() == 255
    assert subsets.subset(source, [0], "one").value_range == source.value_range


def test_8_bits_have_none(tmp_path):
    fill(tmp_path, 3)
    for text in ("auto", "0,100"):
        source = sources.load(f"folder:{tmp_path}", value_range=text)
        assert [int(source.read(i)[0, 0, 0]) for i in range(3)] == [0, 1, 2]
    assert sources.load(f"folder:{tmp_path}").value_range is None


def test_a_run_names_its_range(run, folder):
    expected = list(sources.load(f"folder:{folder}").value_range)
    assert read(run / "environment.json")["data"]["value_range"] == expected
    assert cards.read(run).stored_range == expected == runs.value_range(run)
    assert "--value_range=auto" in (run / "flags.cfg").read_text()


def test_the_encoder_is_shown_other_images_as_it_was_its_own(run, folder, tmp_path):
    def embedded(name, *flags):
        argv = ["embed", f"--encoder={run / 'encoder.keras'}", f"--dataset=folder:{folder}"]
        assert main([*argv, "--split=test", f"--run_dir={tmp_path / name}", *flags]) == 0
        found = read(tmp_path / name / "environment.json")["data"]["value_range"]
        return found, np.load(tmp_path / name / "features.npy")

    card = cards.read(run).stored_range
    of_card, features = embedded("card")
    given, same = embedded("given", f"--value_range={card[0]},{card[1]}")
    own, others = embedded("own", "--value_range=file")
    assert (of_card, given, own) == (card, card, "file")
    assert np.array_equal(features, same) and not np.allclose(features, others)


def test_it_is_shown_others_so_by_a_checkpoint_too(run, tmp_path):
    assert main(["export", f"--run_dir={run}", f"--output={tmp_path}"]) == 0
    assert cards.read(tmp_path).stored_range == cards.read(run).stored_range


@pytest.mark.parametrize("command", ["knn", "linear-probe"])
def test_both_splits_of_an_evaluation_are_scaled_alike(command, run, folder, tmp_path, monkeypatch):
    loaded = []
    load = sources.load
    monkeypatch.setattr(sources, "load", lambda *args: loaded.append(load(*args)) or loaded[-1])
    (run / "encoder.json").rename(tmp_path / "card")  # without its card, as of the first split
    try:
        argv = [command, f"--encoder={run / 'encoder.keras'}", f"--dataset=folder:{folder}"]
        assert main([*argv, f"--run_dir={tmp_path / 'out'}"]) == 0
    finally:
        (tmp_path / "card").rename(run / "encoder.json")
    assert loaded[0].value_range == loaded[1].value_range is not None


def test_preview_says_it(folder, tmp_path, capsys):
    argv = ["preview", "--recipe=digits", f"--dataset=folder:{folder}"]
    assert main([*argv, f"--output={tmp_path / 'v.png'}"]) == 0
    low, high = sources.load(f"folder:{folder}").value_range
    assert f"values {low:g} to {high:g} become 0 to 255" in capsys.readouterr().out
    assert main([*argv, f"--output={tmp_path / 'v.png'}", "--value_range=9"]) == 2


@pytest.mark.parametrize("value", ["full", [2, 1], [1], [0, 1e999], [True, 2], 7])
def test_a_card_with_another_range_is_refused(value, tmp_path):
    card = {"image_shape": [8, 8, 3], "features": 4, "eval_crop": 1, "stored_range": value}
    (tmp_path / cards.NAME).write_text(json.dumps(card))
    with pytest.raises(ValueError, match="`stored_range` must be null"):
        cards.read(tmp_path)


def test_a_card_of_an_earlier_version_has_none(tmp_path):
    card = {"image_shape": [8, 8, 3], "features": 4, "eval_crop": 1}
    (tmp_path / cards.NAME).write_text(json.dumps(card))
    assert cards.read(tmp_path).stored_range is None
    assert config.make("embed", encoder="e").value_range == "auto"
