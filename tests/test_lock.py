"""requirements.lock and docs/licences.md agree with the requirements files."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.test_packaging import FILES, read, requirements

LOCK = (ROOT / "requirements.lock").read_text("utf-8")
LICENCES = (ROOT / "docs" / "licences.md").read_text("utf-8")
HASH = r"--hash=sha256:[0-9a-f]{64}"


def pins(text):
    """{name: version} of a lock, in which nothing stands but packages with hashes."""
    found = {}
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    for line in filter(None, map(str.strip, lines)):
        match = re.fullmatch(rf"([\w.-]+)==([\w.+!]+)((?:\s+{HASH})+)", line)
        if not match:
            raise ValueError(f"not a pin with hashes: {line[:60]}")
        found[canonicalize_name(match[1])] = match[2]
    return found


def missing_or_out_of_bounds(locked, wanted):
    return [
        name
        for name, (bounds, _) in wanted.items()
        if name not in locked or not bounds.contains(locked[name])
    ]


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_is_within_the_bounds(file):
    assert missing_or_out_of_bounds(pins(LOCK), read(file)) == []


def test_a_lock_out_of_bounds_is_seen():
    wanted = requirements("a>=2,<3\nb==1.0\nc>=1\nd>=1")
    locked = {"a": "3.0", "b": "1.0", "c": "0.9"}
    assert missing_or_out_of_bounds(locked, wanted) == ["a", "c", "d"]


@pytest.mark.parametrize(
    "line",
    [
        "a==1.0",
        "a>=1.0 --hash=sha256:" + "0" * 64,
        "a==1.0 --hash=md5:" + "0" * 64,
        "a==1.0 --hash=sha256:" + "0" * 63,
        "--index-url https://example.org/simple",
        "--find-links wheels",
        "a @ https://example.org/a.whl --hash=sha256:" + "0" * 64,
    ],
)
def test_a_line_that_is_no_pin_with_hashes_is_refused(line):
    with pytest.raises(ValueError, match="not a pin"):
        pins(f"# a comment\nb==1 \\\n    --hash=sha256:{'1' * 64}\n{line}\n")


def test_no_address_stands_in_the_lock():
    assert "://" not in LOCK and not re.search(r"--(index|extra|find|trusted)", LOCK)


def rows(text):
    """{package: (version, licence)} of the tables."""
    found = re.findall(r"^\| ([\w.-]+) \| ([\w.!]+) \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    return {name: (version, licence.strip()) for name, version, licence in found}


def without_a_licence(text, wanted):
    found = rows(text)
    return [name for name in wanted if name not in found or not found[name][1]]


@pytest.mark.parametrize("file", FILES)
def test_every_requirement_has_a_licence(file):
    assert without_a_licence(LICENCES, read(file)) == []


def test_every_locked_package_has_a_licence_of_its_version():
    found = {name: version for name, (version, _) in rows(LICENCES).items()}
    assert pins(LOCK).items() <= found.items()


def test_a_package_without_a_licence_is_seen():
    table = "| a | 1.0 | MIT | for |\n| b | 1.0 |  | for |\n"
    assert without_a_licence(table, ["a", "b", "c"]) == ["b", "c"]


def test_what_packages_need_is_locked_too():
    locked, missing = pins(LOCK), []
    for name in locked:
        try:
            lines = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and canonicalize_name(requirement.name) not in locked:
                missing.append(f"{name} needs {requirement}")
    assert missing == []
