"""Images in batches, read ahead in threads: replaced where they are damaged, or left out."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simsiam_keras.data import images as codec
from simsiam_keras.data.base import IN_A_ROW, ArraySource

OVERSAMPLED = 4  # times the side that evaluation wants, which decoding at a fraction must leave


def read_batches(source, order, size, eval_crop, batch_size, min_side=None):
    """Yields uint8 batches in the given order; a damaged image is replaced, see `Source.read`.

    Args:
        source: a `Source`.
        order: int64 `[n]`, numbers of images.
        size: side of the images; None, as they are.
        eval_crop: fraction of the short side that is kept.
        batch_size: images in a batch.
        min_side: see `Source.read`.
    """
    if isinstance(source, ArraySource) and _as_is(source, size, eval_crop):
        for start in range(0, len(order), batch_size):
            yield source.images[order[start : start + batch_size]]
        return

    def prepare(index):
        return _resized(source, source.read(index, min_side), size, eval_crop)

    for _, images in _ahead(prepare, order, batch_size):
        yield np.stack(images)


def read_canvases(source, order, canvas, batch_size):
    """Yields uint8 batches of canvases with whole images on them, and the images' sizes there.

    Args:
        source: a `Source`.
        order: int64 `[n]`, numbers of images.
        canvas: see `images.on_canvas`.
        batch_size: images in a batch.
    """

    def prepare(index):
        return codec.on_canvas(source.read(index, canvas[1]), canvas)

    for _, placed in _ahead(prepare, order, batch_size):
        images, extent = zip(*placed, strict=True)
        yield np.stack(images), np.stack(extent)


def _as_is(source, size, eval_crop):
    square = (size, size, source.channels)
    return size is None or (eval_crop == 1 and source.image_shape == square)


def _resized(source, image, size, eval_crop):
    as_is = _as_is(source, size, eval_crop)
    return image if as_is else codec.resize_and_crop(image, size, eval_crop)


def _ahead(prepare, order, batch_size):
    """Yields numbers and what is prepared of them, in threads, a batch ahead."""
    with ThreadPoolExecutor() as pool:
        ahead = []
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size].tolist()
            ahead.append((part, [pool.submit(prepare, index) for index in part]))
            if len(ahead) == 2:
                part, futures = ahead.pop(0)
                yield part, [future.result() for future in futures]
        for part, futures in ahead:
            yield part, [future.result() for future in futures]


def decoded(source, size, eval_crop, batch_size):
    """Yields numbers and uint8 batches of the images that can be decoded, in their order.

    The others are in `source.missing` then, and no longer in `source.rows()`.

    Args:
        source: a `Source`.
        size: side of the images.
        eval_crop: fraction of the short side that is kept.
        batch_size: images that are read at a time.

    Raises:
        ValueError: if ten images in a row cannot be decoded, or none at all.
    """
    in_a_row = 0
    for part, images in _attempted(source, size, eval_crop, batch_size):
        kept = []
        for place, (index, image) in enumerate(zip(part, images, strict=True)):
            if not isinstance(image, Exception):
                kept.append(place)
                in_a_row = 0
                continue
            in_a_row += 1
            if in_a_row == min(IN_A_ROW, len(source)):
                raise source.lose(index)
            source.miss(index, image)
        if len(kept) < len(part):
            part, images = [part[k] for k in kept], [images[k] for k in kept]
        if kept:
            yield part, np.asarray(images)


def _attempted(source, size, eval_crop, batch_size):
    """Yields numbers and images, or the errors of those that cannot be decoded."""
    order = source.rows()
    if isinstance(source, ArraySource) and _as_is(source, size, eval_crop):
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            yield part.tolist(), source.images[part]
        return

    side = OVERSAMPLED * round(size / eval_crop)

    def prepare(index):
        try:
            return _resized(source, source.decode(index, side), size, eval_crop)
        except Exception as error:  # Every decoder raises what it likes.
            return error

    yield from _ahead(prepare, order, batch_size)
