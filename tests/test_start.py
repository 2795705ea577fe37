"""Training starts from known weights: all of them, as they were trained, or a sentence."""

import inspect
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from simsiam_keras import (
    backbones,
    best,
    build,
    checkpoints,
    config,
    encoders,
    export,
    monitors,
    start,
    torch_weights,
)
from simsiam_keras.__main__ import main
from simsiam_keras.data import sources
from simsiam_keras.evaluation import knn
from tests.conftest import ROOT
from tests.test_backends import OTHERS, PYTHON

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (4, 16, 16, 3)).astype("float32")


def parsed(*flags):
    return config.parse("pretrain", ["--recipe=digits", "--width=4", *flags])


@pytest.fixture
def ours(tmp_path):
    """The folder of an encoder with weights that no initializer makes."""
    encoder = encoders.resnet10((16, 16, 3), stem="cifar", width=4)
    shaken(encoder)
    export.save_encoder(encoder, tmp_path / "ours")
    return tmp_path / "ours", encoder


def shaken(encoder):
    for variable in encoder.variables:
        noise = RANDOM.normal(0, 0.1, variable.shape)
        variable.assign(np.abs(keras.ops.convert_to_numpy(variable) + noise) + 0.05)


def features(encoder, images=IMAGES):
    return keras.ops.convert_to_numpy(encoder(images, training=False))


def started(*flags, size=16):
    cfg = parsed(*flags)
    encoder = start.architecture(cfg, size)
    said = start.load(cfg, encoder)
    return encoder, said


@pytest.mark.parametrize("name", ["", "encoder.keras"])
def test_an_encoder_of_ours_goes_on(ours, name):
    folder, encoder = ours
    made, said = started(f"--weights={folder / name}")
    np.testing.assert_allclose(features(made), features(encoder), rtol=1e-5)
    assert str(folder) in said
    at_random = start.architecture(parsed(f"--weights={folder}"), 16)
    assert np.abs(features(at_random) - features(encoder)).max() > 0.1


def test_it_goes_on_with_images_of_another_size(ours):
    folder, encoder = ours
    made, _ = started(f"--weights={folder}", size=24)
    expected = encoders.resnet10((24, 24, 3), stem="cifar", width=4)
    expected.set_weights(encoder.get_weights())
    larger = RANDOM.integers(0, 256, (2, 24, 24, 3)).astype("float32")
    np.testing.assert_allclose(features(made, larger), features(expected, larger), rtol=1e-5)
    assert made.input_shape == (None, 24, 24, 3)


def test_of_one_size_only_is_said(tmp_path):
    images = keras.Input((16, 16, 3))
    flat = keras.layers.Dense(4)(keras.layers.Flatten()(images))
    export.save_encoder(keras.Model(images, flat), tmp_path / "flat")
    with pytest.raises(ValueError, match="for images of 16 px alone; take --image_size=16"):
        start.architecture(parsed(f"--weights={tmp_path / 'flat'}"), 24)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_answer_as_before_where_all_are_alike(ours, channels):
    folder, encoder = ours
    made, _ = started(f"--weights={folder}", f"--channels={channels}")
    assert made.input_shape[-1] == channels
    kernel = keras.ops.convert_to_numpy(made.get_layer("stem_conv").kernel)
    old = keras.ops.convert_to_numpy(encoder.get_layer("stem_conv").kernel)
    patch = RANDOM.normal(0, 1, (3, 3))

    def answer(kernel):
        return [
            sum(
                patch[i, j] * kernel[i, j, c, f]
                for i in range(3)
                for j in range(3)
                for c in range(kernel.shape[2])
            )
            for f in range(kernel.shape[3])
        ]

    np.testing.assert_allclose(answer(kernel), answer(old), rtol=1e-4)
    repeated = np.repeat(old.mean(axis=2, keepdims=True), channels, axis=2)
    assert np.abs(np.subtract(answer(repeated), answer(old))).max() > 0.01


def test_grey_pictures_are_seen_as_they_were(ours):
    folder, encoder = ours
    grey = RANDOM.integers(0, 256, (4, 16, 16, 1)).astype("float32")
    made, _ = started(f"--weights={folder}", "--channels=1")
    norm = made.get_layer("normalization")
    for name, values in (("mean", encoders.MEAN), ("variance", np.square(encoders.STD))):
        found = keras.ops.convert_to_numpy(getattr(norm, name))
        np.testing.assert_allclose(found, np.mean(values), rtol=1e-6)
    close = features(encoder, np.repeat(grey, 3, -1))
    assert np.abs(features(made, grey) - close).mean() < 0.1 * np.abs(close).mean()


