"""Which images a step takes, where all of them lie on the device."""

import numpy as np

from simsiam_keras.data import pipeline
from simsiam_keras.data.base import ArraySource

KEPT = ("images", "extent")  # what lies on the device of all images, in a batch that has "rows"


def training_rows(
    source,
    batch_size,
    chunk=1,
    seed=0,
    first_epoch=0,
    epochs=1,
    with_index=False,
    order=None,
    with_labels=False,
    first_step=0,
):
    """The numbers of the images of the next batches, where the images are elsewhere already.

    Args:
        source: a `Source` of n images.
        batch_size: images in a batch, within [1, n].
        chunk: batches at a time, a divisor of those of an epoch and of those left in the first;
            default 1.
        seed: integer >= 0; default 0.
        first_epoch: number of the first epoch; default 0.
        epochs: number after the last epoch; default 1.
        with_index: also give the numbers as int64; default False.
        order: as in `training_views`.
        with_labels: also give the label of each image; default False.
        first_step: as in `training_views`.

    Yields:
        `{"rows": int32 [chunk, batch_size]}`, and likewise int64 `"index"`, `"labels"` where
        these are asked for.

    Raises:
        ValueError: as `training_views` does, or if `chunk` does not divide the batches.
    """
    steps, order = pipeline.ordered(source, batch_size, seed, first_epoch, order, with_labels)
    if (steps - first_step) % chunk or steps % chunk:
        raise ValueError(
            f"`chunk` must divide the {steps} batches of an epoch and what is left of the first. "
            f"Received: chunk={chunk}, first_step={first_step}"
        )

    def rows():
        for epoch in range(first_epoch, epochs):
            chunks = order(epoch).reshape(-1, batch_size)
            chunks = chunks[first_step if epoch == first_epoch else 0 :]
            for chosen in chunks.reshape(-1, chunk, batch_size):
                found = {"rows": chosen.astype("int32")}
                if with_index:
                    found["index"] = chosen
                if with_labels:
                    found["labels"] = source.labels[chosen]
                yield found

    return rows()


def all_images(source, size=None):
    """Every image of a source, as `training_images` gives them.

    Args:
        source: a `Source` of n images.
        size: as in `training_images`.

    Returns:
        `{"images": uint8 [n, height, width, c]}`, on a canvas with `"extent"`, int32 `[n, 2]`.
    """
    if size is None and isinstance(source, ArraySource):
        return {"images": source.images}
    read = list(pipeline.read_images(source, np.arange(len(source)), size, 256))
    return {name: np.concatenate([batch[name] for batch in read]) for name in read[0]}
