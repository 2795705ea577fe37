"""The run folder: create, refuse, lock; flags.cfg, environment.json, metrics.jsonl, result.json."""

import contextlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

from simsiam_keras import flagfile, locks
from simsiam_keras.data import found
from simsiam_keras.errors import reading, writing

PACKAGES = ("keras", "tensorflow", "jax", "torch", "keras-cv", "tensorflow-datasets", "numpy")
# A run may be moved and watched differently; everything else makes it another run.
FREE_TO_CHANGE = {
    "run_dir",
    "debug",
    "data_dir",
    "checkpoint_every",
    "cache",
    "cache_dir",
    "projector",
}


DIVERGED = "diverged"  # in a row of metrics.jsonl, what was no number any more


def _partial(name):
    # Always the same: what a killed process left is overwritten, not added to.
    return f".{name}.partial"


BEGINNING = locks.FILES | {_partial("flags.cfg")}  # what a run folder holds before it has its flags


@contextlib.contextmanager
def atomic_file(path):
    """Opens a file to write so that a reader finds the old file or the new one, never a part.

    Args:
        path: where the file appears when the block has ended; after an error nothing does.

    Yields:
        A binary file.

    Raises:
        RunFailed: if the file system does not take it.
    """
    path = Path(path)
    temporary = path.with_name(_partial(path.name))
    with writing(path):
        try:
            temporary.unlink(missing_ok=True)  # a link of this name would lead elsewhere
            with open(temporary, "xb") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        settle(path.parent)


def settle(path):
    """Has the disk hold a file, or the names in a folder; not every system lets one ask for it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path, data):
    """Writes text or bytes, atomically."""
    with atomic_file(path) as f:
        f.write(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)


def write_npz(path, arrays):
    """Writes a mapping of names to arrays as .npz, atomically."""
    with atomic_file(path) as f:
        np.savez(f, **arrays)


@contextlib.contextmanager
def locked(path, flags, write=True):
    """Creates a run folder or takes up an unfinished one, and holds it against other processes.

    Args:
        path: the folder.
        flags: the resolved flags, values by name.
        write: False for the other processes of a run, which only look.

    Yields:
        The folder as a `Path`, with `flags.cfg` in it.

    Raises:
        ValueError: if the folder holds a finished run, another run, or something else.
        RunFailed: if another process is writing to it.
    """
    path = Path(path)
    refuse_unspellable(path, "run_dir")
    if path.exists() and not path.is_dir():
        raise ValueError(f"--run_dir must be a folder. Received: {path}, which is a file")
    _refuse(path, flags)
    if not write:
        yield path
        return
    make_folder(path)
    with locks.held(path):
        _refuse(path, flags)  # again: it may have finished while we looked
        write_atomically(path / "flags.cfg", flagfile.write(flags))
        yield path


def make_folder(path):
    """Makes a folder where there is none, or raises `RunFailed`."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def refuse_unspellable(path, flag):
    """Raises where TensorFlow, which writes the encoder at the end, could not spell a path."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"--{flag} must be a name in UTF-8, in a locale that has it (PYTHONUTF8=1). "
            f"Received: {path}"
        ) from None


def _refuse(path, flags):
    if not path.exists():
        return
    found = {p.name for p in path.iterdir()}  # once: the first process may be writing its flags
    if result(path) is not None:
        train_on = ""
        if (path / "encoder.keras").exists():
            train_on = (
                ". To train on from its encoder, for more epochs or with other flags, add "
                f"--weights={path}"
            )
        raise ValueError(f"{path} holds a finished run; give another --run_dir{train_on}")
    if "flags.cfg" in found:
        if any(path.glob("checkpoints/*")):  # else there is nothing to lose
            refuse_other_flags(path, flags, "an unfinished run")
    elif found - BEGINNING and not any(path.glob("checkpoints/epoch_*.npz")):
        raise ValueError(f"{path} is not empty and not a run folder; give a new or empty --run_dir")


def refuse_other_flags(path, flags, what, free=frozenset()):
    """Raises where a folder was begun with other flags.

    Args:
        path: a folder with a `flags.cfg`.
        flags: the flags now, values by name.
        what: what the folder holds, in words.
        free: names that may differ besides `FREE_TO_CHANGE`.

    Raises:
        ValueError: if a flag differs, or was written by a version that had it for every method.
    """
    with reading(Path(path) / "flags.cfg", "restore it, or give another --run_dir"):
        old = flagfile.values(Path(path) / "flags.cfg")
    new = spelled(flags)
    free = FREE_TO_CHANGE | free
    gone = [name for name in old if name not in new and name not in free]
    if gone:
        raise ValueError(
            f"{path} holds {what} that an earlier version began, whose flags.cfg has flags of "
            f"other methods ({flagfile.listed(gone)}); end it with that version, or give another "
            "--run_dir"
        )
    changed = differences(old, new, free)
    if changed:
        raise ValueError(
            f"{path} holds {what} with other flags ({', '.join(changed)}); "
            "repeat its flags to go on with it, or give another --run_dir"
        )


def spelled(flags):
    """The flags that make a run the one it is, texts by name."""
    return {name: flagfile.spell(value) for name, value in flags.items()}


def differences(old, new, free=FREE_TO_CHANGE):
    """The flags in which a run differs from what was begun, in words.

    Args:
        old: texts by name.
        new: texts by name.
        free: names that may differ.

    Returns:
        A list of parts of a sentence.
    """
    return [
        f"--{name}: {old.get(name, 'absent')} there, {new[name]} here"
        for name in sorted(new)
        if name not in free and old.get(name) != new[name]
    ]


def write_environment(run_dir, backend, devices, source):
    """Writes environment.json: what a number depends on besides the flags.

    Args:
        run_dir: the run folder.
        backend: name of the Keras backend.
        devices: list of device names.
        source: the images, a `data.Source`.
    """
    versions = {}
    for package in ("simsiam-keras", *PACKAGES):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    environment = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "backend": backend,
        "devices": devices,
        "versions": versions,
        "data": {
            "name": source.name,
            "images": len(source),
            "fingerprint": source.fingerprint,
            **found.as_json(source.found),
            "value_range": source.value_range,
        },
    }
    write_json(Path(run_dir) / "environment.json", environment)


def value_range(run_dir):
    """What became 0 and 255 in the images of a run, as environment.json has it, or None."""
    path = Path(run_dir) / "environment.json"
    if not path.exists():
        return None
    data = read_json(path, "restore it, or move it away").get("data")
    return data.get("value_range") if isinstance(data, dict) else None


def write_json(path, value):
    """Writes a value as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def read_json(path, advice):
    """Reads a JSON object of a run folder.

    Args:
        path: the file.
        advice: what to do where it is damaged, the end of a sentence.

    Returns:
        A dict.

    Raises:
        ValueError: if the file does not hold one.
    """
    with reading(path, advice):
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not an object")
        return found


