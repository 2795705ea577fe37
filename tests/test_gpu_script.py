"""The script for a GPU, on the CPU: same work on both sides, its arithmetic, all its stages."""

import dataclasses
import json
import os
import subprocess
import time

import keras
import numpy as np
import pytest

from benchmarks import step
from benchmarks.gpu import bench, cifar10, pieces, report, sizes
from simsiam_keras import encoders, heads, runs
from simsiam_keras.augment import CIFAR
from tests.conftest import ROOT
from tests.test_backends import PYTHON, call

needs_jax = pytest.mark.skipif(not PYTHON["jax"].exists(), reason="needs `make backends`")
needs_torch = pytest.mark.skipif(not PYTHON["torch"].exists(), reason="needs `make backends`")


def test_an_image_costs_what_was_counted_by_hand():
    encoder = encoders.resnet18((32, 32, 3), stem="cifar")
    projector = heads.build(heads.projector(), 512, "projector")
    predictor = heads.build(heads.predictor(), 2048, "predictor")
    # Half the side and twice the width: a 3x3 convolution that keeps both costs the same in every
    # stage, the one that changes them half of that, the 1x1 shortcut beside it an 18th.
    same = 9 * 64 * 64 * 32**2
    macs = 9 * 3 * 64 * 32**2 + 4 * same + 3 * (3 * same + same // 2 + same // 18)
    assert step.forward_macs(encoder) == macs
    image = step.step_flop(step.forward_macs(encoder, projector, predictor), batch_size=1)
    assert image == 12 * (macs + 512 * 2048 + 2048**2 + 2 * 2048 * 512)
    assert round(image / 1e9, 1) == 6.8


def test_the_recipe_is_the_papers_in_bfloat16_on_the_device():
    cfg = sizes.SIZES["paper"].config()
    assert (cfg.encoder, cfg.stem, cfg.width, cfg.batch_size) == ("resnet18", "cifar", 64, 512)
    assert (cfg.precision, cfg.augment, cfg.backend) == ("mixed_bfloat16", "device", "jax")


def test_a_turn_is_filled_and_waited_for():
    made = []

    def run(steps):
        made.append(-(-steps // 8) * 8)  # eight at a time
        time.sleep(0.005 * made[-1])
        return made[-1]

    assert bench.seconds_a_step(run, 0.2) == pytest.approx(0.005, rel=0.5)
    assert made[0] == 8 and 20 <= made[1] <= 48


SIZE = dataclasses.replace(sizes.SIZES["tiny"], rest=20.0, look=5.0, between=1.0, every=10)


def planned(left, share=0.5, size=SIZE):
    """100 steps of 10 ms early and 30 ms late: epochs of 2 and 4 s."""
    return cifar10.plan(size, 100, 0.01, 0.03, share, compiling=30.0, left=left)


def test_a_plan_fills_the_time():
    long = dataclasses.replace(SIZE, epochs=800)
    found = planned(300.0, size=long)
    assert (found["early"], found["late"], found["rest"]) == (2, 4, 50)
    early, epochs = found["early_epochs"], found["epochs"]
    assert early == round(epochs / 2)
    whole = 50 + 2 * early + 4 * (epochs - early) + 5 * epochs / 10
    assert 0.9 * 300 < whole < 300
    assert planned(300.0, share=0.0, size=long)["epochs"] < epochs
    assert planned(300.0)["epochs"] == SIZE.epochs
    with pytest.raises(RuntimeError, match="51 s are not enough for two epochs"):
        planned(51.0)


def test_epochs_are_read_from_what_pretrain_says():
    said = [(1.0, "simsiam starts in x: 3 epochs of 4 steps"), (2.0, "epoch 1/3  loss -0.1")]
    assert cifar10.epoch_ends([*said, (3.5, "epoch 2/3  loss -0.2"), (4.0, "")]) == [2.0, 3.5]


BENCH = {
    "network": "resnet18",
    "parameters": 7,
    "batch_size": 512,
    "precision": "mixed_bfloat16",
    "device": "a card",
    "step_flop": 1e12,
    "product_flop": 3e12,
    "left_out": {},
    "warm_up": {"jax": {"setup": 1.0, "step": 2.0}},
    "kernels": {"jax": [["gemm", 1.5, 3.0]], "run": []},
    "run": {"method": "fastsiam", "batch_size": 128, "views": 4},
    "seconds": {
        bench.EARLY: [0.004, 0.002, 0.001],
        bench.LATE: [0.008],
        bench.MATRIX: [0.006, 0.0075, 0.03],  # 400 TFLOP/s
        bench.OURS: [0.004, 0.005, 0.02],
        bench.PLAIN: [0.002, 0.01, 0.04],
    },
}


def cells(text, name):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_the_step():
    text = report.step_section(BENCH, "x")
    # 512 / 0.005; 1e12 / 0.005 / 4e14; the median of 2, 0.5, 0.5
    row = ["5.00", "4.00 - 20.00", "102,400", "50 %", "0.50"]
    assert cells(text, f"x: {bench.OURS}")[1:] == row
    assert "400 TFLOP/s" in text and "1.95 GFLOP an image" in text and "Left out" not in text
    assert "2.00 ms early (256,000 views/s), 8.00 ms later (64,000 views/s)" in text
    assert cells(text, "gemm")[1:] == ["1.500", "3.0"]


def test_an_encoder_survives_its_pieces(monkeypatch):
    random = np.random.default_rng(0)
    weights = {"a/kernel": random.normal(size=(3, 3, 8, 16)), "a/gamma": random.normal(size=16)}
    weights |= {"b/kernel": random.normal(size=(8, 64)), "b/bias": random.normal(size=64)}
    weights = {name: array.astype("float32") for name, array in weights.items()}
    monkeypatch.setattr(pieces, "MOST", 3000)
    made = pieces.packed(weights)
    assert [sum(a.nbytes for a in piece.values()) for piece in made] == [2368, 1280]
    found = pieces.unpacked(made)
    assert list(found) == list(weights)
    for name, array in weights.items():
        rounded = array.ndim > 1  # to eight bits
        assert np.abs(found[name] / array - 1).max() <= (2**-8 if rounded else 0)
        assert not rounded or (found[name] != array).any()


def test_without_pytorch_the_report_says_so():
    seconds = {name: times for name, times in BENCH["seconds"].items() if name != bench.PLAIN}
    left_out = {"torch": "without torch"}
    text = report.step_section({**BENCH, "seconds": seconds, "left_out": left_out}, "x")
    assert "Left out: torch (without torch)." in text
    assert cells(text, f"x: {bench.OURS}")[-1] == ""


# Plain PyTorch's augmentation is the package's; argv: what is different about the recipe of each
# case, as JSON. Prints the largest difference of each.
AUGMENTATION = """
import dataclasses, json, sys
import numpy as np, torch
from benchmarks.gpu import plain
from simsiam_keras.augment import CIFAR, device

n = 200
random = np.random.default_rng(0)
images = random.integers(0, 256, (n, 32, 32, 3), "uint8")
draws = random.random((n, sum(plain.WIDTHS))).astype("float32")
ours = np.asarray(device.augment(torch.tensor(images), torch.tensor(draws), CIFAR).cpu())
found = []
for changes in json.loads(sys.argv[1]):
    recipe = dataclasses.replace(CIFAR, **changes)
    planes = torch.tensor(images).permute(0, 3, 1, 2)
    theirs = plain.augment(planes, torch.tensor(draws), recipe).permute(0, 2, 3, 1)
    found.append(float(np.abs(theirs.numpy() - ours).max()))
print(json.dumps(found))
"""
OTHER_RECIPES = (
    {"flip": 0.4},
    {"grayscale": 0.3},
    {"jitter": (0.4, 0.4, 0.4, 0.11)},
    {"jitter": (0.5, 0.4, 0.4, 0.1)},
    {"jitter": (0.4, 0.5, 0.4, 0.1)},
    {"jitter": (0.4, 0.4, 0.5, 0.1)},
    {"jitter_probability": 0.7},
    {"crop_area": (0.08, 1.0)},
    {"crop_aspect": (0.5, 2.0)},
)


@pytest.mark.slow
@needs_torch
def test_plain_pytorch_makes_the_same_views():
    assert all(getattr(CIFAR, k) != value for each in OTHER_RECIPES for k, value in each.items())
    cases = json.dumps([{}, *OTHER_RECIPES])
    same, *others = json.loads(call("torch", "-c", AUGMENTATION, cases).stdout)
    assert same < 0.01
    assert min(others) > 1, dict(zip(map(str, OTHER_RECIPES), others, strict=True))


@pytest.mark.slow
@needs_jax
def test_the_whole_script_in_its_tiny_size(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [PYTHON["jax"], "-m", "benchmarks.gpu.cifar10", "--tiny", f"--out={tmp_path}"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "results.json").read_text())
    numbers = [seconds for turns in found["bench"]["seconds"].values() for seconds in turns]
    numbers += [found[name]["linear_accuracy"] for name in ("sgd", "lars")]
    numbers += [found["train"][name] for name in ("knn_accuracy", "loss", "with_everything")]
    assert np.isfinite(numbers).all()
    epochs = found["train"]["plan"]["epochs"]
    assert [row["epoch"] for row in runs.read_metrics(tmp_path)] == list(range(epochs + 1))
    assert len(cifar10.epoch_ends(enumerate(stamped(tmp_path / "log")))) == epochs
    small = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert small == {
        *("results.json", "report.md", "log", "metrics.jsonl", "curves.png", "embedding.png"),
        *found["encoder"],
    }
    command = [PYTHON["jax"], "-m", "benchmarks.gpu.pieces", tmp_path, tmp_path / "encoder.keras"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    whole = stored(tmp_path / "work" / "train" / "encoder.keras")
    for a, b in zip(whole, stored(tmp_path / "encoder.keras"), strict=True):
        np.testing.assert_allclose(a, b, rtol=2**-8)
    assert PYTHON["torch"].exists() == (bench.PLAIN in found["bench"]["seconds"])
    # No number of this size can be mistaken for one of the other.
    lines = (tmp_path / "report.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and any(map(str.isdigit, line))]
    assert len(rows) >= 2 and all(row.startswith("| tiny") for row in rows), rows


def stored(path):
    return [np.asarray(w) for w in keras.saving.load_model(path, compile=False).weights]


def stamped(log):
    return [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
