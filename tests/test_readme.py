"""The README is true: its script runs, its commands parse, its reading order is up to date."""

import re
import shlex

from simsiam_keras import config
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_script_runs(tmp_path, monkeypatch):
    (script,) = [code for code in blocks("python") if "ss.SimSiam" in code]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(script, "README.md", "exec"), names)
    assert names["features"].shape == (256, 128)
    assert (tmp_path / "model.keras").exists()


def test_commands_parse(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    calls = [call for line in lines for call in line.split("&&") if "-m simsiam_keras" in call]
    assert len(calls) >= 6
    for call in calls:
        words = shlex.split(call.split("-m simsiam_keras")[1])
        config.parse(words[0], words[1:])


def test_reading_order_names_files_and_their_length():
    rows = re.findall(r"^\d+\. `([\w/.]+)` \((\d+) lines\)", README, re.MULTILINE)
    assert len(rows) >= 8
    for path, lines in rows:
        actual = len((ROOT / path).read_text().splitlines())
        assert abs(actual - int(lines)) <= max(10, 0.1 * actual), f"{path} has {actual} lines"
