"""Many encoded images to a source: decoded once when that is possible, checked when not."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging
from rich.console import Console
from rich.progress import track

from simsiam_keras.data import images as codec
from simsiam_keras.data import ranges
from simsiam_keras.data.base import ArraySource, EncodedSource, label_of

# 50,000 JPEGs of 32 x 32 take 150 MB decoded, the 100,000 of STL-10 at 96 x 96 take 2.8 GB.
DECODED_BYTES = 4 * 2**30
PHOTOGRAPH = 2**21  # pixels, from which images are decoded at a fraction of their size
PROGRESS_FROM = 5_000  # images; below, a bar is gone before it can be read
CHUNK = 256


def from_encoded(name, items, labels, classes, fingerprint, value_range=ranges.AUTO):
    """Makes a source of encoded images, without those that cannot be decoded.

    They are decoded once when they have one size and fit into memory; otherwise their headers are
    checked.

    Args:
        name: for people.
        items: list of n paths or encoded bytes.
        labels: int64 `[n]` or None.
        classes: tuple of str or None.
        fingerprint: digest of the data.
        value_range: as in `sources.load`.

    Returns:
        An `ArraySource` or an `EncodedSource`.

    Raises:
        ValueError: if more than 1 % of the images cannot be decoded.
    """
    value_range = ranges.parse(value_range)
    if value_range == ranges.AUTO:
        value_range = ranges.of_set(items, codec.own_range)
    decoded = _decode_once(items, value_range)
    if decoded is None:
        shapes = _parallel(codec.header_shape, items, "Checking")
        good = _good(name, items, shapes)
        kept = {shapes[g] for g in good}
        shape = kept.pop() if len(kept) == 1 else None
    else:
        images, errors = decoded
        good = _good(name, items, errors)
    if len(good) < len(items):
        labels = None if labels is None else labels[good]
    if decoded is not None:
        images = images[good] if len(good) < len(items) else images
        source = ArraySource(name, images, labels, classes, fingerprint)
        source.value_range = value_range
        return source
    items = [items[g] for g in good]
    return EncodedSource(name, items, labels, classes, shape, fingerprint, value_range)


def _decode_once(items, value_range):
    """Returns uint8 `[n, h, w, 3]` and a list of errors, or None if sizes vary or do not fit."""
    shape = next((s for s in map(_try(codec.header_shape), items) if isinstance(s, tuple)), None)
    most = min(DECODED_BYTES, memory_bytes() // 2)
    if shape is None or len(items) * np.prod(shape) > most or is_photograph(shape):
        return None
    images = np.zeros((len(items), *shape), np.uint8)

    def fill(number):
        image = codec.decode(items[number], value_range=value_range)
        if image.shape != shape:
            raise _SizesVary
        images[number] = image

    try:
        return images, _parallel(fill, range(len(items)), "Decoding")
    except _SizesVary:
        return None


def is_photograph(shape):
    """Whether images are too large to be trained on as they are: more than two megapixels."""
    return shape[0] * shape[1] > PHOTOGRAPH


class _SizesVary(BaseException):
    """Not an `Exception`, so that it is not mistaken for a damaged image."""


def _try(function):
    def attempt(argument):
        try:
            return function(argument)
        except Exception as error:  # Every decoder raises what it likes.
            return error

    return attempt


def _parallel(function, items, verb):
    """The results, or the exceptions, of `function` over `items`, in order, with a progress bar."""
    attempt = _try(function)

    chunk = max(1, min(CHUNK, len(items) // 64))  # a few large images are spread over the threads

    def work(start):
        return [attempt(item) for item in items[start : start + chunk]]

    console = Console(stderr=True)
    with ThreadPoolExecutor() as pool:
        try:
            chunks = list(
                track(
                    pool.map(work, range(0, len(items), chunk)),
                    f"{verb} {len(items):,} images",
                    total=-(-len(items) // chunk),
                    console=console,
                    transient=True,
                    disable=len(items) < PROGRESS_FROM or not console.is_terminal,
                )
            )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [result for chunk in chunks for result in chunk]


def _good(name, items, results):
    """Numbers of the images that are no exception; logs the others, refuses more than 1 %."""
    bad = [i for i, result in enumerate(results) if isinstance(result, Exception)]
    if not bad:
        return range(len(items))
    first = "; ".join(f"{label_of(items, i)} ({results[i]})" for i in bad[:5])
    text = f"{len(bad)} of {len(items)} images of {name} cannot be decoded: {first}"
    text += f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    if len(bad) > 0.01 * len(items):
        raise ValueError(f"{text}. That is more than 1 %: remove or repair them.")
    logging.warning("%s. They are left out.", text)
    return np.setdiff1d(np.arange(len(items)), bad)


@functools.cache
def memory_bytes():
    """The machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows has no sysconf.
        return 2 * DECODED_BYTES
