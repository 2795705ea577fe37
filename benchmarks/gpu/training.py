"""Stages `train200` and `train800`: the commands that a user types, each in a process, watched.

`pretrain` goes on from its last checkpoint, so a stage may be cut off at any moment and called
again. Where the time is limited, a run is stopped right after the last checkpoint that fits.
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import common
from benchmarks.gpu import sizes
from simsiam_keras import runs

POLL = 0.2  # seconds
MARGIN = 1.2  # the time to the next checkpoint may be longer than the epochs so far say


def commands(stage, size, data, out, seed):
    """The commands of a stage by the folder in `out` that each writes, in their order."""
    images = (f"--dataset=folder:{data}", f"--seed={seed}")
    found = {
        stage: (
            *("pretrain", sizes.FLAGFILE, *sizes.ON_THE_DEVICE, *size.flags, *images),
            f"--epochs={size.epochs[stage]}",
            f"--knn_every={size.knn_every[stage]}",
            f"--checkpoint_every={size.checkpoint_every}",
            f"--run_dir={out / stage}",
        )
    }
    for optimizer in ("sgd", "lars"):
        folder = out / f"{stage}_{optimizer}"
        encoder = f"--encoder={out / stage / 'encoder.keras'}"
        found[folder.name] = (
            *("linear-probe", sizes.BACKEND, encoder, *images, f"--optimizer={optimizer}"),
            *(*size.probe_flags, f"--run_dir={folder}"),
        )
    return found


def run(stage, size, data, out, seed, left, say):
    """Does what is left of a stage.

    Args:
        stage: a key of `size.epochs`.
        size: a `sizes.Size`.
        data: folder of `train/` and `test/`, each with a folder for each class.
        out: folder of everything that is written.
        seed: of the runs.
        left: function without arguments, the seconds left; infinite without a limit.
        say: function of a sentence.

    Returns:
        Whether the stage is finished.

    Raises:
        RuntimeError: if a command failed.
    """
    for name, command in commands(stage, size, data, out, seed).items():
        if (out / name / "result.json").exists():
            continue
        if left() <= 0:
            return False
        watch = Watch(stage, size, out, left, say) if name == stage else None
        if not call(("-m", "simsiam_keras", *command), out / f"{name}.log", left, watch):
            return False
        say(f"{name}: done")
    return True


def call(command, log, left, watch=None):
    """Runs a command of this Python until its end, or until there is no time left for it.

    Args:
        command: the arguments of `python`.
        log: file that its messages are appended to.
        left: function without arguments, the seconds left.
        watch: function without arguments that returns whether to go on; called all the time.

    Returns:
        Whether the command finished.

    Raises:
        RuntimeError: if it failed.
    """
    path = os.pathsep.join(filter(None, (str(common.ROOT), os.environ.get("PYTHONPATH"))))
    with open(log, "a") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": path},
            stdout=file,
            stderr=file,
        )
        try:
            while process.poll() is None:
                time.sleep(POLL)
                if left() <= 0 or (watch and not watch()):
                    return False
        finally:
            if process.poll() is None:
                process.terminate()  # what a shell left in the background ignores interrupts
                process.wait()
    if process.returncode:
        last = [line for line in log.read_text().splitlines() if line.strip()][-1:]
        raise RuntimeError(
            f"{' '.join(command[1:3])} ended with {process.returncode}: {''.join(last)}"
        )
    return True


class Watch:
    """Reads what a run writes: notes when each epoch ended, tells the speed and the end.

    A call returns False where the run had better be stopped: a checkpoint has just been written
    and the next one would come too late.
    """

    def __init__(self, stage, size, out, left, say):
        self.stage, self.size, self.left, self.say = stage, size, left, say
        self.run_dir, self.times = out / stage, out / f"{stage}.times.jsonl"
        self.first = self.saved = runs.last_epoch(self.run_dir)
        if self.run_dir.exists():  # rows of epochs that this call trains again
            runs.keep_metrics(self.run_dir, self.first)
        self.began, self.began_at = time.perf_counter(), int(time.time())
        self.seen, self.told = [], False

    def __call__(self):
        now = time.perf_counter() - self.began
        last = max((row["epoch"] for row in runs.read_metrics(self.run_dir)), default=0)
        if last > max([self.first, *(epoch for epoch, _ in self.seen)]):
            self.seen.append((last, now))
            with open(self.times, "a") as file:
                row = {"call": self.began_at, "epoch": last, "seconds": round(now, 2)}
                file.write(json.dumps(row) + "\n")
        pace, checkpoint = seconds_an_epoch(self.seen), runs.last_epoch(self.run_dir)
        if pace and now >= self.size.report_after and (checkpoint > self.saved or not self.told):
            self.say(self.sentence(pace))
            self.told = True
        if checkpoint > self.saved and pace:
            self.saved = checkpoint
            to_next = min(self.size.checkpoint_every, self.size.epochs[self.stage] - checkpoint)
            return self.left() > MARGIN * to_next * pace
        return True

    def sentence(self, pace):
        epochs, (done, _) = self.size.epochs[self.stage], self.seen[-1]
        seconds = (epochs - done) * pace
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
        return (
            f"{self.stage}: epoch {done} of {epochs}, {images_an_epoch(self.run_dir) / pace:,.0f} "
            f"images/s with everything, {seconds / 60:.1f} minutes more of training, until {end}"
        )


def seconds_an_epoch(seen):
    """Of `[(epoch, seconds)]`, from the first to the last; None where there is only one."""
    if len(seen) < 2:
        return None
    (first, start), (last, end) = seen[0], seen[-1]
    return (end - start) / (last - first)


def images_an_epoch(run_dir):
    """Images that an epoch trains on, which are whole batches."""
    images = json.loads((run_dir / "environment.json").read_text())["data"]["images"]
    flags = dict(line.split("=", 1) for line in (run_dir / "flags.cfg").read_text().splitlines())
    batch_size = int(flags["--batch_size"])
    return images // batch_size * batch_size


def speed(out, stage):
    """Images a second of all calls of a stage, monitors and checkpoints included.

    From the first epoch that a call finished to its last, so without its start.

    Returns:
        The rate, or None where no call finished two epochs.
    """
    path = Path(out) / f"{stage}.times.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    calls = {}
    for row in rows:
        calls.setdefault(row["call"], []).append((row["epoch"], row["seconds"]))
    epochs = sum(seen[-1][0] - seen[0][0] for seen in calls.values())
    seconds = math.fsum(seen[-1][1] - seen[0][1] for seen in calls.values())
    return images_an_epoch(Path(out) / stage) * epochs / seconds if epochs else None
