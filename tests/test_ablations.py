"""The ablations from flag to run folder: combinations, resuming, export."""

import dataclasses
import itertools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from simsiam_keras import build, callbacks, config
from simsiam_keras.__main__ import main
from simsiam_keras.methods.simsiam import SimSiam
from simsiam_keras.targets import MovingAverage, Snapshot
from tests import tiny
from tests.conftest import ROOT

SWITCHES = {
    "stop_gradient": (True, False),
    "predictor": ("mlp", "none", "fixed", "moving_average"),
    "predictor_lr": ("decayed", "constant"),
    "batch_norm": ("default", "none", "hidden", "all"),
    "output_affine": (False, True),
    "similarity": ("cosine", "cross_entropy"),
    "symmetrization": ("sym", "asym", "asym2x"),
    "alternate_steps": ("1", "10", "epoch"),
}
SMALL = {"encoder": "resnet10", "stem": "stride2", "width": 2, "image_size": 8}
SMALL |= {"output_dim": 8, "predictor_hidden": 2, "batch_size": 4, "epochs": 2}


def combinations():
    for values in itertools.product(*SWITCHES.values()):
        yield dict(zip(SWITCHES, values, strict=True))


def taken():
    for switch in combinations():
        try:
            yield config.make("pretrain", **SMALL, **switch)
        except ValueError:
            continue


def pairs_of(cfg):
    chosen = [(name, getattr(cfg, name)) for name in SWITCHES]
    return set(itertools.combinations(chosen, 2))


def covering(configurations):
    """A few that show every pair of values that any of them has, greedily."""
    configurations, chosen = list(configurations), []
    missing = set().union(*map(pairs_of, configurations))
    while missing:
        best = max(configurations, key=lambda cfg: len(pairs_of(cfg) & missing))
        chosen.append(best)
        missing -= pairs_of(best)
    return chosen


def test_every_combination_is_taken_or_refused_in_one_sentence():
    for switch in combinations():
        try:
            config.make("pretrain", **switch)
        except ValueError as error:
            sentence = str(error)
            assert sentence.startswith("--") and "\n" not in sentence and len(sentence) < 160
    # Any two switches go together, but for these values.
    singles = [(name, value) for name, values in SWITCHES.items() for value in values]
    every = {(a, b) for a, b in itertools.combinations(singles, 2) if a[0] != b[0]}
    refused = every - set().union(*map(pairs_of, taken()))
    remembers = ("predictor", "moving_average")
    contradictions = {
        *((("predictor", h), ("predictor_lr", "constant")) for h in ("none", "fixed")),
        (remembers, ("predictor_lr", "constant")),
        (("predictor", "none"), ("batch_norm", "all")),
        (remembers, ("batch_norm", "all")),
        *((("batch_norm", bn), ("output_affine", True)) for bn in ("none", "hidden")),
        *((remembers, ("alternate_steps", k)) for k in ("10", "epoch")),
        *((("stop_gradient", False), ("alternate_steps", k)) for k in ("10", "epoch")),
        (remembers, ("similarity", "cross_entropy")),
        (("stop_gradient", False), remembers),
    }
    assert refused == contradictions


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["host", "device"])
def test_every_pair_of_switches_trains(augment):
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype="uint8")
    for cfg in covering(taken())[:: 1 if augment == "host" else 4]:
        cfg = dataclasses.replace(cfg, augment=augment)
        model, _ = build.model(cfg, build.recipe(cfg), steps=5, images=20)
        model.run_eagerly = keras.backend.backend() == "tensorflow"
        views = (images,) * cfg.full_views
        batch = {"views": views} if augment == "host" else {"images": images}
        batch |= {"index": np.arange(4)} if cfg.remembers or cfg.ablated else {}
        before = model.encoder.get_weights()
        logs = model.train_on_batch(batch, return_dict=True)
        assert np.isfinite(logs["loss"]), cfg
        after = model.encoder.get_weights()
        assert any((a != b).any() for a, b in zip(before, after, strict=True)), cfg


def test_flags_become_arguments():
    def made(**flags):
        cfg = config.make("pretrain", **{**SMALL, **flags})
        return build.model(cfg, build.recipe(cfg), steps=7, images=20)[0]

    assert type(made()) is SimSiam and made().predictor.trainable_variables
    # Width and BN of the heads are no ablation of the method.
    assert type(made(batch_norm="hidden", output_dim=4)) is SimSiam
    assert made(predictor="none").predictor.weights == []
    fixed = made(predictor="fixed").predictor
    assert fixed.weights and not fixed.trainable_variables
    memory = made(predictor="moving_average")
    assert isinstance(memory.targets, MovingAverage) and memory.predictor.weights == []
    assert (memory.targets.images, memory.targets.momentum) == (20, 0.8)
    for flags, steps in (
        ({"alternate_steps": "3"}, 3),
        ({"alternate_steps": "3", "gradient_accumulation": 2}, 6),
        ({"alternate_steps": "epoch"}, 7),
    ):
        targets = made(**flags).targets
        assert isinstance(targets, Snapshot) and targets.steps == steps
    norms = [
        len([x for x in part.layers if isinstance(x, keras.layers.BatchNormalization)])
        for batch_norm in ("none", "hidden", "default", "all")
        for model in [made(batch_norm=batch_norm)]
        for part in (model.projector, model.predictor)
    ]
    assert norms == [0, 0, 1, 1, 2, 1, 2, 2]


RUN = (
    "--recipe=digits --encoder=resnet10 --stem=stride2 --width=4 --output_dim=16 "
    "--predictor_hidden=4 --batch_size=8 --epochs=3 --jit=off"
).split()
RUNS = {
    "alternating": ["--alternate_steps=4"],  # blocks that do not end with an epoch's 3 steps
    "moving average on the device": ["--predictor=moving_average", "--augment=device"],
    "asym2x": ["--symmetrization=asym2x", "--predictor=fixed", "--similarity=cross_entropy"],
}


def pretrain(run_dir, *flags):
    return main(["pretrain", *RUN, f"--run_dir={run_dir}", *flags])


def losses(run_dir):
    rows = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows][1:]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_equals_one_that_was_never_stopped(name, photos, tmp_path, monkeypatch):
    flags = [*RUNS[name], f"--dataset=folder:{photos}"]
    assert pretrain(tmp_path / "whole", *flags) == 0
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "Checkpoint", tiny.StoppedAfterTwo)
        assert pretrain(tmp_path / "run", *flags) == 130
    # The encoder of an unfinished run can be had.
    assert main(["export", f"--run_dir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"]) == 0
    assert pretrain(tmp_path / "run", *flags) == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    a, b = (
        keras.saving.load_model(path / "encoder.keras").get_weights()
        for path in (tmp_path / "run", tmp_path / "whole")
    )
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)
    unfinished = keras.saving.load_model(tmp_path / "out" / "encoder.keras").get_weights()
    assert any(np.abs(x - y).max() > 1e-4 for x, y in zip(unfinished, a, strict=True))


def test_contradicting_flags_get_one_sentence(tmp_path, capfd):
    assert pretrain(tmp_path / "run", "--predictor=none", "--predictor_lr=constant") == 2
    assert "predictor that learns, not none" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_moving_average_refuses_several_replicas(tmp_path):
    flags = [*RUN, "--predictor=moving_average", "--strategy=mirrored", "--virtual_devices=2"]
    command = [sys.executable, "-m", "simsiam_keras", "pretrain", f"--run_dir={tmp_path / 'run'}"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "memory on one replica" in done.stderr and "2 replicas" in done.stderr
