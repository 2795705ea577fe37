"""`export` in every format: by its own runtime what Keras computes, or nothing at all."""

import json
import shutil

import keras
import numpy as np
import pytest

from simsiam_keras import cards, export
from simsiam_keras.__main__ import main
from simsiam_keras.formats import litert, onnx, openvino
from simsiam_keras.formats.forms import Form
from simsiam_keras.formats.job import TOLERANCE, Job, check
from tests.formats.conftest import CROP, SIZE
from tests.test_export import listing
from tests.tiny import pixels

for package in ("onnx", "onnxruntime", "tf2onnx", "openvino", "ai_edge_litert"):
    pytest.importorskip(package)

EVERY = "keras,saved_model,onnx,litert,openvino"
OPENED = {
    "onnx": ("encoder{}.onnx", onnx.opened),
    "litert": ("encoder{}.tflite", litert.opened),
    "openvino": ("encoder{}_openvino", openvino.opened),
}


def call(tiny, out, *flags):
    return main(["export", f"--encoder={tiny / 'encoder.keras'}", f"--output={out}", *flags])


@pytest.fixture(scope="module")
def every(tiny, tmp_path_factory):
    """A folder with everything, of images of one size and of any."""
    out = tmp_path_factory.mktemp("every") / "new"
    assert call(tiny, out, f"--format={EVERY}", "--license=apache-2.0") == 0
    assert call(tiny, out, f"--format={EVERY}", "--with_preprocessing") == 0
    return out


@pytest.fixture(scope="module")
def encoder(tiny):
    return export.load_encoder(tiny / "encoder.keras")


def same(found, expected):
    """Within a ten-thousandth of the largest feature."""
    assert found.shape == expected.shape and found.dtype == np.float32
    return np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("format", OPENED)
