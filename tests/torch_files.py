"""Files that torch writes, good and bad, and what `torch_weights.read` makes of them.

    KERAS_BACKEND=torch .venv-torch/bin/python -m tests.torch_files FOLDER

prints, as JSON, the names that were read or the error, and whether a file that would write another
one did so when it was read by us, and when it was unpickled.
"""

import argparse
import json
import pickle
import sys
import zipfile
from pathlib import Path


class Attack:
    """What writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def main(folder):
    import numpy as np
    import torch

    from simsiam_keras import torch_weights

    folder = Path(folder)
    marker, weights = folder / "marker", {"conv1.weight": torch.ones(4, 3, 3, 3)}
    counted = {
        **weights,
        "bn1.num_batches_tracked": torch.tensor(3),
        "queue_ptr": torch.ones(1).int(),
    }
    loop = dict(weights)
    loop["self"] = loop
    linear = torch.nn.Linear(2, 2)
    old = {"_use_new_zipfile_serialization": False}
    for name, content, options in [
        ("state.pth", counted, {}),
        ("old.pth", counted, old),
        ("half.pt", {k: v.to(torch.bfloat16) for k, v in weights.items()}, {}),
        ("parameters.pt", {k: torch.nn.Parameter(v) for k, v in weights.items()}, {}),
        ("nested.pth.tar", {"a": {"b": [weights, {"fc.bias": torch.ones(2)}]}, "epoch": 3}, {}),
        ("loop.pth", loop, {}),
        ("ints.pth", {"a": torch.ones(2).int()}, {}),
        ("number.pth", 3.0, {}),
        ("module.pt", linear, {}),
        ("lightning.ckpt", {"state_dict": weights, "args": argparse.Namespace(a=1)}, {}),
        ("numpy.ckpt", {"state_dict": weights, "best": np.float64(3)}, {}),
        ("huge.pth", {"a": torch.ones(1).expand(1000, 1000)}, {}),
        ("attack.pth", {"state_dict": weights, "x": Attack(marker)}, {}),
        ("attack_old.pth", {"state_dict": weights, "x": Attack(marker)}, old),
    ]:
        torch.save(content, folder / name, **options)
    torch.jit.script(linear).save(folder / "script.pt")
    for name, source in (("cut.pth", "state.pth"), ("cut_old.pth", "old.pth")):
        whole = (folder / source).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(folder / "zip.pth", "w") as archive:
        archive.writestr("a.txt", "not of torch's")
    (folder / "pickle.pth").write_bytes(pickle.dumps({"a": np.ones(3)}))
    (folder / "attack_pickle.pth").write_bytes(pickle.dumps(Attack(marker), protocol=2))

    def read(name):
        try:
            arrays = torch_weights.read(folder / name)
        except (ValueError, ImportError) as error:
            return str(error)
        assert {str(value.dtype) for value in arrays.values()} == {"float32"}
        return " ".join(arrays)

    said, attacks = {}, {}
    for path in sorted(folder.glob("*.p*")) + sorted(folder.glob("*.ckpt")):
        said[path.name] = read(path.name)
        if "attack" in path.name:
            attacks[path.name] = [marker.exists()]
            if "pickle" in path.name:
                pickle.loads(path.read_bytes()).close()
            else:
                torch.load(path, weights_only=False)["x"].close()
            attacks[path.name].append(marker.exists())
            marker.unlink()
    torch.__version__ = "2.5.1"
    said["earlier torch"] = read("state.pth")
    print(json.dumps({"read": said, "attacks": attacks}))


if __name__ == "__main__":
    main(sys.argv[1])
