"""What the benchmarks claim: the same work on both sides, operations counted, arithmetic right."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import common, loop, step
from simsiam_keras import encoders, heads
from tests.conftest import ROOT
from tests.test_backends import PYTHON, call

# Five steps of Keras on torch and of plain PyTorch from the same weights on the same views; argv:
# what is different on Keras's side. Prints {case: losses and z_std}.
SAME_WORK = """
import json, sys
import keras, numpy as np, torch
from benchmarks import plain_torch
from simsiam_keras import build, config

FLAGS = ("--encoder=resnet10 --stem=stride2 --width=8 --output_dim=16 --predictor_hidden=4 "
         "--batch_size=8 --base_lr=1.6 --weight_decay=0.05").split()
views = np.random.default_rng(0).integers(0, 256, (5, 2, 8, 32, 32, 3), "uint8")

def keras_model(*flags):
    keras.utils.set_random_seed(0)
    cfg = config.parse("pretrain", [*FLAGS, *flags])
    model, _ = build.model(cfg, build.recipe(cfg), 10**6)
    random = np.random.default_rng(1)
    model.set_weights([
        0.1 * random.normal(0, 1, w.shape) if w.ndim > 1 else w for w in model.get_weights()])
    return model

def plain_model(model):
    plain = plain_torch.SimSiam(config.parse("pretrain", FLAGS))
    parts = {"stem": plain.encoder.stem}
    for i, block in enumerate(plain.encoder.blocks, 1):
        parts |= {f"stage_{i}_1_{name}": part for name, part in block.named_children()}
    with torch.no_grad():
        for name, part in parts.items():
            if len(list(part.children())):
                kernel = model.encoder.get_layer(f"{name}_conv").get_weights()[0]
                part[0].weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
        for head in ("projector", "predictor"):
            linear = [m for m in getattr(plain, head) if isinstance(m, torch.nn.Linear)]
            for i, layer in enumerate(linear, 1):
                weights = getattr(model, head).get_layer(f"{head}_linear_{i}").get_weights()
                for parameter, weight in zip(layer.parameters(), weights, strict=True):
                    parameter.copy_(torch.tensor(weight.T))
    return plain

plain = plain_model(keras_model())
optimizer = plain_torch.sgd(plain, config.parse("pretrain", FLAGS))
channels_first = torch.tensor(views.transpose(0, 1, 2, 5, 3, 4))
found = {"plain": [plain_torch.train_step(plain, optimizer, *pair) for pair in channels_first]}
for flag in sys.argv[1:]:
    model = keras_model(*flag.split())
    found[flag] = [model.train_on_batch(tuple(torch.tensor(pair))) for pair in views]
