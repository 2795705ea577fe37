"""The run folder: create, refuse, lock, resume; metrics.jsonl, result.json and checkpoints."""

import contextlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import filelock
import numpy as np

from simsiam_keras import flagfile
from simsiam_keras.errors import RunFailed

KEPT_CHECKPOINTS = 2
PACKAGES = ("keras", "tensorflow", "jax", "torch", "keras-cv", "tensorflow-datasets", "numpy")
# A run may be moved and watched differently; everything else makes it another run.
FREE_TO_CHANGE = {"run_dir", "debug", "data_dir", "checkpoint_every"}


def _partial(name):
    # Always the same: what a killed process left is overwritten, not added to.
    return f".{name}.partial"


BEGINNING = {".lock", _partial("flags.cfg")}  # what a run folder holds before it has its flags


@contextlib.contextmanager
def atomic_file(path):
    """Opens a file to write so that a reader finds the old file or the new one, never a part.

    Args:
        path: where the file appears when the block has ended; after an error nothing does.

    Yields:
        A binary file.
    """
    path = Path(path)
    temporary = path.with_name(_partial(path.name))
    try:
        with open(temporary, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path, data):
    """Writes text or bytes, atomically."""
    with atomic_file(path) as f:
        f.write(data.encode() if isinstance(data, str) else data)


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
    if path.exists() and not path.is_dir():
        raise ValueError(f"--run_dir must be a folder. Received: {path}, which is a file")
    _refuse(path, flags)
    if not write:
        yield path
        return
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunFailed(
            f"{path} is in use by another process; wait for it or give another --run_dir"
        ) from None
    with lock:
        _refuse(path, flags)  # again: it may have finished while we looked
        write_atomically(path / "flags.cfg", flagfile.write(flags))
        yield path


def _refuse(path, flags):
    if not path.exists():
        return
    found = {p.name for p in path.iterdir()}  # once: the first process may be writing its flags
    if "result.json" in found:
        raise ValueError(
            f"{path} holds a finished run; give another --run_dir, or delete that folder to repeat"
        )
    if "flags.cfg" in found:
        if any(path.glob("checkpoints/*")):  # else there is nothing to lose
            refuse_other_flags(path, flags, "an unfinished run")
    elif found - BEGINNING:
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
    old = flagfile.values(Path(path) / "flags.cfg")
    new = {name: flagfile.spell(value) for name, value in flags.items()}
    free = FREE_TO_CHANGE | free
    gone = [name for name in old if name not in new and name not in free]
    if gone:
        raise ValueError(
            f"{path} holds {what} that an earlier version began, whose flags.cfg has flags of "
            f"other methods ({flagfile.listed(gone)}); end it with that version, or give another "
            "--run_dir"
        )
    changed = [
        f"--{name}: {old.get(name, 'absent')} there, {new[name]} here"
        for name in sorted(new)
        if name not in free and old.get(name) != new[name]
    ]
    if changed:
        raise ValueError(
            f"{path} holds {what} with other flags ({', '.join(changed)}); "
            "repeat its flags to go on with it, or give another --run_dir"
        )


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
        },
    }
    write_json(Path(run_dir) / "environment.json", environment)


def write_json(path, value):
    """Writes a value as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def read_metrics(run_dir):
    """The rows of metrics.jsonl; a last line cut short by a crash is left out."""
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")  # what follows the last newline was never completed
    return [json.loads(line) for line in lines[:-1]]


def append_metrics(run_dir, row):
    """Appends one row to metrics.jsonl."""
    with open(Path(run_dir) / "metrics.jsonl", "a") as f:
        f.write(json.dumps(row) + "\n")


def keep_metrics(run_dir, last_epoch):
    """Drops the rows after an epoch, which a resumed run will measure again."""
    rows = [row for row in read_metrics(run_dir) if row["epoch"] <= last_epoch]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(Path(run_dir) / "metrics.jsonl", text)


def save_checkpoint(run_dir, model, epoch):
    """Writes every variable of a compiled model and its optimizer, and keeps the last two.

    Args:
        run_dir: the run folder.
        model: a compiled and built `keras.Model`.
        epoch: epochs completed.

    Returns:
        The path of the checkpoint.
    """
    import keras  # not at the top: `diagnose` reads a run without waiting for it

    folder = Path(run_dir) / "checkpoints"
    folder.mkdir(exist_ok=True)
    path = folder / f"epoch_{epoch:05d}.npz"
    write_npz(path, {k: keras.ops.convert_to_numpy(v) for k, v in _variables(model).items()})
    for old in sorted(folder.glob("epoch_*.npz"))[:-KEPT_CHECKPOINTS]:
        old.unlink()
    return path


def last_epoch(run_dir):
    """The epoch of the newest checkpoint; 0 without one."""
    path = _newest(run_dir)
    return int(path.stem.removeprefix("epoch_")) if path else 0


def restore_checkpoint(run_dir, model):
    """Restores the newest checkpoint, if there is one.

    Args:
        run_dir: the run folder.
        model: the model as it was when the checkpoint was written.

    Returns:
        Epochs completed; 0 without a checkpoint.

    Raises:
        RunFailed: if the checkpoint belongs to another model.
    """
    return _restore(run_dir, _variables(model))


def restore_encoder(run_dir, encoder):
    """Restores the encoder of the newest checkpoint alone; otherwise as `restore_checkpoint`."""
    return _restore(run_dir, _numbered("encoder", encoder.variables), others=True)


def _restore(run_dir, variables, others=False):
    path = _newest(run_dir)
    if path is None:
        return 0
    with np.load(path) as saved:
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        found = {name: saved[name].shape for name in saved.files if name in shapes or not others}
        if "encoder/0" not in saved.files:
            raise RunFailed(
                f"{path} is of an earlier version, which did not name the encoder's weights; "
                "go on with that version, or give another --run_dir"
            )
        if found != shapes:
            raise RunFailed(f"{path} belongs to another model; give another --run_dir")
        for name, variable in variables.items():
            variable.assign(saved[name])
    return last_epoch(run_dir)


def _newest(run_dir):
    return max((Path(run_dir) / "checkpoints").glob("epoch_*.npz"), default=None)


def _variables(model):
    model.optimizer.build(model.trainable_variables)
    # By number: Keras's automatic names count up within a process.
    encoder = model.encoder.variables
    of_encoder = {id(v) for v in encoder}
    rest = [v for v in model.variables if id(v) not in of_encoder]
    return {
        **_numbered("encoder", encoder),
        **_numbered("model", rest),
        **_numbered("optimizer", model.optimizer.variables),
    }


def _numbered(name, variables):
    return {f"{name}/{i}": v for i, v in enumerate(variables)}
