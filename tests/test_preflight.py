"""What a run will take is told from its first steps, with what would take less."""

import time

import pytest

from simsiam_keras import config, preflight
from simsiam_keras.__main__ import main

FLAGS = {"stem": "cifar", "encoder": "resnet18", "epochs": 100, "batch_size": 64}
GB = 2**30


def said(hours=0.0, memory=None, side=128, **flags):
    return list(preflight.sentences(hours, memory, {**FLAGS, **flags}, side))


def test_a_run_that_is_affordable_is_not_spoken_of(monkeypatch):
    monkeypatch.setattr(preflight, "memory_bytes", lambda: 16 * GB)
    assert said(23.9, 12 * GB) == []


def test_a_long_one_is_told_what_takes_less():
    (sentence,) = said(240.0)
    assert "takes 240 hours" in sentence and "--epochs=10 for a day" in sentence
    assert "--stem=imagenet, a fifteenth" in sentence
    assert "--encoder=resnet10 --width=32, a seventh" in sentence
    assert "--image_size=64, 25 % of it" in sentence


def test_what_is_small_already_is_not_advised():
    (sentence,) = said(240.0, side=32)
    assert "--stem" not in sentence and "--image_size" not in sentence
    (sentence,) = said(1e5, side=64, stem="imagenet", encoder="resnet10")
    assert sentence.endswith("What takes less: a machine with a GPU")


def test_memory_is_told(monkeypatch):
    monkeypatch.setattr(preflight, "memory_bytes", lambda: 16 * GB)
    (sentence,) = said(1.0, 14 * GB)
    assert "takes 14.0 GB of 16.0 GB" in sentence and "--batch_size=32" in sentence


class Model:
    stop_training = False


def timed(per_step, epochs, steps, monkeypatch, stop=False):
    """What a watch finds of steps that take so many seconds, the first of each run a minute."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    spoken = []
    watch = preflight.Stopwatch(1000, FLAGS, 32, spoken.append, stop)
    watch.set_model(Model())
    for epoch in range(epochs):
        watch.on_epoch_begin(epoch)
        for step in range(steps):
            clock[0] += 60.0 if epoch == step == 0 else per_step
            watch.on_train_batch_end(step, {"loss": 0.0})
        clock[0] += 100.0  # what is measured between epochs
        watch.on_epoch_end(epoch, {"loss": 0.0})
    return watch, spoken


def test_neither_compiling_nor_what_is_between_epochs_counts(monkeypatch):
    watch, _ = timed(3.0, 2, 8, monkeypatch)
    assert watch.found["seconds_a_step"] == pytest.approx(3.0)
    assert watch.found["hours"] == pytest.approx(1000 * 3 / 3600)


def test_an_epoch_of_one_execution_is_timed_in_none(monkeypatch):
    watch, _ = timed(3.0, 1, 1, monkeypatch)
    assert watch.found is None


def test_it_speaks_once_and_stops_only_a_plan(monkeypatch):
    watch, spoken = timed(1000.0, 2, 4, monkeypatch)
    assert len(spoken) == 1 and not watch.model.stop_training
    assert timed(1000.0, 1, 4, monkeypatch, stop=True)[0].model.stop_training


def test_a_plan_says_what_was_understood_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--recipe=digits", "--encoder=resnet10", "--width=4", "--output_dim=8", "--epochs=3"]
    assert main(["pretrain", "--plan", *flags]) == 0
    out, err = capsys.readouterr()
    assert "digits" in err and "1,437 images" in err
    assert "seconds_a_step" in out and "hours" in out and "memory_gb" in out
    assert list(tmp_path.iterdir()) == []


def test_a_stem_that_is_not_typed_is_the_recipes():
    def stem(*flags):
        return config.parse("pretrain", flags).stem

    assert stem() == stem("--recipe=digits") == "cifar"
    assert stem("--recipe=imagenet") == "imagenet"
    assert stem("--recipe=imagenet", "--stem=cifar") == "cifar"
    again = config.to_flagfile(config.parse("pretrain", ["--recipe=imagenet"]))
    assert "--stem=imagenet" in again.splitlines()


def test_a_study_is_not_planned(capsys):
    assert main(["study", "--plan"]) != 0
    assert "--plan is of `pretrain`" in capsys.readouterr().err
