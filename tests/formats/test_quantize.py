"""int8: what the files hold, and that the loss in kNN is the command `knn`'s."""

import io

import numpy as np
import pytest
from rich.console import Console

from simsiam_keras import cards, config, export
from simsiam_keras.__main__ import main
from simsiam_keras.data import evaluation_batches, sources
from simsiam_keras.evaluation import features, knn
from simsiam_keras.formats import litert, onnx, openvino, quantize

for package in ("onnx", "onnxruntime", "tf2onnx", "openvino", "ai_edge_litert"):
    pytest.importorskip(package)

QUIET = Console(file=io.StringIO())


@pytest.fixture(scope="module")
def encoder(tiny):
    return export.load_encoder(tiny / "encoder.keras")


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits"), sources.load("digits", split="test")


@pytest.fixture(scope="module")
def small(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("int8")
    flags = ["--format=onnx,litert,openvino", "--quantize=int8", "--dataset=digits"]
    flags += ["--calibration_images=64"]
    assert main(["export", f"--weights={tiny}", f"--output={out}", *flags]) == 0
    return out


def by_hand(encode, encoder, digits):
    """kNN as the command `knn` measures it, without anything of `quantize`."""
    rows = [features(encode, part, encoder.image_size, encoder.eval_crop) for part in digits]
    labels = [part.labels for part in digits]
    k = knn.chosen_k(0, labels[0])
    return knn.knn_accuracy(rows[0], labels[0], rows[1], labels[1], k)


def test_the_onnx_file_computes_in_8_bits(small):
    import onnx as library

    model = library.load(small / "encoder_int8.onnx")
    library.checker.check_model(model)
    assert [x.name for x in model.graph.input] == ["images"]
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    bytes_of = {library.TensorProto.INT8: 0, library.TensorProto.FLOAT: 0}
    for tensor in model.graph.initializer:
        if tensor.data_type in bytes_of:
            bytes_of[tensor.data_type] += int(np.prod(tensor.dims))
    assert bytes_of[library.TensorProto.INT8] > 15_000 > 4 * bytes_of[library.TensorProto.FLOAT]


@pytest.mark.parametrize(
    "name, opened",
    [
        ("encoder_int8.onnx", onnx.opened),
        ("encoder_int8.tflite", litert.opened),
        ("encoder_int8_openvino", openvino.opened),
    ],
)
def test_the_loss_is_that_of_the_command_knn(name, opened, small, encoder, digits):
    fact = cards.read(small).forms[name]
    found, own = (by_hand(x, encoder, digits) for x in (opened(small / name), encoder))
    assert fact["knn_accuracy_float"] == round(own, 4)
    assert fact["knn_accuracy"] == pytest.approx(found, abs=0.006)  # two neighbours may change
    assert fact["loss_in_points"] == pytest.approx(
        100 * (fact["knn_accuracy_float"] - fact["knn_accuracy"]), abs=0.02
    )
    assert 0.9 < fact["cosine"] < 1  # neither noise nor the floats
    page = (small / "README.md").read_text("utf-8")
    assert f"kNN {100 * fact['knn_accuracy']:.1f} % where the encoder has {100 * own:.1f} %" in page


def test_features_that_lose_everything_are_seen(encoder, digits, tmp_path):
    loss = quantize.Loss(encoder, *digits, 256, QUIET)
    same = loss.measure(encoder, tmp_path)
    assert same["loss_in_points"] == 0
    assert same["knn_accuracy"] == round(by_hand(encoder, encoder, digits), 4)
    noise = np.random.default_rng(0)
    lost = loss.measure(lambda images: noise.normal(size=(len(images), encoder.dim)), tmp_path)
    assert lost["loss_in_points"] > 30
    assert not list(tmp_path.iterdir())


def test_what_it_is_fitted_to_is_spread_over_the_images(encoder):
    cfg = config.make(
        "export", weights="x.keras", output="y", dataset="digits", calibration_images=10
    )
    images, loss = quantize.images(cfg, encoder, lambda sentence: None, QUIET)
    assert images.shape == (10, 16, 16, 3) and images.dtype == np.uint8
    whole = sources.load("digits")
    first = next(iter(evaluation_batches(whole, 16, 0.875, 1)))[0]
    np.testing.assert_array_equal(images[:1], first)
    assert len(loss.bank) == len(whole)


def test_many_images_are_thinned(monkeypatch):
    whole = sources.load("digits")
    assert quantize.first(whole) is whole
    monkeypatch.setattr(quantize, "MOST", 100)
    part = quantize.first(whole)
    assert len(part) == 100 and set(part.labels) == set(range(10))


def test_without_labels_the_loss_is_not_measured(tiny, photos, tmp_path, capfd):
    flags = ["--format=onnx", "--quantize=int8", f"--dataset=folder:{photos}"]
    assert main(["export", f"--weights={tiny}", f"--output={tmp_path / 'out'}", *flags]) == 0
    assert "loss of int8 in kNN is not measured" in capfd.readouterr().err
    fact = cards.read(tmp_path / "out").forms["encoder_int8.onnx"]
    assert "knn_accuracy" not in fact and fact["cosine"] > 0.5
    assert "not measured" in (tmp_path / "out" / "README.md").read_text("utf-8")
