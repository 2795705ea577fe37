"""Data larger than memory: folders read, memory over epochs, kNN over a mapped bank, embed to disk.

    python -m benchmarks.large_data --output=benchmarks/results/large_data.md
    python -m benchmarks.large_data --parts=kept --others=FOLDER --append --output=...

Everything is generated into a temporary folder (`--folder`), which takes 2.3 GB for the bank of a
million and is removed afterwards. Every line that measures memory is a process of its own; "one
processor" is a process bound to one. Files have just been written, so the disk itself is not
measured: they come out of the system's cache. What is counted as memory is said in the report.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import PIL

from benchmarks import common, kept
from benchmarks.generated import DIM, HEIGHT, QUERIES, WIDTH, make_folders, write_bank

CLASSES = 1000
BATCH = 32
SIZES = (96, 224)  # sides of a view
EPOCHS = 6


# What is measured: functions of a request, each in a process of its own.


def load(folder):
    """Images/s of `data.load`: one size is decoded once, various sizes are checked."""
    from simsiam_keras import data

    start = time.perf_counter()
    source = data.load(f"folder:{folder}")
    seconds = time.perf_counter() - start
    return {"images": len(source), "rate": len(source) / seconds}


def read(folder, seconds):
    """Images/s of everything that reads photographs on the fly."""
    source = various_sizes(folder)
    rates = {}
    for size in SIZES:
        for name, batches in ways_to_read(source, size).items():
            rates[f"{name}, {size} px"] = images_per_second(batches, seconds)
    return rates


def images_per_second(batches, seconds):
    next(batches)
    for length in (1.0, seconds):  # warm, and what was made ahead is used up
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < length:
            next(batches)
            images += BATCH
    return images / (time.perf_counter() - start)


def ways_to_read(source, size, epochs=10**6):
    """What `--augment=device` and `--augment=host` draw from, and the latter without augmenting."""
    from simsiam_keras import views
    from simsiam_keras.augment import IMAGENET
    from simsiam_keras.data import pipeline

    recipe = dataclasses.replace(IMAGENET, size=size)
    host = functools.partial(pipeline.training_views, source, batch_size=BATCH, epochs=epochs)
    side = views.canvas(source, recipe)
    return {
        "training_images": pipeline.training_images(source, BATCH, side, epochs=epochs),
        "training_views, read only": iter(host(Unaugmented(recipe))),
        "training_views": iter(host(views.host(recipe))),
    }


class Unaugmented:
    """Views of one pixel, of images that are read as for the recipe."""

    def __init__(self, recipe):
        self.recipe = recipe

    def __call__(self, images, seed):
        return images[:, :1, :1], images[:, :1, :1]


def epochs(folder, way):
    """MB resident after every epoch of reading on the fly."""
    source = various_sizes(folder)
    batches = ways_to_read(source, SIZES[0], EPOCHS)[way]
    after = []
    for _ in range(EPOCHS):
        for _ in range(len(source) // BATCH):
            next(batches)
        after.append(resident("VmRSS"))
    return after


def knn(bank, queries):
    """Seconds and memory of `knn_accuracy` over a memory map; `queries` are of every m-th row."""
    import keras

    from simsiam_keras.evaluation import knn_accuracy

    bank, queries = np.load(bank, mmap_mode="r"), np.load(queries)
    labels = np.random.default_rng(1).integers(0, CLASSES, len(bank))
    right = labels[:: len(bank) // QUERIES][:QUERIES]
    knn_accuracy(bank[:1000], labels[:1000], queries, right)  # the backend starts
    found = measured(lambda: {"accuracy": knn_accuracy(bank, labels, queries, right)})
    return {"backend": common.versions((keras.backend.backend(),)), **found}


def embed(images, path):
    """Seconds and memory of embedding generated images, to a file or, without a path, in memory."""
    from simsiam_keras.data import Source
    from simsiam_keras.evaluation import features, features_to_file

    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), "uint8")
    weights = np.random.default_rng(1).normal(size=(8 * 8 * 3, DIM)).astype("float32")

    class Generated(Source):
        def __len__(self):
            return images

        def read(self, index, min_side=None):
            return pixels[index % len(pixels)]

    def encode(batch):
        return batch.reshape(len(batch), -1) @ weights

    arguments = (encode, Generated("generated", None, None, (8, 8, 3), "0"), 8)
    encode(pixels)
    if path:
        return measured(lambda: {"shape": features_to_file(path, *arguments).shape})
    return measured(lambda: {"shape": features(*arguments).shape})


TASKS = {f.__name__: f for f in (load, read, epochs, knn, embed)} | {"kept": kept.epochs}


# Memory, as Linux counts it.


def resident(kind):
    """MB: `VmRSS` all, `VmHWM` the most there was of it, `RssAnon` private."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[kind].split()[0]) * 1024 / 1e6


