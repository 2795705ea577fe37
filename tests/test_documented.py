"""Every command in a document or a flagfile's header does what it says.

Those of this package run, made small, on generated photographs; what needs a download, another
machine or hours is parsed. The files, targets and options that other commands name exist.
"""

import dataclasses
import functools
import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

import simsiam_keras as ss
from simsiam_keras import cards, config, export, family
from simsiam_keras.__main__ import main
from tests.conftest import ROOT
from tests.test_backends import PYTHON, call
from tests.test_packaging import EXTRAS
from tests.test_readme import DOCUMENTS, FENCE, blocks, name

FLAGFILES = sorted((ROOT / "flags").glob("*.cfg"))


def commands(path):
    """The commands of the shell blocks, or of a flagfile's header, one for each of `a && b`."""
    if path.suffix == ".cfg":
        code = re.findall(r"^#   (\S.*)$", path.read_text("utf-8"), re.MULTILINE)
    else:
        code = blocks(path, "sh")
    lines = "\n".join(code).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    return [" ".join(map(shlex.quote, part)) for line in found for part in split(line)]


def split(words):
    """The commands of a line."""
    part = []
    for word in words:
        if word == "&&":
            yield part
            part = []
        else:
            part.append(word)
    if part:
        yield part


def test_a_line_is_split_into_its_commands():
    assert list(split("a b && c".split())) == [["a", "b"], ["c"]]
    cfg = ROOT / "flags" / "digits.cfg"
    assert [line.split()[3] for line in commands(cfg)] == ["pretrain", "linear-probe"]


# What each kind of line is held to; the first that matches counts, and one must.


def parses(arguments):
    command, *rest = shlex.split(arguments)
    if "--help" in rest:
        rest.remove("--help")
        assert config.help_text(command, rest)
    return config.parse(command, rest)


def installs(arguments):
    words = shlex.split(arguments)
    for flag, value in zip(words, words[1:], strict=False):
        if flag == "-r":
            assert (ROOT / value).exists(), value
    for extra in re.findall(r"\.\[(\w+)\]", arguments):
        assert extra in EXTRAS, extra


def makes(targets):
    subprocess.run(["make", "-n", *targets.split()], cwd=ROOT, check=True, capture_output=True)


def measures(arguments):
    """Of a benchmark the module exists, and its source has the options."""
    module, *options = shlex.split(arguments)
    path = ROOT / f"{module.replace('.', '/')}.py"
    for option in options:
        if option.startswith("--"):
            assert option.split("=")[0] in path.read_text("utf-8"), option
    assert path.exists(), module


def unpacks(arguments):
    archive, folder = arguments.split(" -C ")
    listed = subprocess.run(["tar", "tf", ROOT / archive], check=True, capture_output=True)
    assert listed.stdout and folder


def sets(variable):
    assert variable in config.help_text("pretrain") or variable.endswith(
        ("_NUM_PROCESSES", "_PROCESS_ID")
    )


def installed(program):
    assert importlib.util.find_spec(program), program


def nothing(_):
    """Of what only makes folders and environments."""


KINDS = [
    (r"(?:\S*/)?python -m simsiam_keras (.*)", parses),
    (r"simsiam-keras (.*)", parses),
    (r"(?:\S*/)?(?:python -m )?pip install (.*)", installs),
    (r"pip download (.*)", nothing),
    (r"(?:\S*/)?python -m (benchmarks\.\S+.*)", measures),
    (r"(?:\S*/)?python -m (pytest)", installed),
    (r"(tensorboard) --logdir \S+", installed),
    (r"make ([\w -]+)", makes),
    (r"tar xf (.*)", unpacks),
    (r"export (\w+)=.*", sets),
    (r"((?:\S*/)?python -m venv|\. |mkdir -p ).*", nothing),
]
BY_BASH = ("SECURITY.md",)  # whose blocks run as they are


def check(line):
    """Holds a line to its kind; True if it has one."""
    for pattern, rule in KINDS:
        if match := re.fullmatch(pattern, line):
            rule(match[1])
            return True
    return False


