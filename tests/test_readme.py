"""README, docs/ and what lies beside them are true: scripts run, files exist; test_documented has
the commands."""

import re

import pytest

from tests.conftest import ROOT

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "saved_models" / "README.md",
    *sorted((ROOT / "benchmarks").rglob("README.md")),
]
README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path, language):
    return [code for found, code in FENCE.findall(path.read_text("utf-8")) if found == language]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the encoder that the command for photographs leaves, untrained."""
    from simsiam_keras import encoders, export

    folder = tmp_path_factory.mktemp("trained")
    export.save_encoder(encoders.resnet10((64, 64, 3), width=32), folder / "saved_models/photos")
    return folder


SCRIPTS = [
    # The README's trains for as long as all others together.
    pytest.param(path, id=name(path), marks=[pytest.mark.slow] if name(path) == "README.md" else [])
    for path in DOCUMENTS
    if blocks(path, "python")
]


@pytest.mark.parametrize("path", SCRIPTS)
def test_scripts_run(path, trained, monkeypatch):
    import simsiam_keras as ss

    monkeypatch.chdir(trained)
    names = {}
    for number, code in enumerate(blocks(path, "python"), start=1):
        exec(compile(code, f"{name(path)}, script {number}", "exec"), names)
    if path == ROOT / "README.md":
        assert names["images"].shape == (1437, 8, 8, 3)
        assert names["features"].shape == (256, 128)
        assert type(names["model"]) is ss.SimSiam


def broken_links(text, folder):
    text = FENCE.sub("", text)
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text)
    return [t for t in targets if not re.match(r"https?:", t) and not (folder / t).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_point_to_files(path):
    assert broken_links(path.read_text("utf-8"), path.parent) == []


def test_a_broken_link_is_seen():
    text = "[a](README.md) [b](docs/none.md) ![c](none.png) [d](https://e.org/f) [g](none.md#h)"
    assert broken_links(text, ROOT) == ["docs/none.md", "none.png", "none.md"]


def missing_anchors(text):
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    known = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    return set(re.findall(r"\]\(#([^)]*)\)", text)) - known


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_within_a_document_point_to_headings(path):
    assert missing_anchors(path.read_text("utf-8")) == set()
    assert missing_anchors("# A, b\n[c](#a-b) [d](#e)") == {"e"}


@pytest.mark.parametrize("document", ["docs/reading.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(document):
    text = FENCE.sub("", (ROOT / document).read_text("utf-8"))
    files = re.findall(r"`([\w/.]+(?:\.py|/))`", text)
    assert len(files) >= 15
    for file in files:
        assert (ROOT / file).exists() or (ROOT / "simsiam_keras" / file).exists(), file


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 190


@pytest.mark.parametrize("job", ["main", "test"])
def test_the_jobs_of_ci_have_a_marker_and_a_block(job):
    assert len(re.findall(rf"^<!-- {job} -->\n```sh\n[^`]+\n```$", README, re.MULTILINE)) == 1
