"""Flags, flagfiles, pictures and .npz files that nobody wrote: each ends well or in a sentence."""

import dataclasses
import functools
import importlib.util
import io
import itertools
import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from simsiam_keras import __main__, config, flagfile
from simsiam_keras.data import images as codec
from simsiam_keras.data import sources
from tests.conftest import ROOT
from tests.data.pictures import encoded, npy, png16, tiff
from tests.faults import fuzz

pytestmark = pytest.mark.slow
NAMES = sorted({f.name for c in config.COMMANDS for f in dataclasses.fields(config.of(c))})
FLAGFILES = [path.read_bytes() for path in sorted((ROOT / "flags").glob("*.cfg"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture
def nowhere(folder, monkeypatch):
    """An empty folder to be in."""
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")


@pytest.fixture
def only_parses(monkeypatch):
    """`main` without what a command does."""
    monkeypatch.setattr(__main__, "_dispatch", lambda command, cfg: {})


def test_what_is_no_sentence_of_ours_is_seen():
    def raising(error):
        def action():
            raise error

        return action

    assert fuzz.outcome(raising(ValueError("--a must be 1. Received: 2")), "--a") is None
    for error in (
        ValueError(""),
        ValueError("--a must be 1"),
        ValueError("'utf-8' codec can't decode byte 0xff of x.cfg"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x.cfg"),
        FileNotFoundError(2, "No such file", "x.cfg"),
        KeyError("x.cfg"),
    ):
        with pytest.raises((AssertionError, type(error))):
            fuzz.outcome(raising(error), "x.cfg")


def test_time_and_memory_are_watched(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.1)
    with pytest.raises(fuzz.TooLong):
        fuzz.outcome(lambda: [i for i in itertools.count() if i < 0])
    monkeypatch.setattr(fuzz, "SECONDS", 20)
    monkeypatch.setattr(fuzz, "MEGABYTES", 50)
    with pytest.raises(AssertionError, match="MB"):
        fuzz.outcome(lambda: len(b"x" * 100_000_000))


# --- flags

VALUES = st.one_of(fuzz.NUMBERS.map(repr), fuzz.NUMBERS.map(str), fuzz.WORDS)
TYPICAL = st.sampled_from([f"--{name}" for name in NAMES])


@st.composite
def arguments(draw):
    found = []
    for _ in range(draw(st.integers(0, 5))):
        name = draw(st.one_of(TYPICAL, TYPICAL, fuzz.WORDS.map("--{}".format), fuzz.WORDS))
        value = draw(VALUES)
        form = draw(st.integers(0, 9))
        found += [name] if form == 0 else [name, value] if form == 1 else [f"{name}={value}"]
    return found


@fuzz.cases("flags")
@given(command=st.sampled_from(list(config.COMMANDS)), argv=arguments())
@example("pretrain", ["--flagfile=~nobody_of_this_name/x.cfg"])
@example("pretrain", ["--flagfile=\0"])
@example("pretrain", [f"--flagfile={'x' * 5000}"])
@example("pretrain", ["--epochs=" + "9" * 5000])
@example("knn", ["--encoder=\x1b[2J", "x"])
def test_flags(only_parses, capsys, command, argv):
    if fuzz.command(__main__.main, [command, *argv], capsys):
        return
    if not {"-h", "--help"} & set(argv):
        cfg = config.parse(command, argv)
        assert all(math.isfinite(value) for value in vars(cfg).values() if isinstance(value, float))
        again = config.parse(command, flagfile.parse(config.to_flagfile(cfg)))
        assert again == cfg


# --- flagfiles

LINES = st.one_of(
    st.tuples(TYPICAL, VALUES).map("=".join),
    fuzz.WORDS,
    fuzz.WORDS.map(lambda text: f'--dataset="{text}'),
    st.sampled_from(["--flagfile=x.cfg", "--flagfile=", "--flagfile", "# --epochs=x", "//", "--"]),
)
CONTENTS = st.one_of(
    st.sampled_from(FLAGFILES).flatmap(fuzz.damaged),
    st.binary(max_size=200),
    st.lists(LINES, max_size=5).map(lambda s: "\n".join(s).encode("utf-8", "surrogatepass")),
)


@fuzz.cases("flagfiles")
@given(command=st.sampled_from(list(config.COMMANDS)), content=CONTENTS)
def test_flagfiles(only_parses, folder, capsys, command, content):
    path = folder / "x.cfg"
    path.write_bytes(content)
    fuzz.command(__main__.main, [command, f"--flagfile={path}"], capsys)
    if fuzz.outcome(lambda: config.parse("pretrain", [f"--flagfile={path}"])):
        fuzz.outcome(lambda: flagfile.values(path))


# --- pictures


def pictures():
    """One of each format and mode that Pillow writes, odd ones among them, and of numbers."""
    rng, found = np.random.default_rng(0), []
    colours = Image.fromarray(rng.integers(0, 256, (9, 11, 4), dtype="uint8"))
    modes = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F")
    exif = Image.Exif()
    exif[codec.ORIENTATION] = 6
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"):
        for mode in modes:
            file = io.BytesIO()
            try:
                start = colours.convert("L") if mode in ("PA", "LA", "I", "I;16", "F") else colours
                start.convert(mode).save(file, kind, **({"exif": exif} if mode == "RGB" else {}))
            except (OSError, ValueError, KeyError):  # no such mode in this format
                continue
            found.append(file.getvalue())
    deep = rng.integers(0, 4096, (9, 11, 4)).astype("u2")
    found += [png16(deep[..., :n]) for n in (1, 2, 3, 4)]
    found += [tiff(deep[..., 0]), tiff(deep[..., :3], ">", deflate=True)]
    found += [npy(deep), npy(deep[..., 0] / 7), npy(deep > 9)]
    found += [tiff((deep / 4095).astype("f2"))] if importlib.util.find_spec("tifffile") else []
    found += [encoded(colours.convert("RGB"), "AVIF")] if features.check("avif") else []
    return found


def claiming(kind, width, height):
    """A picture that says of itself to be as large as nobody's memory."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, kind)
    data = bytearray(file.getvalue())
    if kind == "PNG":
        import zlib

        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif kind == "BMP":
        data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    elif kind == "GIF":
        data[6:10] = (width % 65536).to_bytes(2, "little") + (height % 65536).to_bytes(2, "little")
    return bytes(data)


PICTURES = pictures()
BOMBS = st.builds(
    claiming,
    st.sampled_from(["PNG", "BMP", "GIF"]),
    st.sampled_from([1, 9000, 12000, 65535, 2**31 - 1]),
    st.sampled_from([1, 9000, 12000, 65535, 2**31 - 1]),
)
ENCODED = st.one_of(
    st.sampled_from(PICTURES).flatmap(fuzz.damaged),
    st.sampled_from(PICTURES).flatmap(fuzz.damaged),
    st.sampled_from(PICTURES),
    st.binary(max_size=100),
    BOMBS,
)


@fuzz.cases("pictures")
@given(items=st.lists(ENCODED, min_size=2, max_size=4), side=st.sampled_from([None, 1, 8]))
@example([claiming("PNG", 12000, 12000)] * 4, None)
def test_pictures(folder, items, side):
    place = folder / "photos"
    place.mkdir(exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    for i, data in enumerate(items):
        (place / f"{i}.png").write_bytes(data)
    source = fuzz.outcome(lambda: sources.load(f"folder:{place}"), str(place), "`dataset`")
    if source:
        for i in range(len(source)):
            found = fuzz.outcome(functools.partial(source.read, i, side), "image")
            assert found is None or (found.dtype == np.uint8 and found.shape[2:] == (3,))


def test_as_many_kinds_of_pictures_as_there_are():
    assert len(PICTURES) > 30
    assert {codec.decode(p).shape for p in PICTURES} == {
        (9, 11, 3),
        (11, 9, 3),  # turned by its EXIF block
    }


# --- npz


class Witness:
    """Leaves a mark where it is unpickled."""

    ran = []

    def __reduce__(self):
        return (Witness.ran.append, (1,))


def archive(arrays, compressed=False):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def member(header, body=b""):
    """A .npy file with any header, as text."""
    text = header.encode("latin-1", "replace") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
    return file.getvalue()


def header(descr, shape, order=False):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


GOOD = {"images": np.zeros((4, 3, 3, 3), "uint8"), "labels": np.arange(4), "class_names": [*"abcd"]}
KEYS = ("images", "labels", "class_names", "train_images", "train_labels", "test_images", "x")
DTYPES = ("uint8", "int8", "int64", "uint64", "float16", "float64", "bool", "complex64", "U3", "S2")
DTYPES += ("M8[s]", "m8[s]", "O", ">f4", ">u8", "V3")
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5]), max_size=5).map(tuple)


@st.composite
def array(draw):
    shape, kind = draw(SHAPES), draw(st.sampled_from(DTYPES))
    with np.errstate(all="ignore"):
        found = np.full(shape, draw(st.sampled_from([0, 1, 0.5, 3])), "float64")
        if kind == "O":
            return np.full(shape, Witness(), object)
        if kind[0] in "USVMm":
            return np.zeros(shape, kind)
        if kind == "float64":
            found = found * draw(st.sampled_from([1, np.nan, np.inf, -1, 1e308]))
        return found.astype(kind)


HEADERS = st.builds(
    header,
    st.sampled_from(["'|u1'", "'<f8'", "'|O'", "'<U99999999'", "'x'", "[('a', '<i4')]", "1", "''"]),
    st.one_of(
        st.sampled_from(
            ["(1000000, 1000, 1000, 3)", "(-1, 2, 2)", "(10**12,)", "()", "(2, 'a')", "4", "(1e9,)"]
        ),
        st.lists(st.integers(-1, 10**13), max_size=5).map(lambda s: str(tuple(s))),
    ),
    st.sampled_from([True, False, "None"]),
)
ARCHIVES = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), array(), max_size=4).map(archive),
    st.tuples(st.sampled_from(KEYS), array()).map(lambda kv: archive({**GOOD, kv[0]: kv[1]})),
    st.tuples(st.sampled_from(KEYS[:3]), HEADERS, st.binary(max_size=40)).map(
        lambda t: zipped(
            {"images.npy": member(header("'|u1'", "(2, 2, 2)"), b"x" * 8)}
            | {f"{t[0]}.npy": member(t[1], t[2])}
        )
    ),
    st.sampled_from([archive(GOOD), archive(GOOD, compressed=True)]).flatmap(fuzz.damaged),
    st.binary(max_size=60),
    st.sampled_from([pickle.dumps(Witness()), zipped({"images": b"x"}), zipped({}), b"PK\x05\x06"]),
)


@fuzz.cases("npz")
@given(content=ARCHIVES, split=st.sampled_from(["train", "test", "all", "", "\0"]))
@example(archive({**GOOD, "labels": np.full(4, Witness(), object)}), "train")
@example(pickle.dumps(Witness()), "train")
@example(zipped({"images.npy": member(header("'|u1'", "(1000000, 1000, 1000, 3)"))}), "train")
def test_npz(folder, content, split):
    path = folder / "x.npz"
    path.write_bytes(content)
    source = fuzz.outcome(lambda: sources.load(f"npz:{path}", split=split), str(path), "`")
    if source:
        assert source.images.dtype == np.uint8 and source.images.shape[3:] == (3,)
        fuzz.outcome(lambda: sources.splits(f"npz:{path}"), str(path))
    assert not Witness.ran


PLACES = st.one_of(
    fuzz.WORDS,
    st.sampled_from(["~nobody_of_this_name/x", "\0", "/dev/null", "/", ".", "/proc/self/mem"]),
)


@settings(fuzz.cases("npz", 0.2), suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(["npz", "folder"]), place=PLACES)
@example("npz", "~nobody_of_this_name/x")
@example("folder", "x" * 5000)
def test_places(nowhere, kind, place):
    if kind == "folder" and Path(place).is_absolute():
        return  # the whole machine is no test
    known = [kind, "`dataset`", "holds no image"]
    fuzz.outcome(lambda: sources.load(f"{kind}:{place}"), *known)
