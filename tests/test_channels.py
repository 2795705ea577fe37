"""Runs on images of one channel and of four, through all that follows a run."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from simsiam_keras import config, encoders, export, plots, start
from simsiam_keras.__main__ import main
from tests.faults import small

SIDE = 12


def bands(n, channels, seed=0):
    """Noise of three classes, each bright in another channel or another half."""
    labels = np.arange(n) % 3
    pixels = np.random.default_rng(seed).integers(0, 120, (n, SIDE, SIDE, channels))
    for image, label in zip(pixels, labels, strict=True):
        image[: 4 * (label + 1), :, label % channels] += 120
    return pixels.astype("u1"), labels


def four_channels(root):
    for part, n, seed in (("train", 48, 0), ("test", 24, 1)):
        images, labels = bands(n, 4, seed)
        arrays = {f"{part}_images": images, f"{part}_labels": labels}
        known = dict(np.load(root / "x.npz")) if (root / "x.npz").exists() else {}
        np.savez(root / "x.npz", **known, **arrays)
    return f"npz:{root / 'x.npz'}"


def one_channel(root):
    """Grey files and colour ones, of various sizes."""
    for part, n, seed in (("train", 48, 0), ("test", 24, 1)):
        for i, (image, label) in enumerate(zip(*bands(n, 1, seed), strict=True)):
            picture = Image.fromarray(image[..., 0]).resize((SIDE + i % 2, SIDE + i % 3))
            path = root / "data" / part / "abc"[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.convert("RGB" if i % 5 == 0 else "L").save(path)
    return f"folder:{root / 'data'}"


DATA = {4: four_channels, 1: one_channel}


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("augment", ["host", "device"])
@pytest.mark.parametrize("channels", DATA)
@pytest.mark.slow
def test_a_run_and_all_that_follows_it(channels, augment, tmp_path, capsys):
    dataset, run_dir = f"--dataset={DATA[channels](tmp_path)}", tmp_path / "run"
    flags = [dataset, f"--channels={channels}", f"--augment={augment}"]
    flags += ["--encoder=resnet10", "--width=4", "--stem=stride2"]
    assert small.pretrain(run_dir, *flags) == 0
    said = capsys.readouterr().err
    assert f"taken with {channels} channel(s)" in said and f", {channels} channel(s), " in said
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if row["epoch"] > 0]
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert read(run_dir / "environment.json")["data"]["channels"] == channels
    assert read(run_dir / "encoder.json")["image_shape"] == [SIDE, SIDE, channels]

    images = bands(5, channels, seed=2)[0]
    found = {}
    for name in ("encoder", "encoder.keras"):
        loaded = export.load_encoder(run_dir / name)
        assert (loaded.image_size, loaded.channels) == (SIDE, channels)
        found[name] = loaded(images)
    np.testing.assert_allclose(found["encoder"], found["encoder.keras"], atol=1e-5)
    assert not np.allclose(found["encoder"], loaded(images[..., ::-1, :]), atol=1e-3)

    assert main(["export", f"--run_dir={run_dir}", f"--output={tmp_path / 'again'}"]) == 0
    np.testing.assert_allclose(
        export.load_encoder(tmp_path / "again" / "encoder")(images), found["encoder"], atol=1e-5
    )
    for command, key in (("knn", "knn_accuracy"), ("linear-probe", "linear_accuracy")):
        flags = [dataset, f"--encoder={run_dir / 'encoder'}", f"--run_dir={tmp_path / command}"]
        flags += ["--epochs=3"] if command == "linear-probe" else []
        assert main([command, *flags]) == 0
        assert 0 <= read(tmp_path / command / "result.json")[key] <= 1
    flags = [dataset, f"--encoder={run_dir / 'encoder.keras'}", f"--run_dir={tmp_path / 'out'}"]
    assert main(["embed", *flags, "--split=test"]) == 0
    assert np.load(tmp_path / "out" / "features.npy").shape == (24, 32)
    assert read(tmp_path / "out" / "environment.json")["data"]["channels"] == channels


def test_a_saved_model_takes_images_of_many_channels(tmp_path):
    tf = pytest.importorskip("tensorflow")
    encoder = encoders.resnet10((SIDE, SIDE, 13), width=4)
    export.save_encoder(encoder, tmp_path)
    images = bands(4, 13)[0]
    served = tf.saved_model.load(str(tmp_path / "encoder")).serve(images)
    expected = keras.ops.convert_to_numpy(encoder(images))
    np.testing.assert_allclose(np.asarray(served), expected, atol=1e-5)
    assert expected.shape == (4, 32) and expected.std() > 0


@pytest.mark.parametrize("name", encoders.ENCODERS)
def test_encoders_take_any_channels(name):
    cfg = config.make("pretrain", encoder=name, width=4, channels=13)
    made = start.architecture(cfg, SIDE)
    assert made.input_shape == (None, SIDE, SIDE, 13)


def test_keras_applications_have_three():
    cfg = config.make("pretrain", encoder="keras.applications:MobileNetV2", channels=4)
    with pytest.raises(ValueError, match="models of 3 channels; .* or --channels=3"):
        start.architecture(cfg, 32)


def test_other_images_than_the_encoder_takes_are_refused_in_a_sentence(tmp_path, capsys):
    export.save_encoder(encoders.resnet10((SIDE, SIDE, 4), width=2), tmp_path)
    np.savez(tmp_path / "x.npz", images=bands(6, 3)[0])
    flags = [f"--dataset=npz:{tmp_path / 'x.npz'}", f"--run_dir={tmp_path / 'out'}"]
    assert main(["embed", f"--encoder={tmp_path / 'encoder.keras'}", *flags]) != 0
    said = capsys.readouterr().err
    assert "[n, h, w, 4] with --channels=4" in said and "Traceback" not in said


@pytest.mark.parametrize("augment", ["host", "device"])
@pytest.mark.parametrize("channels", [1, 4])
def test_preview_draws_the_first_three_or_grey(channels, augment, tmp_path):
    images = np.full((4, SIDE, SIDE, channels), 80, "u1")
    images[..., 0] = 200
    np.savez(tmp_path / "x.npz", images=images)
    flags = ["--recipe=digits", f"--channels={channels}", f"--dataset=npz:{tmp_path / 'x.npz'}"]
    flags += [f"--augment={augment}", "--pairs=2", f"--output={tmp_path / 'views.png'}"]
    assert main(["preview", *flags]) == 0
    picture = np.asarray(Image.open(tmp_path / "views.png"))
    red, green, blue = picture[20, 20].tolist()
    assert picture.shape[2] == 3 and green == blue
    assert red == green if channels == 1 else red > green


def test_what_a_picture_shows_of_channels():
    images = np.arange(13, dtype="u1") * np.ones((1, 1, 1, 1), "u1")
    assert plots.shown(images[..., :1]).tolist() == [[[[0, 0, 0]]]]
    assert plots.shown(images[..., 1:3]).tolist() == [[[[1, 1, 1]]]]
    for channels in (3, 4, 13):
        assert plots.shown(images[..., :channels]).tolist() == [[[[0, 1, 2]]]]
