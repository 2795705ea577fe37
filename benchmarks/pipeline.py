"""Views per second of the CIFAR recipe on the host: this package, stock keras_cv, torchvision.

    python benchmarks/pipeline.py

Images are generated, so no data set is needed. The contenders take turns within one run, each
drawing batches for a fixed time from a pipeline that is already warm. Stock keras_cv is what its
user would compose; its brightness, contrast, hue and crop are not the paper's, so it is compared
for speed alone.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from importlib import metadata

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_cv
import tensorflow as tf

from simsiam_keras.augment import CIFAR
from simsiam_keras.augment.host import TwoViews


def smooth_images(n, size, seed=0):
    """Random smooth colour images, uint8 `[n, size, size, 3]`."""
    coarse = tf.random.stateless_uniform([n, 4, 4, 3], [seed, 0], 0, 255)
    return tf.cast(tf.image.resize(coarse, [size, size], "bicubic"), tf.uint8).numpy()


def batches(images, batch_size, views):
    """An endless tf.data pipeline of view pairs."""
    dataset = tf.data.Dataset.from_tensor_slices(images).repeat()
    dataset = dataset.batch(batch_size, drop_remainder=True).enumerate()
    dataset = dataset.map(
        lambda i, x: views(x, tf.stack([0, i])), num_parallel_calls=tf.data.AUTOTUNE
    )
    return iter(dataset.prefetch(tf.data.AUTOTUNE))


def ours(images, batch_size):
    return batches(images, batch_size, TwoViews(CIFAR))


def stock_keras_cv(images, batch_size):
    layers = keras_cv.layers
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


def contenders():
    """Names and pipelines of what can run here."""
    result = {"simsiam_keras host": ours, "stock keras_cv": stock_keras_cv}
    try:
        import torchvision  # noqa: F401
    except ImportError:
        print("torchvision on PIL: skipped, torchvision is not installed")
    else:
        result["torchvision on PIL"] = torchvision_on_pil
    return result


def views_per_second(iterator, batch_size, seconds):
    """Draw batches for about `seconds`, after the ones made ahead while others had their turn."""
    for length in (1.0, seconds):
        start, drawn = time.perf_counter(), 0
        while time.perf_counter() - start < length:
            next(iterator)
            drawn += 2 * batch_size
    return drawn / (time.perf_counter() - start)


def cpu():
    """The processor's name, where the system tells."""
    try:
        with open("/proc/cpuinfo") as file:
            names = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
        return ", ".join(names)
    except OSError:
        return platform.processor() or platform.machine()


def report(rates, arguments):
    """Print what was measured, on what and how."""
    packages = ("tensorflow", "keras", "keras-cv", "numpy")
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"machine    {os.cpu_count()} cores, {cpu()}; load average {load}")
    print(f"versions   Python {platform.python_version()}, {versions}")
    print(f"command    python {' '.join(sys.argv)}")
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
    arguments = parser.parse_args()

    tf.get_logger().setLevel("ERROR")
    images = smooth_images(4096, 32)
    running = {name: make(images, arguments.batch_size) for name, make in contenders().items()}
    rates = {name: [] for name in running}
    for repeat in range(arguments.repeats + 1):
        for name, iterator in running.items():
            rate = views_per_second(iterator, arguments.batch_size, arguments.seconds)
            if repeat:  # the first compiles and warms up
                rates[name].append(rate)
    report(rates, arguments)


if __name__ == "__main__":
    main()
