"""The report holds the numbers of the run folders, and report.html nothing but itself."""

import base64
import io
import json
import math
import re
import shlex

import pytest
from PIL import Image

from simsiam_keras import config, runs
from simsiam_keras.study import cells, report
from tests.study import folders


def behave(changes, seed):
    """Without stop-gradient a collapse; one batch too large, one run missing."""
    if changes.get("stop_gradient") is False:
        return {"knn": 0.72 - seed / 100, "linear": 0.81, "z_std": 0.3, "loss": -0.998}
    if changes.get("batch_size") == 4096:
        return "`batch_size` must be between 1 and <1437>"
    if changes.get("batch_size") == 64 and seed:
        return None
    return {"knn": 0.92 + seed / 50, "linear": 0.97 + seed / 1000}


@pytest.fixture(scope="module")
def study_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies") / "s"
    folders.study(path, behave)
    report.write(path)
    return path


def rows(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def mean_std(values):
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))


def test_every_number_is_the_files(study_dir):
    table = rows((study_dir / "report.md").read_text())
    for label, name in (
        ("with stop-gradient", "recipe"),
        ("without stop-gradient", "stop_gradient=false"),
        ("no predictor", "predictor=none"),
        ("k = 100", "alternate_steps=100"),
    ):
        found = []
        for key, factor, digits in (
            ("knn_accuracy", 100, 1),
            ("linear_accuracy", 100, 1),
            ("z_std", 1, 2),
            ("loss", 1, 3),
        ):
            where = "linear_probe_sgd/result.json" if key == "linear_accuracy" else "result.json"
            paths = [study_dir / "runs" / name / f"seed{seed}" / where for seed in range(3)]
            mean, std = mean_std([factor * json.loads(p.read_text())[key] for p in paths])
            found.append(f"{mean:.{digits}f} ± {std:.{digits}f}".replace("-", "−"))
        assert table[label][:5] == [*found, "3 of 3"]


def test_missing_and_failed_runs_are_counted(study_dir):
    text = (study_dir / "report.md").read_text()
    assert "67 of 72 runs have finished, 3 have failed, 2 are to come." in text
    table = rows(text)
    assert table["batch 64"][:5] == ["92.0", "97.0", "0.98", "−0.900", "1 of 3"]
    assert table["batch 4096"][:5] == ["–", "–", "–", "–", "0 of 3, 3 failed"]
    assert r"- batch 4096, seeds 0, 1, 2, failed: \`batch\_size\` must be between 1" in text


def test_the_papers_numbers_stand_beside(study_dir):
    table = rows((study_dir / "report.md").read_text())
    assert table["with stop-gradient"][5] == "67.7"
    assert table["moving averages as targets"][5] == "55.0"
    assert table["hidden + both outputs"][5] == "–"


def test_order_is_told_for_both_accuracies(study_dir):
    text = (study_dir / "report.md").read_text()
    section = text.split("## Stop-gradient")[1].split("## ")[0]
    assert "By linear accuracy, 1 of 1 pairs are in the paper's order." in section
    assert "By kNN accuracy, 1 of 1 pairs are in the paper's order." in section


def test_protocol_is_stated(study_dir):
    text = (study_dir / "report.md").read_text()
    for words in (
        *("1,437 images of digits", "40 epochs", "k = 200, T = 0.1", "2 processors", "keras 3.15"),
        f"`python -m simsiam_keras study --epochs=40 --knn_every=5 --study_dir={study_dir}`",
    ):
        assert words in text


def test_the_command_gives_the_study_back(tmp_path):
    cfg = config.make(
        "study", study="predictor", linear=False, dataset="folder:my photos", base_lr=0.2
    )
    words = shlex.split(report.command(cfg))
    assert config.parse("study", words[4:]) == cfg


class Outside(Exception):
    pass


def check_self_contained(html):
    links = re.findall(r"""(?:src|href|action|data)\s*=\s*["']?([^"'\s>]+)""", html)
    links += re.findall(r"url\(([^)]*)\)", html) + re.findall("@import (.*)", html)
    if any(not link.startswith("data:image/png;base64,") for link in links):
        raise Outside
    return links


def test_html_needs_nothing_else(study_dir):
    html = (study_dir / "report.html").read_text()
    images = check_self_contained(html)
    assert len(images) == 9 == len(list((study_dir / "plots").iterdir()))
    for data in images:
        Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).verify()
    assert "prefers-color-scheme: dark" in html
    assert html.count("<table>") == 9 and "<title>The paper's experiments on digits</title>" in html
    assert "&lt;1437&gt;" in html and "<1437>" not in html  # what a run printed is no markup


