"""The same numbers on every backend, and everything but host augmentation without TensorFlow.

JAX and torch live in environments of their own, which `make backends` creates from
requirements-jax.txt and requirements-torch.txt, without TensorFlow; skipped where there is none.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import ROOT

PYTHON = {
    "tensorflow": sys.executable,
    "jax": ROOT / ".venv-jax" / "bin" / "python",
    "torch": ROOT / ".venv-torch" / "bin" / "python",
}
OTHERS = [
    pytest.param(
        name,
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(not PYTHON[name].exists(), reason="needs `make backends`"),
        ],
    )
    for name in ("jax", "torch")
]

# Twenty steps from given weights on given views; argv: folder, mistake. All that is random is
# NumPy's. In double precision: in single, rounding grows from 1e-7 to 1e-3 within the twenty steps
# between any two backends and machines, whatever the code.
STEPS = """
import sys
import keras, numpy as np
keras.config.set_floatx("float64")
from simsiam_keras import encoders, heads, optimizers, schedules
from simsiam_keras.methods.simsiam import SimSiam

folder, mistake = sys.argv[1:]
random = np.random.default_rng(0)
images = random.integers(0, 255, (20, 32, 16, 16, 3)).astype("float32")
x1, x2 = ((images + random.normal(0, 40, images.shape)).clip(0, 255).astype("uint8")
          for _ in range(2))
model = SimSiam(
    encoders.resnet10((16, 16, 3), stem="cifar", width=8),
    projector=heads.projector(32), predictor=heads.predictor(8),
)
start = model.get_weights()
for i, weight in enumerate(start):
    if weight.ndim > 1:
        scale = np.sqrt(2 / np.prod(weight.shape[:-1]))
        start[i] = scale * random.normal(0, 1, weight.shape)
    elif "linear" in model.weights[i].path:
        start[i] = np.zeros_like(weight)
model.set_weights(start)
schedule = schedules.cosine(0.02, 20, 4)
if mistake == "keras_sgd":
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=5e-4)
else:
    optimizer = optimizers.SGD(schedule, weight_decay=5e-4)
model.compile(optimizer=optimizer)
losses = []
for pair in zip(x1, x2):
    model.reset_metrics()
    losses.append(float(model.train_on_batch(pair, return_dict=True)["loss"]))
np.savez(f"{folder}/{keras.backend.backend()}{mistake}.npz", losses=losses,
         weights=np.concatenate([np.ravel(w) for w in model.get_weights()]))
"""


def call(backend, *argv, cwd=ROOT, double=False):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(ROOT),
        "JAX_ENABLE_X64": str(int(double)),
    }
    command = [str(PYTHON[backend]), *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    call("tensorflow", "-c", STEPS, folder, "", double=True)
    return folder


def assert_same(a, b):
    np.testing.assert_allclose(a["losses"], b["losses"], atol=1e-4)
    np.testing.assert_allclose(a["weights"], b["weights"], atol=1e-4)


@pytest.mark.parametrize("backend", OTHERS)
def test_twenty_steps_are_the_same(backend, reference):
    call(backend, "-c", STEPS, reference, "", double=True)
    assert_same(np.load(reference / f"{backend}.npz"), np.load(reference / "tensorflow.npz"))


@pytest.mark.parametrize("backend", OTHERS)
def test_another_optimizer_is_told_apart(backend, reference):
    call(backend, "-c", STEPS, reference, "keras_sgd", double=True)
    wrong = np.load(reference / f"{backend}keras_sgd.npz")
    with pytest.raises(AssertionError):
        assert_same(wrong, np.load(reference / "tensorflow.npz"))


# Four steps of every ablation, from given weights on given views.
ABLATIONS = """
import json, sys
import keras, numpy as np
from simsiam_keras import heads, optimizers
from simsiam_keras.methods.ablations import AblatedSimSiam
from simsiam_keras.targets import MovingAverage, Snapshot
from tests import tiny

def norm(case):
    return {"projector": heads.projector(32, batch_norm=case),
            "predictor": heads.predictor(8, batch_norm=case)}

losses = {}
for name, switch in {
    "no stop-gradient": {"stop_gradient": False}, "no predictor": {"predictor": ()},
    "fixed predictor": {"fixed_predictor": True}, "cross-entropy": {"similarity": "cross_entropy"},
    "asym": {"symmetrization": "asym"}, "asym2x": {"symmetrization": "asym2x"},
    "alternating": {"targets": Snapshot(2)},
    "moving average": {"predictor": (), "targets": MovingAverage(20)},
    "no norm": norm("none"), "hidden norm": norm("hidden"), "all norm": norm("all"),
}.items():
    random = np.random.default_rng(0)
    model = AblatedSimSiam(tiny.tiny_encoder(), **{**norm("default"), **switch})
    for part in (model.encoder, model.projector, model.predictor):
        for weight in part.weights:
            scale = np.sqrt(2 / max(1, np.prod(weight.shape[:-1])))
            if len(weight.shape) > 1:
                weight.assign((scale * random.normal(0, 1, weight.shape)).astype("float32"))
            elif "linear" in weight.path:
                weight.assign(np.zeros(weight.shape, "float32"))
    model.compile(optimizers.SGD(0.02, weight_decay=5e-4))
    losses[name] = []
    for _ in range(4):
        x = random.integers(0, 255, (16, 8, 8, 3))
        views = [x + random.normal(0, 40, x.shape) for _ in range(model.views)]
        views = tuple(view.clip(0, 255).astype("uint8") for view in views)
        model.reset_metrics()
        batch = {"views": views, "index": random.permutation(20)[:16]}
        losses[name].append(float(model.train_on_batch(batch, return_dict=True)["loss"]))
