"""An encoder on disk: what is written, what is taken back, and what is refused in a sentence."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

import simsiam_keras as ss
from simsiam_keras import export
from simsiam_keras.__main__ import main
from tests.tiny import noise, pixels

L = keras.layers
X = pixels(3, 16, 16, 3)


def model(*layers, shape=(16, 16, 3)):
    """Layers, and the average over space."""
    return keras.Sequential([keras.Input(shape), *layers, L.GlobalAveragePooling2D()])


def small():
    return model(L.Rescaling(1 / 255), L.Conv2D(5, 3))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    export.save_encoder(small(), folder, eval_crop=0.75)
    return folder


@pytest.fixture
def saved(original, tmp_path):
    """A folder with an encoder, to be changed."""
    return shutil.copytree(original, tmp_path / "saved")


def embed(path, tmp_path, *flags):
    """The exit code of a command that reads an encoder."""
    folder = f"--run_dir={tmp_path / 'embedded'}"
    return main(["embed", f"--encoder={path}", "--split=test", folder, *flags])


def listing(folder):
    """{path: content} of all files below a folder, and the target of each link."""
    return {
        path.relative_to(folder).as_posix(): path.readlink()
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in Path(folder).rglob("*")
    }


def card_of(folder, **changes):
    """Changes the card; None takes a key away."""
    path = folder / "encoder.json"
    card = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in card.items() if v is not None}))


# What is written


def test_the_saved_model_is_served_in_one_line(saved):
    import tensorflow as tf

    expected = keras.saving.load_model(saved / "encoder.keras").predict(X, verbose=0)
    path = str(saved / "encoder")
    for x in (X, X.astype("float32"), X[:1]):
        features = tf.saved_model.load(path).serve(x)
        np.testing.assert_allclose(features, expected[: len(x)], atol=1e-5)
    served = tf.saved_model.load(path).signatures["serving_default"](tf.constant(X))
    np.testing.assert_allclose(served["features"], expected, atol=1e-5)


def test_the_card_has_digests_that_sha256sum_repeats(saved):
    digests = json.loads((saved / "encoder.json").read_text())["digest"]
    file = hashlib.sha256((saved / "encoder.keras").read_bytes()).hexdigest()
    line = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    done = subprocess.run(line, shell=True, cwd=saved / "encoder", capture_output=True, text=True)
    assert digests == {
        "encoder": f"sha256:{done.stdout.split()[0]}",
        "encoder.keras": f"sha256:{file}",
    }


@pytest.mark.parametrize("name", ["encoder", "encoder.keras"])
def test_an_encoder_comes_back(saved, name, monkeypatch):
    monkeypatch.chdir(saved / "encoder")
    for path in (saved / name, {"encoder": "."}.get(name, f"../{name}")):
        encoder = export.load_encoder(path)
        assert (encoder.image_size, encoder.dim, encoder.eval_crop) == (16, 5, 0.75)
        assert encoder(X).shape == (3, 5) and encoder(X).dtype == np.float32


def test_an_encoder_may_be_renamed_with_its_card(saved):
    (saved / "encoder").rename(saved / "other")
    (saved / "encoder.keras").rename(saved / "other.keras")
    for name in ("other", "other.keras"):
        assert export.load_encoder(saved / name).eval_crop == 0.75


def test_a_card_says_nothing_of_another_file(saved):
    small().save(saved / "another.keras")
    assert export.load_encoder(saved / "another.keras").eval_crop == 1.0


def test_an_encoder_is_replaced(saved):
    before = listing(saved)
    export.save_encoder(small(), saved)
    after = listing(saved)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in ("encoder.json", "encoder.keras"))
    assert export.load_encoder(saved / "encoder").eval_crop == 1.0


@pytest.mark.parametrize("name", ["encoder", "encoder.keras", "encoder.json"])
@pytest.mark.parametrize("beside", [False, True])
def test_nothing_is_deleted_that_is_not_an_encoder_of_ours(name, beside, original, tmp_path):
    folder = tmp_path / "folder"
    if beside:  # the card knows another encoder
        shutil.copytree(original, folder)
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(exist_ok=True)
    if name == "encoder":
        (folder / name).mkdir()
        (folder / name / "diary.txt").write_text("mine")
    else:
        (folder / name).write_text("mine")
    before = listing(folder)
    with pytest.raises(ValueError, match=name):
        export.save_encoder(small(), folder)
    assert listing(folder) == before


def test_a_link_is_not_followed_when_an_encoder_is_replaced(saved, tmp_path):
    (saved / "encoder").rename(tmp_path / "elsewhere")
    (saved / "encoder").symlink_to(tmp_path / "elsewhere")
    before = listing(tmp_path / "elsewhere")
    export.save_encoder(small(), saved)
    assert listing(tmp_path / "elsewhere") == before
    assert not (saved / "encoder").is_symlink()
    shutil.rmtree(saved / "encoder")
    (saved / "encoder").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="would be replaced"):
        export.save_encoder(small(), saved)


def test_a_file_is_no_folder_to_write_to(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="which is a file"):
        export.save_encoder(small(), tmp_path / "file")


def test_a_method_exports_its_encoder(tmp_path):
    import tensorflow as tf

    encoder = ss.encoders.resnet10((16, 16, 3), width=4)
    method = ss.SimSiam(encoder, ss.heads.projector(8), ss.heads.predictor(4))
    method.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    x = noise(16)
    np.testing.assert_allclose(exported.serve(x), method.predict(x, verbose=0), atol=1e-5)


# What is taken


def program(path, secret, target):
    """A SavedModel like an encoder's, that copies a file when it is loaded and when called."""
    import tensorflow as tf

    def copy(name):
        tf.io.write_file(f"{target}{name}", tf.io.read_file(str(secret)))

    class Start(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[])

        def _initialize(self):
            copy("_loaded")

    module = tf.Module()
    module.start = Start()
    module.start.resource_handle  # noqa: B018

    @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.uint8, name="images")])
    def serve(images):
        copy("_called")
        return tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])

    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    for copied in target.parent.glob(f"{target.name}_*"):
        copied.unlink()  # made while it was written


