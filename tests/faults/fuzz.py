"""What the fuzzing tests share: how many cases, what may come of one, and how a file is damaged."""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time

from absl import flags
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from simsiam_keras.data import NoSuchSplit
from simsiam_keras.errors import LONGEST, RunFailed, sentence
from tests.memory import resident

CASES = int(os.environ.get("CASES", 1000))  # in all; `make faults` asks for 10,000
# Of a hundred, by what each costs.
SHARES = {"flags": 30, "flagfiles": 20, "pictures": 15, "npz": 15, "encoders": 2, "runs": 18}
SECONDS, MEGABYTES = 20, 2000
ERRORS = (
    ValueError,
    RunFailed,
    NoSuchSplit,
    FileNotFoundError,
)  # these, not what derives from them
FOREIGN = re.compile(
    r"^('?[\w-]+'? codec can't|\[Errno|embedded null|invalid literal|could not convert|Expecting "
    r"|Extra data|cannot (identify|reshape|convert)|Could not determine|'\w+'$|Exceeds the limit)"
)


def cases(kind, part=1.0):
    """Settings of a test that runs its part of a kind's cases, always the same ones."""
    return settings(
        max_examples=max(1, round(CASES * SHARES[kind] / 100 * part)),
        derandomize=True,
        database=None,
        deadline=None,  # `outcome` has its own, which also ends what hangs
        suppress_health_check=list(HealthCheck),
    )


class TooLong(BaseException):
    """Not an `Exception`, so that nothing takes it for a damaged file."""


@contextlib.contextmanager
def within_bounds():
    """Raises where the block takes 20 seconds, or 2 GB more than the process had."""

    def end(number, frame):
        raise TooLong(f"{SECONDS} s")

    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signals come to the main thread")
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the most yet is the present, from here on
    began = time.monotonic()
    before, kept = resident("VmHWM"), signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)
    assert time.monotonic() - began < SECONDS  # native code is deaf to signals
    more = resident("VmHWM") - before
    assert more < MEGABYTES, f"{more:.0f} MB"


def check_sentence(text, known=()):
    """That a sentence is one, printable, not too long, and speaks of something that one knows."""
    assert text and text.isprintable(), repr(text)
    assert len(text) <= LONGEST, len(text)
    assert not FOREIGN.search(text), text
    assert not known or any(word in text for word in known), (text, known)


def outcome(action, *known):
    """What an action returns, or None where it refuses as it should.

    Args:
        action: function of nothing.
        *known: words of which a refusal must have one, such as the name of the file.
    """
    with within_bounds():
        try:
            return action()
        except Exception as error:
            if type(error) not in ERRORS and not isinstance(error, flags.Error):
                raise
            assert getattr(error, "errno", None) is None, error  # the system's words, not ours
            check_sentence(sentence(error), known)
    return None


def command(main, argv, capsys):
    """The exit code of a command, whose refusal is one sentence."""
    capsys.readouterr()
    with within_bounds():
        code = main(argv)
    error = capsys.readouterr().err
    assert "Traceback" not in error, error
    said = [line for line in error.splitlines() if line.startswith("simsiam_keras: ")]
    assert code in (0, 1, 2) and len(said) == (code > 0), (code, error)
    if code:
        check_sentence(said[0].removeprefix("simsiam_keras: "))
    return code


EXTREMES = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
]


@st.composite
def damaged(draw, whole):
    """Bytes with one to four damages: flipped, cut, removed, repeated, overwritten."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(["flip", "cut", "remove", "repeat", "insert", "extreme"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        elif kind == "extreme":
            data[at : at + 4] = draw(st.sampled_from(EXTREMES))
    return bytes(data)


NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**18, 10**400, -(10**400)]),
    st.floats(),
    st.sampled_from([1e308, -1e308, 5e-324, 0.5, 1.0]),
)
WORDS = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(codec=None, categories=["Cs", "Cc", "Zl", "Zp", "Ll"]), max_size=8),
    st.sampled_from(
        ["", " ", "none", "null", "true", "NaN", "x" * 5000, "{since}", "%s", "\x1b[2J"]
    ),
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def altered(draw, value):
    """A JSON value of which one part, at any depth, is another, gone, or there twice."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 5)):
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: draw(altered(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        if not draw(st.integers(0, 3)):
            return value[:at] + draw(st.sampled_from([[], [value[at]] * 2])) + value[at + 1 :]
        return value[:at] + [draw(altered(value[at]))] + value[at + 1 :]
    return draw(JUNK)


def spelled(value):
    """JSON as Python writes it, surrogates and infinities included."""
    sys.set_int_max_str_digits(0)  # for the writing of what must be refused
    try:
        return json.dumps(value).encode()
    finally:
        sys.set_int_max_str_digits(4300)
