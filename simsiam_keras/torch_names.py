"""The names that a ResNet's arrays have in a PyTorch checkpoint, whoever trained it.

One naming is known, torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, ..., `layer1.0.downsample.0`),
and where it begins is looked for: after `module.encoder_q.`, `backbone.`, `trunk/_feature_blocks.`
or whatever else stands before a whole encoder. Two spellings are of the same: the children of a
`nn.Sequential` by their numbers (lightly), and `shortcut` for `downsample`.
"""

import collections
import dataclasses
import re

BLOCKS = {  # (blocks of each stage, whether they are bottlenecks)
    ((1, 1, 1, 1), False): "resnet10",
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
}
STEMS = {7: "imagenet", 3: "cifar"}  # by the side of the first kernel

# Words that a prefix has of an encoder that follows another: averaged weights, the other branch.
FOLLOWERS = {"momentum", "teacher", "target", "ema", "key", "k", "averaged", "avg"}

_FIRST = re.compile(r"((?:.*[./])?)(conv1|0)\.weight")
_BODY = re.compile(r"(conv|bn|norm|layer|stage|downsample|child)\d*\.")
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(\w+?)\d*\.")


@dataclasses.dataclass(frozen=True)
class Found:
    """A ResNet among the arrays of a file.

    Attributes:
        prefix: what stands before its names in the file; may be empty.
        names: `{torchvision's name: name in the file}` of its body.
        left_out: `{what: number of arrays}` of what lies beside it: heads, queues.
        others: prefixes of the other encoders of the file.
    """

    prefix: str
    names: dict
    left_out: dict
    others: list


def find(arrays, path):
    """The encoder among the arrays of a file; of an online and an averaged one the online one.

    Args:
        arrays: `{name: array}`, as `torch_weights.read` gives them.
        path: of the file, for the sentences.

    Returns:
        A `Found`.

    Raises:
        ValueError: if there is no ResNet in torchvision's naming, or several that differ.
    """
    encoders = {prefix: names for prefix in _beginnings(arrays) if (names := _body(arrays, prefix))}
    if not encoders:
        some = ", ".join(list(arrays)[:4])
        raise ValueError(
            f"{path} has no ResNet in torchvision's naming (conv1, bn1, layer1.0.conv1, ...); give "
            "the state dict of a ResNet-18, 34 or 50, or convert the network to Keras and give "
            f"its encoder.keras. Received: {len(arrays)} arrays ({some}, ...)"
        )
    leading = _leading(encoders) or list(encoders)
    prefix = leading[0]
    if any(_differ(arrays, encoders[prefix], encoders[other]) for other in leading[1:]):
        raise ValueError(
            f"{path} has several encoders ({', '.join(map(_title, leading))}); save the one that "
            "you want as a file of its own"
        )
    others = [other for other in encoders if other != prefix]
    beside = arrays.keys() - {name for names in encoders.values() for name in names.values()}
    return Found(prefix, encoders[prefix], _counted(sorted(beside), prefix), others)


def describe(shapes):
    """Which ResNet it is, in words of our flags.

    Args:
        shapes: `{torchvision's name: shape}` of its body, kernels `[out, in, height, width]`.

    Returns:
        `{"encoder": "resnet18" and so on, "stem": "imagenet" or "cifar", "width": int, "channels":
        int}`; encoder or stem is None where we have no such one. A 3x3 first convolution may also
        be one of `--stem=stride2`: its shape does not tell the stride.
    """
    depth, bottleneck = collections.Counter(), False
    for name in shapes:
        if match := _BLOCK.match(name):
            stage = int(match[1])
            depth[stage] = max(depth[stage], int(match[2]) + 1)
            bottleneck = bottleneck or ".conv3." in name
    blocks = tuple(depth[stage] for stage in sorted(depth))
    width, channels, *kernel = shapes["conv1.weight"]
    return {
        "encoder": BLOCKS.get((blocks, bottleneck)),
        "stem": STEMS.get(kernel[0]) if len(set(kernel)) == 1 else None,
        "width": width,
        "channels": channels,
    }


def titles(found):
    """The encoder that was taken and those that were not, by their names in the file."""
    return _title(found.prefix), [_title(prefix) for prefix in found.others]


def _title(prefix):
    return prefix.rstrip("./") or "the top level"


def _beginnings(arrays):
    """Prefixes at which a ResNet may begin: there is a first convolution and its normalization."""
    for name, array in arrays.items():
        match = _FIRST.fullmatch(name)
        if match and array.ndim == 4:
            norm = {"conv1": "bn1", "0": "1"}[match[2]]
            if f"{match[1]}{norm}.weight" in arrays:
                yield match[1]


def _body(arrays, prefix):
    """`{torchvision's name: name}` of the ResNet after a prefix; empty if there is none."""
    inside = [name[len(prefix) :] for name in arrays if name.startswith(prefix)]
    if "conv1.weight" in inside:
        renamed = {name: name for name in inside}
    else:
        renamed = _of_children(inside, {name: arrays[prefix + name].ndim for name in inside})
    found = {
        re.sub(r"^(layer\d+\.\d+\.)shortcut\.", r"\1downsample.", name): prefix + own
        for own, name in renamed.items()
        if _BODY.match(name)
    }
    stages = {match[1] for name in found if (match := _BLOCK.match(name))}
    return found if {"1", "2"} <= stages else {}


def _of_children(inside, ndim):
    """The names of the numbered children of a `nn.Sequential` in torchvision's words."""
    blocks = {int(name.split(".")[0]) for name in inside if re.match(r"\d+\.\d+\.conv1\.", name)}
    child = {"0": "conv1", "1": "bn1"}
    child |= {str(number): f"layer{i + 1}" for i, number in enumerate(sorted(blocks))}
    renamed = {}
    for name in inside:
        first, _, rest = name.partition(".")
        if first.isdigit() and ndim[name] == 4:  # a convolution that is nobody's is no head
            first = child.get(first, f"child{first}")
        renamed[name] = f"{child.get(first, first)}.{rest}"
    return renamed


def _leading(prefixes):
    """Those that follow no other, by the words in which their prefixes differ."""
    parts = [re.split(r"[./]", prefix) for prefix in prefixes]
    common = 0
    if len(parts) > 1:
        while all(common < len(p) - 1 for p in parts) and len({p[common] for p in parts}) == 1:
            common += 1
    words = [set("_".join(p[common:]).lower().split("_")) for p in parts]
    return [prefix for prefix, own in zip(prefixes, words, strict=True) if not own & FOLLOWERS]


def _differ(arrays, names, others):
    return names.keys() != others.keys() or any(
        arrays[names[key]].shape != arrays[others[key]].shape
        or (arrays[names[key]] != arrays[others[key]]).any()
        for key in names
    )


def _counted(names, prefix):
    """{what: number} of the names in an encoder's dictionary, by the first word after it."""
    folder, wrapper = prefix.rpartition("/")[0], re.sub(r"[^./]*[./]$", "", prefix)
    counts = collections.Counter()
    for name in names:
        if name.rpartition("/")[0] == folder:
            start = next(p for p in (prefix, wrapper, "") if name.startswith(p))
            counts[name[len(start) :].rpartition("/")[2].split(".")[0]] += 1
    return dict(counts)
