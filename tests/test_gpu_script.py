"""The script for a GPU, on the CPU: cut off and resumed equals uncut, and its report adds up."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest

from benchmarks import step
from benchmarks.gpu import bench, report, sizes, training
from simsiam_keras import encoders, heads, runs
from simsiam_keras.augment import CIFAR
from tests.conftest import ROOT
from tests.test_backends import PYTHON, call

needs_jax = pytest.mark.skipif(not PYTHON["jax"].exists(), reason="needs `make backends`")
needs_torch = pytest.mark.skipif(not PYTHON["torch"].exists(), reason="needs `make backends`")


# Counting and timing.


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


def test_steps_that_were_made_are_counted():
    def four_at_a_time(steps):
        count = -(-steps // 4)
        time.sleep(0.02 * count)
        return 4 * count

    assert bench.seconds_a_step(four_at_a_time, 0.2) == pytest.approx(0.005, rel=0.5)


# A run that is watched.


def write_epoch(run_dir, epoch, checkpoint=False):
    runs.append_metrics(run_dir, {"epoch": epoch, "loss": -0.5})
    if checkpoint:
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        (run_dir / "checkpoints" / f"epoch_{epoch:05d}.npz").touch()


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "train800"
    folder.mkdir()
    (folder / "flags.cfg").write_text("--batch_size=512\n--epochs=800\n")
    runs.write_json(folder / "environment.json", {"data": {"images": 50_000}})
    return folder


@pytest.mark.parametrize(("left", "goes_on"), [(1000.0, True), (1.0, False)])
def test_a_run_is_stopped_after_the_last_checkpoint_that_fits(left, goes_on, run_dir):
    size = dataclasses.replace(sizes.PAPER, report_after=0.0)
    said = []
    watch = training.Watch("train800", size, run_dir.parent, lambda: left, said.append)
    for epoch in (0, 1, 2):
        write_epoch(run_dir, epoch)
        assert watch()
        time.sleep(0.2)
    write_epoch(run_dir, 3, checkpoint=True)  # the next one is 40 epochs of 0.2 s away
    assert watch() is goes_on
    assert said[0].startswith("train800: epoch 2 of 800, ")
    rows = [json.loads(line) for line in open(run_dir.parent / "train800.times.jsonl")]
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_rows_that_will_be_trained_again_are_not_counted(run_dir):
    for epoch, checkpoint in ((0, False), (40, True), (57, False)):
        write_epoch(run_dir, epoch, checkpoint)
    watch = training.Watch("train800", sizes.PAPER, run_dir.parent, lambda: math.inf, print)
    assert watch() and watch.seen == []
    assert [row["epoch"] for row in runs.read_metrics(run_dir)] == [0, 40]


def test_speed_is_of_whole_batches_within_calls(run_dir):
    calls = [(7, 1, 90.0), (7, 3, 94.0), (9, 41, 30.0), (9, 42, 31.0), (11, 43, 50.0)]
    with open(run_dir.parent / "train800.times.jsonl", "w") as file:
        for name, epoch, seconds in calls:
            file.write(json.dumps({"call": name, "epoch": epoch, "seconds": seconds}) + "\n")
    assert training.speed(run_dir.parent, "train800") == pytest.approx(97 * 512 * 3 / 5)
    assert training.speed(run_dir.parent, "train200") is None


def test_a_command_ends_with_its_time(tmp_path):
    log, end = tmp_path / "log", time.monotonic() + 1
    waits = ("-c", "import time; print('begun', flush=True); time.sleep(600)")
    assert training.call(waits, log, lambda: end - time.monotonic()) is False
    assert training.call(("-c", "print('done')"), log, lambda: math.inf) is True
    with pytest.raises(RuntimeError, match="ended with 1: ValueError: why"):
        training.call(("-c", "raise ValueError('why')"), log, lambda: math.inf)
    assert log.read_text().startswith("begun\n")


def test_commands_resume_the_recipe_and_name_no_folder_of_this_machine(tmp_path):
    data, out = tmp_path / "images", tmp_path / "out"
    commands = training.commands("train800", sizes.PAPER, data, out, seed=3)
    assert list(commands) == ["train800", "train800_sgd", "train800_lars"]
    lines = report.shown(commands, data, out)
    assert not any(str(place) in line for place in (tmp_path, ROOT) for line in lines)
    assert "--flagfile=flags/cifar10.cfg" in lines[0] and "--dataset=folder:DATA" in lines[0]


# The report.

BENCH = {
    "size": "paper",
    "network": "resnet18",
    "parameters": 7,
    "batch_size": 512,
    "precision": "mixed_bfloat16",
    "device": "a card",
    "versions": ["jax 1"],
    "step_flop": 1e12,
    "product_flop": 3e12,
    "turn_seconds": 1.0,
    "left_out": {},
    "seconds": {
        bench.MATRIX: [0.006, 0.0075, 0.03],  # 400 TFLOP/s
        bench.OURS: [0.004, 0.005, 0.02],
        bench.FIT: [0.01, 0.01, 0.01],
        bench.PLAIN: [0.002, 0.01, 0.04],
    },
}


def cells(text, name):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_the_step():
    text = report.bench_section(BENCH)
    # 512 / 0.005; 1e12 / 0.005 / 4e14; the median of 2, 0.5, 0.5
    assert cells(text, bench.OURS)[1:] == ["5.00", "4.00 - 20.00", "102,400", "50 %", "0.50"]
    assert "400 TFLOP/s" in text and "1.95 GFLOP an image" in text and "Left out" not in text


def test_without_pytorch_the_report_says_so():
    seconds = {name: times for name, times in BENCH["seconds"].items() if name != bench.PLAIN}
    left_out = {bench.PLAIN: "without torch"}
    text = report.bench_section({**BENCH, "seconds": seconds, "left_out": left_out})
    assert "Left out: plain PyTorch (without torch)." in text
    assert cells(text, bench.OURS)[-1] == ""


def test_parts_of_the_step_sum_to_it():
    names = ("whole step", "step on ready views", "forward and backward, on ready views")
    seconds = dict(zip((*names, "forward and loss, on ready views"), (10, 8, 7, 3), strict=True))
    parts = report.parts(seconds)
    assert sorted(parts.values()) == [1, 2, 4]
    assert sum(parts.values()) + 3 == 10
    assert report.parts({"whole step": 1}) == {}


def row(epoch, knn=None, z_std=0.9):
    return {"epoch": epoch, "knn_accuracy": knn, "z_std": z_std, "loss": -0.5}


def test_an_unfinished_run_is_told_from_a_finished_one():
    run = {
        "metrics": [row(0, 0.3, None), row(50, 0.6), row(51)],
        "epochs": 200,
        "result": None,
        "linear": {"sgd": None, "lars": None},
        "images_per_second": None,
    }
    dashes = ["–", "–", "0.900", "–"]
    assert report.training_row("paper", "train200", run) == (
        *("CIFAR-10 (JPEG), train200", "51 of 200, not finished", "30.0 %", "60.0 %"),
        *dashes,
    )
    done = {
        **run,
        "result": {"epochs": 200},
        "metrics": [*run["metrics"], row(200, 0.8)],
        "linear": {"sgd": {"linear_accuracy": 0.85}, "lars": {"linear_accuracy": 0.86}},
        "images_per_second": 12345.6,
    }
    assert report.training_row("paper", "train200", done)[1:] == (
        *("200", "30.0 %", "80.0 %", "85.0 %", "86.0 %", "0.900", "12,346"),
    )


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
draws = random.random((n, sum(device.widths(CIFAR).values()))).astype("float32")
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
    assert all(
        getattr(CIFAR, name) != value for each in OTHER_RECIPES for name, value in each.items()
    )
    same, *others = json.loads(
        call("torch", "-c", AUGMENTATION, json.dumps([{}, *OTHER_RECIPES])).stdout
    )
    assert same < 0.01
    assert min(others) > 1, dict(zip(map(str, OTHER_RECIPES), others, strict=True))


# The whole script.


def start(out, *stages, **options):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    # What one run compiled, the others need not.
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(out.parent / "compiled")}
    options = [f"--{name}={value}" for name, value in options.items()]
    command = [PYTHON["jax"], "-m", "benchmarks.gpu.cifar10", *stages, "--tiny", f"--out={out}"]
    return subprocess.Popen(
        [*map(str, command), *options],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, code=0):
    said, _ = process.communicate()
    assert process.returncode == code, said[-3000:]
    return said


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu") / "whole"
    finish(start(folder))
    return folder


@pytest.mark.slow
@needs_jax
def test_every_stage_leaves_its_files_and_finite_numbers(out):
    found = json.loads((out / "report" / "results.json").read_text())
    assert found["size"] == "tiny"
    numbers = [*found["profile"]["seconds"].values()]
    numbers += [value for times in found["bench"]["seconds"].values() for value in times]
    for stage, epochs in (("train200", 2), ("train800", 4)):
        run = found["training"][stage]
        assert [each["epoch"] for each in run["metrics"]] == list(range(epochs + 1))
        numbers += [each["loss"] for each in run["metrics"][1:]]
        numbers += [run["metrics"][0]["knn_accuracy"], run["metrics"][-1]["knn_accuracy"]]
        numbers += [run["linear"][optimizer]["linear_accuracy"] for optimizer in ("sgd", "lars")]
        numbers += [run["images_per_second"]]
        assert (out / "report" / f"curves_{stage}.png").stat().st_size > 1000
        assert (out / "report" / f"{stage}.log").stat().st_size > 0
    assert len(found["profile"]["seconds"]) == 8
    assert np.isfinite(numbers).all()
    assert len([*(out / "train800" / "checkpoints").iterdir()]) == runs.KEPT_CHECKPOINTS


@pytest.mark.slow
@needs_jax
def test_no_number_of_a_tiny_run_can_be_mistaken(out):
    text = (out / "report" / "h200.md").read_text()
    published = text.split("Published")[1].split("![")[0]
    lines = [line for line in text.replace(published, "").splitlines() if line.startswith("| ")]
    lines = [line for line in lines if re.search(r"\d", line)]
    assert len(lines) >= 12 and all(line.startswith("| tiny") for line in lines), lines
    assert text.startswith("# tiny") and "CIFAR-10 (JPEG)," not in text
    if PYTHON["torch"].exists():
        assert "| tiny: plain PyTorch |" in text
    else:
        assert "Left out: plain PyTorch (without torch)." in text


@pytest.mark.slow
@needs_jax
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(out):
    folder = out.parent / "killed"
    process = start(folder, "train800")
    while not (folder / "train800" / "checkpoints" / "epoch_00001.npz").exists():
        assert process.poll() is None, process.stdout.read()[-3000:]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "train800" / "result.json").exists()

    finish(start(folder, "train800", minutes=0), code=3)
    assert "not finished" in (folder / "report" / "h200.md").read_text()

    finish(start(folder, "train800"))
    assert "resumes after epoch" in (folder / "train800.log").read_text()
    killed, whole = (runs.read_metrics(each / "train800") for each in (folder, out))
    losses = [[each["loss"] for each in rows[1:]] for rows in (killed, whole)]
    np.testing.assert_allclose(*losses, atol=1e-5)
    assert len({round(loss, 4) for loss in losses[1]}) == 4  # another epoch's would be told apart
