"""Checkpoints: all that a run needs to go on, what it belongs to, and a checksum."""

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simsiam_keras import runs
from simsiam_keras.errors import RunFailed, sentence

KEPT = 2
FORMAT = 2
_NAME = re.compile(r"epoch_(\d+)(?:_step_(\d+))?\.npz")


class Position(NamedTuple):
    """How far a run is.

    Attributes:
        epoch: epochs completed, the measurements at their ends included.
        step: optimizer calls of the next one.
    """

    epoch: int
    step: int = 0

    def __str__(self):
        within = f"step {self.step} of epoch {self.epoch + 1}"
        return within if self.step else f"epoch {self.epoch}"


class Resumed(NamedTuple):
    """What a run goes on with besides its weights.

    Attributes:
        position: a `Position`.
        rows: the rows of metrics.jsonl up to it.
        seconds: that the steps of the unfinished epoch have taken.
        metrics: the arrays of the model's metrics in the unfinished epoch.
    """

    position: Position
    rows: list
    seconds: float
    metrics: list


class Damaged(Exception):
    """A checkpoint that does not hold what was written."""


def path_of(run_dir, position):
    """Where the checkpoint of a position is."""
    within = f"_step_{position.step:05d}" if position.step else ""
    return Path(run_dir) / "checkpoints" / f"epoch_{position.epoch:05d}{within}.npz"


def positions(run_dir):
    """The positions that there are checkpoints of, damaged ones included, the newest first.

    Returns:
        A dict of `Position` to path.
    """
    folder = Path(run_dir) / "checkpoints"
    named = ((_NAME.fullmatch(path.name), path) for path in folder.glob("epoch_*.npz"))
    found = {Position(int(m[1]), int(m[2] or 0)): path for m, path in named if m}
    return dict(sorted(found.items(), reverse=True))


def newest(run_dir):
    """The position of the newest checkpoint, `Position(0)` without one."""
    return next(iter(positions(run_dir)), Position(0))


def outlook(run_dir):
    """What the same command would do now, in words."""
    position = newest(run_dir)
    if position == Position(0):
        return "nothing was trained yet, the same command starts again"
    return f"the same command goes on after {position}"


def save(run_dir, model, position, rows=(), run=None, seconds=0.0):
    """Writes every variable of a compiled model, its optimizer and its metrics; keeps the last two.

    Args:
        run_dir: the run folder.
        model: a compiled and built `keras.Model` with an `encoder`.
        position: a `Position`, or the number of epochs completed.
        rows: the rows of metrics.jsonl so far; one of an epoch that the position is within, which a
            signal at its end leaves, is not kept, as a run that goes on measures that epoch again.
        run: what makes the run this one: `{"flags": {name: text}, "data": {part: fingerprint}}`.
        seconds: that the steps of an unfinished epoch have taken.

    Returns:
        The path of the checkpoint.

    Raises:
        RunFailed: if a weight is not finite, or the file cannot be written; earlier ones are kept.
    """
    import keras  # not at the top: `diagnose` reads a run without waiting for it

    position = Position(position) if isinstance(position, int) else position
    arrays = {name: keras.ops.convert_to_numpy(v) for name, v in variables(model).items()}
    bad = _not_finite(arrays)
    if bad:
        raise RunFailed(
            f"{len(bad)} of {len(arrays)} weights are not finite at {position}, so no checkpoint "
            "was written; lower --base_lr, or use --precision=float32. Earlier ones are kept"
        )
    card = {
        "format": FORMAT,
        "epoch": position.epoch,
        "step": position.step,
        "seconds": seconds,
        "run": run,
        "rows": [row for row in rows if row["epoch"] <= position.epoch],
    }
    path = path_of(run_dir, position)
    path.parent.mkdir(exist_ok=True)
    write(path, arrays, card)
    for old in list(positions(run_dir).values())[KEPT:]:
        old.unlink()
    return path


def restore(run_dir, model, run=None, steps=None, epochs=None, say=lambda sentence: None):
    """Restores the newest checkpoint that is whole, if there is one.

    Args:
        run_dir: the run folder.
        model: the model as it was when the checkpoint was written.
        run: as in `save`; None is not compared.
        steps: optimizer calls in an epoch; None is not compared.
        epochs: number of the last epoch; None is not compared.
        say: function of a sentence, called for a damaged checkpoint that is passed over.

    Returns:
        A `Resumed`, or None without a checkpoint.

    Raises:
        ValueError: if the checkpoint is another run's, or the data have changed since.
        RunFailed: if the checkpoint is another model's, or every one is damaged.
    """
    found = _newest_whole(run_dir, say, set_aside=True)
    if found is None:
        return None
    path, card, arrays = found
    _check_run(path, card, run, steps, epochs)
    assign(path, arrays, variables(model))
    metrics = [arrays[f"metric/{i}"] for i in range(len(model.metrics_variables))]
    position = Position(card["epoch"], card["step"])
    return Resumed(position, card["rows"], card["seconds"], metrics)


def restore_encoder(run_dir, encoder, say=lambda sentence: None):
    """Restores the encoder of the newest checkpoint that is whole, alone.

    Returns:
        A `Position`, or None without a checkpoint.

    Raises:
        RunFailed: as `restore`.
    """
    found = _newest_whole(run_dir, say)
    if found is None:
        return None
    path, card, arrays = found
    own = {name: array for name, array in arrays.items() if name.startswith("encoder/")}
    assign(path, own, numbered("encoder", encoder.variables))
    return Position(card["epoch"], card["step"])


