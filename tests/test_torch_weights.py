"""PyTorch's weights in our ResNets: torch's own features, whatever the names, all or nothing."""

import json
import os
import re
import subprocess

import keras
import numpy as np
import pytest

from simsiam_keras import encoders, torch_weights
from tests import torch_checkpoints
from tests.conftest import ROOT
from tests.torch_checkpoints import CASES, NAMINGS, flat, layout, state

save_file = pytest.importorskip("safetensors.numpy").save_file

TORCH = ROOT / ".venv-torch" / "bin" / "python"
needs_torch = pytest.mark.skipif(not TORCH.exists(), reason="needs `make backends`")


def torch_python(*argv):
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [TORCH, *argv]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def small(stem="cifar", width=8, channels=3, name="resnet18"):
    return encoders.ENCODERS[name]((16, 16, channels), stem=stem, width=width)


@pytest.fixture(scope="module")
def weights():
    return state("resnet18", "cifar", 8)


def written(folder, arrays):
    path = folder / "weights.safetensors"
    save_file(arrays, path)
    return path


def snapshot(encoder):
    return [keras.ops.convert_to_numpy(v).copy() for v in encoder.variables]


# What torch computes.


@pytest.fixture(scope="module")
def by_torch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    far = json.loads(torch_python("-m", "tests.torch_checkpoints", folder).splitlines()[-1])
    return folder, far


def case(folder, encoder, stem, width):
    with np.load(folder / f"{encoder}-{stem}-{width}.npz") as file:
        arrays = dict(file)
    return arrays.pop("images"), arrays.pop("features"), arrays


@pytest.mark.slow
@needs_torch
def test_features_are_torchs_in_every_depth_stem_and_naming(by_torch):
    _, far = by_torch
    assert len(far) == 6 * len(NAMINGS) + 1
    assert {key: value for key, value in far.items() if not value[0] < 1e-4} == {}


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("encoder, stem, width", CASES)
def test_a_safetensors_gives_torchs_features_here_too(by_torch, tmp_path, encoder, stem, width):
    images, expected, arrays = case(by_torch[0], encoder, stem, width)
    # Of four images: there is ten times more to compare than the tolerance.
    assert expected.std(axis=0).max() > 1e-3
    for naming in NAMINGS if width < 64 else ["torchvision"]:
        path = written(tmp_path, flat(NAMINGS[naming](arrays)))
        found, _ = torch_checkpoints.features(encoder, stem, width, path, images)
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=naming)


# Pairs of names (a pattern of each array's) that a wrong mapping takes for each other.
MISTAKES = {
    "mean and variance": r"running_(mean|var)$",
    "gamma and beta": r"(?:bn\d|downsample\.1)\.(weight|bias)$",
    "two normalizations": r"layer.*\.bn(1|2)",
    "two convolutions": r"layer4\.1\.conv(1|2)",
    "height and width": None,
}


def mistaken(arrays, pattern):
    found = {}
    for name, value in arrays.items():
        if pattern is None:
            value = np.ascontiguousarray(value.swapaxes(2, 3)) if value.ndim == 4 else value
        elif match := re.search(pattern, name):
            pair = re.search(r"\((\w+)\|(\w+)\)", pattern).groups()
            other = pair[match[1] == pair[0]]
            name = name[: match.start(1)] + other + name[match.end(1) :]
        found[name] = value
    return found


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_mapping_is_seen_in_the_features(by_torch, tmp_path, mistake):
    images, expected, arrays = case(by_torch[0], "resnet18", "imagenet", 16)
    wrong = mistaken(arrays, MISTAKES[mistake])
    assert wrong.keys() == arrays.keys()
    path = written(tmp_path, wrong)
    found, _ = torch_checkpoints.features("resnet18", "imagenet", 16, path, images)
    assert np.abs(found - expected).max() > 1e-2


# Which arrays are the encoder's, without torch.


@pytest.mark.parametrize("naming", NAMINGS)
def test_the_online_encoder_is_found_in_every_naming(tmp_path, weights, naming):
    encoder = small()
    path = written(tmp_path, flat(NAMINGS[naming](weights)))
    said = torch_weights.load(encoder, path)
    assert said.startswith(f"100 arrays of {path} ")
    kernel = encoder.get_layer("stage_2_1_a_conv").kernel
    expected = weights["layer2.0.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(kernel), expected)
    norm = encoder.get_layer("stage_3_1_shortcut_norm")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(norm.moving_variance),
        weights["layer3.0.downsample.1.running_var"],
    )
    assert torch_weights.architecture(path) == {
        "encoder": "resnet18",
        "stem": "cifar",
        "width": 8,
        "channels": 3,
    }


def test_what_is_left_out_is_said(tmp_path, weights):
    path = written(tmp_path, flat(NAMINGS["moco"](weights)["state_dict"]))
    assert torch_weights.load(small(), path) == (
        f"100 arrays of {path} (module.encoder_q) are the encoder's, a resnet18; its other "
        "encoders are not taken (module.encoder_k); left out beside it: encoder_k 2, fc 2, queue 1"
    )