@pytest.mark.parametrize("card", ["none", "of another", "without digest"])
def test_a_program_runs_only_for_those_who_trust_it(card, saved, tmp_path, capfd):
    (tmp_path / "secret").write_text("secret")
    copies = [tmp_path / "copy_loaded", tmp_path / "copy_called"]
    shutil.rmtree(saved / "encoder")
    program(saved / "encoder", tmp_path / "secret", tmp_path / "copy")
    if card == "none":
        (saved / "encoder.json").unlink()
    if card == "without digest":
        card_of(saved, digest=None)
    assert embed(saved / "encoder", tmp_path) == 2
    error = capfd.readouterr().err
    assert "--trust_encoder" in error and ".keras" in error and error.count("\n") == 1
    assert not any(copy.exists() for copy in copies)
    assert not (tmp_path / "embedded").exists()
    assert embed(saved / "encoder", tmp_path, "--trust_encoder") == 0
    assert [copy.read_text() for copy in copies] == ["secret"] * 2


@pytest.mark.parametrize("name", ["encoder", "encoder.keras"])
def test_an_encoder_that_was_changed_is_refused(name, saved):
    path = saved / name
    changed = path / "saved_model.pb" if path.is_dir() else path
    with open(changed, "ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match=f"{name} .*--trust_encoder"):
        export.load_encoder(path)


def test_a_file_that_is_added_to_a_saved_model_is_seen(saved):
    (saved / "encoder" / "assets" / "more").write_text("more")
    with pytest.raises(ValueError, match="another digest"):
        export.load_encoder(saved / "encoder")


@pytest.mark.parametrize("name, word", [("encoder", "earlier version"), ("encoder.keras", None)])
def test_an_encoder_of_an_earlier_version(name, word, saved):
    card_of(saved, digest=None)
    if word:
        with pytest.raises(ValueError, match=f"{word}.*keras file.*--trust_encoder"):
            export.load_encoder(saved / name)
    assert export.load_encoder(saved / name, trust=True).eval_crop == 0.75
    assert export.load_encoder(saved / "encoder.keras").eval_crop == 0.75


def test_a_keras_file_with_code_runs_only_for_those_who_trust_it(tmp_path):
    path = tmp_path / "lambda.keras"
    model(L.Lambda(lambda x: x + 1)).save(path)
    with pytest.raises(ValueError, match="lambda.keras .*Lambda.*--trust_encoder"):
        export.load_encoder(path)
    expected = X.mean((1, 2)) + 1
    np.testing.assert_allclose(export.load_encoder(path, trust=True)(X), expected, rtol=1e-5)


# What is damaged, and what does not fit

DAMAGED_CARDS = {
    "empty": "",
    "cut": '{"image_shape": [16, 16',
    "not text": b"\xff\xfe\x00",
    "a list": "[]",
    "deep": "[" * 100_000,
    "no keys": "{}",
    "a string for a share": {"eval_crop": "0.9"},
    "a share above 1": {"eval_crop": 7},
    "NaN": {"eval_crop": float("nan")},
    "true": {"eval_crop": True},
    "a shape of two": {"image_shape": [16, 16]},
    "a width of text": {"features": "5"},
    "a digest of text": {"digest": "sha256"},
    "a digest of numbers": {"digest": {"encoder": 1}},
}


@pytest.mark.parametrize("content", DAMAGED_CARDS.values(), ids=DAMAGED_CARDS)
def test_a_damaged_card_is_named(content, saved):
    if isinstance(content, dict):
        card_of(saved, **content)
    else:
        raw = content if isinstance(content, bytes) else content.encode()
        (saved / "encoder.json").write_bytes(raw)
    with pytest.raises(ValueError, match="encoder.json is damaged"):
        export.load_encoder(saved / "encoder.keras")


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("change", [half, lambda path: path.write_text("no archive")])
def test_a_damaged_keras_file_is_named(change, saved, tmp_path, capfd):
    path = saved / "encoder.keras"
    (saved / "encoder.json").unlink()  # else the digest is what differs
    change(path)
    assert embed(path, tmp_path) == 2
    error = capfd.readouterr().err
    assert "encoder.keras cannot be read" in error and error.count("\n") == 1
    assert not (tmp_path / "embedded").exists()


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_damaged_saved_model_is_named(name, saved):
    half(saved / "encoder" / name)
    with pytest.raises(ValueError, match="encoder cannot be read"):
        export.load_encoder(saved / "encoder", trust=True)


def with_two_outputs():
    images = keras.Input((16, 16, 3))
    return keras.Model(images, [L.GlobalAveragePooling2D()(images), L.Flatten()(images)])


def with_two_inputs():
    images = [keras.Input((16, 16, 3)), keras.Input((16, 16, 3))]
    return keras.Model(images, L.GlobalAveragePooling2D()(L.Add()(images)))


def method():
    encoder = ss.encoders.resnet10((16, 16, 3), width=4)
    return ss.SimSiam(encoder, ss.heads.projector(8), ss.heads.predictor(4))


UNFIT = {
    "two outputs": with_two_outputs,
    "two inputs": with_two_inputs,
    "not pooled": lambda: keras.Sequential([keras.Input((16, 16, 3)), L.Conv2D(2, 3)]),
    "not square": lambda: model(shape=(16, 12, 3)),
    "of any size": lambda: model(shape=(None, None, 3)),
    "of any channels": lambda: model(shape=(16, 16, None)),
    "vectors": lambda: keras.Sequential([keras.Input((16,)), L.Dense(2)]),
    "no input": lambda: keras.Sequential([L.Flatten()]),
    "a method": method,
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_a_model_that_is_no_encoder_is_refused(make, tmp_path):
    path = tmp_path / "model.keras"
    make().save(path)
    with pytest.raises(
        ValueError, match=r"model.keras must take one input \[n, side, side, channels\]"
    ):
        export.load_encoder(path)


@pytest.mark.parametrize("kind", ["two outputs", "not pooled", "not square", "of any size"])
def test_a_saved_model_that_is_no_encoder_is_refused(kind, tmp_path):
    UNFIT[kind]().export(tmp_path / "model", verbose=False)
    with pytest.raises(ValueError, match="model must take one input"):
        export.load_encoder(tmp_path / "model", trust=True)


def test_a_saved_model_without_an_endpoint_is_refused(tmp_path):
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path / "model"))
    with pytest.raises(ValueError, match="model has no endpoint `serve`"):
        export.load_encoder(tmp_path / "model", trust=True)


