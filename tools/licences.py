"""Prints docs/licences.md, the licences of the dependencies that are installed: `make licences`."""

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = (".venv", ".venv-jax", ".venv-torch")
FILES = [
    f"requirements{suffix}.txt"
    for suffix in (
        *("", "-jax", "-torch", "-data", "-weights", "-worth", "-tools", "-onnx-jax"),
        *("-onnx-torch", "-dev"),
    )
]
SPDX = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
HEAD = """# Licences of the dependencies

What each package says of itself in its metadata, and nothing that a lawyer has read. Written by
`make licences`; the versions of TensorFlow's environment are those of `requirements.lock`. This
package itself is under Apache-2.0.

None of them is part of this package, which only asks for them. Wheels of PyTorch and JAX for GPUs
bring NVIDIA's libraries, under NVIDIA's own licence; the environments of this table are without.
"""


def licence(about):
    """The licence in a package's metadata, in SPDX's spelling where that is clear."""
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier") or () if "License" in c]
    classifiers = [c for c in classifiers if c not in ("OSI Approved", "DFSG approved")]
    text = (about.get("License") or "").strip().split("\n")[0].strip()
    short = (
        text if len(text) <= 40 and re.match(r"[A-Z3][^():]*$", text) else ""
    )  # no copyright line
    found = about.get("License-Expression") or (classifiers or [short])[0]
    if found == "BSD License" and short:  # which of them
        found = short
    return SPDX.get(found, found) or "not stated"


def purposes():
    """{package: what it is for}, of the lines of the requirements files."""
    found = {}
    for file in FILES:
        for line in (ROOT / file).read_text("utf-8").splitlines():
            requirement, _, purpose = map(str.strip, line.partition("#"))
            if requirement and not requirement.startswith("-"):
                found.setdefault(canonicalize_name(Requirement(requirement).name), purpose)
    return found


def installed(environment):
    """{package: its distribution} of a virtual environment, without pip."""
    paths = [str(path) for path in (ROOT / environment).glob("lib/python*/site-packages")]
    found = {canonicalize_name(d.metadata["Name"]): d for d in metadata.distributions(path=paths)}
    found.pop("pip", None)
    return found


def needed_by(packages):
    """{package: names of those that need it}, or have it in an optional part."""
    always, sometimes = {}, {}
    for name, distribution in packages.items():
        for line in distribution.requires or ():
            requirement = Requirement(line)
            optional = re.search(r"\bextra\b", str(requirement.marker or ""))
            found = sometimes if optional else always
            found.setdefault(canonicalize_name(requirement.name), set()).add(name)
    return sometimes | always


def table(head, rows):
    """A Markdown table."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def main():
    """Prints the document."""
    missing = [name for name in ENVIRONMENTS if not installed(name)]
    if missing:
        sys.exit(f"there is no {', '.join(missing)}; `make backends` makes the other backends'")
    packages = {k: d for name in reversed(ENVIRONMENTS) for k, d in installed(name).items()}
    why, whence = purposes(), needed_by(packages)
    named, others = [], []
    for name, distribution in sorted(packages.items()):
        row = [name, distribution.version.split("+")[0], licence(distribution.metadata)]
        if name in why:
            named.append([*row, why[name]])
        elif name in whence:  # else someone's own
            others.append([*row, ", ".join(sorted(whence[name]))])
    print(HEAD)
    print("## What the requirements files name\n")
    print(table(["package", "version", "licence", "for"], named))
    print("\n## What these bring\n")
    print(table(["package", "version", "licence", "needed by"], others))


if __name__ == "__main__":
    main()
