"""Weights that PyTorch trained, into our ResNets: .safetensors, .pth, .pth.tar, .pt, .ckpt.

Nothing is unpickled: a .safetensors holds arrays and text alone, and of PyTorch's own files torch
reads the arrays and refuses everything else (`torch.load(weights_only=True)`).
"""

import math
import os
import re
import warnings

import keras
import numpy as np

from simsiam_keras import torch_names
from simsiam_keras.errors import sentence

TORCH = (2, 6)  # before it, `weights_only` could be got around: CVE-2025-32434
PARAMETERS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
NAMED = 4  # arrays that an error names


def read(path):
    """The arrays of a file of PyTorch's, under the names that they have there.

    Args:
        path: a .safetensors, or a state dict or checkpoint that `torch.save` wrote (.pth, .pth.tar,
            .pt, .ckpt, ...); the first bytes decide, not the ending.

    Returns:
        `{name: float32 array}` of all arrays of floats, counters left out. What lies in
        dictionaries of a checkpoint has their keys before it: `state_dict/module.conv1.weight`.

    Raises:
        ValueError: if it is no such file, is damaged, has no arrays, or holds Python objects too.
        ImportError: if `safetensors` or `torch`, which reads it, is not installed.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"there is no file of weights {path}; give a .safetensors, .pth or .ckpt")
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < size:
        arrays = _from_safetensors(path)
    elif start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        arrays = _from_torch(path)
    else:
        raise ValueError(
            f"{path} holds no weights of PyTorch: give a .safetensors, .pth, .pt or .ckpt file. "
            f"Received: a file of {size} bytes that is neither"
        )
    if not arrays:
        raise ValueError(f"{path} has no arrays of floats; give the state dict of a network")
    return arrays


def architecture(path):
    """Which of our ResNets the weights of a file are for.

    Args:
        path: as in `read`.

    Returns:
        `{"encoder": "resnet50", "stem": "imagenet", "width": 64, "channels": 3}`, values of the
        flags of these names. `stem="cifar"` stands for any first convolution of 3x3.

    Raises:
        ValueError: as `read`, or if the file has no ResNet, or one that none of ours is.
        ImportError: as `read`.
    """
    arrays = read(path)
    found = torch_names.find(arrays, path)
    about = torch_names.describe({key: arrays[name].shape for key, name in found.names.items()})
    unknown = [flag for flag, value in about.items() if value is None]
    if unknown:
        raise ValueError(
            f"{path} holds a ResNet whose {' and '.join(unknown)} is none of ours; give weights of "
            "a ResNet-18, 34 or 50 with a first convolution of 7x7 or 3x3"
        )
    return about


def load(encoder, path):
    """Puts the weights of a file into one of our ResNets: all of them, or none.

    Kernels `[out, in, height, width]` become `[height, width, in, out]`. Our ResNets normalize
    images of 3 channels by ImageNet's statistics; a network that was trained with others (some of
    CIFAR's) gets inputs of a slightly different scale than it had there.

    Args:
        encoder: a model that `encoders.resnet` made.
        path: as in `read`.

    Returns:
        A sentence: what was loaded, and what of the file was left out.

    Raises:
        ValueError: as `read`, or if the weights are not this encoder's (other architecture, arrays
            missing or too many, other shapes), or not finite; nothing has been assigned then.
        ImportError: as `read`.
    """
    slots = _slots(encoder)
    if not slots:
        raise ValueError(
            "weights of PyTorch go into our ResNets: add --encoder=resnet18, resnet34 or resnet50. "
            f"Received: an encoder that is none, for {path}"
        )
    arrays = read(path)
    found = torch_names.find(arrays, path)
    given = {key: arrays[name] for key, name in found.names.items()}
    wanted = {key: _torch_shape(variable) for key, variable in slots.items()}
    _refuse_another(path, {key: value.shape for key, value in given.items()}, wanted)
    for key, value in given.items():
        least = 0 if key.endswith("running_var") else -math.inf
        if not (np.isfinite(value).all() and (value >= least).all()):
            raise ValueError(
                f"{path} has weights that are NaN or infinite, or a variance below 0 "
                f"({found.names[key]}): its training diverged or the file is damaged; use another"
            )
    for key, variable in slots.items():
        value = given[key]
        variable.assign(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)
    return _summary(path, found, torch_names.describe(wanted)["encoder"] or "ResNet")


def _summary(path, found, name):
    taken, others = torch_names.titles(found)
    text = f"{len(found.names)} arrays of {path} ({taken}) are the encoder's, a {name}"
    if others:
        text += f"; its other encoders are not taken ({', '.join(others)})"
    if found.left_out:
        what = [f"{name} {count}" for name, count in found.left_out.items()]
        text += f"; left out beside it: {_some(what)}"
    return text


def _some(names):
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _refuse_another(path, given, wanted):
    """Raises an error where the shapes of a file are not those of an encoder."""
    theirs, ours = torch_names.describe(given), torch_names.describe(wanted)
    flags = [flag for flag in ours if theirs[flag] not in (ours[flag], None)]
    if flags:
        has, is_ = (
            ", ".join(f"{flag} {about[flag]}" for flag in flags) for about in (theirs, ours)
        )
        raise ValueError(
            f"{path} holds weights of another encoder ({has}, where this one has {is_}): add "
            + " ".join(f"--{flag}={theirs[flag]}" for flag in flags)
        )
    both = given.keys() & wanted.keys()
    faults = {
        "missing": [key for key in wanted if key not in given],
        "not the encoder's": [key for key in given if key not in wanted],
        "of another shape": [
            f"{key} {list(given[key])} instead of {list(wanted[key])}"
            for key in wanted
            if key in both and tuple(given[key]) != tuple(wanted[key])
        ],
    }
    said = [f"{len(names)} {fault} ({_some(names)})" for fault, names in faults.items() if names]
    if said:
        raise ValueError(
            f"{path} does not fit the encoder, and nothing of it is loaded: arrays "
            f"{', '.join(said)}; give the state dict of a whole ResNet-18, 34 or 50 as torchvision "
            "has it"
        )


def _slots(encoder):
    """{torchvision's name: variable} of one of our ResNets; empty for other models."""
    slots = {}
    for layer in encoder.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.BatchNormalization)):
            torch_layer = _torch_layer(layer.name)
            if torch_layer is None:
                return {}
            for variable in layer.variables:
                slots[f"{torch_layer}.{PARAMETERS[variable.name]}"] = variable
    return slots