print(json.dumps({name: np.array(values, float).tolist() for name, values in found.items()}))
"""
DIFFERENT = (
    "--stop_gradient=false",
    "--weight_decay=0",
    "--momentum=0.8",
    "--stem=cifar",  # as many parameters, four times the work
)


@pytest.fixture(scope="module")
def five_steps():
    if not PYTHON["torch"].exists():
        pytest.skip("needs `make backends`")
    return json.loads(call("torch", "-c", SAME_WORK, "", *DIFFERENT).stdout)


def assert_same(a, b):
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_plain_pytorch_does_the_same_work(five_steps):
    assert_same(five_steps[""], five_steps["plain"])


@pytest.mark.slow
@pytest.mark.parametrize("flag", DIFFERENT)
def test_other_work_is_told_apart(flag, five_steps):
    with pytest.raises(AssertionError):
        assert_same(five_steps[flag], five_steps["plain"])


def test_other_parameters_are_refused():
    assert step.same_work({"a": {"parameters": 7}, "b": {"parameters": 7}}) == 7
    with pytest.raises(ValueError, match="'b': 8"):
        step.same_work({"a": {"parameters": 7}, "b": {"parameters": 8}})


def macs_by_hand(halved=True):
    """ResNet-10 of width 4 with a strided stem at 32 pixels, heads of 16 and 4."""
    total, inputs, side = 3 * 3 * 3 * 4 * 16**2, 4, 16
    for outputs in (4, 8, 16, 32):
        if inputs != outputs:
            side = side // 2 if halved else side
            total += inputs * outputs * side**2
        total += 9 * (inputs + outputs) * outputs * side**2
        inputs = outputs
    return total + 32 * 16 + 16 * 16 + 16 * 4 + 4 * 16


@pytest.mark.parametrize("halved", [True, False])
def test_operations_of_a_forward_pass(halved):
    encoder = encoders.resnet10((32, 32, 3), width=4)
    projector = heads.build(heads.projector(16), 32, "projector")
    predictor = heads.build(heads.predictor(4), 16, "predictor")
    counted = step.forward_macs(encoder, projector, predictor)
    assert (counted == macs_by_hand(halved)) is halved


def test_operations_of_a_step():
    # two views; a multiplication and an addition; forward, and the gradients of input and weight
    assert step.step_flop(10, batch_size=64) == 2 * 2 * 3 * 10 * 64


def test_ratios_are_taken_within_a_round():
    # ratio of the medians: 4 / 2
    assert step.relative([1, 6, 4], [1, 2, 4]) == 1


@pytest.mark.parametrize(
    ("eager", "sentence"),
    [
        ([3.0, 3.0, 3.0], "takes the slower way: TensorFlow, 1.50 of TensorFlow + XLA's time."),
        ([1.0, 1.0, 1.0], "takes the faster way: TensorFlow, 0.50 of TensorFlow + XLA's time."),
        (
            [2.0, 2.1, 1.9],
            "takes one of two equal ways: TensorFlow, 1.00 of TensorFlow + XLA's time.",
        ),
    ],
)
def test_verdict_on_jit(eager, sentence):
    seconds = {None: [1.0] * 3, "TensorFlow + XLA": [2.0] * 3, "TensorFlow": eager}
    hellos = {"TensorFlow + XLA": {"is_auto": False}, "TensorFlow": {"is_auto": True}}
    (said,) = step.verdicts(seconds, hellos)
    assert said.endswith(sentence)


def test_shares_of_the_loop():
    seconds = {"step": 6.0, "feed": 7.0, "augmentation": 9.0, "callbacks": 10.0}
    shares = loop.shares(seconds)
    assert shares == pytest.approx(
        {"step": 0.6, "feed": 0.1, "augmentation": 0.2, "callbacks": 0.1}
    )
    assert "60 % of the bare step's speed; most goes to augmentation" in loop.verdict(
        "x", {stage: [value] for stage, value in seconds.items()}
    )


def test_an_epoch_is_that_of_cifar10():
    assert loop.epoch_seconds(0.5, between=3, batch_size=128) == 390 * 0.5 + 3


def test_what_cannot_start_is_left_out_with_the_reason():
    running, left_out = common.start("benchmarks.missing", {"x": ("tensorflow", "--serve")})
    assert running == {} and "benchmarks.missing" in left_out["x"]


def run(module, *arguments):
    command = [sys.executable, "-m", module, "--backends=tensorflow", "--rounds=1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("| TensorFlow")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    numbers = [[float(re.match(r"-?[\d.]*", c.replace(",", ""))[0] or 0) for c in r] for r in cells]
    return {row[0]: values[1:] for row, values in zip(cells, numbers, strict=True)}


@pytest.mark.slow
def test_step_table(tmp_path):
    rows = run("benchmarks.step", "--sizes=tiny", "--seconds=0.2", f"--output={tmp_path / 's.md'}")
    assert rows.keys() == {"TensorFlow + XLA", "TensorFlow"}
    for seconds, _, images, *_ in rows.values():
        assert images == pytest.approx(8 / seconds, rel=0.1)
    assert "tiny" in (tmp_path / "s.md").read_text()


@pytest.mark.slow
def test_loop_table():
    rows = run("benchmarks.loop", "--seconds=0.2", "--", "--width=4", "--batch_size=8")
    assert len(rows) == 2
    for bare, _, _, whole, ratio, *_ in rows.values():
        assert whole / bare == pytest.approx(ratio / 100, abs=0.02)
