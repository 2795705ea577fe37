"""CIFAR-10 on a GPU within one lease: the step beside plain PyTorch, a training run, its accuracy.

    python -m benchmarks.gpu.cifar10 --data=cifar10_images --out=OUT [-- FLAGS_OF_PRETRAIN]

README.md beside this file has the rest.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import common
from benchmarks.gpu import bench, report, sizes
from simsiam_keras import config, runs

# The probes run at the same time.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
MARGIN = 1.03  # epochs may become slower than those of the trial


def plan(size, steps, early, late, share, compiling, left):
    """How many epochs fit into the time that is left.

    Args:
        size: a `sizes.Size`, for what an epoch and a run take besides their steps.
        steps: optimizer calls in an epoch.
        early: seconds of one with smaller views.
        late: seconds of one with those that follow.
        share: of the epochs, that have smaller views.
        compiling: seconds before the first step of each.
        left: seconds that the run may take.

    Returns:
        A dict: seconds of an `early` and a `late` epoch, of the `rest`, those `left`, `epochs`, and
        `early_epochs`.

    Raises:
        RuntimeError: if fewer than two fit.
    """
    early, late = steps * early + size.between, steps * late + size.between
    epoch = MARGIN * (share * early + (1 - share) * late + size.look / size.every)
    rest = compiling + size.rest
    epochs = min(size.epochs, int((left - rest) / epoch))
    if epochs < 2:
        raise RuntimeError(f"{left:.0f} s are not enough for two epochs of {epoch:.2f} s")
    planned = {"epochs": epochs, "early_epochs": round(share * epochs)}
    return {"early": early, "late": late, "rest": rest, "left": left, **planned}


class Job:
    """The stages, methods that return what results.json keeps of them."""

    # One after the other; those of one line at the same time.
    STAGES = (("bench",), ("train",), ("encoder", "sgd", "lars"))

    def __init__(self, arguments):
        self.size = sizes.SIZES["tiny" if arguments.tiny else "paper"]
        self.out, self.work = arguments.out.resolve(), arguments.work.resolve()
        self.data = self.work / "pictures" if arguments.tiny else arguments.data.resolve()
        self.recipe = (f"--flagfile={arguments.flagfile}", *sizes.ON_THE_DEVICE, *self.size.flags)
        self.recipe += tuple(arguments.flags)
        self.only = arguments.only
        self.seed = arguments.seed
        self.end = time.monotonic() + 60 * arguments.minutes
        for folder in (self.out, self.work):
            folder.mkdir(parents=True, exist_ok=True)

    def run(self):
        """Does what results.json does not hold yet; returns the exit code."""
        path = self.work / "results.json"
        new = {"size": self.size.name, "seed": self.seed, "machine": common.machine()}
        self.found = json.loads(path.read_text()) if path.exists() else new
        self.found["failed"] = {}
        for stages in self.STAGES:
            left = [stage for stage in stages if stage not in self.found]
            if self.only and self.only not in stages:
                continue
            with ThreadPoolExecutor() as pool:
                list(pool.map(self.do, left))
            runs.write_json(path, self.found)
            shutil.copy(path, self.out)
            runs.write_atomically(self.out / "report.md", report.text(self.found))
            if self.found["failed"]:
                break
        return 1 if self.found["failed"] else 0

    def do(self, stage):
        self.say(f"{stage} starts")
        try:
            self.found[stage] = getattr(self, stage)()
        except (RuntimeError, ValueError) as error:
            self.found["failed"][stage] = str(error)
            self.say(f"{stage} failed: {error}")

    def bench(self):
        return bench.run(self.size, self.recipe, self.say)

    def train(self):
        measured, cfg = self.found["bench"], config.parse("pretrain", [*self.recipe])
        early, late = (statistics.median(measured["seconds"][n]) for n in (bench.EARLY, bench.LATE))
        steps = len(list((self.data / "train").glob("*/*"))) // cfg.batch_size
        share = cfg.early_epochs / cfg.epochs
        compiling = sum(measured["warm_up"]["run"].values())
        left = self.end - time.monotonic() - self.size.reserve
        planned = plan(self.size, steps, early, late, share, compiling, left)
        self.say(f"planned: {planned}")
        flags = (f"--epochs={planned['epochs']}",)
        flags += (f"--early_epochs={planned['early_epochs']}",) if cfg.early_epochs else ()
        flags += (f"--knn_every={self.size.every}", f"--checkpoint_every={self.size.every}")
        said, _ = self.call("pretrain", "train", *self.recipe, *flags)
        for name in ("metrics.jsonl", "plots/curves.png", "plots/embedding.png"):
            shutil.copy(self.work / "train" / name, self.out)
        ends, row = epoch_ends(said), runs.read_metrics(self.work / "train")[-1]
        images = row["images_per_second"] * row["seconds"]  # of an epoch
        whole = images * (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else None
        flags = (self.work / "train" / "flags.cfg").read_text()
        return {**self.result("train"), "with_everything": whole, "flags": flags, "plan": planned}

    def encoder(self):
        """The encoder in files that are small enough, made where Keras may be imported."""
        code = (
            "import sys, keras; from pathlib import Path; from benchmarks.gpu import pieces; "
            "print(*pieces.write(keras.saving.load_model(sys.argv[1]), Path(sys.argv[2])))"
        )
        arguments = ("-c", code, str(self.work / "train" / "encoder.keras"), str(self.out))
        environment = {**os.environ, "PYTHONPATH": str(common.ROOT), "KERAS_BACKEND": "jax"}
        environment["JAX_PLATFORMS"] = "cpu"
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return done.stdout.split()

    def sgd(self):
        return self.linear("sgd")

    def lars(self):
        return self.linear("lars")

    def linear(self, optimizer):
        encoder = f"--encoder={self.work / 'train' / 'encoder.keras'}"
        flags = ("--backend=jax", encoder, f"--optimizer={optimizer}", *self.size.probe_flags)
        self.call("linear-probe", optimizer, *flags)
        return self.result(optimizer)

    def result(self, name):
        return json.loads((self.work / name / "result.json").read_text())

    def call(self, command, name, *flags):
        """Runs a command in `work/name`; returns [(seconds, line)] that it said, and its seconds.

        Raises:
            RuntimeError: if it failed.
        """
        common_flags = (f"--dataset=folder:{self.data}", f"--seed={self.seed}")
        words = ("-m", "simsiam_keras", command, *flags, *common_flags)
        began, said = time.monotonic(), []
        process = subprocess.Popen(
            [sys.executable, *words, f"--run_dir={self.work / name}"],
            env={**os.environ, "PYTHONPATH": str(common.ROOT), **SHARED},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.say(" ".join(("python", *words)))
        try:
            for line in process.stdout:
                said.append((time.monotonic() - began, line.rstrip()))
                self.say(line.rstrip())
        finally:
            process.terminate()  # does nothing to one that has ended
            code = process.wait()
        if code:
            last = [line for _, line in said if line][-1:]
            raise RuntimeError(f"{command} ended with {code}: {''.join(last)}")
        return said, time.monotonic() - began

    def say(self, sentence):
        """Prints a line, and appends it to `OUT/log`."""
        line = f"{time.strftime('%H:%M:%S')} {sentence}"
        print(line, flush=True)
        with open(self.out / "log", "a") as file:
            file.write(line + "\n")


def epoch_ends(said):
    """When each epoch ended, of the lines of a `pretrain`; those within one name a step."""
    return [seconds for seconds, line in said if re.match(r"epoch \d+/\d+  loss", line)]


def draw_pictures(folder):
    """Writes 128 and 32 small pictures of four classes."""
    for seed, (split, each) in enumerate((("train", 32), ("test", 8))):
        for number, colour in enumerate(np.eye(4, 3)):
            part = folder / split / f"class{number}"
            part.mkdir(parents=True, exist_ok=True)
            for i, pixels in enumerate(common.smooth_images(each, 32, 10 * seed + number)):
                mixed = (0.7 * pixels + 0.3 * 255 * colour).astype("uint8")
                Image.fromarray(mixed).save(part / f"{i}.png")


def main():
    """Do what is left to do; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with train/ and test/ of CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is small")
    parser.add_argument("--work", type=Path, help="folder of the runs; default OUT/work")
    parser.add_argument("--flagfile", default=sizes.RECIPE, help="recipe of the run")
    parser.add_argument("--only", help="a stage; default all that results.json does not hold")
    parser.add_argument("--minutes", type=float, default=9.0, help="that all of it may take")
    parser.add_argument("--seed", type=int, default=0, help="of the run")
    parser.add_argument("--tiny", action="store_true", help="try everything, on drawn pictures")
    parser.add_argument("flags", nargs="*", help="after --: flags of pretrain, to change the run")
    arguments = parser.parse_args()
    if not arguments.tiny and not (arguments.data and (arguments.data / "train").is_dir()):
        parser.error(f"--data must be a folder with train/ and test/. Received: {arguments.data}")
    arguments.work = arguments.work or arguments.out / "work"
    job = Job(arguments)
    if arguments.tiny:
        draw_pictures(job.data)
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's threads would only wait
    # What the trial compiled, the run need not, however little it was.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(job.work / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return job.run()


if __name__ == "__main__":
    sys.exit(main())
