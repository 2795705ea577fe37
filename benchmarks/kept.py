"""Images/s of training images over epochs, decoded whenever they are read or kept once decoded.

A part of `benchmarks.large_data`, which runs `epochs` in a process of its own for each number.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks import common
from benchmarks.generated import write_jpegs

HEIGHT, WIDTH = 5792, 8688  # 50 megapixels
PHOTOGRAPHS, DISTINCT = 60, 4
EPOCHS = 3
BATCH = 20
VIEW = 96
# A name in the table, and `--cache`; the second of the same kind finds what the first has kept.
WAYS = {
    "decoded whole": "whole",
    "`none`": "none",
    "`memory`": "memory",
    "`disk`, first run": "disk",
    "`disk`, later runs": "disk",
}


def epochs(folder, kind, place):
    """Images/s of each epoch of what `--augment=device` draws from, opening left out."""
    import dataclasses

    from benchmarks.large_data import resident
    from simsiam_keras import data, views
    from simsiam_keras.augment import IMAGENET
    from simsiam_keras.data import cache, pipeline

    start = time.perf_counter()
    source = data.load(f"folder:{folder}")
    opened = time.perf_counter() - start
    canvas = views.canvas(source, dataclasses.replace(IMAGENET, size=VIEW)) or (VIEW, VIEW)
    if not isinstance(source, data.EncodedSource):  # as a larger set of them would be
        raise ValueError(f"`folder` must hold more than is decoded once. Received: {folder}")
    start = time.perf_counter()
    if kind == "whole":  # one epoch shows it
        order = pipeline.epoch_order(len(source), 0, 0)
        batches, passes = read_whole(source, order, canvas), 1
    else:
        cache.keep_decoded(source, kind, place, canvas[1])
        passes = EPOCHS
        batches = pipeline.training_images(source, BATCH, canvas, epochs=passes)
    rates = []
    for _ in range(passes):
        for _ in range(len(source) // BATCH):
            next(batches)
        rates.append(len(source) // BATCH * BATCH / (time.perf_counter() - start))
        start = time.perf_counter()
    return {"rates": rates, "opened": opened, "images": len(source), "peak": resident("VmHWM")}


def read_whole(source, order, canvas):
    """Batches on the canvas of images that are decoded at full size."""
    from simsiam_keras.data import batches, images

    for _, placed in batches._ahead(
        lambda index: images.on_canvas(source.read(index), canvas), order, BATCH
    ):
        yield placed


def report(run, folders, rounds):
    """The section of the report; `run` calls `epochs` in another process."""
    parts = [
        "## Training images over three epochs, kept once they are decoded\n\n"
        f"What `--augment=device` draws from for views of {VIEW} px, by `--cache`: images/s in "
        f"each epoch, the median of {rounds} rounds in which the ways take turns, each in a "
        "process of its own. The first epoch has what is decoded to say the size. Opening the "
        'folder is left out: it does not depend on the way. "Decoded whole", for one epoch, is '
        "without the fraction.\n"
    ]
    for name, folder in folders.items():
        found = {way: [] for way in WAYS}
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as place:
                for way, kind in WAYS.items():
                    found[way].append(run(folder=str(folder), kind=kind, place=place))
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        images = found["`none`"][0]["images"]
        rows = [(way, *cells(answers)) for way, answers in found.items()]
        head = (
            f"{name}, {images:,} images, {size / images / 1000:,.0f} kB each",
            *(f"epoch {i + 1}" for i in range(EPOCHS)),
            "all",
            "peak, MB",
        )
        parts.append(common.table(head, rows))
    return "\n".join(parts)


def cells(answers):
    """Medians over the rounds: of each epoch, of all of them, of memory."""
    rates = [answer["rates"] for answer in answers]
    each = [statistics.median(rate) for rate in zip(*rates, strict=True)]
    whole = statistics.median(statistics.harmonic_mean(rate) for rate in rates)
    peak = statistics.median(answer["peak"] for answer in answers)
    numbers = [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in (*each, whole)]
    return [*numbers[:-1], *[""] * (EPOCHS - len(each)), numbers[-1], f"{peak:,.0f}"]


def make_folders(root, photographs, others):
    """Generated photographs of 50 megapixels, and those of a folder, every fourth turned.

    Those of one size are decoded once anyway; turned ones beside them are what a camera leaves.
    """
    folder = root / "photographs"
    write_jpegs(folder, photographs, HEIGHT, WIDTH, distinct=DISTINCT)
    found = {f"{WIDTH} x {HEIGHT}, generated": folder}
    if others:
        name = os.path.basename(os.path.normpath(others))
        found[f"{name}, every fourth turned upright"] = root / name
        (root / name).mkdir()
        for i, path in enumerate(sorted(Path(others).rglob("*.jpg"))):
            with Image.open(path) as image:
                turned = image.transpose(Image.Transpose.ROTATE_90) if i % 4 == 0 else image
                turned.save(root / name / f"{i:06}.jpg", quality=95)
    return found
