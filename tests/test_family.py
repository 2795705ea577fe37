"""Every method through the commands: run, resume, two replicas, the same numbers everywhere."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from simsiam_keras import callbacks, config
from simsiam_keras.__main__ import main
from simsiam_keras.family import FAMILY
from tests import tiny
from tests.conftest import ROOT
from tests.golden import family
from tests.test_backends import OTHERS, call

SMALL = {
    "recipe": "digits",
    "encoder": "resnet10",
    "stem": "stride2",
    "width": 4,
    "projector_hidden": 16,
    "output_dim": 8,
    "predictor_hidden": 4,
    "batch_size": 64,
    "labels_per_class": 20,
    "epochs": 4,
    "knn_every": 2,
    "jit": "off",
}
MORE = {"swav": ["--prototypes=6", "--queue=128", "--queue_start_epoch=1", "--small_views=1"]}
# Each has something to itself: another number of views, a target network, small views and a queue,
# labels. What the others have is in tests/methods/test_every_method.py.
WHOLE_RUNS = ("fastsiam", "byol", "swav", "siamese_triplet")
SUPERVISED = [name for name, member in FAMILY.items() if member.supervised]


def small(method):
    """Those of the small flags that a method has."""
    known = {field.name for field in dataclasses.fields(config.of("pretrain", method))}
    flags = [f"--{name}={value}" for name, value in SMALL.items() if name in known]
    return ["pretrain", f"--method={method}", *flags]


def pretrain(method, run_dir, *flags):
    few = [] if method in SUPERVISED else ["--epochs=2"]
    return main([*small(method), *few, *MORE.get(method, []), f"--run_dir={run_dir}", *flags])


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run_dirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    for method in WHOLE_RUNS:
        assert pretrain(method, folder / method) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", WHOLE_RUNS)
def test_a_run_leaves_what_simsiams_does(run_dirs, method):
    run_dir = run_dirs / method
    result = json.loads((run_dir / "result.json").read_text())
    assert result["method"] == method and np.isfinite(result["loss"]) and 0 < result["z_std"] <= 1
    loaded = keras.saving.load_model(run_dir / "encoder.keras")
    # What is trained is the encoder and the heads, with no copy of them.
    heads = method not in SUPERVISED
    trained = sum(int(np.prod(v.shape)) for v in loaded.trainable_variables)
    assert (
        trained < result["parameters"] < 2 * trained + 5000
        if heads
        else (result["parameters"] == trained)
    )
    assert 100 < result["peak_memory_mb"] < 20_000
    assert (run_dir / "encoder" / "saved_model.pb").exists()


# The state of every method is in its checkpoint (tests/methods/test_every_method.py); here is the
# order of balanced classes.
@pytest.mark.slow
def test_a_resumed_run_equals_one_that_was_never_stopped(run_dirs, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "Checkpoint", tiny.StoppedAfterTwo)
        pretrain("siamese_triplet", tmp_path / "run", "--epochs=4")
    assert pretrain("siamese_triplet", tmp_path / "run", "--epochs=4") == 0
    for name in ("loss", "z_std", "knn_accuracy"):
        paths = (run_dirs / "siamese_triplet", tmp_path / "run")
        a, b = ([row[name] for row in rows(path)] for path in paths)
        assert a == pytest.approx(b, abs=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["byol", "siamese_triplet"])
def test_export_and_probe_read_the_run_of_any_method(run_dirs, method, tmp_path):
    run_dir = run_dirs / method
    assert main(["export", f"--run_dir={run_dir}", f"--output={tmp_path}"]) == 0
    a, b = (
        keras.saving.load_model(folder / "encoder.keras").get_weights()
        for folder in (run_dir, tmp_path)
    )
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    flags = [f"--encoder={tmp_path / 'encoder'}", f"--run_dir={tmp_path / 'p'}", "--epochs=2"]
    assert main(["linear-probe", *flags]) == 0
    assert 0.2 < json.loads((tmp_path / "p" / "result.json").read_text())["linear_accuracy"] <= 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["siamese_triplet", "--dataset=folder:{photos}"], "needs labelled images"),
        (["siamese_contrastive", "--classes_per_batch=11"], "`classes` must be between"),
        (["swav", "--prototypes=1"], "--prototypes=1"),
        (["simclr", "--temperature=0"], "`temperature` must be"),
        (["siamese_triplet", "--margin=0"], "`margin` must be"),
    ],
)
def test_what_cannot_be_trained_is_said_before_training(flags, sentence, photos, tmp_path, capsys):
    flags = [flag.format(photos=photos) for flag in flags]
    method, *flags = flags
    command = [*small(method), "--labels_per_class=0"] if method in SUPERVISED else small(method)
    command += ["--batch_size=8", *flags, f"--run_dir={tmp_path / 'run'}"]
    assert main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("simsiam_keras: ") and sentence in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_class_with_one_image_forms_no_pair(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 255, (21, 16, 16, 3), dtype="uint8")
    np.savez(tmp_path / "x.npz", images=images, labels=[*(i % 4 for i in range(20)), 7])
    flags = [f"--dataset=npz:{tmp_path / 'x.npz'}", "--probe_dataset=none", "--batch_size=8"]
    command = [*small("siamese_triplet"), "--labels_per_class=0", *flags]
    assert main([*command, f"--run_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "at least 2 images of each class" in error and "1 image of label 7" in error


# The same twenty losses of every method, whatever computes them.


def golden():
    return json.loads((ROOT / "tests" / "golden" / "family.json").read_text())["losses"]


def steps(backend, *argv):
    found = json.loads(call(backend, "-m", "tests.golden.family", *argv).stdout)
    return found["losses"]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, losses in expected.items():
        np.testing.assert_allclose(found[name], losses, rtol=1e-5, atol=1e-5, err_msg=name)


def test_losses_are_the_golden_ones():
    found = steps("tensorflow")
    assert_same(found, golden())
    for name, (other, _) in family.EQUAL.items():
        assert_same(steps("tensorflow", "none", name), {name: golden()[other]})
    # No two methods are the same, and none stands still.
    assert len({tuple(np.round(losses, 3)) for losses in found.values()}) == len(family.CASES)
    assert all(abs(losses[-1] - losses[0]) > 1e-3 for losses in found.values())


@pytest.mark.parametrize("backend", OTHERS)
def test_losses_are_the_golden_ones_on_other_backends(backend):
    assert_same(steps(backend), golden())


# The supervised methods mine within a replica's part, and so differ on purpose. What two others
# have, SwAV with multi-crop and queue has too.
LESS = ("simsiam, multi-crop", "swav")
GLOBAL = [name for name in family.CASES if name not in (*family.LABELLED, *LESS)]


@pytest.mark.slow
def test_two_replicas_equal_one():
    expected = {name: losses for name, losses in golden().items() if name in GLOBAL}
    assert_same(steps("tensorflow", "mirrored", *GLOBAL), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("simclr", "distribute.gather = lambda x: x\ndistribute.replica = lambda: 0"),
        ("vicreg", "distribute.gather = lambda x: x"),
        ("swav", "distribute.total = lambda x: x"),
        ("swav, multi-crop and queue", "distribute.own_rows = lambda x: x"),
    ],
)
def test_two_replicas_that_do_not_talk_are_told_apart(name, mistake):
    script = (
        f"import sys\nfrom simsiam_keras import distribute\n{mistake}\n"
        f"sys.argv = ['', 'mirrored', {name!r}]\nfrom tests.golden import family\nfamily.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    with pytest.raises(AssertionError):
        assert_same(json.loads(done.stdout)["losses"], {name: golden()[name]})
