"""What is installed: dependencies that agree, a command that starts at once, a wheel."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

BACKENDS = {"": "tensorflow", "-jax": "jax", "-torch": "torch"}
EXTRAS = ("jax", "torch", "data", "weights", "worth", "tools", "onnx-jax", "onnx-torch")
OPTIONAL = ("-data", "-weights", "-worth", "-tools", "-onnx-jax", "-onnx-torch")
FILES = [f"requirements{suffix}.txt" for suffix in (*BACKENDS, *OPTIONAL, "-dev")]
# What requirements.txt has besides its backend and the others do without.
WITH_TENSORFLOW = {"keras-cv", "tensorflow-datasets", "importlib-resources"}


def requirements(text):
    """{name: (bounds, purpose)} of the lines that name a package."""
    found = {}
    for line in text.splitlines():
        requirement, _, purpose = map(str.strip, line.partition("#"))
        if requirement and not requirement.startswith("-"):
            parsed = Requirement(requirement)
            found[canonicalize_name(parsed.name)] = (parsed.specifier, purpose)
    return found


def read(file):
    return requirements((ROOT / file).read_text("utf-8"))


def without_a_purpose(text):
    return [name for name, (_, purpose) in requirements(text).items() if not purpose]


def without_an_upper_bound(text):
    return [
        name
        for name, (bounds, _) in requirements(text).items()
        if not {bound.operator for bound in bounds} & {"<", "<=", "==", "~="}
    ]


@pytest.mark.parametrize("fault", [without_a_purpose, without_an_upper_bound])
def test_every_dependency_has_a_purpose_and_an_upper_bound(fault):
    for file in FILES:
        assert fault((ROOT / file).read_text("utf-8")) == [], file
    assert fault("numpy>=2.0,!=2.1\nkeras==3.15.1  # the models") == ["numpy"]


@pytest.mark.parametrize("suffix", ["-jax", "-torch"])
def test_the_backends_differ_in_nothing_but_the_backend(suffix):
    main, other = read("requirements.txt"), read(f"requirements{suffix}.txt")
    for name in ("tensorflow", *WITH_TENSORFLOW):
        del main[name]
    del other[BACKENDS[suffix]]
    bounds = [{name: bounds for name, (bounds, _) in each.items()} for each in (main, other)]
    assert bounds[0] == bounds[1]


def test_an_extra_is_the_file_of_its_name():
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    dynamic = tables["tool"]["setuptools"]["dynamic"]
    assert dynamic["dependencies"] == {"file": ["requirements.txt"]}
    assert dynamic["optional-dependencies"] == {
        name: {"file": [f"requirements-{name}.txt"]} for name in EXTRAS
    }
    assert {"dependencies", "optional-dependencies"} <= set(tables["project"]["dynamic"])


# Of the processor, as the machine may be busy with other tests.
SECONDS = """
import resource, subprocess, sys
def seconds(command):
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
totals = [0, *(seconds(sys.argv[1:]) for _ in range(5))]
print(min(after - before for before, after in zip(totals, totals[1:])))
"""


@pytest.mark.parametrize(
    "command, most",
    [(["-c", "import simsiam_keras"], 0.2), (["-m", "simsiam_keras", "--help"], 0.5)],
)
def test_a_start_waits_for_nothing(command, most):
    done = run([sys.executable, "-c", SECONDS, *command], cwd=ROOT)
    assert float(done.stdout) < most


def run(command, **options):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, as the build leaves a folder whose stale modules would get into the next wheel.
    source = folder / "source"
    shutil.copytree(ROOT / "simsiam_keras", source / "simsiam_keras")
    for name in ("pyproject.toml", "README.md", "LICENSE", *FILES):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run([*pip, "--no-index", "-w", folder, source])
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A virtual environment with the wheel, which sees the dependencies that are installed here."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = run([folder / "bin" / "python", "-c", code]).stdout.strip()
    here = [path for path in sys.path if path.endswith("site-packages")]
    with open(f"{packages}/here.pth", "w") as file:
        file.write("\n".join(here))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q"]
    run([*pip, "--no-deps", "--no-index", "--force-reinstall", wheel])
    return folder


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files == {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "simsiam_keras").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "simsiam_keras/study/report.css" in files


@pytest.mark.slow
def test_the_command_works_outside_of_the_source_tree(environment, tmp_path):
    done = run([environment / "bin" / "simsiam-keras", "--help"], cwd=tmp_path)
    assert done.stdout.startswith("usage: ") and "pretrain" in done.stdout
    code = "import simsiam_keras as ss; print(ss.__file__, ss.__version__, ss.SimSiam.__name__)"
    done = run([environment / "bin" / "python", "-c", code], cwd=tmp_path)
    path, _, name = done.stdout.split()
    assert path.startswith(str(environment)) and name == "SimSiam"


@pytest.mark.slow
def test_the_installed_extras_agree_with_the_files(environment, tmp_path):
    code = "import importlib.metadata as m; print(*m.requires('simsiam-keras'), sep='\\n')"
    lines = run([environment / "bin" / "python", "-c", code], cwd=tmp_path).stdout.splitlines()
    found = {extra: {} for extra in ("", *EXTRAS)}
    for requirement in map(Requirement, lines):
        marker = str(requirement.marker or "")
        extra = marker.removeprefix('extra == "').removesuffix('"')
        found[extra][canonicalize_name(requirement.name)] = requirement.specifier
    for extra, suffix in (("", ""), *((name, f"-{name}") for name in EXTRAS)):
        expected = read(f"requirements{suffix}.txt")
        assert found[extra] == {name: bounds for name, (bounds, _) in expected.items()}
