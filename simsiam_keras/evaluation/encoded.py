"""A loaded encoder's features of whole sources, through files, so that any number fits."""

import numpy as np
from rich.progress import Progress

from simsiam_keras.data import pipeline
from simsiam_keras.evaluation.features import features_to_file


def mapped(encoder, source, batch_size, run_dir, console):
    """The features as a memory map, so that more of them than memory holds can be evaluated.

    Returns:
        The features and the labels of their rows.
    """
    path = run_dir / ".features.npy"
    found = write(path, encoder, source, batch_size, console)
    try:
        path.unlink()  # the map keeps the content until it is closed, however the process ends
    except PermissionError:  # Windows, where a file cannot go before its map
        found = np.array(found)
        path.unlink()
    return found, source.labels[source.rows()]


def write(path, encoder, source, batch_size, console):
    """Writes the features of a source to a .npy file, with a bar; returns them as a memory map."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"features of {source.name}", total=len(source))
        return features_to_file(
            path,
            encoder,
            source,
            encoder.image_size,
            encoder.eval_crop,
            batch_size,
            on_batch=lambda done: bar.advance(task, done),
        )


def fingerprint(encoder, source):
    """The features of a few images, by which a changed encoder is told."""
    batch = next(
        pipeline.evaluation_batches(source, encoder.image_size, encoder.eval_crop, batch_size=16)
    )[0]
    return encoder(batch)
