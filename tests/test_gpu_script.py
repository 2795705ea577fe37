"""The script for a GPU, on the CPU: same work on both sides, its arithmetic, all its stages."""

import json
import os
import subprocess
import time

import numpy as np
import pytest

from benchmarks import step
from benchmarks.gpu import bench, cifar10, report, sizes
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
        made.append(steps)
        time.sleep(0.005 * steps)

    assert bench.seconds_a_step(run, 0.2) == pytest.approx(0.005, rel=0.5)
    assert made[0] == 3 and 20 <= made[1] <= 40


# Epochs of 2 s, of which the first compiles for 30 more and the last has 5 s of kNN; 10 s at the
# beginning and 7 at the end.
ENDS, TOTAL = [42.0, 44.0, 46.0, 53.0], 60.0


def test_a_plan_fills_the_time():
    planned = cifar10.plan(ENDS, TOTAL, left=300.0, every=10, most=800)
    assert (planned["epoch"], planned["look"], planned["rest"]) == (2, 5, 47)
    whole = planned["rest"] + planned["epochs"] * (2 + 5 / 10)
    assert 0.85 * 300 < whole < 300
    assert cifar10.plan(ENDS, TOTAL, 300.0, every=1, most=800)["epochs"] < planned["epochs"] / 2
    assert cifar10.plan(ENDS, TOTAL, 300.0, every=10, most=7)["epochs"] == 7
    with pytest.raises(RuntimeError, match="49 s are not enough"):
        cifar10.plan(ENDS, TOTAL, 49.0, every=10, most=800)


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
    "seconds": {
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
    epochs = found["trial"]["epochs"]
    assert [row["epoch"] for row in runs.read_metrics(tmp_path)] == list(range(epochs + 1))
    assert len(cifar10.epoch_ends(enumerate(stamped(tmp_path / "log")))) == epochs + 3
    small = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert small == {"results.json", "report.md", "log", "metrics.jsonl", "curves.png"}
    assert PYTHON["torch"].exists() == (bench.PLAIN in found["bench"]["seconds"])
    # No number of this size can be mistaken for one of the other.
    lines = (tmp_path / "report.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and any(map(str.isdigit, line))]
    assert len(rows) >= 2 and all(row.startswith("| tiny") for row in rows), rows


def stamped(log):
    return [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