def measured(function):
    """What a function returns, its seconds, and the memory of this process before and at most."""
    before = resident("VmRSS")
    with most_private() as private:
        start = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - start
    return {
        **result,
        "seconds": seconds,
        "before": before,
        "private": max(private),
        "peak": resident("VmHWM"),
    }


@contextlib.contextmanager
def most_private(every=0.01):
    """Samples the private memory; only the most of all memory is counted by the system itself."""
    samples, done = [resident("RssAnon")], threading.Event()

    def sample():
        while not done.wait(every):
            samples.append(resident("RssAnon"))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def various_sizes(folder):
    """The folder's photographs as a source that decodes them on the fly."""
    from simsiam_keras import data

    source = data.load(f"folder:{folder}")
    if not isinstance(source, data.EncodedSource):
        raise ValueError(f"`folder` must hold images of various sizes. Received: folder={folder}")
    return source


# The report.


def run(task, backend="tensorflow", processors=None, **request):
    """The answer of a task in a process of its own."""
    process = common.Process(backend, "benchmarks.large_data", "--serve")
    process.ready()
    answer = process({"task": task, "processors": processors, **request})
    process.close()
    return answer


def answer(request):
    """Be that process."""
    processors = request.pop("processors")
    if processors:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:processors])
    return TASKS[request.pop("task")](**request)


def number(value):
    return f"{value:,.0f}"


def report_load(folders, sizes):
    rows = []
    for name, folder in folders.items():
        one, every = (run("load", processors=p, folder=str(folder)) for p in (1, None))
        kilobytes = f"{sizes[name] / 1000:.1f}"
        rates = (number(one["rate"]), number(every["rate"]))
        rows.append((name, number(every["images"]), kilobytes, *rates))
    head = ("folder", "images", "kB each", "images/s, one processor", "all")
    return "## Opening a folder\n\n" + common.table(head, rows)


def report_read(folder, seconds):
    one, every = (run("read", processors=p, folder=str(folder), seconds=seconds) for p in (1, None))
    head = ("read on the fly", "images/s, one processor", "all")
    rows = [(f"`{way}`", number(one[way]), number(every[way])) for way in every]
    return (
        f"## Photographs of {WIDTH} x {HEIGHT}, decoded whenever they are read\n\n"
        "For views of 96 and 224 px. `training_images` feeds `--augment=device` with canvases of "
        "2.25 by 1.5 times that; `training_views` is the ImageNet recipe of `--augment=host` "
        "whole, and its reading alone.\n\n" + common.table(head, rows)
    )


def report_epochs(folder):
    head = ("MB resident after epoch", *map(str, range(1, EPOCHS + 1)))
    ways = ("training_images", "training_views")
    rows = [(f"`{way}`", *map(number, run("epochs", folder=str(folder), way=way))) for way in ways]
    return "## Memory over epochs on the fly\n\n" + common.table(head, rows)


