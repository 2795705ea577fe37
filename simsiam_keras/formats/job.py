"""What a format's writer is given, and how what it wrote is compared with the encoder."""

import contextlib
import dataclasses
import logging
import os
import sys
import warnings

import keras
import numpy as np
from PIL import Image

from simsiam_keras.data.images import resize_and_crop
from simsiam_keras.errors import RunFailed, sentence

BATCHES = (1, 3)
# The largest difference of a feature, as a share of the largest feature.
TOLERANCE = 1e-4
# Of features in 8 bits to those in 32: the smallest cosine of an image that is taken for the same.
LEAST_COSINE = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """An encoder to be written.

    Attributes:
        encoder: a functional `keras.Model`, `[n, size, size, channels]` to `[n, dim]`.
        eval_crop: share of the short side that evaluation's centre crop keeps.
        opset: of ONNX.
        calibration: uint8 `[m, size, size, channels]` that 8 bits are fitted to, or None.
        loss: what measures features in 8 bits, a `quantize.Loss`, or None.
    """

    encoder: object
    eval_crop: float = 1.0
    opset: int = 18
    calibration: object = None
    loss: object = None

    @property
    def size(self):
        """The side of the encoder's images."""
        return self.encoder.input_shape[1]

    @property
    def channels(self):
        """Of the images."""
        return self.encoder.input_shape[-1]

    @property
    def dim(self):
        """The width of the features."""
        return self.encoder.output_shape[-1]

    def features(self, images):
        """Keras's own features of images of the encoder's size, float32 NumPy."""
        features = self.encoder.predict_on_batch(np.asarray(images))
        return np.asarray(keras.ops.convert_to_numpy(features), "float32")

    def prepared(self, images):
        """Images of any one size as evaluation shows them to the encoder."""
        return np.stack([resize_and_crop(image, self.size, self.eval_crop) for image in images])


def trials(job, any_size):
    """Batches to compare features on: noise and smooth pictures, 1 and 3 of them.

    Yields:
        uint8 `[n, height, width, channels]`; with `any_size` larger, smaller, long and exact ones.
    """
    side, random = job.size, np.random.default_rng(0)
    sizes = [(side, side)]
    if any_size:
        target = round(side / job.eval_crop)
        sizes += [(2 * side + 7, 3 * side + 1), (max(2, side // 2), side), (3 * side, target)]
    for height, width in sizes:
        for n in BATCHES:
            yield random.integers(0, 256, (n, height, width, job.channels), dtype="uint8")
            coarse = random.integers(0, 256, (n, 5, 5, job.channels), dtype="uint8")
            yield np.stack([_smooth(image, height, width) for image in coarse])


def _smooth(image, height, width):
    planes = [Image.fromarray(image[..., c]) for c in range(image.shape[-1])]
    resized = [plane.resize((width, height), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)


def check(job, form, encode):
    """Compares what was written with the encoder.

    Args:
        job: a `Job`.
        form: the `forms.Form` that was written.
        encode: function of uint8 images to features, by what was written.

    Returns:
        A dict for the card: `largest_difference`, a share of the largest feature, or of 8 bits
        `cosine`, the smallest of an image.

    Raises:
        ValueError: if they differ by more than the form may.
    """
    most, least = 0.0, 1.0
    batches = trials(job, form.any_size)
    if form.int8:  # noise is far from what it was fitted to
        batches = (job.calibration[:n] for n in (*BATCHES, 16))
    for images in batches:
        expected = job.features(job.prepared(images) if form.any_size else images)
        found = np.asarray(encode(images))
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise _unlike(form, f"features of shape {list(found.shape)}, not all of them numbers")
        difference = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
        most, least = max(most, float(difference)), min(least, _cosine(found, expected))
    if form.int8:
        if least < LEAST_COSINE:
            raise _unlike(form, f"features with a cosine of {least:.2f} to them")
        return {"cosine": round(least, 6)}
    if most > TOLERANCE:
        raise _unlike(form, f"features that differ by {most:.2g} of the largest")
    return {"largest_difference": float(f"{most:.2g}")}


def _cosine(a, b):
    a, b = (x.astype("float64") for x in (a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.einsum("nd,nd->n", a, b) / np.maximum(lengths, 1e-30)).min())


def _unlike(form, what):
    return ValueError(
        f"{form.name} does not compute what the encoder does, and was not kept. Received: {what}; "
        "another --format may, or, for the ONNX file, another --opset or --backend"
    )


@contextlib.contextmanager
def converting(form, debug=False):
    """The border to a converter: its errors become a sentence, its messages are kept away.

    Args:
        form: the `forms.Form` that is written.
        debug: whether its messages are shown.

    Raises:
        ValueError: in the place of whatever it raises, but for what the disk or a missing package
            says.
    """
    try:
        with contextlib.nullcontext() if debug else _quiet():
            yield
    except (OSError, ImportError, RunFailed, MemoryError):
        raise
    except ValueError as error:
        if form.name in str(error):  # said already
            raise
        raise _not_written(form, error) from error
    except Exception as error:
        raise _not_written(form, error) from error


def _not_written(form, error):
    return ValueError(
        f"{form.name} cannot be written from this encoder ({type(error).__name__}: "
        f"{sentence(error)[:200]}); take another --format"
    )


@contextlib.contextmanager
def _quiet():
    # Converters log at every level, also in C++, to standard error and to standard output.
    kept = [os.dup(number) for number in (1, 2)]
    level, nothing = logging.root.manager.disable, os.open(os.devnull, os.O_WRONLY)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (1, 2):
            os.dup2(nothing, number)
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nothing)
