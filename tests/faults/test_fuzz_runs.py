"""Encoders and run folders that nobody wrote: each is taken, or refused in a sentence."""

import dataclasses
import io
import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from simsiam_keras import (
    __main__,
    build,
    cards,
    checkpoints,
    config,
    diagnose,
    export,
    runs,
)
from simsiam_keras.formats import command
from tests.faults import fuzz, small

pytestmark = pytest.mark.slow
QUIET = Console(file=io.StringIO())


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("fuzz") / "run"
    assert small.pretrain(path, data, "--epochs=7") == 0
    return path


@pytest.fixture(scope="module")
def parts(run):
    """The model and the data of that run."""
    return build.parts(config.parse("pretrain", [f"--flagfile={run / 'flags.cfg'}"]), print)


def rewritten(whole, change):
    """A zip archive of which members are others."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        for name, data in change(members).items():
            new.writestr(name, data)
    return out.getvalue()


# --- encoders


@st.composite
def archives(draw, whole):
    if draw(st.booleans()):
        return draw(fuzz.damaged(whole))
    name = draw(st.sampled_from(["config.json", "metadata.json", "model.weights.h5"]))

    def change(members):
        if name.endswith("json"):
            members[name] = fuzz.spelled(draw(fuzz.altered(json.loads(members[name]))))
        elif draw(st.booleans()):
            members[name] = draw(fuzz.damaged(members[name]))
        else:
            del members[name]
        return members

    return rewritten(whole, change)


@pytest.mark.parametrize("width", [10**6, 10**11, 10**400])
def test_an_encoder_wider_than_its_weights(run, width, tmp_path):
    def wider(members):
        text = members["config.json"].decode()
        assert '"filters": 2' in text
        wide = text.replace('"filters": 2', f'"filters": {width}')
        return {**members, "config.json": wide}

    path = tmp_path / "encoder.keras"
    path.write_bytes(rewritten((run / "encoder.keras").read_bytes(), wider))
    with fuzz.within_bounds(), pytest.raises(ValueError, match="units, weights of"):
        export.load_encoder(path)


@fuzz.cases("encoders")
@given(drawn=st.data())
def test_keras_files(run, tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("keras")
    path = folder / "encoder.keras"
    path.write_bytes(drawn.draw(archives((run / "encoder.keras").read_bytes())))
    encoder = fuzz.outcome(lambda: export.load_encoder(path), str(path))
    if encoder:
        images = np.zeros((2, encoder.image_size, encoder.image_size, 3), "uint8")
        fuzz.outcome(lambda: encoder(images), str(path))
    keras.backend.clear_session()
    shutil.rmtree(folder)


@fuzz.cases("encoders", 3)
@given(drawn=st.data())
def test_cards(run, tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("card")
    card = json.loads((run / "encoder.json").read_text())
    whole = fuzz.spelled(card)
    content = st.one_of(fuzz.altered(card).map(fuzz.spelled), fuzz.damaged(whole))
    (folder / cards.NAME).write_bytes(drawn.draw(content))
    found = fuzz.outcome(lambda: cards.read(folder), str(folder))
    if found:
        shutil.copy(run / "encoder.keras", folder)
        fuzz.outcome(lambda: cards.describes(found, folder / "encoder.keras"), str(folder))
        fuzz.outcome(lambda: cards.refuse_strangers(folder), str(folder))
    shutil.rmtree(folder)


@fuzz.cases("encoders", 3)
@given(drawn=st.data())
def test_saved_models(run, tmp_path_factory, drawn):
    """One that is damaged is never loaded, as its digest differs."""
    folder = tmp_path_factory.mktemp("saved")
    shutil.copytree(run / "encoder", folder / "encoder")
    shutil.copy(run / cards.NAME, folder)
    files = sorted(p for p in (folder / "encoder").rglob("*") if p.is_file())
    path, before = drawn.draw(st.sampled_from(files)), cards.digest(folder / "encoder")
    if drawn.draw(st.integers(0, 4)):
        path.write_bytes(drawn.draw(fuzz.damaged(path.read_bytes())))
    else:
        path.unlink()
    if cards.digest(folder / "encoder") != before:
        known = [str(folder)]
        assert fuzz.outcome(lambda: export.load_encoder(folder / "encoder"), *known) is None
    shutil.rmtree(folder)


# --- run folders

KEPT = ("flags.cfg", "metrics.jsonl", "result.json", "environment.json")
VALUES = st.one_of(fuzz.NUMBERS.map(str), fuzz.WORDS)


@st.composite
def flag_lines(draw, text):
    lines = text.decode().splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = f"{lines[at].partition('=')[0]}={draw(VALUES)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def contents(name, whole):
    """What may stand in a file of a run folder."""
    ways = [fuzz.damaged(whole), st.binary(max_size=80), st.just(None)]
    if name == "flags.cfg":
        ways += [flag_lines(whole)] * 3
    elif name == "metrics.jsonl":
        rows = [json.loads(line) for line in whole.decode().splitlines()]
        line = st.builds(lambda row: fuzz.spelled(row) + b"\n", fuzz.altered(rows[-1]))
        every = st.tuples(st.sampled_from(sorted(rows[-1])), fuzz.JUNK).map(
            lambda pair: b"".join(fuzz.spelled({**row, pair[0]: pair[1]}) + b"\n" for row in rows)
        )
        ways += [line.map(whole.__add__), line.map(lambda line: line * 6), every, every]
    else:
        ways.append(fuzz.altered(json.loads(whole)).map(fuzz.spelled))
    return st.one_of(ways)


@st.composite
def folders(draw, run):
    """{name: bytes, or None for a folder of that name}; a file may be missing."""
    found = {name: (run / name).read_bytes() for name in KEPT}
    for name in draw(st.lists(st.sampled_from(KEPT), min_size=1, max_size=2)):
        if draw(st.integers(0, 9)):
            found[name] = draw(contents(name, (run / name).read_bytes()))
        else:
            found.pop(name, None)
    return found


def put(files, folder):
    for name, content in files.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


@fuzz.cases("runs", 0.6)
@given(drawn=st.data())
def test_run_folders(run, tmp_path_factory, capsys, drawn):
    folder = tmp_path_factory.mktemp("folder")
    put(drawn.draw(folders(run)), folder)
    cfg = config.make("diagnose", run_dir=str(folder))
    fuzz.outcome(lambda: diagnose.diagnose(cfg, QUIET), str(folder))
    fuzz.command(__main__.main, ["diagnose", f"--run_dir={folder}"], capsys)
    fuzz.outcome(lambda: runs.result(folder), str(folder))
    flags = dataclasses.asdict(config.make("pretrain"))
    shutil.copytree(run / "checkpoints", folder / "checkpoints")

    def lock():
        with runs.locked(folder, flags):
            pass

    fuzz.outcome(lock, str(folder))
    shutil.rmtree(folder)


# What `diagnose` once ended with: a traceback, or a sentence that named no file.
LINES = {
    "--epochs=abc": "--epochs must be a number >= 1",
    "--method=of nobody": "--method=of nobody is none of",
    "--gradient_accumulation=0": "--gradient_accumulation must be a number >= 1",
    "--base_lr=nan": "--base_lr must be a number",
    "--batch_size=" + "9" * 400: "--batch_size must be a number >= 2",
    '{"epoch": 1, "z_std": ' + "9" * 400 + "}": "z_std must be a number",
    '{"epoch": 1, "z_std": ' + "9" * 5000 + "}": "is no row",
    '{"epoch": true}': "is no row",
    '{"epoch": -1}': "is no row",
}


@pytest.mark.parametrize("line", LINES, ids=[line[:25] for line in LINES])
def test_lines_that_were_not_refused(line, run, tmp_path, capsys):
    put({name: (run / name).read_bytes() for name in KEPT}, tmp_path)
    name = "flags.cfg" if line.startswith("--") else "metrics.jsonl"
    with open(tmp_path / name, "a") as file:
        file.write(f"{line}\n")
    assert __main__.main(["diagnose", f"--run_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert LINES[line] in error and str(tmp_path / name) in error


@st.composite
def saved(draw, whole):
    """A checkpoint: damaged, or another one with a checksum that is right."""
    if draw(st.booleans()):
        return draw(fuzz.damaged(whole))
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    card = draw(fuzz.altered(json.loads(arrays.pop("card").tobytes())))
    del arrays["checksum"]
    arrays["card"] = np.frombuffer(fuzz.spelled(card), "uint8")
    name = draw(st.sampled_from(sorted(arrays)))
    if draw(st.booleans()):
        arrays[name] = draw(
            st.sampled_from([np.zeros(()), np.zeros(3, "U2"), np.full(2, np.nan), np.zeros((0, 9))])
        )
    arrays["checksum"] = np.frombuffer(checkpoints._checksum(arrays), "uint8")
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


CARDS = ["{}", "null", "[]", "1", '{"format": 2}', "\\xff", "[" * 100_000]
CARDS += [
    json.dumps({"format": 2, "step": 0, "seconds": 0, "run": None, "rows": [], **odd})
    for odd in (
        {},
        {"epoch": True},
        {"epoch": 1, "rows": [None]},
        {"epoch": 1, "run": {"flags": {}}},
    )
]


@pytest.mark.parametrize("card", CARDS, ids=[card[:12] for card in CARDS])
def test_cards_that_were_not_refused(card, tmp_path):
    arrays = {"card": np.frombuffer(card.encode("latin-1"), "uint8")}
    arrays["checksum"] = np.frombuffer(checkpoints._checksum(arrays), "uint8")
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(checkpoints.Damaged):
        checkpoints.read(tmp_path / "x.npz")


@fuzz.cases("runs", 0.3)
@given(drawn=st.data())
def test_checkpoints(run, parts, tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "checkpoints").mkdir()
    paths = sorted((run / "checkpoints").glob("*.npz"))
    for path in paths[-1:] if drawn.draw(st.booleans()) else paths:
        content = drawn.draw(saved(path.read_bytes()))
        (folder / "checkpoints" / path.name).write_bytes(content)
    fuzz.outcome(lambda: checkpoints.restore_encoder(folder, parts.model.encoder), str(folder))
    fuzz.outcome(
        lambda: checkpoints.restore(folder, parts.model, parts.identity, parts.steps, parts.epochs),
        str(folder),
    )
    shutil.rmtree(folder)


@fuzz.cases("runs", 0.1)
@given(drawn=st.data())
def test_export_of_a_run(run, tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("export")
    text = drawn.draw(flag_lines((run / "flags.cfg").read_bytes()))
    (folder / "flags.cfg").write_bytes(text)
    shutil.copytree(run / "checkpoints", folder / "checkpoints")
    cfg = config.make("export", run_dir=str(folder), output=str(folder / "out"))
    fuzz.outcome(lambda: command.export_encoder(cfg, QUIET), str(folder), "--")
    keras.backend.clear_session()
    shutil.rmtree(folder)