def variables(model):
    """What a checkpoint holds, a dict of names to variables; the order makes the names."""
    model.optimizer.build(model.trainable_variables)
    encoder, metrics = model.encoder.variables, model.metrics_variables
    elsewhere = {id(v) for v in (*encoder, *metrics)}
    rest = [v for v in model.variables if id(v) not in elsewhere]
    return {
        **numbered("encoder", encoder),
        **numbered("model", rest),
        **numbered("optimizer", model.optimizer.variables),
        **numbered("metric", metrics),
    }


def write(path, arrays, card):
    """Writes arrays by name, a card and the checksum of both, atomically."""
    arrays = {**arrays, "card": np.frombuffer(json.dumps(card).encode(), "uint8")}
    arrays["checksum"] = np.frombuffer(_checksum(arrays), "uint8")
    runs.write_npz(path, arrays)


def numbered(name, variables):
    """Variables by their numbers, for Keras's own names count up within a process."""
    return {f"{name}/{i}": v for i, v in enumerate(variables)}


def _newest_whole(run_dir, say, set_aside=False):
    """`(path, card, arrays)` of the newest checkpoint that is whole; None where there is none."""
    damaged = {}
    for path in positions(run_dir).values():
        try:
            found = path, *read(path)
        except Damaged as error:
            damaged[path] = f"{path} is damaged ({error})"
            continue
        for bad, words in damaged.items():
            say(f"{words}; {path.name} is used in its place")
            if set_aside:
                with contextlib.suppress(OSError):  # another process of the run may be first
                    bad.rename(bad.with_name(f"{bad.name}.damaged"))
        return found
    if damaged:
        raise RunFailed(
            f"{'; '.join(damaged.values())}; no checkpoint is left to go on from. Restore one from "
            f"a copy, or delete {Path(run_dir) / 'checkpoints'} to start again"
        )
    return None


def read(path):
    """The card and the arrays of a checkpoint.

    Raises:
        Damaged: if it does not hold what was written.
        RunFailed: if it is whole, and of an earlier version.
    """
    try:
        # NumPy leaves a file open that it was to open, and is no archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds for damaged files
        raise Damaged(sentence(error)) from error
    if arrays and all(name.startswith(("encoder/", "model/", "optimizer/")) for name in arrays):
        raise RunFailed(
            f"{path} is of an earlier version, which wrote no checksum; go on with that version, "
            "or give another --run_dir"
        )
    if "card" not in arrays or "checksum" not in arrays:
        raise Damaged("it does not say what it is of")
    if arrays.pop("checksum").tobytes() != _checksum(arrays):
        raise Damaged("its checksum differs")
    card = _card(path, arrays.pop("card").tobytes())
    bad = _not_finite(arrays)
    if bad:
        raise Damaged(f"{len(bad)} of its {len(arrays)} weights are not finite")
    return card, arrays


def _card(path, text):
    try:
        card = json.loads(text)
        if card["format"] != FORMAT:
            raise RunFailed(f"{path} is of a later version; go on with that one")
        run = card["run"] or {"flags": {}, "data": {}}
        counts = [card["epoch"], card["step"]]
        right = all(type(n) is int and n >= 0 for n in counts) and card["seconds"] >= 0
        if not right or any(type(run[part]) is not dict for part in ("flags", "data")):
            raise ValueError
        for row in card["rows"]:
            runs.check_row(row)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged("its card is not what a run writes") from error
    return card


def _checksum(arrays):
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _not_finite(arrays):
    return [
        name
        for name, array in arrays.items()
        # An epoch's mean may be the infinity of one step that mixed precision has left out.
        if np.issubdtype(array.dtype, np.floating)
        and not name.startswith("metric/")
        and not np.isfinite(array).all()
    ]


def _check_run(path, card, run, steps, epochs):
    position = Position(card["epoch"], card["step"])
    if path.name != path_of("", position).name:
        raise ValueError(
            f"{path} is named for another epoch than it holds, {path_of('', position).name}; "
            "give it that name, or remove it"
        )
    if run is None:
        return
    old = card["run"] or {"flags": {}, "data": {}}
    changed = runs.differences(old["flags"], run["flags"])
    if changed:
        raise ValueError(
            f"{path} is of a run with other flags ({', '.join(changed)}); remove it, or give "
            "another --run_dir"
        )
    for part, fingerprint in run["data"].items():
        if old["data"].get(part) != fingerprint:
            raise ValueError(
                f"{part} changed since {path} was written (fingerprint {old['data'].get(part)} "
                f"there, {fingerprint} now), so that going on would be another run; put the data "
                "back, or give another --run_dir"
            )
    if epochs is not None and position > (epochs, 0) or steps is not None and position.step > steps:
        raise ValueError(
            f"{path} is beyond the end of this run, {epochs} epochs of {steps} steps; remove it, "
            "or give another --run_dir"
        )


def assign(path, arrays, variables):
    """Gives variables by name the arrays of a checkpoint; raises `RunFailed` if these differ."""
    shapes = {name: tuple(v.shape) for name, v in variables.items()}
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise RunFailed(f"{path} belongs to another model; give another --run_dir")
    odd = [name for name, array in arrays.items() if array.dtype.kind in "USOMm"]
    if odd:
        raise RunFailed(f"{path} holds no numbers in {odd[0]}; give another --run_dir")
    for name, variable in variables.items():
        variable.assign(arrays[name])