def test_other_encoders_keep_their_channels(tmp_path):
    export.save_encoder(encoders.application("MobileNetV3Small", (32, 32, 3)), tmp_path / "e")
    with pytest.raises(ValueError, match="is for images of 3 channels; take --channels=3"):
        start.architecture(parsed(f"--weights={tmp_path / 'e'}", "--channels=1"), 32)


def test_weights_alone_want_their_architecture(ours, tmp_path):
    _, encoder = ours
    path = tmp_path / "x.weights.h5"
    encoder.save_weights(path)
    made, _ = started(f"--weights={path}", "--encoder=resnet10")
    np.testing.assert_allclose(features(made), features(encoder), rtol=1e-5)
    with pytest.raises(ValueError, match="without their architecture; name it by --encoder"):
        start.architecture(parsed(f"--weights={path}"), 16)


@pytest.mark.parametrize("other", ["--encoder=resnet18", "--encoder=resnet10 --stem=imagenet"])
@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_of_another_architecture_nothing_is_loaded(ours, tmp_path, other, kind):
    folder, encoder = ours
    path = folder / "encoder.keras"
    if kind == "h5":
        path = tmp_path / "x.weights.h5"
        encoder.save_weights(path)
    cfg = parsed(f"--weights={path}", *other.split())
    made = start.architecture(cfg, 16)
    before = made.get_weights()
    with pytest.raises(ValueError, match="--encoder, --stem and --width"):
        start.load(cfg, made)
    for a, b in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist; give a run folder"),
        (lambda path: path.mkdir(), "holds no encoder.keras; give the folder of a run"),
        (lambda path: path.write_text("x"), "holds no weights of PyTorch: give"),
    ],
)
def test_what_holds_no_weights_is_said(tmp_path, make, said):
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(ValueError, match=said):
        start.architecture(parsed(f"--weights={path}"), 16)


@pytest.mark.parametrize("channels", [3, 1])
def test_weights_of_pytorch_bring_their_architecture(tmp_path, channels):
    numpy = pytest.importorskip("safetensors.numpy", reason="needs requirements-weights.txt")
    encoder = encoders.resnet18((None, None, 3), stem="cifar")
    arrays = {}
    for name, variable in torch_weights._slots(encoder).items():
        value = RANDOM.uniform(0.01, 0.1, variable.shape).astype("float32")
        variable.assign(value)
        arrays[f"backbone.{name}"] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    path = tmp_path / "x.safetensors"
    numpy.save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    made, said = started(f"--weights={path}", f"--channels={channels}")
    kernel = keras.ops.convert_to_numpy(made.get_layer("stem_conv").kernel)
    theirs = keras.ops.convert_to_numpy(encoder.get_layer("stem_conv").kernel)
    np.testing.assert_allclose(kernel.sum(axis=2), theirs.sum(axis=2), rtol=1e-5)
    for mine, other in zip(made.weights[1:], encoder.weights[1:], strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine, other)))
    assert ("spread over 1" in said) == (channels == 1)