@pytest.mark.parametrize("name", torch_checkpoints.ENCODERS)
@pytest.mark.parametrize("stem", torch_checkpoints.STEMS)
def test_every_array_of_our_resnets_has_one_of_torchvisions(name, stem):
    encoder = encoders.ENCODERS[name]((32, 32, 1), stem=stem, width=4)
    slots = torch_weights._slots(encoder)
    shapes = {key: torch_weights._torch_shape(variable) for key, variable in slots.items()}
    expected = layout(name, stem, 4, channels=1)
    assert shapes == {k: v for k, v in expected.items() if not k.startswith("fc.")}
    assert len(slots) == len(encoder.variables)


@pytest.mark.parametrize("channels", [1, 4])
def test_weights_for_other_channels_fit_an_encoder_of_those(tmp_path, channels):
    arrays = state("resnet18", "cifar", 8, channels)
    path = written(tmp_path, arrays)
    assert torch_weights.architecture(path)["channels"] == channels
    torch_weights.load(small(channels=channels), path)
    with pytest.raises(ValueError, match=rf"channels {channels}.*add --channels={channels}$"):
        torch_weights.load(small(), path)


# What does not fit.


def without(*names):
    return lambda s: {k: v for k, v in s.items() if k not in names}


def with_(**arrays):
    return lambda s: {**s, **{k.replace("__", "."): v for k, v in arrays.items()}}


def two(s):
    return {**{f"a.{k}": v for k, v in s.items()}, **{f"b.{k}": v + 1 for k, v in s.items()}}


SOME = np.ones((4, 4), "float32")
FAULTS = {
    "missing": (
        without("layer4.1.bn2.running_var", "bn1.bias"),
        r"2 missing \(bn1.bias, layer4.1.bn2.running_var\)",
    ),
    "not ours": (
        with_(conv2__weight=SOME, layer1__0__se__weight=SOME),
        r"2 not the encoder's \(conv2.weight, layer1.0.se.weight\)",
    ),
    "more blocks": (
        with_(layer3__2__conv1__weight=np.ones((32, 32, 3, 3), "float32")),
        r"1 not the encoder's \(layer3.2.conv1.weight\)",
    ),
    "another shape": (
        with_(layer1__0__conv1__weight=np.ones((8, 2, 3, 3), "float32")),
        r"layer1.0.conv1.weight \[8, 2, 3, 3\] instead of \[8, 8, 3, 3\]",
    ),
    "NaN": (
        with_(layer4__1__bn2__bias=np.full(64, np.nan, "float32")),
        r"NaN or infinite, or a variance below 0 \(layer4.1.bn2.bias\)",
    ),
    "negative variance": (
        with_(bn1__running_var=np.full(8, -1, "float32")),
        r"variance below 0 \(bn1.running_var\)",
    ),
    "two encoders": (two, r"several encoders \(a, b\); save the one"),
    "no encoder": (lambda s: {"vit.blocks": SOME}, r"no ResNet in torchvision's.*1 arrays \(vit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named_and_nothing_loaded(tmp_path, weights, fault):
    change, expected = FAULTS[fault]
    encoder = small()
    before = snapshot(encoder)
    with pytest.raises(ValueError, match=expected):
        torch_weights.load(encoder, written(tmp_path, change(weights)))
    for old, new in zip(before, snapshot(encoder), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_same_encoder_under_two_names_is_one(tmp_path, weights):
    twice = {f"{p}.{k}": v for p in ("model.backbone", "backbone") for k, v in weights.items()}
    torch_weights.load(small(), written(tmp_path, twice))


@pytest.mark.parametrize(
    "given, flags",
    [
        (("resnet50", "cifar", 8), "--encoder=resnet50"),
        (("resnet34", "cifar", 8), "--encoder=resnet34"),
        (("resnet18", "imagenet", 8), "--stem=imagenet"),
        (("resnet18", "cifar", 4), "--width=4"),
        (("resnet50", "imagenet", 4), "--encoder=resnet50 --stem=imagenet --width=4"),
    ],
)
def test_the_flags_for_another_architecture_are_named(tmp_path, given, flags):
    encoder = small()
    before = snapshot(encoder)
    with pytest.raises(ValueError, match=f"another encoder.*: add {flags}$"):
        torch_weights.load(encoder, written(tmp_path, state(*given)))
    for old, new in zip(before, snapshot(encoder), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_architecture_that_is_none_of_ours_is_named(tmp_path, weights):
    deeper = {k.replace("layer3.1", "layer3.2"): v for k, v in weights.items()}
    with pytest.raises(ValueError, match="whose encoder is none of ours"):
        torch_weights.architecture(written(tmp_path, deeper))
    wide = with_(conv1__weight=np.ones((8, 3, 5, 5), "float32"))(weights)
    with pytest.raises(ValueError, match="whose stem is none of ours"):
        torch_weights.architecture(written(tmp_path, wide))


def test_another_kind_of_encoder_is_refused(tmp_path, weights):
    images = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    with pytest.raises(ValueError, match="add --encoder=resnet18"):
        torch_weights.load(keras.Model(images, x), written(tmp_path, weights))
