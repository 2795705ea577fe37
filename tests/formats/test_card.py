"""The model card: read as Hugging Face reads it, true to the run, and its code runs."""

import re

import pytest

from simsiam_keras import config, export, runs
from simsiam_keras.__main__ import main
from simsiam_keras.data import sources
from simsiam_keras.formats import card, source
from simsiam_keras.formats.job import Job
from tests.test_readme import FENCE

RESULT = {
    "knn_accuracy": 0.912,
    "knn_accuracy_random_init": 0.5,
    "knn_accuracy_pixels": 0.7,
    "knn": {"k": 37, "temperature": 0.1, "bank": 1437, "queries": "test split"},
}


@pytest.fixture
def run(tiny, tmp_path):
    """The folder of a run, as `pretrain` leaves it but for what is not read."""
    folder = tmp_path / "run"
    export.save_encoder(export.keras_model(tiny / "encoder.keras"), folder, 0.875)
    flags = config.make(
        "pretrain", dataset="folder:/home/me/photos/", epochs=12, run_dir=str(folder), seed=3
    )
    runs.write_atomically(folder / "flags.cfg", config.to_flagfile(flags))
    runs.write_environment(folder, "tensorflow", ["CPU:0"], sources.load("digits"))
    runs.write_json(folder / "result.json", RESULT)
    (folder / "linear_probe_sgd").mkdir()
    linear = {"linear_accuracy": 0.951, "protocol": "SGD on frozen features."}
    runs.write_json(folder / "linear_probe_sgd" / "result.json", linear)
    return folder


def page(out, *flags):
    assert main(["export", f"--output={out}", *flags]) == 0
    return (out / "README.md").read_text("utf-8")


def front_matter(text):
    """The card's data, by a reader of YAML."""
    yaml = pytest.importorskip("yaml")
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    return yaml.safe_load(head[1])


def test_the_front_matter_is_what_the_hub_reads(run, tmp_path):
    text = page(tmp_path / "out", f"--weights={run}", "--format=keras", "--license=cc-by-4.0")
    found = front_matter(text)
    assert found["license"] == "cc-by-4.0" and found["library_name"] == "keras"
    assert found["pipeline_tag"] == "image-feature-extraction"
    assert "simsiam" in found["tags"] and found["metrics"] == ["accuracy"]
    plain = page(tmp_path / "none", f"--weights={run}", "--format=keras", '--license=a: "b"')
    assert front_matter(plain)["license"] == 'a: "b"'


def test_the_page_says_what_the_run_did(run, tmp_path):
    text = page(tmp_path / "out", f"--weights={run}", "--format=keras")
    for said in ("91.2 %", "50.0 %", "70.0 %", "95.1 %", "k 37", "SGD on frozen features"):
        assert said in text, said
    assert "another state" not in text
    ((_, recipe),) = [block for block in FENCE.findall(text) if block[0] == "text"]
    assert "--epochs=12" in recipe and "--seed=3" in recipe and "--method=simsiam" in recipe
    assert "--momentum" not in recipe  # at its default
    assert "folder:photos" in text and "/home/me" not in text and str(tmp_path) not in text
    assert "1437" in text


def test_numbers_of_another_state_are_not_taken_for_its_own(run, tmp_path):
    flags = config.make("export", weights=str(run), output="out")
    exported = source.opened(flags, lambda sentence: None)
    assert source.of_run(exported)
    exported.encoder.variables[0].assign(exported.encoder.variables[0] * 2)
    assert not source.of_run(exported)
    job = Job(exported.encoder)
    facts = {"encoder.keras": {"format": "keras", "any_size": False, "int8": False, "bytes": 9}}
    assert "another state" in card.text(exported, job, facts, "unknown", same=False)


def test_without_a_run_it_says_so(tiny, tmp_path):
    text = page(tmp_path, f"--weights={tiny}", "--format=keras")
    assert "Not known here" in text and "None were recorded" in text and "Recipe" not in text
    assert "Not stated" in text


@pytest.mark.parametrize(
    "flags",
    [
        ["--format=keras,saved_model,onnx,litert,openvino"],
        ["--format=onnx", "--with_preprocessing"],
    ],
)
def test_the_four_lines_that_load_each_format_run(flags, tiny, tmp_path, monkeypatch):
    for package in ("onnxruntime", "tf2onnx", "openvino", "ai_edge_litert"):
        pytest.importorskip(package)
    text = page(tmp_path, f"--weights={tiny}", *flags)
    monkeypatch.chdir(tmp_path)
    found = [code for language, code in FENCE.findall(text) if language == "python"]
    assert len(found) == len(flags[0].partition("=")[2].split(","))
    for code in found:
        assert code.count("\n") == 4
        names = {}
        exec(compile(code, "README.md", "exec"), names)
        assert names["features"].shape == (2, 32), code


@pytest.mark.parametrize(
    "text, shown",
    [
        ("folder:/a/b/photos/", "folder:photos"),
        ("cifar10", "cifar10"),
        ("npz:c.npz", "npz:c.npz"),
        ("0.5", "0.5"),
        ("folder:C:\\photos\\cats", "folder:C:cats"),
    ],
)
def test_of_a_path_the_last_part_is_shown(text, shown):
    assert card.short(text) == shown