json.dump(losses, open(f"{sys.argv[1]}/{keras.backend.backend()}.json", "w"))
"""


@pytest.fixture(scope="module")
def ablations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablations")
    call("tensorflow", "-c", ABLATIONS, folder)
    return folder


@pytest.mark.parametrize("backend", OTHERS)
def test_every_ablation_is_the_same(backend, ablations):
    call(backend, "-c", ABLATIONS, ablations)
    actual, expected = (
        json.loads((ablations / f"{name}.json").read_text()) for name in (backend, "tensorflow")
    )
    assert actual.keys() == expected.keys()
    for name, losses in expected.items():
        assert actual[name] == pytest.approx(losses, abs=1e-5), name
    # Told apart: no two ablations have the same losses.
    assert len({tuple(round(loss, 4) for loss in losses) for losses in actual.values()}) == 11


# Eight channels: torch 2.13 without AVX-512 miscalculates the weight gradient of a strided 1x1
# convolution of fewer, and writes beyond its memory.
SMALL = (
    "--augment=device --recipe=digits --encoder=resnet10 --stem=stride2 --width=8 --output_dim=16 "
    "--predictor_hidden=4 --epochs=2"
).split()


def pretrain(backend, run_dir, *flags):
    call(backend, "-m", "simsiam_keras", "pretrain", *SMALL, f"--run_dir={run_dir}", *flags)
    return json.loads((run_dir / "result.json").read_text())


@pytest.mark.parametrize("backend", OTHERS)
def test_digits_without_tensorflow(backend, tmp_path):
    call(backend, "-c", "import importlib.util as u; assert u.find_spec('tensorflow') is None")
    result = pretrain(backend, tmp_path / "run", "--batch_size=256")
    assert result["backend"] == backend and result["z_std"] > 0.5
    assert 1 < result["feature_rank"] <= 64 and 1 < result["output_rank"] <= 16
    assert 0 < result["alignment"] < 4 and -4.03 < result["uniformity"] < 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert len(events.Scalars("training/loss")) == 2
    flags = [f"--encoder={tmp_path / 'run' / 'encoder.keras'}", "--dataset=digits", "--epochs=2"]
    call(backend, "-m", "simsiam_keras", "linear-probe", f"--run_dir={tmp_path / 'p'}", *flags)
    assert 0 <= json.loads((tmp_path / "p" / "result.json").read_text())["linear_accuracy"] <= 1


@pytest.mark.parametrize("backend", OTHERS)
def test_photographs_and_arrays_without_tensorflow(backend, photos, tmp_path):
    small = ["--batch_size=8", "--encoder=twin", "--width=4"]  # here the data are what matters
    unlabelled = pretrain(backend, tmp_path / "a", f"--dataset=folder:{photos}", *small)
    pixels = [np.asarray(Image.open(p).resize((24, 24))) for p in sorted(photos.iterdir())]
    np.savez(tmp_path / "photos.npz", images=np.stack(pixels))
    arrays = pretrain(backend, tmp_path / "b", f"--dataset=npz:{tmp_path / 'photos.npz'}", *small)
    for result in (unlabelled, arrays):
        assert -1 < result["loss"] < 1 and result["z_std"] > 0 and result["knn_accuracy"] is None


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--augment=host"], ("tensorflow", "--augment=device")),
        (["--strategy=mirrored"], ("TensorFlow backend", "strategy='auto'")),
        (["--dataset=cifar10"], ("tensorflow-datasets", "folder:PATH")),
    ],
)
def test_what_needs_tensorflow_says_so(backend, flags, words, tmp_path):
    command = [str(PYTHON[backend]), "-m", "simsiam_keras", "pretrain", f"--backend={backend}"]
    command += [*SMALL, "--batch_size=256", f"--run_dir={tmp_path / 'run'}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--process_id=1"], ("job_addresses",)),
        (["--job_addresses=127.0.0.1:1", "--num_processes=2"], ("JAX backend",)),
    ],
)
def test_several_processes_need_an_address_and_jax(flags, words, tmp_path):
    command = [sys.executable, "-m", "simsiam_keras", "pretrain", f"--run_dir={tmp_path / 'run'}"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "run").exists()


def test_a_backend_that_is_not_installed_is_named(tmp_path):
    command = [sys.executable, "-m", "simsiam_keras", "pretrain", f"--run_dir={tmp_path / 'run'}"]
    for backend in ("jax", "torch"):
        found = subprocess.run([sys.executable, "-c", f"import {backend}"], capture_output=True)
        if found.returncode == 0:
            continue
        done = subprocess.run(
            [*command, f"--backend={backend}"], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"requirements-{backend}.txt" in done.stderr