def result(run_dir):
    """The content of a folder's result.json; None while the run has not finished.

    Raises:
        ValueError: if it is damaged, which no process of ours leaves.
    """
    path = Path(run_dir) / "result.json"
    return read_json(path, "delete it, and the same command goes on") if path.exists() else None


def read_metrics(run_dir):
    """The rows of metrics.jsonl; a last line cut short by a crash is left out.

    Raises:
        ValueError: if the file is damaged.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    with reading(path, "a run that goes on writes it anew from its checkpoint"):
        lines = path.read_text(encoding="utf-8").split("\n")
        # What follows the last newline was never completed.
        return [_row(number, line) for number, line in enumerate(lines[:-1], 1)]


def _row(number, line):
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    try:
        check_row(row)
    except ValueError as error:
        raise ValueError(f"line {number}, {error}: {line[:40]!r}") from None
    return row


def check_row(row):
    """Raises `ValueError` where a row does not hold what runs write."""
    epoch = row.get("epoch") if isinstance(row, dict) else None
    if type(epoch) is not int or epoch < 0:
        raise ValueError("which has no number of an epoch, is no row")
    for name, value in row.items():
        whole = type(value) is int and abs(value) < 2**63  # larger ones are no floats
        if not (value is None or whole or type(value) is float or name == DIVERGED):
            raise ValueError(f"{name:.40} must be a number. Received: {_shown(value)}")


def _shown(value):
    try:
        return f"{value!r:.40}"
    except ValueError:  # Python writes no more than 4,300 digits
        return type(value).__name__


def write_metrics(run_dir, rows):
    """Writes metrics.jsonl anew, atomically."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(Path(run_dir) / "metrics.jsonl", text)


def append_metrics(run_dir, row):
    """Appends one row to metrics.jsonl, on the disk when this returns.

    Raises:
        RunFailed: if the file system does not take it.
    """
    path = Path(run_dir) / "metrics.jsonl"
    with writing(path), open(path, "a", encoding="utf-8") as f:
        f.write(json.dumps(row) + "\n")
        f.flush()
        os.fsync(f.fileno())
