"""Files with PyTorch's weights: what is read of them, and that nothing in them is run."""

import json
import pickle
import re
import struct

import numpy as np
import pytest

from simsiam_keras import torch_weights
from tests.test_torch_weights import needs_torch, torch_python
from tests.torch_checkpoints import state
from tests.torch_files import Attack

save_file = pytest.importorskip("safetensors.numpy").save_file

SOME = np.ones((4, 4), "float32")


def written(folder, arrays):
    path = folder / "weights.safetensors"
    save_file(arrays, path)
    return path


def test_half_precision_is_read(tmp_path):
    weights = state("resnet18", "cifar", 8)
    path = written(tmp_path, {k: v.astype("float16") for k, v in weights.items()})
    arrays = torch_weights.read(path)
    assert {v.dtype for v in arrays.values()} == {np.dtype("float32")}
    np.testing.assert_allclose(arrays["conv1.weight"], weights["conv1.weight"], atol=1e-3)


def raw_safetensors(path, entries, filler=0):
    """A .safetensors written by its specification, {name: (dtype, shape, bytes)}."""
    header, data = {"__metadata__": {"x": "y" * filler}}, b""
    for name, (dtype, shape, content) in entries.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return len(text)


def test_bfloat16_is_read_and_what_is_no_float_left_out(tmp_path):
    path = tmp_path / "weights.safetensors"
    values = np.array([1.5, -2], "float32")
    upper = (values.view("uint32") >> 16).astype("uint16").tobytes()
    raw_safetensors(
        path,
        {
            "a": ("BF16", [2], upper),
            "b": ("F8_E4M3", [2], b"\0\0"),
            "c.num_batches_tracked": ("I64", [], bytes(8)),
        },
    )
    (found,) = torch_weights.read(path).items()
    assert found[0] == "a" and found[1].tolist() == [1.5, -2]


def test_a_header_of_any_length_is_one_of_safetensors(tmp_path):
    # The length is what the file begins with, and 128 or 640 look like the start of a pickle.
    path, starts = tmp_path / "weights.safetensors", set()
    for filler in range(256):
        length = raw_safetensors(path, {"a": ("F32", [1], bytes(4))}, filler)
        starts.add(length % 256)
        assert torch_weights.read(path).keys() == {"a"}
    assert 0x80 in starts


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "holds no weights of PyTorch.*0 bytes"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "holds no weights of PyTorch"),
        (struct.pack("<Q", 20) + b"{" + bytes(40), "cannot be read .*damaged, cut short"),
        (struct.pack("<Q", 20) + b"{}" + b" " * 18, "has no arrays of floats"),
    ],
)
def test_a_file_of_something_else_is_one_sentence(tmp_path, content, expected):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        torch_weights.read(path)


def test_every_part_of_a_safetensors_is_refused(tmp_path):
    path = written(tmp_path, {"a": SOME, "b": SOME})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read|holds no weights"):
            torch_weights.read(path)


def test_a_path_of_nothing_is_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(ValueError, match="there is no file of weights"):
            torch_weights.read(path)


def test_a_pickle_is_not_run_without_torch(tmp_path):
    path, marker = tmp_path / "weights.pth", tmp_path / "marker"
    path.write_bytes(pickle.dumps(Attack(marker), protocol=2))
    with pytest.raises((ImportError, ValueError), match="needs torch|holds more than arrays"):
        torch_weights.read(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes()).close()
    assert marker.exists()


# What torch's own files become, by tests/torch_files.py.
SAID = {
    "state.pth": "conv1.weight",
    "old.pth": "conv1.weight",
    "half.pt": "conv1.weight",
    "parameters.pt": "conv1.weight",
    "nested.pth.tar": "a/b/0/conv1.weight a/b/1/fc.bias",
    "loop.pth": "conv1.weight",
    "ints.pth": "has no arrays of floats",
    "number.pth": "has no arrays of floats",
    "module.pt": r"holds more than arrays \(torch.nn.modules.linear.Linear\).*False\).state_dict",
    "script.pt": r"holds more than arrays \(a program of TorchScript\).*jit.load\('script.pt'\)",
    "lightning.ckpt": r"holds more than arrays \(argparse.Namespace\).*False\)\[\"state_dict\"\]",
    "numpy.ckpt": r"holds more than arrays \(numpy[\w.]*scalar\).*False\)\[\"state_dict\"\]",
    "cut.pth": "cannot be read .*damaged, cut short",
    "cut_old.pth": "cannot be read .*damaged, cut short",
    "zip.pth": "cannot be read .*damaged, cut short",
    "pickle.pth": "cannot be read|holds more than arrays",
    "huge.pth": "cannot be read .*larger than the file",
    "attack.pth": r"holds more than arrays \((io|_io|builtins|__builtin__).open\)",
    "attack_old.pth": r"holds more than arrays \((io|_io|builtins|__builtin__).open\)",
    "attack_pickle.pth": r"holds more than arrays \((io|_io|builtins|__builtin__).open\)",
    "earlier torch": "safely by torch 2.6 or later.*Received: torch 2.5.1",
}


@pytest.fixture(scope="module")
def by_torch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return json.loads(torch_python("-m", "tests.torch_files", folder).splitlines()[-1])


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("name", SAID)
def test_a_file_of_torchs_is_read_or_one_sentence(by_torch, name):
    assert by_torch["read"].keys() == SAID.keys()
    said = by_torch["read"][name]
    assert re.search(SAID[name], said), said
    # Not torch's own advice.
    assert "will likely succeed" not in said and "\n" not in said


@pytest.mark.slow
@needs_torch
def test_nothing_of_a_file_is_run(by_torch):
    # The last column: the same files do write where they are unpickled.
    assert by_torch["attacks"] == {
        name: [False, True] for name in ("attack.pth", "attack_old.pth", "attack_pickle.pth")
    }
