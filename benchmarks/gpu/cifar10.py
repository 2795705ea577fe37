"""CIFAR-10 at the paper's size on a GPU: speed, profile, 200 and 800 epochs, and a report.

    python -m benchmarks.gpu.cifar10 --data=cifar10_images --out=OUT

does every stage that OUT does not have yet; stages may be named. Cut off at any moment, the same
command goes on. `--minutes` ends it by itself, with exit code 3 while something is left to do.
`OUT/report/` is complete after every stage and small. README.md beside this file has the rest.
"""

import argparse
import functools
import importlib.util
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import common
from benchmarks.gpu import bench, report, sizes, training
from simsiam_keras import runs

NEEDED = ("jax", "keras", "namex", "optree", "h5py", "ml_dtypes", "absl", "rich", "PIL")
NEEDED += ("sklearn", "matplotlib", "tensorboardX")
UNFINISHED = 3  # exit code


def draw_pictures(folder):
    """Writes 256 and 64 small pictures of four classes, unless they are there."""
    if folder.exists():
        return
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for seed, (split, each) in enumerate((("train", 64), ("test", 16))):
        for number, colour in enumerate(np.eye(4, 3)):
            part = unfinished / split / f"class{number}"
            part.mkdir(parents=True)
            for i, pixels in enumerate(common.smooth_images(each, 32, 10 * seed + number)):
                mixed = (0.7 * pixels + 0.3 * 255 * colour).astype("uint8")
                Image.fromarray(mixed).save(part / f"{i}.png")
    unfinished.rename(folder)


def run_bench(job):
    path = job.out / "bench.json"
    if not path.exists():
        runs.write_json(path, bench.run(job.size_name))
    return True


def run_profile(job):
    path = job.out / "profile.json"
    command = ("-m", "benchmarks.gpu.breakdown", job.size_name, str(path))
    return training.call(command, job.out / "profile.log", job.left)


def run_training(stage, job):
    size = sizes.SIZES[job.size_name]
    return training.run(stage, size, job.data, job.out, job.seed, job.left, job.say)


STAGES = {
    "bench": run_bench,
    "profile": run_profile,
    "train200": functools.partial(run_training, "train200"),
    "train800": functools.partial(run_training, "train800"),
}


class Job:
    """What is to be done, where, and until when."""

    def __init__(self, arguments):
        self.size_name = "tiny" if arguments.tiny else "paper"
        self.out = arguments.out.resolve()
        self.data = self.out / "pictures" if arguments.tiny else arguments.data.resolve()
        self.seed = arguments.seed
        self.deadline = time.monotonic() + 60 * arguments.minutes

    def left(self):
        return self.deadline - time.monotonic()

    def say(self, sentence):
        line = f"{time.strftime('%H:%M:%S')} {sentence}"
        print(line, flush=True)
        with open(self.out / "log", "a") as file:
            file.write(line + "\n")


def gpu():
    """The card and its driver, where there is one."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        return "no GPU"
    return "; ".join(subprocess.run(query, capture_output=True, text=True).stdout.splitlines())


def main():
    """Do what is left to do; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", help=f"of {', '.join(STAGES)}; default all")
    parser.add_argument("--data", type=Path, help="folder with train/ and test/ of CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end by then, to go on")
    parser.add_argument("--seed", type=int, default=0, help="of the training runs")
    parser.add_argument("--tiny", action="store_true", help="try everything, on drawn pictures")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.stages) - STAGES.keys())
    if unknown:
        parser.error(f"stages must be of {', '.join(STAGES)}. Received: {', '.join(unknown)}")
    if not arguments.tiny and not (arguments.data and (arguments.data / "train").is_dir()):
        parser.error(f"--data must be a folder with train/ and test/. Received: {arguments.data}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}; see benchmarks/gpu/README.md")

    job = Job(arguments)
    job.out.mkdir(parents=True, exist_ok=True)
    if arguments.tiny:
        draw_pictures(job.data)
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's threads would only wait
    os.environ["KERAS_BACKEND"] = "jax"
    # What a call compiled, the next one need not.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(job.out / "compiled"))
    machine = f"{gpu()}; {common.machine()}"
    for name in arguments.stages or STAGES:
        job.say(f"{name}: starts")
        finished = STAGES[name](job)
        report.write(job.out, job.size_name, job.data, job.seed, machine)
        if not finished:
            job.say(f"{name}: not finished; the same command goes on")
            return UNFINISHED
        job.say(f"{name}: finished, see {job.out / 'report' / 'h200.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
