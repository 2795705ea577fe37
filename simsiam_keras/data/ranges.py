"""What is deeper than 8 bits to 0..255: one rule, of a set, of each file, or fixed."""

import math

import numpy as np

AUTO, FILE = "auto", "file"
PERCENTILES = (0.1, 99.9)  # of the values of a file: a few hot pixels do not count
VALUES = 2**20  # of a file that are looked at, evenly spaced
FILES = 64  # of a set that are measured, evenly spaced
HEADERS = 1024  # of a set that are looked into for files to measure


def parse(text):
    """Reads a `--value_range`.

    Args:
        text: `auto`, `file` or `LOW,HIGH`; a pair is given back as it is.

    Returns:
        `"auto"`, `"file"` or `(low, high)`.

    Raises:
        ValueError: if it is something else, or LOW is not below HIGH.

    Example:
    >>> parse("0,4095")
    (0.0, 4095.0)
    """
    if text in (AUTO, FILE):
        return text
    try:
        low, high = map(float, text.split(",") if isinstance(text, str) else text)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ValueError(
            "`value_range` must be auto, file, or LOW,HIGH: two numbers, the smaller one first. "
            f"Received: {text}"
        )
    return low, high


def chosen(text, *known):
    """A `--value_range`, or in the place of `auto` the first that is known.

    Args:
        text: as in `parse`.
        *known: resolved ranges; None where nothing was scaled.

    Returns:
        What `parse` takes.
    """
    if text != AUTO:
        return text
    return next((found for found in known if found), AUTO)


def of_values(values):
    """The range of a file: the 0.1th and the 99.9th percentile of its finite values.

    Of more than 2^20 values, every m-th row and column count. Where the two are one number, so
    that most of the picture is one value, the smallest and the largest value take their place; a
    picture of one value v has the range v to v + 1, and becomes black.

    Args:
        values: `[height, width]` or `[height, width, channels]`, of any type of number.

    Returns:
        `(low, high)`, floats, low < high.

    Raises:
        ValueError: if no value is finite.
    """
    every = max(1, math.isqrt(-(-values.size // VALUES)))
    values = np.asarray(values[::every, ::every])
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)].astype(np.float64)
    if not values.size:
        raise ValueError("no value of it is a finite number")
    low, high = map(float, np.percentile(values, PERCENTILES))
    if low == high:
        low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low, low + 1.0)


def of_set(items, look):
    """The range of a set: from the smallest LOW to the largest HIGH of a sample of its files.

    The sample is the same whenever the files are: up to 64, evenly spaced among those of 1,024,
    evenly spaced, that are deeper than 8 bits.

    Args:
        items: paths or encoded bytes.
        look: function of an item to another, without arguments, to its range; or to None, where
            the item has no more than 8 bits.

    Returns:
        `(low, high)`, or None where none of them is deeper than 8 bits.
    """
    deep = list(filter(None, map(_quietly(look), _spread(items, HEADERS))))
    found = [_quietly(measure)() for measure in _spread(deep, FILES)]
    found = [pair for pair in found if pair]
    if not found:
        return None
    low, high = zip(*found, strict=True)
    return min(low), max(high)


def to_bytes(values, low, high):
    """Maps LOW to 0 and HIGH to 255, linearly, rounded; what is beyond is clipped, NaN is LOW.

    Args:
        values: an array of any type of number.
        low: a float.
        high: a float above it.

    Returns:
        uint8, of the same shape.

    Example:
    >>> to_bytes(np.array([0, 2048, 9000], "uint16"), 0, 4096).tolist()
    [0, 128, 255]
    """
    # float32 has every integer of 16 bits. In parts, as floats take four times the memory and more.
    kind = np.float32 if values.dtype.itemsize <= 2 else np.float64
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, VALUES // max(1, values[:1].size))
    for first in range(0, len(values), rows):
        part = (values[first : first + rows].astype(kind) - kind(low)) * kind(255 / (high - low))
        np.rint(np.clip(part, 0, 255, out=part), out=part)
        scaled[first : first + rows] = np.nan_to_num(part, copy=False)
    return scaled


def described(value_range):
    """A resolved range in words; empty where there is none."""
    if not value_range:
        return ""
    if value_range == FILE:
        return "each file deeper than 8 bits is scaled by its own range"
    low, high = value_range
    return f"values {low:g} to {high:g} become 0 to 255 in files deeper than 8 bits"


def _spread(found, most):
    return found[:: -(-len(found) // most)] if found else []


def _quietly(function):
    """What is damaged has no range; it is counted where it is decoded."""

    def attempt(*arguments):
        try:
            return function(*arguments)
        except Exception:  # Every decoder raises what it likes.
            return None

    return attempt
