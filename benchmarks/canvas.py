"""Views/s of photographs on the device, from centred squares and from whole pictures on a canvas.

    git archive 0.2 simsiam_keras | tar -x -C /tmp/before
    python -m benchmarks.canvas --before=/tmp/before

Half of the pictures are 3 : 2 and half 2 : 3. Squares have 1.5 times a view's side, as an earlier
version took them, which `--before` names the folder of. Each contender is a process of its own;
those of a backend take turns. The second table is reading: images/s of generated photographs that
become squares, or lie on the canvas.
"""

import argparse
import dataclasses
import functools
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks import common


def batch(place, size, batch_size):
    """Arguments of `Views`: pictures of 3 : 2, as squares or on a canvas."""
    square, long = round(1.5 * size), round(2.25 * size)
    if place == "square":
        return (common.smooth_images(batch_size, square),)
    wide = np.arange(batch_size) % 2 == 1
    extent = np.where(wide[:, None], [[square, long]], [[long, square]]).astype("int32")
    return common.smooth_images(batch_size, long)[:, :, :square], extent


def engine(place, size, batch_size):
    """A function that makes two views of each picture, compiled as in training."""
    import keras
    from keras import ops

    from simsiam_keras.augment import IMAGENET
    from simsiam_keras.augment.device import Views

    layer = Views(dataclasses.replace(IMAGENET, size=size))
    arguments = [ops.convert_to_tensor(x) for x in batch(place, size, batch_size)]
    step = functools.partial(layer, training=True)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        step = tf.function(step)  # on a CPU `--jit=auto` leaves XLA out
    if keras.backend.backend() == "jax":
        import jax

        pure = jax.jit(functools.partial(layer.stateless_call, [], training=True))
        state = [variable.value for variable in layer.non_trainable_variables]

        def step(*arguments):
            return pure(state, *arguments)[0]

    return lambda: ops.convert_to_numpy(step(*arguments)[1][:1])  # waits for the device


def serve(arguments):
    """Be the process of one contender."""
    if arguments.root:
        sys.path.insert(0, arguments.root)
    function = engine(arguments.serve, arguments.size, arguments.batch_size)
    function()

    def turn(_):
        return 2 * arguments.batch_size / common.seconds_a_call(function, arguments.seconds)

    backend = os.environ["KERAS_BACKEND"]
    common.serve(common.versions((backend, "keras")), turn)


def in_turns(functions, repeats):
    """Median, least and most of each function, by name, over repeats in which they take turns."""
    found = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            value = function()
            if repeat:  # the first is to get warm
                found[name].append(value)
    return {name: (statistics.median(x), min(x), max(x)) for name, x in found.items()}


def views_per_second(arguments):
    """Rows of the first table, and the versions."""
    rows, versions = [], set()
    for backend in common.BACKENDS:
        given = [f"--{name}={getattr(arguments, name)}" for name in ("size", "batch_size")]
        given.append(f"--seconds={arguments.seconds}")
        contenders = {
            "squares": (backend, *given, "--serve=square"),
            "canvas": (backend, *given, "--serve=canvas"),
        }
        if arguments.before:
            before = (backend, *given, "--serve=square", f"--root={arguments.before}")
            contenders = {"squares, before": before, **contenders}
        running, left_out = common.start("benchmarks.canvas", contenders)
        for name, reason in left_out.items():
            print(f"{backend}, {name}: skipped, {reason}")
        versions |= {process.hello for process in running.values()}
        found = in_turns(running, arguments.repeats)
        rows += [(f"{backend}, {name}", *map("{:,.0f}".format, x)) for name, x in found.items()]
        for process in running.values():
            process.close()
    return rows, versions


def images_per_second(arguments):
    """Rows of the second table."""
    from benchmarks.generated import HEIGHT, WIDTH, make_folders
    from benchmarks.large_data import BATCH, images_per_second, various_sizes
    from simsiam_keras.data import pipeline

    with tempfile.TemporaryDirectory() as folder:
        folders, _ = make_folders(Path(folder), arguments.photographs, 1)
        source = various_sizes(list(folders.values())[-1])
        square, long = round(1.5 * arguments.size), round(2.25 * arguments.size)
        made = {
            name: pipeline.training_images(source, BATCH, size, epochs=10**6)
            for name, size in {"squares": square, "canvas": (long, square)}.items()
        }
        functions = {
            f"{WIDTH} x {HEIGHT} and upright, {name}": functools.partial(
                images_per_second, batches, arguments.seconds
            )
            for name, batches in made.items()
        }
        found = in_turns(functions, arguments.repeats)
        for batches in made.values():
            batches.close()  # which reads ahead from the folder
    return [(name, *map("{:,.0f}".format, numbers)) for name, numbers in found.items()]


def main():
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="", help="folder of an earlier version's package")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one repeat")
    parser.add_argument("--photographs", type=int, default=400)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--root", default="", help=argparse.SUPPRESS)
    parser.add_argument("--output", help="Markdown file to write as well")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments)
    machine = common.machine()
    rows, versions = views_per_second(arguments)
    head = ("median", "least", "most")
    text = (
        f"# Whole pictures on a canvas, {arguments.size} px\n\n"
        f"{common.setting('benchmarks.canvas', machine, versions)}\n"
        f"IMAGENET's recipe, batch {arguments.batch_size}, {arguments.repeats} repeats of "
        f"{arguments.seconds:g} s in which the contenders take turns; see the command's help.\n\n"
        f"{common.table(('views/s', *head), rows)}\n"
        f"{common.table(('images/s read', *head), images_per_second(arguments))}"
    )
    common.publish(text, arguments.output)


if __name__ == "__main__":
    main()
