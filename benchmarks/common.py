"""What the benchmarks share: contenders in processes of their own, and what they ran on."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("tensorflow", "jax", "torch")


class LeftOut(RuntimeError):
    """A contender that cannot run here, and why."""


class Process:
    """A contender in another process, idle but for its turns.

    It must say one line of JSON when it is ready, which `ready` waits for and keeps as `hello`, and
    answer each line with one; `serve` does so. What it writes to standard error is read only if it
    ends before its time.
    """

    def __init__(self, backend, module, *arguments):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [python_of(backend), "-m", module, *arguments],
            env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ready(self):
        self.hello = self._read()

    def __call__(self, request=None):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.errors.seek(0)
        last = [text.strip() for text in self.errors if text.strip()][-1:]
        raise LeftOut(f"its process ended with {code}: {''.join(last)}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def start(module, contenders, say=lambda sentence: None):
    """Start contenders side by side, `{name: (backend, *arguments)}`, and wait for all.

    Says which is ready, and returns their processes by name, and the reasons of those that cannot
    run here.
    """
    running, left_out = {}, {}
    for name, (backend, *arguments) in contenders.items():
        try:
            running[name] = Process(backend, module, *arguments)
        except LeftOut as reason:
            left_out[name] = str(reason)
    for name in list(running):
        try:
            running[name].ready()
            say(f"{name} is ready: {running[name].hello}")
        except LeftOut as reason:
            left_out[name] = str(reason)
            del running[name]
    return running, left_out


def serve(hello, turn):
    """Be the process of a contender: `turn` answers every request."""
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(json.loads(line))), flush=True)


def python_of(backend):
    """A Python that has the backend: that of `.venv-BACKEND` if there is one, else this one."""
    own = ROOT / f".venv-{backend}" / "bin" / "python"
    if own.exists():
        return str(own)
    if importlib.util.find_spec(backend):
        return sys.executable
    raise LeftOut(f"without {backend}")


def seconds_a_call(function, seconds):
    """Mean time of a call, of as many as begin within `seconds`, at least one."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not calls:
        function()
        calls += 1
    return (time.perf_counter() - start) / calls


def smooth_images(n, size, seed=0):
    """Random smooth colour images, uint8 `[n, size, size, 3]`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), "uint8")
    pictures = (Image.fromarray(pixels).resize((size, size)) for pixels in coarse)
    return np.stack([np.asarray(picture) for picture in pictures])


def versions(packages):
    """Installed packages and their versions."""
    return ", ".join(
        f"{package} {metadata.version(package)}"
        for package in packages
        if importlib.util.find_spec(package.replace("-", "_"))
    )


def machine():
    """The processor, and how much else it had to do in the last minutes."""
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"{os.cpu_count()} cores, {cpu()}; load average {load}"


def cpu():
    """The processor's name, where the system tells."""
    try:
        with open("/proc/cpuinfo") as file:
            names = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
        return ", ".join(names)
    except OSError:
        return platform.processor() or platform.machine()


def command(module):
    """What was typed."""
    return " ".join(["python -m", module, *sys.argv[1:]])


def setting(module, machine, versions):
    """The head of a report in Markdown: on what, with what, and how it was called."""
    here = f"Python {platform.python_version()}, numpy {np.__version__}"
    return (
        f"- machine: {machine} before the start\n"
        f"- versions: {'; '.join([here, *sorted(versions)])}\n"
        f"- command: `{command(module)}`\n"
    )


def table(head, rows):
    """A Markdown table; every column but the first is of numbers."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, align, *rows))


def publish(text, path):
    """Print a report, and write it to a file if one is given."""
    print(text, end="")
    if path:
        Path(path).write_text(text)
