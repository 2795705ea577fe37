"""Many encoded images to a source: decoded once when that is possible, checked when not."""

import collections
import dataclasses
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
from simsiam_keras.data.found import Found, spread
from simsiam_keras.errors import sentence

# 50,000 JPEGs of 32 x 32 take 150 MB decoded, the 100,000 of STL-10 at 96 x 96 take 2.8 GB.
DECODED_BYTES = 4 * 2**30
LARGE = 2**18  # pixels, 512 x 512, far above what is trained on: 500 of 1,600 x 1,200 take 2.9 GB
LARGE_BYTES = DECODED_BYTES // 8
PHOTOGRAPH = 2**21  # pixels, from which images are decoded at a fraction of their size
PROGRESS_FROM = 5_000  # images; below, a bar is gone before it can be read
CHUNK = 256
MODES_OF = 256  # images whose mode is looked at


def from_encoded(
    name,
    items,
    labels,
    classes,
    fingerprint,
    value_range=ranges.AUTO,
    names=None,
    found=None,
    channels=3,
    lenient=False,
):
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
        names: list of n str or None, what the images are called.
        found: a `Found` of what is known before; default None.
        channels: of the images, as in `sources.load`; default 3.
        lenient: whether any number may be damaged; default False.

    Returns:
        An `ArraySource` or an `EncodedSource`.

    Raises:
        ValueError: if more than 1 % of the images cannot be decoded, and more than one, unless
            lenient; if none can.
    """
    value_range = ranges.parse(value_range)
    if value_range == ranges.AUTO:
        value_range = ranges.of_set(items, functools.partial(codec.own_range, channels=channels))
    decoded = _decode_once(items, value_range, channels)
    if decoded is None:
        header_shape = functools.partial(codec.header_shape, channels=channels)
        results = _parallel(header_shape, items, "Checking")
    else:
        images, results = decoded
    good, skipped, damaged = _good(name, items, results, lenient)
    found = found or Found()
    found = dataclasses.replace(
        found,
        skipped=found.skipped + _named(skipped, results, items, names),
        damaged=found.damaged + _named(damaged, results, items, names),
        sizes=() if decoded or not len(good) else spread(results[g] for g in good),
        modes=_modes([items[g] for g in good[:: -(-len(good) // MODES_OF) or 1]], channels),
    )
    if len(good) < len(items):
        labels = None if labels is None else labels[good]
        names = names and [names[g] for g in good]
    known = {"names": names, "found": found}
    if decoded is not None:
        images = images[good] if len(good) < len(items) else images
        source = ArraySource(name, images, labels, classes, fingerprint, **known)
        source.value_range = value_range
        return source
    kept = {results[g] for g in good}
    shape = kept.pop() if len(kept) == 1 else None
    items = [items[g] for g in good]
    known["channels"] = channels
    return EncodedSource(name, items, labels, classes, shape, fingerprint, value_range, **known)


def _named(numbers, results, items, names):
    return tuple((names[i] if names else label_of(items, i), sentence(results[i])) for i in numbers)


def _modes(items, channels):
    """`(mode, images)` of some images; of what has no mode, nothing."""
    mode = _try(functools.partial(codec.mode, channels=channels))
    counts = collections.Counter(m for m in map(mode, items) if isinstance(m, str))
    return tuple(counts.most_common())


def _decode_once(items, value_range, channels):
    """Returns uint8 `[n, h, w, c]` and a list of errors, or None if sizes vary or do not fit."""
    header_shape = _try(functools.partial(codec.header_shape, channels=channels))
    shape = next((s for s in map(header_shape, items) if isinstance(s, tuple)), None)
    if shape is None or is_photograph(shape):
        return None
    most = LARGE_BYTES if shape[0] * shape[1] > LARGE else DECODED_BYTES
    if len(items) * np.prod(shape) > min(most, memory_bytes() // 2):
        return None
    images = np.zeros((len(items), *shape), np.uint8)

    def fill(number):
        image = codec.decode(items[number], value_range=value_range, channels=channels)
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


def _good(name, items, results, lenient=False):
    """Sorts images by what came of them; logs what is left out, refuses much damage.

    Of fewer than 200 images one may be damaged, of more 1 %. What is only not taken, an error with
    `skipped`, is no damage.

    Args:
        name: of the data set.
        items: list of n paths or encoded bytes.
        results: list of n results, or exceptions.
        lenient: whether all but one may be damaged; default False.

    Returns:
        Numbers of the good ones, of those skipped, and of those damaged.

    Raises:
        ValueError: if more are damaged.
    """
    bad = [i for i, result in enumerate(results) if isinstance(result, Exception)]
    if not bad:
        return range(len(items)), [], []
    skipped = [i for i in bad if getattr(results[i], "skipped", False)]
    damaged = sorted(set(bad) - set(skipped))
    looked_at = len(items) - len(skipped)
    if damaged:
        first = "; ".join(f"{label_of(items, i)} ({results[i]})" for i in damaged[:5])
        text = f"{len(damaged)} of {looked_at} images of {name} cannot be decoded: {first}"
        text += f"; and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        if len(damaged) == looked_at and lenient:
            raise ValueError(text)
        if len(damaged) > max(1, 0.01 * looked_at) and not lenient:
            raise ValueError(f"{text}. That is more than 1 %: remove or repair them.")
        logging.warning("%s. They are left out.", text)
    return np.setdiff1d(np.arange(len(items)), bad), skipped, damaged


@functools.cache
def memory_bytes():
    """The machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows has no sysconf.
        return 2 * DECODED_BYTES