def _torch_layer(name):
    """`stage_1_2_a_conv` is `layer1.1.conv1`; None for what is no layer of our ResNets."""
    stem = {"stem_conv": "conv1", "stem_norm": "bn1"}
    match = re.fullmatch(r"stage_(\d+)_(\d+)_(a|b|c|shortcut)_(conv|norm)", name)
    if not match:
        return stem.get(name)
    stage, block, part, kind = match.groups()
    if part == "shortcut":
        own = {"conv": "downsample.0", "norm": "downsample.1"}[kind]
    else:
        own = {"conv": "conv", "norm": "bn"}[kind] + str("abc".index(part) + 1)
    return f"layer{stage}.{int(block) - 1}.{own}"


def _torch_shape(variable):
    shape = tuple(variable.shape)
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape


def _from_safetensors(path):
    try:
        import ml_dtypes  # noqa: F401  NumPy knows bfloat16 after it; Keras needs it anyway
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(f"{path} needs safetensors: pip install safetensors") from error
    try:
        with safe_open(path, framework="numpy") as file:
            floats = [k for k in file.keys() if file.get_slice(k).get_dtype() in _FLOATS]
            return {k: np.asarray(file.get_tensor(k), "float32") for k in floats if _counts(k)}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, sentence(error)) from error


_FLOATS = ("F64", "F32", "F16", "BF16")


def _counts(name):
    """Whether an array says something of the network, as a counter of batches does not."""
    return not name.endswith("num_batches_tracked")


def _from_torch(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} needs torch to be read: pip install torch, or write the state dict as "
            'safetensors where torch is (`safetensors.torch.save_file(state_dict, "weights'
            '.safetensors")`) and give that'
        ) from error
    if tuple(map(int, torch.__version__.split(".")[:2])) < TORCH:
        raise ImportError(
            f"{path} is read safely by torch {'.'.join(map(str, TORCH))} or later: pip install "
            f"--upgrade torch. Received: torch {torch.__version__}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what becomes an error below
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as many kinds as there are faults of a file
        raise _refused(path, error) from error
    tensors = {
        name: tensor.detach()
        for name, tensor in _tensors(loaded, torch.Tensor)
        if _counts(name) and tensor.layout == torch.strided and tensor.is_floating_point()
    }
    # A view of one number may claim any shape. Encoders of a file may share their arrays.
    if sum(tensor.numel() for tensor in tensors.values()) > 4 * os.path.getsize(path):
        raise _damaged(path, "its arrays are larger than the file")
    return {name: tensor.to(torch.float32).numpy() for name, tensor in tensors.items()}


def _tensors(tree, kind):
    """(name, tensor) of everything in nested dictionaries and lists, each of them visited once."""
    todo, seen = [("", tree)], set()
    while todo:
        path, part = todo.pop()
        if isinstance(part, kind):
            yield path, part
        elif isinstance(part, (dict, list, tuple)) and id(part) not in seen:
            seen.add(id(part))
            items = part.items() if isinstance(part, dict) else enumerate(part)
            prefix = f"{path}/" if path else ""
            todo += reversed([(f"{prefix}{key}", value) for key, value in items])


def _refused(path, error):
    """What torch says of a file, as a sentence without its advice to unpickle it after all."""
    said = sentence(error)
    named = re.search(r"GLOBAL ([\w.]+)", said)
    if named or "TorchScript" in said:
        what = named[1] if named else "a program of TorchScript"
        whole = not named or re.match(r"torch\.nn\.|torchvision\.", what)
        take = ".state_dict()" if whole else '["state_dict"]'
        call = f"load({os.path.basename(path)!r}, weights_only=False)"
        if not named:
            call = f"jit.load({os.path.basename(path)!r})"
        return ValueError(
            f"{path} holds more than arrays ({what}) and is not unpickled, as that runs whatever "
            "its author wrote; where you trust it, write its arrays alone with this line of Python "
            f'and give those: `import torch; torch.save(torch.{call}{take}, "weights.pth")`'
            + ("" if whole else ' (or its key "model", as the author named it)')
        )
    return _damaged(path, said.split("WeightsUnpickler error: ")[-1])


def _damaged(path, said):
    return ValueError(
        f"{path} cannot be read ({said[:160]}): it is damaged, cut short or no file of weights; "
        "copy or download it again"
    )