def report_knn(folder, bank_rows):
    rows = []
    for dtype in ("float32", "float16"):
        files = write_bank(folder, bank_rows, dtype)
        for backend in common.BACKENDS if dtype == "float32" else common.BACKENDS[:1]:
            try:
                found = run("knn", backend, **files)
            except common.LeftOut as reason:
                rows.append((f"{backend}: {reason}", *[""] * 6))
                continue
            memory = (number(found[key]) for key in ("before", "private", "peak"))
            seconds, accuracy = f"{found['seconds']:.1f}", f"{100 * found['accuracy']:.1f} %"
            megabytes = number(os.path.getsize(files["bank"]) / 1e6)
            rows.append((f"{found['backend']}, {dtype}", megabytes, *memory, seconds, accuracy))
        os.unlink(files["bank"])
    head = ("bank", "file, MB", "MB before", "private, at most", "peak", "s", "accuracy")
    return (
        f"## kNN over a mapped bank of {bank_rows:,} x {DIM}\n\n"
        f"{QUERIES:,} queries, noisy copies of bank vectors of {CLASSES:,} random classes, so that "
        "100 % is right; k = 200, T = 0.1.\n\n" + common.table(head, rows)
    )


def report_embed(folder, images):
    rows = []
    for name, path in (("`features_to_file`", str(folder / "features.npy")), ("`features`", "")):
        for n in (images // 10, images):
            found = run("embed", images=n, path=path)
            features = number(n * DIM * 4 / 1e6)
            memory = (number(found["before"]), number(found["peak"]))
            rows.append((name, number(n), features, *memory, number(n / found["seconds"])))
    head = ("", "images", "features, MB", "MB before", "peak", "images/s")
    return (
        "## Embedding, streamed to the disk and in memory\n\n"
        "Images of 8 x 8 and one matrix product in the encoder's place.\n\n"
        + common.table(head, rows)
    )


def report_kept(root, arguments):
    folders = kept.make_folders(root, arguments.megapixels, arguments.others)
    return kept.report(functools.partial(run, "kept"), folders, arguments.rounds)


PARTS = ("load", "read", "epochs", "knn", "embed", "kept")
MEMORY = (
    'Memory is what Linux counts as resident of one process, in MB of 10^6 bytes: "peak" is VmHWM, '
    'private memory, pages of mapped files and shared libraries together; "private" is RssAnon '
    'alone, sampled every 10 ms; "before" is VmRSS after the imports. 2 GiB are 2,147 MB.\n'
)


def main():
    """Measure and write a report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=int, default=1_000_000, help="rows of the kNN's bank")
    parser.add_argument("--photographs", type=int, default=1000)
    parser.add_argument("--small", type=int, default=20_000, help="images of 32 x 32")
    parser.add_argument("--images", type=int, default=200_000, help="images to embed")
    parser.add_argument("--seconds", type=float, default=4.0, help="of reading, for each number")
    parser.add_argument("--megapixels", type=int, default=kept.PHOTOGRAPHS, help="images of 50")
    parser.add_argument("--rounds", type=int, default=3, help="in which ways to keep take turns")
    parser.add_argument("--others", help="folder of images to read over epochs as well")
    parser.add_argument("--parts", default=",".join(PARTS), help="of the report")
    parser.add_argument("--append", action="store_true", help="to the file, and not replace it")
    parser.add_argument("--folder", help="where to generate; default: the system's place")
    parser.add_argument("--output", help="Markdown file to write as well")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return common.serve(None, answer)
    machine = common.machine()
    versions = [common.versions(("tensorflow", "keras", "keras-cv")), f"pillow {PIL.__version__}"]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        root = Path(root)
        parts = [] if arguments.append else ["# Large data\n"]
        parts.append(common.setting("benchmarks.large_data", machine, versions))
        parts += [] if arguments.append else [MEMORY]
        wanted = arguments.parts.split(",")
        if {"load", "read", "epochs"} & set(wanted):
            folders, sizes = make_folders(root, arguments.photographs, arguments.small)
            various = list(folders.values())[-1]
        reports = {
            "load": lambda: report_load(folders, sizes),
            "read": lambda: report_read(various, arguments.seconds),
            "epochs": lambda: report_epochs(various),
            "knn": lambda: report_knn(root, arguments.bank),
            "embed": lambda: report_embed(root, arguments.images),
            "kept": lambda: report_kept(root, arguments),
        }
        parts += [reports[name]() for name in wanted]
    text = "\n".join(parts)
    if arguments.append and arguments.output:
        text = f"{Path(arguments.output).read_text()}\n{text}"
    common.publish(text, arguments.output)


if __name__ == "__main__":
    main()