def test_what_keras_exports_is_read_when_trusted(tmp_path):
    encoder = small()
    encoder.export(tmp_path / "model", verbose=False)
    found = export.load_encoder(tmp_path / "model", trust=True)(X)
    np.testing.assert_allclose(found, encoder.predict(X, verbose=0), atol=1e-5)


@pytest.mark.parametrize("name", ["encoder", "encoder.keras"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(name, value, tmp_path, capfd):
    encoder = small()
    encoder.weights[-1].assign([0, 0, value, 0, 0])
    export.save_encoder(encoder, tmp_path)
    assert embed(tmp_path / name, tmp_path) == 2
    error = capfd.readouterr().err
    assert f"{name} has weights that are NaN or infinite" in error and error.count("\n") == 1


def overflowing():
    """An encoder of finite weights, of which one white image is too much."""
    encoder = model(L.Conv2D(2, 1, use_bias=False), L.Conv2D(1, 1, use_bias=False))
    encoder.set_weights([np.full((1, 1, 3, 2), 3e36), np.full((1, 1, 2, 1), 1.0)])
    return encoder


@pytest.mark.parametrize("command", ["embed", "knn", "linear-probe"])
def test_features_that_are_not_finite_are_refused(command, tmp_path, capfd):
    overflowing().save(tmp_path / "e.keras")
    images = np.zeros((7, 16, 16, 3), "uint8")
    images[5] = 255
    arrays = {"images": images, "labels": np.arange(7) % 2}
    splits = ("train", "test")
    np.savez(tmp_path / "i.npz", **{f"{s}_{k}": v for s in splits for k, v in arrays.items()})
    flags = [f"--encoder={tmp_path / 'e.keras'}", f"--dataset=npz:{tmp_path / 'i.npz'}"]
    assert main([command, *flags, "--batch_size=2", f"--run_dir={tmp_path / 'run'}"]) == 2
    error = capfd.readouterr().err
    assert "features must be finite" in error and "the first of them 5" in error
    assert (
        error.count("simsiam_keras: ") == 1 and "Traceback" not in error
    )  # after the data's lines
    assert not (tmp_path / "run" / "features.npy").exists()


def test_features_of_another_shape_are_refused():
    encoder = export.LoadedEncoder(16, 1.0, 5, "e.keras", lambda images: np.zeros((1, 5)))
    with pytest.raises(ValueError, match="e.keras must give 5 features for each image"):
        encoder(X)