def test_a_file_computes_what_the_encoder_does(format, every, encoder):
    name, opened = OPENED[format]
    encode = opened(every / name.format(""))
    for n in (1, 3, 7, 1):
        images = pixels(n, SIZE, SIZE, 3, seed=n)
        expected = encoder(images)
        assert same(encode(images), expected)
        # What would be another encoder: channels or rows turned round, values in [0, 1].
        assert not same(encode(np.ascontiguousarray(images[..., ::-1])), expected)
        assert not same(encode(np.ascontiguousarray(images[:, ::-1])), expected)
        assert not same(encode(images // 255), expected)


@pytest.mark.parametrize("format", OPENED)
@pytest.mark.parametrize("height, width", [(50, 37), (16, 16), (9, 31), (18, 40)])
def test_a_file_for_any_size_resizes_as_evaluation(format, height, width, every, encoder):
    name, opened = OPENED[format]
    job = Job(encoder.model, CROP)
    encode = opened(every / name.format("_any_size"))
    for n in (1, 3):
        images = pixels(n, height, width, 3, seed=width)
        assert same(encode(images), job.features(job.prepared(images)))


def test_the_onnx_file_has_one_input(every):
    import onnx as library

    # The normalization's mean and variance are constants of the graph, not inputs of their own.
    assert "Normalization" in {type(x).__name__ for x in _layers(every / "encoder.keras")}
    for name, sides in (("", [SIZE, SIZE]), ("_any_size", ["height", "width"])):
        model = library.load(every / f"encoder{name}.onnx")
        library.checker.check_model(model, full_check=True)
        (taken,), (given,) = model.graph.input, model.graph.output
        assert (taken.name, given.name) == ("images", "features")
        assert taken.type.tensor_type.elem_type == library.TensorProto.UINT8
        dims = [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim]
        assert dims[0] and type(dims[0]) is str and dims[1:] == [*sides, 3]
        dims = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
        assert type(dims[0]) is str and dims[1:] == [32]
        assert {o.domain: o.version for o in model.opset_import}[""] == 18


def _layers(path):
    return keras.saving.load_model(path)._flatten_layers()


@pytest.mark.parametrize("opset", [13, 15])
def test_another_operator_set(opset, tiny, tmp_path):
    import onnx as library

    assert call(tiny, tmp_path, "--format=onnx", f"--opset={opset}", "--with_preprocessing") == 0
    model = library.load(tmp_path / "encoder_any_size.onnx")
    assert {o.domain: o.version for o in model.opset_import}[""] == opset


def test_the_card_has_a_digest_of_each_and_what_was_measured(every):
    card = cards.read(every)
    names = {p.name for p in every.iterdir()} - {"encoder.json"}
    assert set(card.digest) == names and len(names) == 10
    for name in names:
        assert card.digest[name] == cards.digest(every / name)
    assert set(card.forms) == names - {"README.md"}
    for name, fact in card.forms.items():
        assert 0 <= fact["largest_difference"] <= TOLERANCE
        assert fact["any_size"] == ("any_size" in name)
    assert card.forms["encoder.onnx"]["bytes"] == (every / "encoder.onnx").stat().st_size
    assert export.load_encoder(every / "encoder").eval_crop == CROP


def test_weights_have_one_digest_whatever_the_form(tiny, every, encoder):
    assert cards.read(tiny).weights == cards.read(every).weights
    assert cards.weights_digest(encoder.model) == cards.read(every).weights
    other = keras.models.clone_model(encoder.model)
    other.set_weights(encoder.model.get_weights())
    assert cards.weights_digest(other) == cards.weights_digest(encoder.model)
    other.variables[0].assign_add(np.full(other.variables[0].shape, 1e-6, "float32"))
    assert cards.weights_digest(other) != cards.weights_digest(encoder.model)


# What is refused


@pytest.mark.parametrize(
    "wrong",
    [
        lambda features, images: features * 1.001,
        lambda features, images: features[:, ::-1],
        lambda features, images: features[:, :-1],
        lambda features, images: np.full_like(features, np.nan),
        lambda features, images: features if len(images) == 1 else features[[0] * len(images)],
    ],
)
def test_a_file_that_computes_something_else_is_seen(wrong, encoder):
    job, form = Job(encoder.model, CROP), Form("onnx")
    assert check(job, form, job.features)["largest_difference"] == 0
    with pytest.raises(ValueError, match="encoder.onnx does not compute what the encoder does"):
        check(job, form, lambda images: wrong(job.features(images), images))


REFUSED = [
    (["--format=onnx", "--opset=12"], "--opset must be within 13 and 18"),
    (["--format=openvino", "--opset=99"], "--opset must be within 13 and 18"),
    (["--format=onnx,gif"], "--format must be among"),
    (["--format=onnx", "--quantize=int8"], "as --dataset=folder:PATH"),
    (["--format=keras", "--quantize=int8", "--dataset=digits"], "is for --format=onnx"),
    (["--format=keras", "--with_preprocessing"], "is for --format=saved_model"),
    (
        ["--format=litert", "--with_preprocessing", "--quantize=int8", "--dataset=digits"],
        "either --quantize=int8 or --with_preprocessing",
    ),
    (["--eval_crop=1.5"], "--eval_crop must be in"),
]


@pytest.mark.parametrize("flags, sentence", REFUSED)
def test_flags_that_do_not_go_together(flags, sentence, tiny, tmp_path, capfd):
    assert call(tiny, tmp_path / "out", *flags) == 2
    error = capfd.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["nothing", "empty", "file", "SavedModel alone"])
def test_what_is_no_encoder(what, tiny, tmp_path, capfd):
    path = tmp_path / "it.keras" if what == "file" else tmp_path / "it"
    if what == "empty":
        path.mkdir()
    if what == "file":
        path.write_text("mine")
    if what == "SavedModel alone":
        shutil.copytree(tiny / "encoder", path)
    flags = [f"--encoder={path}", f"--output={tmp_path / 'out'}", "--format=onnx"]
    assert main(["export", *flags]) == 2
    error = capfd.readouterr().err
    assert str(path) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def unconvertible(folder):
    """An encoder with an operation that tf2onnx does not know, of stock layers."""
    images = keras.Input((SIZE, SIZE, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.ops.erfinv(images / 300.0))
    export.save_encoder(keras.Model(images, features), folder)


def test_an_encoder_that_a_converter_does_not_know_leaves_all_as_it_was(tmp_path, capfd):
    unconvertible(tmp_path)
    before = listing(tmp_path)
    flags = [f"--encoder={tmp_path / 'encoder.keras'}", f"--output={tmp_path}"]
    assert main(["export", *flags, "--format=keras,onnx"]) == 2
    error = capfd.readouterr().err
    assert "encoder.onnx cannot be written from this encoder" in error
    assert listing(tmp_path) == before
    assert main(["export", *flags[:1], f"--output={tmp_path / 'new'}", "--format=onnx"]) == 2
    assert not (tmp_path / "new").exists()


# What stays


def test_a_second_export_adds_to_the_first(tiny, tmp_path):
    assert call(tiny, tmp_path, "--format=keras") == 0
    first = listing(tmp_path)
    assert call(tiny, tmp_path, "--format=onnx") == 0
    then = listing(tmp_path)
    assert set(then) == {*first, "encoder.onnx"}
    assert then["encoder.keras"] == first["encoder.keras"]
    assert "encoder.keras" in (tmp_path / "README.md").read_text("utf-8")
    assert set(cards.read(tmp_path).forms) == {"encoder.keras", "encoder.onnx"}


def test_what_was_taken_away_is_taken_off_the_card(tiny, tmp_path):
    assert call(tiny, tmp_path, "--format=keras,saved_model") == 0
    shutil.rmtree(tmp_path / "encoder")
    assert call(tiny, tmp_path, "--format=keras") == 0
    assert set(cards.read(tmp_path).digest) == {"encoder.keras", "README.md"}


def test_forms_of_another_encoder_are_not_left_without_a_card(tiny, tmp_path, capfd, encoder):
    assert call(tiny, tmp_path, "--format=onnx,keras") == 0
    other = keras.models.clone_model(encoder.model)
    export.save_encoder(other, tmp_path / "other")
    before = listing(tmp_path)
    capfd.readouterr()
    assert call(tmp_path / "other", tmp_path, "--format=keras") == 2
    assert "has encoder.onnx of another encoder" in capfd.readouterr().err
    assert listing(tmp_path) == before
    assert call(tmp_path / "other", tmp_path, "--format=keras,onnx") == 0
    assert cards.read(tmp_path).weights == cards.read(tmp_path / "other").weights


def test_what_export_did_not_write_is_not_replaced(tiny, tmp_path, capfd):
    (tmp_path / "encoder.onnx").write_text("mine")
    before = listing(tmp_path)
    assert call(tiny, tmp_path, "--format=onnx") == 2
    assert "encoder.onnx would be replaced" in capfd.readouterr().err
    assert listing(tmp_path) == before


def test_a_page_that_was_changed_is_left(tiny, tmp_path, capfd):
    assert call(tiny, tmp_path, "--format=keras") == 0
    page = tmp_path / "README.md"
    page.write_text("mine")
    assert call(tiny, tmp_path, "--format=keras") == 0
    assert "is left as it is" in capfd.readouterr().err
    assert page.read_text() == "mine" and "README.md" not in cards.read(tmp_path).digest


def test_a_card_of_an_earlier_version_is_gone_on_with(tiny, tmp_path):
    out = shutil.copytree(tiny, tmp_path / "old")
    card = json.loads((out / "encoder.json").read_text())
    del card["weights"]
    (out / "encoder.json").write_text(json.dumps(card))
    assert call(tiny, out, "--format=onnx") == 0
    assert set(cards.read(out).digest) == {"encoder", "encoder.keras", "encoder.onnx", "README.md"}


@pytest.mark.parametrize("name", ["encoder", "encoder.keras", "."])
def test_an_encoder_is_named_by_any_of_its_paths(name, tiny, tmp_path):
    flags = [f"--encoder={tiny / name}", f"--output={tmp_path}", "--format=keras"]
    assert main(["export", *flags]) == 0
    card = cards.read(tmp_path)
    assert card.weights == cards.read(tiny).weights
    assert (card.image_shape, card.eval_crop) == ([SIZE, SIZE, 3], CROP)


def test_an_encoder_for_images_of_another_size(tiny, tmp_path):
    flags = ["--format=onnx", "--image_size=24", "--eval_crop=0.5"]
    assert call(tiny, tmp_path, *flags) == 0
    card = cards.read(tmp_path)
    assert (card.image_shape, card.eval_crop) == ([24, 24, 3], 0.5)
    assert onnx.opened(tmp_path / "encoder.onnx")(pixels(2, 24, 24, 3)).shape == (2, 32)
