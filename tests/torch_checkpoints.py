"""torchvision's ResNets, written out for torch, and the checkpoints in which people keep them.

    KERAS_BACKEND=torch .venv-torch/bin/python -m tests.torch_checkpoints FOLDER

writes FOLDER/NAME.npz for each of CASES, its arrays in torchvision's naming, four images and the
features that torch computes of them, and prints how far ours are from those in each naming.
"""

import json
import sys

import numpy as np

ENCODERS = {  # (blocks, whether they are bottlenecks)
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
STEMS = {"imagenet": 7, "cifar": 3}
CASES = [(encoder, stem, 16) for encoder in ENCODERS for stem in STEMS]
CASES += [("resnet50", "imagenet", 64)]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels from 0 to 1
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
SMALL = {"conv1": "0", "bn1": "1", "layer1": "2", "layer2": "3", "layer3": "4", "layer4": "5"}


def layout(encoder, stem="imagenet", width=64, channels=3):
    """{name: shape} of what torchvision's ResNet keeps, its classifier of ten classes too."""
    shapes = {}

    def conv_norm(conv, norm, *shape):
        shapes[f"{conv}.weight"] = shape
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{name}"] = shape[:1]

    blocks, bottleneck = ENCODERS[encoder]
    conv_norm("conv1", "bn1", width, channels, STEMS[stem], STEMS[stem])
    last = width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        outer = 4 * inner if bottleneck else inner
        for block in range(count):
            at = f"layer{stage + 1}.{block}"
            if bottleneck:
                sizes = [(inner, last, 1, 1), (inner, inner, 3, 3), (outer, inner, 1, 1)]
            else:
                sizes = [(inner, last, 3, 3), (outer, inner, 3, 3)]
            for i, size in enumerate(sizes, 1):
                conv_norm(f"{at}.conv{i}", f"{at}.bn{i}", *size)
            if block == 0 and (stage > 0 or last != outer):
                conv_norm(f"{at}.downsample.0", f"{at}.downsample.1", outer, last, 1, 1)
            last = outer
    return {**shapes, "fc.weight": (10, last), "fc.bias": (10,)}


def state(encoder, stem="imagenet", width=64, channels=3, seed=0):
    """Random weights of that layout, with statistics as if it had seen images."""
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in layout(encoder, stem, width, channels).items():
        if len(shape) == 4:
            value = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif name.endswith("running_mean"):
            value = random.uniform(0.05, 0.4, shape)  # above 0, as a variance might be too
        elif name.endswith("bias"):
            value = random.normal(0, 0.2, shape)
        elif name.endswith("running_var"):
            value = random.uniform(0.5, 2, shape)
        else:
            value = random.uniform(0.3, 1, shape)
        found[name] = value.astype("float32")
    return found


def renamed(arrays, before="", children=None):
    """Arrays after a prefix, their first word another where `children` says so."""
    children = children or {}
    parts = ((name.partition("."), value) for name, value in arrays.items())
    return {f"{before}{children.get(p[0], p[0])}.{p[2]}": value for p, value in parts}


def body(arrays):
    return {name: value for name, value in arrays.items() if not name.startswith("fc.")}


def averaged(arrays):
    """What another encoder of the same run has: nearly these."""
    return {name: value * 0.9 for name, value in arrays.items()}


def heads(arrays, *names):
    return {f"{name}.weight": arrays["fc.weight"] for name in names}


# {naming: function from arrays in torchvision's naming to a checkpoint}.
NAMINGS = {
    "torchvision": lambda s: dict(s),
    "children of a Sequential": lambda s: renamed(body(s), "", CHILDREN),
    "simsiam": lambda s: {
        "epoch": 100,
        "arch": "resnet50",
        "state_dict": {
            **renamed(body(s), "module.encoder."),
            **heads(s, "module.encoder.fc.0", "module.encoder.fc.3", "module.predictor.0"),
        },
        "optimizer": {"state": {0: {"momentum_buffer": s["conv1.weight"]}}, "param_groups": [{}]},
    },
    "moco": lambda s: {
        "epoch": 200,
        "state_dict": {
            **renamed(averaged(s), "module.encoder_k."),
            **renamed(s, "module.encoder_q."),
            "module.queue": s["fc.weight"],
        },
    },
    "solo-learn": lambda s: {
        "state_dict": {
            **renamed(averaged(body(s)), "momentum_backbone."),
            **renamed(body(s), "backbone."),
            **heads(s, "projector.0", "momentum_projector.0", "classifier"),
        },
        "hyper_parameters": {"backbone": {"name": "resnet18"}},
    },
    "solo-learn before 1.0": lambda s: {"state_dict": renamed(s, "encoder.")},
    "lightly": lambda s: {
        "state_dict": {
            **renamed(body(s), "backbone.", CHILDREN),
            **renamed(averaged(body(s)), "backbone_momentum.", CHILDREN),
            **heads(s, "projection_head.layers.0"),
        }
    },
    "lightly's own ResNet": lambda s: {
        name.replace("downsample.", "shortcut."): value
        for name, value in renamed(body(s), "backbone.", SMALL).items()
    },
    "vissl": lambda s: {
        "phase_idx": 3,
        "classy_state_dict": {
            "base_model": {
                "model": {
                    "trunk": renamed(body(s), "_feature_blocks."),
                    "heads": heads(s, "0.clf.0"),
                }
            }
        },
    },
    "compiled, in DDP": lambda s: {"model": renamed(s, "module._orig_mod.")},
    "student and teacher": lambda s: {
        "teacher": renamed(averaged(body(s)), "module.backbone."),
        "student": {
            **renamed(body(s), "module.backbone."),
            **heads(s, "module.head.last_layer"),
        },
    },
    "BYOL": lambda s: {
        "model_state_dict": {
            **renamed(body(averaged(s)), "target_network.net."),
            **renamed(body(s), "online_network.net."),
        }
    },
}


def flat(checkpoint, before=""):
    """A checkpoint's arrays as one dictionary, for .safetensors, which has no other."""
    found = {}
    for key, value in checkpoint.items():
        if isinstance(value, dict) and key != "optimizer":
            found |= flat(value, f"{before}{key}.")
        elif isinstance(value, np.ndarray):
            found[f"{before}{key}"] = value
    return found


def torch_features(arrays, encoder, stem, images):
    """torchvision's network of these arrays, in torch: images 0..255 to pooled features."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, last, inner, stride, bottleneck):
            super().__init__()
            outer = 4 * inner if bottleneck else inner
            sizes = [(last, inner, 3, stride), (inner, outer, 3, 1)]
            if bottleneck:
                sizes = [(last, inner, 1, 1), (inner, inner, 3, stride), (inner, outer, 1, 1)]
            self.count = len(sizes)
            for i, (a, b, k, step) in enumerate(sizes, 1):
                setattr(self, f"conv{i}", nn.Conv2d(a, b, k, step, k // 2, bias=False))
                setattr(self, f"bn{i}", nn.BatchNorm2d(b))
            self.downsample = None
            if stride != 1 or last != outer:
                conv = nn.Conv2d(last, outer, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outer))

        def forward(self, x):
            shortcut = x if self.downsample is None else self.downsample(x)
            for i in range(1, self.count + 1):
                x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
                x = torch.relu(x if i < self.count else x + shortcut)
            return x

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            blocks, bottleneck = ENCODERS[encoder]
            width, channels, kernel, _ = arrays["conv1.weight"].shape
            stride = 2 if stem == "imagenet" else 1
            self.conv1 = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
            last = width
            for stage, count in enumerate(blocks):
                inner, made = width * 2**stage, []
                for i in range(count):
                    made.append(Block(last, inner, 2 if stage and i == 0 else 1, bottleneck))
                    last = 4 * inner if bottleneck else inner
                setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
            self.fc = nn.Linear(last, 10)

        def forward(self, x):
            x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
            for stage in range(1, 5):
                x = getattr(self, f"layer{stage}")(x)
            return x.mean((2, 3))

    net = ResNet().eval()
    given = {name: torch.from_numpy(value) for name, value in arrays.items()}
    missing, unexpected = net.load_state_dict(given, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) / 255
    with torch.no_grad():
        return net((x - mean) / std).numpy()


def features(encoder_name, stem, width, path, images):
    """What our encoder computes after the weights of a file were put into it."""
    import keras

    from simsiam_keras import encoders, torch_weights

    make = encoders.ENCODERS[encoder_name]
    encoder = make((*images.shape[1:3], 3), stem=stem, width=width)
    said = torch_weights.load(encoder, path)
    return keras.ops.convert_to_numpy(encoder(images, training=False)), said


def main(folder):
    import torch

    def tensors(tree):
        if isinstance(tree, dict):
            return {key: tensors(value) for key, value in tree.items()}
        return torch.from_numpy(tree) if isinstance(tree, np.ndarray) else tree

    random, far = np.random.default_rng(1), {}
    for encoder, stem, width in CASES:
        name = f"{encoder}-{stem}-{width}"
        arrays = state(encoder, stem, width)
        images = random.integers(0, 256, (4, 48, 40, 3), dtype="uint8")
        expected = torch_features(arrays, encoder, stem, images)
        np.savez(f"{folder}/{name}.npz", images=images, features=expected, **arrays)
        for naming in NAMINGS if width < 64 else ["torchvision"]:
            path = f"{folder}/weights.{'ckpt' if 'solo' in naming else 'pth'}"
            torch.save(
                tensors(NAMINGS[naming](arrays)),
                path,
                _use_new_zipfile_serialization=naming != "moco",  # both of torch's formats
            )
            ours, said = features(encoder, stem, width, path, images)
            far[f"{name} {naming}"] = [float(np.abs(ours - expected).max()), said]
    print(json.dumps(far))


if __name__ == "__main__":
    main(sys.argv[1])
