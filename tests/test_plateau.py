"""When a run is said to rise no more, and that it then ends as a whole run does."""

import json
import shutil

import numpy as np
import pytest

from simsiam_keras import callbacks, config, plateau, quality
from simsiam_keras.__main__ import main
from tests.tiny import StoppedAfterTwo


def labelled(values, every=1, name="knn_accuracy"):
    """Rows whose every n-th has been measured by kNN, and a random encoder that was better."""
    rows = [{"epoch": 0, name: 0.99}]
    for epoch in range(1, len(values) * every + 1):
        value = values[epoch // every - 1] if epoch % every == 0 else None
        rows.append({"epoch": epoch, name: value, quality.LABEL_FREE: 5.0})
    return rows


def unlabelled(values):
    rows = [{"epoch": 0, quality.LABEL_FREE: None}]
    return rows + [
        {"epoch": i, quality.LABEL_FREE: quality.DIRECTION * v} for i, v in enumerate(values, 1)
    ]


def by_loops(values, patience, queries):
    """The rule, written out: whether the last of the values ends the run."""
    if len(values) < patience + 1:
        return False
    before, last = values[: len(values) - patience], values[len(values) - patience :]
    best = before[0]
    for value in before:
        best = value if value > best else best
    if queries:
        noise = (best * (1 - best) / queries) ** 0.5
    else:
        steps, previous = 0.0, before[-1]
        for value in last:
            steps, previous = steps + abs(value - previous), value
        noise = steps / patience
    return all(value <= best + noise for value in last)


RANDOM = np.random.default_rng(0)
SERIES = [
    np.round(np.clip(0.6 + rise * np.arange(12) + RANDOM.normal(0, sd, 12), 0, 1), 3).tolist()
    for rise in (-0.01, 0.0, 0.004, 0.02)
    for sd in (0.001, 0.01, 0.03)
]


def verdicts(rule, patience, queries):
    return [rule(values[:n], patience, queries) for values in SERIES for n in range(1, 13)]


@pytest.mark.parametrize("patience", [2, 3, 5])
@pytest.mark.parametrize("queries", [200, 10_000, None])
def test_the_rule_is_that_of_the_loops(patience, queries):
    def rule(values, patience, queries):
        rows = labelled(values) if queries else unlabelled(values)
        return plateau.reached(rows, patience, 1, queries) is not None

    def no_noise(values, patience, queries):
        return len(values) > patience and max(values[-patience:]) <= max(values[:-patience])

    def of_the_last(values, patience, queries):
        return by_loops(values[-patience - 1 :], patience, queries)

    expected = verdicts(by_loops, patience, queries)
    assert verdicts(rule, patience, queries) == expected and 0 < sum(expected) < len(expected)
    assert verdicts(no_noise, patience, queries) != expected
    assert verdicts(of_the_last, patience, queries) != expected


def test_a_slow_but_steady_rise_goes_on_and_noise_ends():
    rising, noisy = np.linspace(0.5, 0.6, 30), 0.5 + np.tile([0.01, -0.01, 0.0], 10)
    assert plateau.reached(unlabelled(rising), 5, 1) is None
    assert plateau.reached(unlabelled(noisy), 5, 1).noise == pytest.approx(0.0133, abs=0.003)
    assert plateau.reached(labelled(rising), 5, 1, queries=10_000) is None
    assert plateau.reached(labelled(rising), 5, 1, queries=400) is not None  # 2.5 % to tell


def test_what_was_before_training_does_not_count():
    assert plateau.reached(labelled([0.5, 0.7, 0.9]), 2, 1, queries=400) is None


@pytest.mark.parametrize("name", ["knn_accuracy", "mean_average_precision"])
def test_measurements_are_counted_and_not_epochs(name):
    rows = labelled([0.5, 0.9, 0.9, 0.9], every=3, name=name)
    found = plateau.reached(rows, 2, 3, queries=400)
    assert found[:5] == (name, 12, 0.9, 0.9, 6)
    assert found.noise == pytest.approx((0.9 * 0.1 / 400) ** 0.5)
    assert plateau.reached(rows, 3, 3, queries=400) is None
    # Between two measurements nothing new is known, and the run has already gone on.
    assert plateau.reached([*rows, {"epoch": 13, name: None}], 2, 3, queries=400) is None


def test_what_is_gone_by_has_to_be_measured():
    flat = [{"epoch": i, quality.LABEL_FREE: 5.0} for i in range(1, 9)]
    assert plateau.reached(flat, 3, 1) and plateau.reached(flat, 3, 1, queries=400) is None
    assert plateau.reached([{"epoch": i} for i in range(1, 9)], 3, 1) is None
    assert plateau.reached([], 3, 1) is None


def test_quality_is_by_knn_where_there_is_one():
    rows = labelled([0.5, 0.7])
    assert quality.points(rows) == ("knn_accuracy", [(1, 0.5), (2, 0.7)])
    assert quality.points(unlabelled([3, 4])) == (quality.LABEL_FREE, [(1, 3), (2, 4)])
    assert quality.LABEL_FREE in callbacks.METRICS and abs(quality.DIRECTION) == 1
    better = {quality.LABEL_FREE: quality.DIRECTION * 9.0}
    assert quality.quality(better) == 9 and quality.quality({quality.LABEL_FREE: np.nan}) is None


def test_the_sentence_says_what_was_reached_and_that_the_rate_is_high():
    found = plateau.reached(labelled([0.5, 0.9, 0.89, 0.88]), 2, 1, queries=400)
    said = plateau.sentence(found, 2, 800, 0.0599, 0.06)
    assert "after epoch 4 of 800: kNN has not risen by more than its noise, 1.5 %, in 2" in said
    assert "it is 88.0 %, and was 90.0 % in epoch 2" in said
    assert "still 0.06, of 0.06 at its highest" in said and "--epochs=4" in said
    found = plateau.reached(unlabelled([50, 70, 70, 69]), 2, 1)
    said = plateau.sentence(found, 2, 800, 0.0599, 0.06)
    assert plateau.WORDS[quality.LABEL_FREE] in said and "it is 69, and was 70 in epoch 2" in said


def test_nothing_can_be_seen_where_nothing_is_measured():
    with pytest.raises(ValueError, match="--knn_every epochs: give it at least 1"):
        config.parse("pretrain", ["--stop_when=plateau", "--knn_every=0"])


SMALL = (
    "--recipe=digits --encoder=resnet10 --stem=stride2 --width=4 --output_dim=8 --jit=off "
    "--predictor_hidden=4 --batch_size=256 --base_lr=0 --epochs=9 --knn_every=1 --early_size=8 "
    "--early_epochs=8 --stop_when=plateau --patience=2"
).split()  # two sections, and nothing is learnt


def pretrain(run_dir, *flags):
    return main(["pretrain", *SMALL, *flags, f"--run_dir={run_dir}"])


def read(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    timed = ("seconds", "images_per_second")
    rows = [{k: v for k, v in row.items() if k not in timed} for row in rows]
    return rows, json.loads((run_dir / "result.json").read_text())


@pytest.fixture(scope="module", params=["digits", "none"])
def ended(request, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("plateau") / "run"
    flags = () if request.param == "digits" else ("--probe_dataset=none",)
    assert pretrain(run_dir, *flags) == 0
    return run_dir, flags


@pytest.mark.slow
def test_a_run_ends_on_a_plateau_as_a_whole_one(ended):
    run_dir, flags = ended
    rows, result = read(run_dir)
    assert result["stopped"] == "plateau" and result["epochs"] == rows[-1]["epoch"] < 8
    queries = None if flags else 360
    seen = [plateau.reached(rows[:n], 2, 1, queries) for n in range(1, len(rows) + 1)]
    assert seen[-1] and not any(seen[:-1])
    assert result["loss"] == rows[-1]["loss"] and (run_dir / "encoder.keras").exists()


@pytest.mark.slow
def test_a_run_that_was_stopped_twice_is_the_same(ended, tmp_path, monkeypatch):
    run_dir, flags = ended
    with monkeypatch.context() as patched:
        patched.setattr(callbacks, "Checkpoint", StoppedAfterTwo)
        assert pretrain(tmp_path / "run", *flags) == 130
    assert pretrain(tmp_path / "run", *flags) == 0
    rows, result = read(tmp_path / "run")
    expected, wanted = read(run_dir)
    assert rows == expected
    assert (result["stopped"], result["epochs"]) == (wanted["stopped"], wanted["epochs"])


@pytest.mark.slow
def test_killed_after_its_end_it_trains_no_more(ended, tmp_path, capsys):
    run_dir, flags = ended
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    (copy / "result.json").unlink()
    assert pretrain(copy, *flags) == 0
    (rows, result), (expected, wanted) = read(copy), read(run_dir)
    assert rows == expected and result["epochs"] == wanted["epochs"]
    assert "Stopped on a plateau after epoch" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_without_the_flag_it_goes_on(tmp_path):
    assert pretrain(tmp_path / "run", "--stop_when=never") == 0
    rows, result = read(tmp_path / "run")
    assert rows[-1]["epoch"] == result["epochs"] == 9 and "stopped" not in result