@pytest.mark.parametrize("path", [*DOCUMENTS, *FLAGFILES], ids=name)
def test_every_line_is_of_a_kind_that_is_checked(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    if name(path) not in BY_BASH:
        assert [line for line in commands(path) if not check(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "python -m simsiam_keras pretrain --epoch=3",
        "python -m simsiam_keras train",
        "pip install -r requirements-none.txt",
        "pip install '.[cuda]'",
        "python -m benchmarks.none",
        "python -m benchmarks.step --none",
        "make none",
        "tar xf none.tar.xz -C saved_models",
        "export KERAS_NONE=1",
    ],
)
def test_a_wrong_line_is_seen(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    wrong = (AssertionError, KeyError, OSError, flags.Error, subprocess.CalledProcessError)
    with pytest.raises(wrong):
        check(line)


def test_a_line_of_no_kind_is_seen():
    assert not check("curl somewhere")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_block_says_what_it_is(path):
    languages = {language for language, _ in FENCE.findall(path.read_text("utf-8"))}
    assert languages <= {"sh", "python", "text"}


COMMAND = re.compile(rf"(?:python -m )?(?:simsiam_keras )?({'|'.join(config.COMMANDS)}) (--\S.*)")
PLACES = {"NAME": "byol", "METHOD": "byol", "<run_dir>": ".", "<folder>": ".", "NEW": "new"}


def inline(path):
    """What stands in backticks, outside of blocks."""
    text = FENCE.sub("", path.read_text("utf-8"))
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", text)


@pytest.mark.parametrize("path", [x for x in DOCUMENTS if name(x) != "CHANGELOG.md"], ids=name)
def test_what_stands_in_a_sentence_is_right(path, monkeypatch, tmp_path):
    (tmp_path / "flags").symlink_to(ROOT / "flags")
    (tmp_path / "flags.cfg").write_text("")
    monkeypatch.chdir(tmp_path)
    known = flag_names() | {"help", "no"}  # --no-deps is pip's
    for code in inline(path):
        spelled = " ".join(code.split())
        for place, value in PLACES.items():
            spelled = spelled.replace(place, value)
        if match := COMMAND.fullmatch(spelled):
            parses(" ".join(match.groups()))
        elif re.fullmatch(r"(?:pip|python|make|tensorboard) .*", spelled):
            assert check(spelled) or spelled == "python -m simsiam_keras", spelled
        elif "benchmarks" not in path.parts:  # which have flags of their own
            assert set(re.findall(r"(?<![\w-])--([a-z_]+)", spelled)) <= known, code
        for dotted in re.findall(r"\bss\.([a-z_A-Z.]*[a-zA-Z])", spelled):
            functools.reduce(getattr, dotted.split("."), ss)


def flag_names():
    """The names of all flags there are."""
    classes = [*config.COMMANDS.values(), *(member.flags for member in family.FAMILY.values())]
    return {field.name for cls in classes for field in dataclasses.fields(cls)} | {"flagfile"}


def test_digests_are_compared_by_the_documented_lines(tmp_path):
    export.save_encoder(ss.encoders.resnet10((16, 16, 3), width=4), tmp_path)
    (code,) = blocks(ROOT / "SECURITY.md", "sh")
    done = subprocess.run(["bash", "-euc", code], cwd=tmp_path, capture_output=True, text=True)
    file, model = (f"sha256:{line.split()[0]}" for line in done.stdout.splitlines())
    assert cards.read(tmp_path).digest == {"encoder": model, "encoder.keras": file}


# What runs


LOCAL = ("digits", "folder:photos", "folder:labelled")  # without a download
ONE_EPOCH = ["--epochs=1", "--warmup_epochs=0", "--width=4", "--knn_every=0"]
SMALL = {
    "pretrain": ONE_EPOCH,
    "linear-probe": ["--epochs=2"],
    "fine-tune": ["--epochs=1", "--steps=2"],
    "compare": [*ONE_EPOCH, "--seeds=1", "--linear=false", "--methods=simsiam,byol", "--jobs=2"],
    "study": [*ONE_EPOCH, "--seeds=1", "--linear=false", "--jobs=2"],
}
WRITE_ONCE = ("pretrain", "fine-tune", "explore")  # the folder --run_dir
# What is downloaded, and what is made of it.
FETCHED = ("keras_hub:", "keras.applications:", "saved_models/imagenet")
LONG = ("--study=all", "--run_dir=saved_models/two")  # dozens of runs; two machines
# The commands of the cards in flags/ are of the same kinds, and checked word by word above.
RUN = [
    ROOT / f"{file}.md"
    for file in (
        "README",
        "docs/ablations",
        "docs/classify",
        "docs/data",
        "docs/explore",
        "docs/family",
        "docs/handover",
        "docs/machines",
        "docs/probing",
        "docs/search",
    )
]


def photographs(folder, count, seed):
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        pixels = random.integers(0, 255, (4, 4, 3), dtype="uint8")
        size = tuple(map(int, random.integers(20, 60, 2)))
        Image.fromarray(pixels).resize(size).save(folder / f"{i}.jpg")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "flags").symlink_to(ROOT / "flags")
    photographs(folder / "photos", 130, 0)  # a batch of the README's, and no more
    for query in ("photo", "one", "two"):
        shutil.copy(folder / "photos" / "0.jpg", folder / f"{query}.jpg")
    for i, part in enumerate(("train/a", "train/b", "test/a", "test/b")):
        photographs(folder / "labelled" / part, 12, i + 1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=name)
def test_commands_run(path, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes of a study
    ran = 0
    for line in commands(path):
        match = re.fullmatch(r"(?:\S*/)?python -m simsiam_keras (.*)", line)
        if match and not any(word in line for word in LONG):
            ran += run(*shlex.split(match[1]))
    assert ran or path.stem == "machines"


def stand_in(folder):
    """What a run would leave for the commands after it, untrained."""
    from simsiam_keras import encoders, export

    export.save_encoder(encoders.resnet10((32, 32, 3), width=4), folder)


def run(command, *flags):
    """Runs a command, made small, where this machine can; whether it did."""
    cfg = config.parse(command, [flag for flag in flags if flag != "--help"])
    data = getattr(cfg, "dataset", "") or "digits"  # which `export` takes for its card alone
    if data not in LOCAL or not Path(PYTHON[cfg.backend]).exists():
        return False
    if str(getattr(cfg, "encoder", "")).startswith(FETCHED):
        if command == "pretrain" and not Path(cfg.run_dir, "encoder").exists():
            stand_in(cfg.run_dir)
        return False
    encoder = Path(getattr(cfg, "encoder", ""))
    if encoder.is_relative_to("saved_models") and not encoder.exists():
        stand_in(Path(*encoder.parts[:2]))  # what another document has trained
    small = [*flags, *SMALL.get(command, ())]
    if cfg.backend == "tensorflow":
        written = Path(getattr(cfg, "run_dir", "") or "none")
        if command in WRITE_ONCE and (written / "result.json").exists():
            shutil.rmtree(written)  # another document's
        assert main([command, *small]) == 0, (command, small)
    else:
        call(cfg.backend, "-m", "simsiam_keras", command, *small, cwd=Path.cwd())
    return True
