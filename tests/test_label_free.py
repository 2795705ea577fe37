"""What benchmarks.label_free computes: rank correlations, their intervals, what a choice costs."""

import io
import json
import math
import tarfile

import numpy as np
import pytest

from benchmarks import label_free


def row(epoch, knn=None, rank=None):
    return {"epoch": epoch, "knn_accuracy": knn, "feature_rank": rank, "z_std": 1.0}


RUNS = [
    label_free.Run("a", [row(2, 0.5, 10), row(4, 0.6, 30), row(6, 0.7, 20), row(8, 0.8, 40)], 0.9),
    label_free.Run("a", [row(2, 0.8, 10), row(4, 0.7, 20), row(6, 0.6, 30), row(8, 0.5, 40)], 0.6),
    label_free.Run("b", [row(8, 0.8, 50)], 0.8),
]


def as_it_is(x):
    return x


def test_correlation_of_ranks():
    # Ranks 1 2 3 4 and 1 3 2 4: 1 - 6 (1 + 1) / (4 * 15).
    assert label_free.spearman([1, 2, 3, 4], [5, 70, 6, 800]) == pytest.approx(0.8)
    assert label_free.spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    # Of equal values each has the mean of their ranks: 1.5 1.5 3 against 1 2 3.
    assert label_free.spearman([0, 0, 1], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))
    assert math.isnan(label_free.spearman([1, 1, 1], [1, 2, 3]))
    assert np.corrcoef([1, 2, 3, 4], [5, 70, 6, 800])[0, 1] != pytest.approx(0.8)


def test_seeds_of_a_setting_stay_together():
    values = [0.0] * 50 + [1.0] * 50
    alone = label_free.interval(values, range(100), np.mean)
    together = label_free.interval(values, ["a"] * 50 + ["b"] * 50, np.mean)
    # The standard error of a mean of a hundred is .05; of two settings nothing is known.
    assert alone == pytest.approx((0.5, 0.4, 0.6), abs=0.03)
    assert together == (0.5, 0.0, 1.0)


def test_within_and_between():
    assert label_free.between(RUNS, "feature_rank", as_it_is) == (
        [(40, 0.9), (40, 0.6), (50, 0.8)],
        ["a", "a", "b"],
    )
    values, settings = label_free.within(RUNS, "feature_rank", as_it_is)
    assert values == pytest.approx([0.8, -1]) and settings == ["a", "a"]
    negative, _ = label_free.within(RUNS, "feature_rank", lambda x: -x)
    assert negative == pytest.approx([-0.8, 1])
    assert label_free.within(RUNS, "lidar", as_it_is) == ([], [])


def test_what_a_choice_costs():
    assert label_free.lost_epochs(RUNS, "feature_rank", as_it_is) == pytest.approx([0, 30])
    assert label_free.lost_epochs(RUNS, "feature_rank", lambda x: -x) == pytest.approx([30, 0])
    assert label_free.lost_runs(RUNS, "feature_rank", as_it_is) == pytest.approx(10)
    assert math.isnan(label_free.lost_runs(RUNS, "lidar", as_it_is))


def test_what_a_plateau_would_have_ended():
    flat = [row(e, 0.8 if e > 2 else 0.5) for e in range(1, 9)]
    rising = [row(e, 0.1 * e) for e in range(1, 9)]
    late = [row(e, 0.9 if e == 8 else 0.8) for e in range(1, 9)]
    runs = [label_free.Run(str(i), rows, 0.5) for i, rows in enumerate((flat, rising, late))]
    # Ended by the second measurement that is no higher: 5 of 8, never, and 3 of 8.
    found = label_free.ended(runs, queries=400)
    assert np.allclose(found, [(5 / 8, 0), (1, 0), (3 / 8, 10)])
    # std·√d is the same all along, and ends each of them as soon as it may.
    assert np.allclose(label_free.ended(runs, queries=None), [(3 / 8, 0), (3 / 8, 50), (3 / 8, 10)])
    assert label_free.ended([runs[0]._replace(rows=flat[:4])], queries=400) == []


def test_runs_are_read_from_an_archive_and_a_folder(tmp_path):
    rows = [row(0, 0.3), row(1, 0.5, 7.0)]
    files = {
        "runs/a=1/seed0/metrics.jsonl": "".join(json.dumps(r) + "\n" for r in rows),
        "runs/a=1/seed0/result.json": "{}",
        "runs/a=1/seed0/linear_probe_sgd/result.json": '{"linear_accuracy": 0.9}',
        "runs/a=2/seed0/metrics.jsonl": "",  # has failed
    }
    with tarfile.open(tmp_path / "runs.tar.xz", "w:xz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
            path = tmp_path / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    expected = [label_free.Run("runs/a=1", rows[1:], 0.9)]
    assert label_free.recorded(tmp_path / "runs.tar.xz") == expected
    assert label_free.in_folder(tmp_path / "folder") == expected


def test_a_report_and_a_figure(tmp_path):
    runs = [
        label_free.Run(
            str(i), [{**r, "lidar": i * r["epoch"], "loss": -1} for r in RUNS[0].rows], a
        )
        for i, a in enumerate((0.5, 0.6, 0.8, 0.7, 0.9))
    ]
    text = label_free.report({"CIFAR-10, new": runs}, "a machine")
    assert "| LiDAR | +0.90 [" in text and "nan" not in text
    label_free.draw({"CIFAR-10, new": runs}, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