@pytest.mark.parametrize(
    "addition",
    ['<img src="plots/x.png">', "<script src=https://x.org/a.js>", "<style>a{b:url(x.woff)}"],
)
def test_the_check_rejects_what_is_outside(study_dir, addition):
    with pytest.raises(Outside):
        check_self_contained((study_dir / "report.html").read_text() + addition)


def test_pictures_are_as_large_as_a_slide_wants(study_dir):
    for path in (study_dir / "plots").iterdir():
        assert Image.open(path).width >= 1600


def test_a_study_that_has_not_begun_has_a_report(tmp_path):
    folders.study(tmp_path / "s", lambda *_: None, study="batch_norm")
    report.write(tmp_path / "s")
    text = (tmp_path / "s" / "report.md").read_text()
    assert "0 of 12 runs have finished" in text
    assert rows(text)["no normalization"] == ["0 of 3", "34.6", *rows(text)["no normalization"][2:]]


def test_a_run_between_training_and_its_classifier_is_not_counted(tmp_path):
    _, (first, *_) = folders.study(tmp_path / "s", behave, study="stop_gradient", seeds=2)
    first.folder.with_suffix(".json").unlink()
    report.write(tmp_path / "s")
    text = (tmp_path / "s" / "report.md").read_text()
    assert "3 of 4 runs have finished, 0 have failed, 1 are to come." in text
    assert rows(text)["with stop-gradient"][4] == "1 of 2"


def test_another_method_is_named(tmp_path):
    folders.study(tmp_path / "s", behave, method="byol", seeds=1)
    report.write(tmp_path / "s")
    text = (tmp_path / "s" / "report.md").read_text()
    assert text.startswith("# The paper's experiments with byol on digits\n")
    assert "## Batch size" in text and "## Output dimension" in text and "## Predictor" not in text
    assert "numbers are of SimSiam" in text


def test_unlabelled_images_have_a_report(tmp_path):
    _, grid = folders.study(tmp_path / "s", behave, study="stop_gradient", seeds=1)
    for cell in grid:
        for path in (cell.folder, cell.folder / "linear_probe_sgd"):
            found = json.loads((path / "result.json").read_text())
            found = {k: v for k, v in found.items() if "accuracy" not in k} | {"knn": None}
            folders.write(path / "result.json", found)
        metrics = [{**row, "knn_accuracy": None} for row in runs.read_metrics(cell.folder)]
        (cell.folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics))
    report.write(tmp_path / "s")
    text = (tmp_path / "s" / "report.md").read_text()
    assert rows(text)["with stop-gradient"] == ["0.98", "−0.900", "1 of 1", "67.7"]
    assert "kNN:" not in text and "figure_2.png" in text and "plots/stop_gradient.png" not in text


def test_effective_rank_is_shown_where_it_was_measured(tmp_path):
    _, grid = folders.study(tmp_path / "s", behave, study="stop_gradient", seeds=1)
    for cell in grid:
        result = json.loads((cell.folder / "result.json").read_text())
        rank = 31.6 if cell.name == cells.RECIPE else 1.2
        folders.write(cell.folder / "result.json", {**result, "feature_rank": rank})
    report.write(tmp_path / "s")
    table = rows((tmp_path / "s" / "report.md").read_text())
    assert table["setting"][4] == "effective rank"
    assert (table["with stop-gradient"][4], table["without stop-gradient"][4]) == ("31.6", "1.2")


def test_an_earlier_experiment_stays_in_the_report(tmp_path):
    cfg, _ = folders.study(tmp_path / "s", behave, study="stop_gradient", seeds=1)
    later = config.make("study", study="similarity", seeds=1, epochs=40, study_dir=cfg.study_dir)
    (tmp_path / "s" / "flags.cfg").write_text(config.to_flagfile(later))
    report.write(tmp_path / "s")
    text = (tmp_path / "s" / "report.md").read_text()
    assert "## Stop-gradient" in text and "## Similarity function" in text
    assert "## Predictor" not in text


@pytest.mark.parametrize(
    ("values", "factor", "decimals", "text"),
    [
        ([], 1, 2, "–"),
        ([0.5], 100, 1, "50.0"),
        ([0.5, 0.52], 100, 1, "51.0 ± 1.4"),
        ([-0.9, -0.8], 1, 3, "−0.850 ± 0.071"),
    ],
)
def test_spell(values, factor, decimals, text):
    assert report.spell(values, factor, decimals) == text
