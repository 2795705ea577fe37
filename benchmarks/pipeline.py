"""Views per second of the CIFAR recipe: this package's two engines, stock keras_cv, torchvision.

    python -m benchmarks.pipeline

Images are generated, so no data set is needed. The contenders take turns within one run, each for
a fixed time and already warm; what is not installed is left out. Those on the host draw batches
from a pipeline. The device engine runs in a process of its own for each backend, compiled where the
backend compiles, on whatever device that finds; a backend's own environment `.venv-BACKEND`, if
there is one, goes before this Python. Stock keras_cv is what its user would compose; its
brightness, contrast, hue and crop are not the paper's, so it is compared for speed alone.
"""

import argparse
import functools
import importlib.util
import os
import platform
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import common
from simsiam_keras.augment import CIFAR


def batches(images, batch_size, views):
    """An endless tf.data pipeline of view pairs."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(images).repeat()
    dataset = dataset.batch(batch_size, drop_remainder=True).enumerate()
    dataset = dataset.map(
        lambda i, x: views(x, tf.stack([0, i])), num_parallel_calls=tf.data.AUTOTUNE
    )
    return iter(dataset.prefetch(tf.data.AUTOTUNE))


def host_engine(images, batch_size):
    from simsiam_keras.augment.host import Views

    return batches(images, batch_size, Views(CIFAR))


def stock_keras_cv(images, batch_size):
    from keras_cv import layers

    jitter = layers.RandomColorJitter(
        value_range=(0, 255),
        brightness_factor=0.4,
        contrast_factor=0.4,
        saturation_factor=(0.375, 0.583),  # the paper's [0.6, 1.4] on keras_cv's scale
        hue_factor=0.2,
    )
    augment = layers.Augmenter(
        [
            layers.RandomCropAndResize((32, 32), CIFAR.crop_area, CIFAR.crop_aspect),
            layers.RandomApply(jitter, rate=CIFAR.jitter_probability),
            layers.RandomApply(layers.Grayscale(output_channels=3), rate=CIFAR.grayscale),
            layers.RandomFlip("horizontal", rate=CIFAR.flip),
        ]
    )
    return batches(images, batch_size, lambda x, seed: (augment(x), augment(x)))


def torchvision_on_pil(images, batch_size):
    import torch
    import torchvision.transforms.v2 as transforms
    from PIL import Image

    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(32, CIFAR.crop_area, CIFAR.crop_aspect),
            transforms.RandomApply([transforms.ColorJitter(*CIFAR.jitter)], 0.8),
            transforms.RandomGrayscale(CIFAR.grayscale),
            transforms.RandomHorizontalFlip(CIFAR.flip),
            transforms.PILToTensor(),
        ]
    )

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 10**9

        def __getitem__(self, i):
            image = Image.fromarray(images[i % len(images)])
            return view(image), view(image)

    return iter(torch.utils.data.DataLoader(Pairs(), batch_size, num_workers=os.cpu_count()))


def device_engine(images, batch_size):
    """An endless series of view pairs of the device engine, on this process's backend."""
    import keras
    from keras import ops

    from simsiam_keras.augment.device import Views

    layer = Views(CIFAR)
    step = functools.partial(layer, training=True)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        step = tf.function(step, jit_compile=True)
    if keras.backend.backend() == "jax":
        import jax

        pure = jax.jit(functools.partial(layer.stateless_call, [], training=True))
        state = [variable.value for variable in layer.non_trainable_variables]

        def step(batch):
            nonlocal state
            views, state = pure(state, batch)
            return views

    while True:
        for start in range(0, len(images) - batch_size + 1, batch_size):
            x1, x2 = step(ops.convert_to_tensor(images[start : start + batch_size]))
            ops.convert_to_numpy(x2[:1])  # waits for the device
            yield x1, x2


def views_per_second(iterator, batch_size, seconds):
    """Draw batches for about `seconds`, after the ones made ahead while others had their turn."""
    for length in (1.0, seconds):
        start, drawn = time.perf_counter(), 0
        while time.perf_counter() - start < length:
            next(iterator)
            drawn += 2 * batch_size
    return drawn / (time.perf_counter() - start)


def serve_device_engine(arguments):
    """Be the process of one backend."""
    iterator = device_engine(common.smooth_images(4096, 32), arguments.batch_size)
    next(iterator)

    def turn(_):
        return views_per_second(iterator, arguments.batch_size, arguments.seconds)

    common.serve(common.versions((os.environ["KERAS_BACKEND"], "keras")), turn)


def device_engines():
    """The device engine's processes, one for each backend that can run."""
    arguments = (*sys.argv[1:], "--serve")
    engines = {f"device, {backend}": (backend, *arguments) for backend in common.BACKENDS}
    running, left_out = common.start("benchmarks.pipeline", engines)
    for name, reason in left_out.items():
        print(f"{name}: skipped, {reason}")
    return running


def host_engines(arguments):
    """Names and measurements of the pipelines that can run here."""
    makers = {
        "host": (host_engine, ("tensorflow", "keras_cv")),
        "stock keras_cv": (stock_keras_cv, ("tensorflow", "keras_cv")),
        "torchvision on PIL": (torchvision_on_pil, ("torch", "torchvision")),
    }
    images = common.smooth_images(4096, 32)
    for name, (make, needs) in makers.items():
        missing = [package for package in needs if not importlib.util.find_spec(package)]
        if missing:
            print(f"{name}: skipped, without {', '.join(missing)}")
            continue
        iterator = make(images, arguments.batch_size)
        yield (
            name,
            functools.partial(views_per_second, iterator, arguments.batch_size, arguments.seconds),
        )


def report(rates, contenders, arguments):
    """Print what was measured, on what and how."""
    here = common.versions(("tensorflow", "keras", "keras-cv", "torchvision", "numpy"))
    print(f"machine    {common.machine()}")
    print(f"versions   Python {platform.python_version()}, {here}")
    for name, contender in contenders.items():
        if isinstance(contender, common.Process):
            print(f"           {name}: {contender.hello}")
    print(f"command    {common.command('benchmarks.pipeline')}")
    print(
        f"protocol   CIFAR recipe, 32 px, batch {arguments.batch_size}, "
        f"{arguments.repeats} repeats of {arguments.seconds:g} s, interleaved\n"
    )
    print(f"{'views/s':<22}{'median':>10}{'min':>10}{'max':>10}")
    for name, values in rates.items():
        numbers = (statistics.median(values), min(values), max(values))
        print(f"{name:<22}" + "".join(f"{number:>10,.0f}" for number in numbers))


def main():
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one repeat")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve_device_engine(arguments)

    contenders = {**dict(host_engines(arguments)), **device_engines()}
    rates = {name: [] for name in contenders}
    for repeat in range(arguments.repeats + 1):
        for name, measure in contenders.items():
            rate = measure()
            if repeat:  # the first compiles and warms up
                rates[name].append(rate)
    report(rates, contenders, arguments)


if __name__ == "__main__":
    main()