def test_of_an_unfinished_run_the_remedy_is_said(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "epoch_00001.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="has not finished .* `export --run_dir="):
        start.architecture(parsed(f"--weights={tmp_path}"), 16)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--weights=imagenet", "--encoder=resnet50"], "is for --encoder=keras.applications:NAME"),
        (["--weights=imagenet"], "is for --encoder=keras.applications:NAME"),
        (["--freeze_encoder_epochs=3", "--epochs=3"], "must be below --epochs"),
    ],
)
def test_flags_that_contradict_are_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        parsed(*flags)


def test_the_best_epoch_is_kept_where_weights_are_known(ours):
    folder, _ = ours
    assert (parsed().keep, parsed().encoder) == ("last", "resnet18")
    assert parsed(f"--weights={folder}").keep == "best"
    assert parsed(f"--weights={folder}", "--keep=last").keep == "last"
    assert parsed("--encoder=keras_hub:x").keep == "best"
    assert parsed("--encoder=keras_hub:x", "--weights=none").keep == "last"


FAMILIES = ["ResNet50", "VGG16", "MobileNet", "DenseNet121", "Xception", "NASNetMobile"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_sees_images_as_it_was_trained_on_them(name):
    constructor = getattr(keras.applications, name)
    expected = inspect.getmodule(constructor).preprocess_input(IMAGES.copy())
    inputs = keras.Input((16, 16, 3))
    seen = keras.Model(inputs, backbones._as_trained(inputs, constructor))(IMAGES)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(seen), expected, atol=1e-4)
    assert np.abs(expected - (IMAGES - 100) / 50).max() > 0.1


def test_an_encoder_of_keras_applications_is_stored_with_its_preprocessing(tmp_path):
    encoder = encoders.application("ResNet50", (32, 32, 3))  # BGR, by a flip
    export.save_encoder(encoder, tmp_path / "e")
    images = RANDOM.integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    loaded = export.load_encoder(tmp_path / "e" / "encoder.keras")
    np.testing.assert_allclose(loaded(images), features(encoder, images), rtol=1e-4, atol=1e-4)


def test_weights_that_cannot_be_downloaded_are_one_sentence(monkeypatch, tmp_path):
    def refused(*arguments, **more):
        raise OSError("no route to host")

    # What Keras opens a URL by; nothing here may depend on a network.
    monkeypatch.setattr("urllib.request.urlopen", refused)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="weights of keras.applications:MobileNetV2 cannot be had"):
        encoders.application("MobileNetV2", (96, 96, 3), "imagenet")


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A local preset of a small ResNet, with its converter of images."""
    keras_hub = pytest.importorskip("keras_hub", reason="needs requirements-weights.txt")
    folder = str(tmp_path_factory.mktemp("preset"))
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    backbone.save_to_preset(folder)
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(32, 32), scale=[0.02, 0.03, 0.04], offset=[-1.0, -2.0, -3.0]
    )
    converter.save_to_preset(folder)
    return folder, backbone


def test_a_preset_is_what_kerashub_computes(preset, tmp_path):
    folder, backbone = preset
    made, said = started(f"--encoder=keras_hub:{folder}")
    scaled = IMAGES * [0.02, 0.03, 0.04] - [1.0, 2.0, 3.0]
    expected = keras.ops.convert_to_numpy(backbone(scaled, training=False)).mean(axis=(1, 2))
    np.testing.assert_allclose(features(made), expected, rtol=1e-4, atol=1e-5)
    unscaled = keras.ops.convert_to_numpy(backbone(IMAGES, training=False)).mean(axis=(1, 2))
    assert np.abs(unscaled - expected).max() > 0.1
    assert folder in said
    export.save_encoder(made, tmp_path / "e")  # of stock layers
    loaded = export.load_encoder(tmp_path / "e" / "encoder.keras")
    np.testing.assert_allclose(loaded(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_a_preset_is_exported_as_it_is(preset, tmp_path):
    folder, _ = preset
    flags = [f"--encoder=keras_hub:{folder}", "--image_size=16", f"--output={tmp_path / 'out'}"]
    assert main(["export", *flags]) == 0
    loaded = export.load_encoder(tmp_path / "out" / "encoder.keras")
    expected, _ = started(f"--encoder=keras_hub:{folder}")
    np.testing.assert_allclose(loaded(IMAGES), features(expected), rtol=1e-4, atol=1e-5)


def test_a_preset_can_be_left_at_random(preset):
    folder, _ = preset
    cfg = parsed(f"--encoder=keras_hub:{folder}", "--weights=none")
    assert not cfg.known
    expected, _ = started(f"--encoder=keras_hub:{folder}")
    at_random = start.architecture(cfg, 16)
    assert np.abs(features(at_random) - features(expected)).max() > 1e-3


def test_a_transformers_class_token_is_its_feature(tmp_path):
    keras_hub = pytest.importorskip("keras_hub", reason="needs requirements-weights.txt")
    backbone = keras_hub.models.DINOV2Backbone(
        patch_size=8,
        num_layers=1,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=32,
        image_shape=(16, 16, 3),
        position_embedding_shape=(16, 16),
    )
    backbone.save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="image_converter.json"):
        encoders.hub(str(tmp_path), (16, 16, 3))
    keras_hub.layers.DINOV2ImageConverter(image_size=(16, 16), scale=1 / 255).save_to_preset(
        str(tmp_path)
    )
    made = encoders.hub(str(tmp_path), (16, 16, 3))
    tokens = keras.ops.convert_to_numpy(backbone(IMAGES / 255, training=False))
    np.testing.assert_allclose(features(made), tokens[:, 0], rtol=1e-3, atol=1e-4)
    assert np.abs(tokens.mean(axis=1) - tokens[:, 0]).max() > 0.1
    larger = encoders.hub(str(tmp_path), (32, 32, 3))
    assert features(larger, np.repeat(np.repeat(IMAGES, 2, 1), 2, 2)).shape == (4, 16)


def test_a_preset_that_is_not_there_is_one_sentence(tmp_path):
    pytest.importorskip("keras_hub", reason="needs requirements-weights.txt")
    with pytest.raises(ValueError, match="cannot be had .* give a local copy"):
        encoders.hub(str(tmp_path / "none"), (16, 16, 3))


def test_without_kerashub_its_requirement_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match="pip install -r requirements-weights.txt"):
        encoders.hub("resnet_18_imagenet", (16, 16, 3))


FEW = ["--recipe=digits", "--width=4", "--output_dim=8", "--predictor_hidden=4", "--knn_every=1"]


def trained(tmp_path, *flags):
    run_dir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
    assert main(["pretrain", *FEW, *flags, f"--run_dir={run_dir}"]) == 0
    return run_dir, json.loads((run_dir / "result.json").read_text())


@pytest.mark.slow
def test_a_run_goes_on_from_another_and_says_where_it_began(ours, tmp_path, capsys):
    folder, encoder = ours
    flags = [f"--weights={folder}", "--epochs=1", "--base_lr=0", "--image_size=16"]
    run_dir, result = trained(tmp_path, *flags, "--encoder_batch_norm=frozen")
    images = RANDOM.integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    for name in ("start.keras", "encoder.keras"):  # at a rate of 0 and with frozen statistics
        kept = keras.saving.load_model(run_dir / name)
        np.testing.assert_allclose(features(kept, images), features(encoder, images), rtol=1e-4)
    assert result["knn_accuracy"] == result["knn_accuracy_start"]
    assert result["knn_accuracy_start"] != result["knn_accuracy_random_init"]
    row = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])
    assert row["knn_accuracy"] == result["knn_accuracy_start"]
    assert row["knn_accuracy_random_init"] == result["knn_accuracy_random_init"]
    assert row["knn_queries"] == 360
    assert "of the weights it started from" in result["verdict"]
    assert f"Starts from the weights of {folder}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_training_that_harms_leaves_the_start(tmp_path):
    """With --keep=best the encoder is never worse, on a part of the bank, than it was."""
    folder, encoder = tmp_path / "start", encoders.resnet10((16, 16, 3), stem="cifar", width=4)
    export.save_encoder(encoder, folder)
    flags = [f"--weights={folder}", "--epochs=2", "--image_size=16"]
    harm = ["--base_lr=30", "--warmup_epochs=0"]
    run_dir, result = trained(tmp_path, *flags, *harm)
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    chosen = [row["knn_of_the_bank"] for row in rows]
    assert chosen[0] > max(chosen[1:]) and result["kept_epoch"] == 0
    assert result["knn_accuracy"] == rows[0]["knn_accuracy"]
    images = RANDOM.integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    loaded = export.load_encoder(run_dir / "encoder.keras")
    np.testing.assert_allclose(loaded(images), features(encoder, images), rtol=1e-4)
    last, result = trained(tmp_path, *flags, *harm, "--keep=last")
    assert result["knn_accuracy"] == result["knn_accuracy_last"]
    assert np.abs(export.load_encoder(last / "encoder.keras")(images) - loaded(images)).max() > 0.1


@pytest.mark.slow
def test_an_epoch_is_looked_at_before_its_checkpoint(ours, tmp_path, monkeypatch):
    """A run that goes on after the checkpoint would never look at it again."""
    order, look, save = [], best.Keeper.look, checkpoints.save

    def looked(self, encoder, row):
        order.append(("best", row["epoch"]))
        look(self, encoder, row)

    def saved(run_dir, model, position, **more):
        order.append(("checkpoint", position.epoch))
        return save(run_dir, model, position, **more)

    monkeypatch.setattr(best.Keeper, "look", looked)
    monkeypatch.setattr(checkpoints, "save", saved)
    trained(tmp_path, f"--weights={ours[0]}", "--image_size=16", "--epochs=2")
    expected = [("best", 0), ("best", 1), ("checkpoint", 1), ("best", 2), ("checkpoint", 2)]
    assert order == expected


@pytest.mark.slow
def test_other_weights_are_another_run(ours, tmp_path, capsys):
    folder, encoder = ours
    flags = ["pretrain", *FEW, f"--weights={folder}", "--image_size=16", "--epochs=2"]
    run_dir = tmp_path / "run"
    from simsiam_keras import runs, train

    cfg = config.parse("pretrain", [*flags[1:], f"--run_dir={run_dir}"])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "_finish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
        from simsiam_keras import commands

        commands.pretrain(cfg)
    del runs
    shaken(encoder)
    export.save_encoder(encoder, folder)
    capsys.readouterr()
    assert main([*flags, f"--run_dir={run_dir}"]) == 2
    assert "--weights=" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_run_names_the_way_on(ours, tmp_path, capsys):
    folder, _ = ours
    flags = [f"--weights={folder}", "--image_size=16"]
    run_dir, _ = trained(tmp_path, *flags, "--epochs=1")
    capsys.readouterr()
    assert main(["pretrain", *FEW, *flags, "--epochs=2", f"--run_dir={run_dir}"]) == 2
    assert f"add --weights={run_dir}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_export_writes_the_encoder_of_a_run_from_known_weights(ours, tmp_path):
    folder, _ = ours
    run_dir, _ = trained(tmp_path, f"--weights={folder}", "--image_size=16", "--epochs=1")
    assert main(["export", f"--run_dir={run_dir}", f"--output={tmp_path / 'out'}"]) == 0
    assert export.load_encoder(tmp_path / "out" / "encoder.keras").image_size == 16


def test_known_weights_are_exported_as_they_are(ours, tmp_path, capsys):
    folder, encoder = ours
    out = ["export", f"--output={tmp_path / 'out'}"]
    assert main([*out, f"--weights={folder}", "--image_size=24", "--eval_crop=0.9"]) == 0
    loaded = export.load_encoder(tmp_path / "out" / "encoder.keras")
    assert (loaded.image_size, loaded.eval_crop) == (24, 0.9)
    images = RANDOM.integers(0, 256, (2, 24, 24, 3)).astype("uint8")
    expected = encoders.resnet10((24, 24, 3), stem="cifar", width=4)
    expected.set_weights(encoder.get_weights())
    np.testing.assert_allclose(loaded(images), features(expected, images), rtol=1e-4)
    assert main(out) == 2
    assert "--run_dir or the --weights of an encoder" in capsys.readouterr().err


def model_of(*flags):
    keras.utils.set_random_seed(0)
    cfg = parsed("--output_dim=8", "--predictor_hidden=4", "--epochs=4", *flags)
    recipe = build.recipe(cfg)
    return cfg, build.model(cfg, recipe, steps=2, say=lambda sentence: None)[0]


def views(model, n=8):
    side = model.encoder.input_shape[1] or 16
    random = np.random.default_rng(1)
    return tuple(random.integers(0, 256, (n, side, side, 3)).astype("uint8") for _ in range(2))


def moved(model, flags_cfg=None):
    """How far one step moves the encoder's and the other trained weights."""
    before = [[keras.ops.convert_to_numpy(v) for v in part] for part in parts(model)]
    model.train_on_batch(views(model))
    return [
        np.concatenate([(keras.ops.convert_to_numpy(v) - b).ravel() for v, b in pairs])
        for pairs in (
            list(zip(part, old, strict=True))
            for part, old in zip(parts(model), before, strict=True)
        )
    ]


def parts(model):
    mine = {id(v) for v in model.encoder.trainable_variables}
    rest = [v for v in model.trainable_variables if id(v) not in mine]
    return model.encoder.trainable_variables, rest


def test_the_encoders_rate_is_a_share_of_the_heads(ours):
    folder, _ = ours
    whole, part = (
        moved(model_of(f"--weights={folder}", "--base_lr=1", scale)[1])
        for scale in ("--encoder_lr_scale=1", "--encoder_lr_scale=0.25")
    )
    assert np.abs(whole[0]).max() > 1e-6
    np.testing.assert_allclose(part[0], 0.25 * whole[0], rtol=1e-2, atol=1e-6)
    assert not np.allclose(part[0], whole[0], rtol=1e-2, atol=1e-6)


def test_a_frozen_encoder_is_left_alone_while_its_heads_learn(ours):
    folder, _ = ours
    _, model = model_of(f"--weights={folder}", "--freeze_encoder_epochs=1", "--base_lr=1")
    model.encoder_frozen = True
    encoder, heads = moved(model)
    assert np.abs(encoder).max() == 0 and np.abs(heads).max() > 1e-6
    model.train_on_batch(views(model))
    model.encoder_frozen, model.train_function = False, None  # step 2, the first of epoch 2
    encoder, heads = moved(model)
    assert np.abs(encoder).max() > 1e-6 and np.abs(heads).max() > 1e-6


FREEZE = """
import numpy as np, keras
from simsiam_keras import build, config
flags = ["--recipe=digits", "--width=4", "--encoder=resnet10", "--output_dim=8", "--epochs=3",
         "--predictor_hidden=4", "--freeze_encoder_epochs=1", "--base_lr=1"]
cfg = config.parse("pretrain", flags)
model, _ = build.model(cfg, build.recipe(cfg), steps=2)
views = tuple(np.random.default_rng(i).integers(0, 256, (8, 16, 16, 3)).astype("uint8")
              for i in range(2))
def moved():
    kernel = model.encoder.get_layer("stem_conv").kernel
    before = keras.ops.convert_to_numpy(kernel).copy()
    model.train_on_batch(views)
    return bool(np.abs(keras.ops.convert_to_numpy(kernel) - before).max() > 1e-6)
model.encoder_frozen = True
found = [moved(), moved()]
model.encoder_frozen, model.train_function = False, None
print(found + [moved()])
"""


@pytest.mark.parametrize("backend", OTHERS)
def test_the_other_backends_leave_a_frozen_encoder_alone(backend):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [PYTHON[backend], "-c", FREEZE], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip().endswith("[False, False, True]"), done.stderr


def test_frozen_batch_normalization_keeps_its_statistics(ours):
    folder, _ = ours
    for flag, kept in (("frozen", True), ("trained", False)):
        _, model = model_of(f"--weights={folder}", f"--encoder_batch_norm={flag}")
        norm = model.encoder.get_layer("stem_norm")
        before = [keras.ops.convert_to_numpy(v) for v in norm.variables]
        model.train_on_batch(views(model))
        after = [keras.ops.convert_to_numpy(v) for v in norm.variables]
        assert all(map(np.array_equal, before, after)) == kept


def test_the_start_is_left_unless_an_epoch_exceeds_its_noise(tmp_path):
    """Of 400 images one standard error of 0.8 is 0.02."""
    encoder = encoders.resnet10((16, 16, 3), stem="cifar", width=4)
    for values, kept in (((0.8, 0.815, 0.81), 0), ((0.8, 0.83, 0.825), 1), ((0.8, 0.79, 0.84), 2)):
        rows = []
        keeper = best.Keeper(tmp_path, rows, -1, images=400)
        for epoch, value in enumerate(values):
            rows.append({"epoch": epoch, "knn_of_the_bank": value, "knn_accuracy": 1 - value})
            keeper.look(encoder, rows[-1])
        assert best.restore(tmp_path, encoder) == kept


def test_epochs_are_chosen_by_all_of_a_small_bank_and_by_no_query():
    labels = np.arange(100) % 4
    features = np.eye(4)[labels] + RANDOM.normal(0, 0.5, (100, 4))
    bank = sources.ArraySource("a", np.zeros((100, 2, 2, 3), "uint8"), labels)
    probe = monitors.Probe(bank, bank, "test", 5, 0.1)
    right = 0
    for kept, rest in monitors._parts(labels):
        predicted = knn.knn_predict(features[kept], labels[kept], features[rest], 5, 0.1)
        right += (predicted == labels[rest]).sum()
        assert not set(kept) & set(rest)
    assert monitors.choosing(probe) == 100
    assert monitors._choice(features, labels, probe) == {"knn_of_the_bank": right / 100}
    assert 0.3 < right / 100 < 1


def test_a_large_bank_chooses_by_a_part_of_it(monkeypatch):
    monkeypatch.setattr(monitors, "CHOSEN_BY", 30)
    assert [len(rest) for _, rest in monitors._parts(np.arange(100) % 4)] == [20, 20]
