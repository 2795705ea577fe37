"""8-bit integers by ONNX Runtime's tool, what they are fitted to, and what they lose in kNN."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import numpy as np

from simsiam_keras import inputs
from simsiam_keras.data import pipeline, subsets
from simsiam_keras.evaluation import encoded, knn

MOST = 10_000  # images of each part that kNN is measured on


class Loss:
    """What features in 8 bits lose in kNN, measured as the command `knn` does.

    Args:
        encoder: an `export.LoadedEncoder`.
        bank: the labelled `data.Source` of neighbours.
        queries: that which is classified.
        batch_size: images in a forward step.
        console: where progress is shown.
    """

    def __init__(self, encoder, bank, queries, batch_size, console):
        self.encoder, self.batch_size, self.console = encoder, batch_size, console
        self.bank, self.queries = first(bank), first(queries)

    def measure(self, encode, folder, any_size=False):
        """KNN by features that something else computes, beside kNN by the encoder's own.

        Args:
            encode: function of uint8 images to features.
            folder: where features may lie meanwhile.
            any_size: whether it crops the centre itself.

        Returns:
            A dict for the card.
        """
        other = dataclasses.replace(self.encoder, _features=encode)
        if any_size:  # of images that are resized, and so for it to crop alone
            side = round(other.image_size / other.eval_crop)
            other = dataclasses.replace(other, image_size=side, eval_crop=1.0)
        found, own = self._knn(other, folder), self._own(folder)
        (name,) = own
        return {
            name: round(found[name], 4),
            f"{name}_float": round(own[name], 4),
            "loss_in_points": round(100 * (own[name] - found[name]), 2),
            "bank": len(self.bank.rows()),
            "queries": len(self.queries.rows()),
        }

    @functools.cache  # noqa: B019 - one of these lives as long as an export
    def _own(self, folder):
        return self._knn(self.encoder, folder)

    def _knn(self, encoder, folder):
        given = (self.batch_size, folder, self.console)
        bank = encoded.mapped(encoder, self.bank, *given)
        queries = encoded.mapped(encoder, self.queries, *given)
        return knn.knn_measure(*bank, *queries, k=knn.chosen_k(0, bank[1]))


def first(source):
    """At most `MOST` images of a source, spread evenly over it."""
    if len(source) <= MOST:
        return source
    numbers = np.linspace(0, len(source) - 1, MOST).astype("int64")
    return subsets.subset(source, numbers, f"{MOST} of {source.name}")


def images(cfg, encoder, say, console):
    """What the flags give 8 bits to be fitted to, and to be measured on.

    Args:
        cfg: a `config.Export`.
        encoder: an `export.LoadedEncoder`.
        say: function of a sentence.
        console: where progress is shown.

    Returns:
        uint8 `[m, size, size, channels]`, spread evenly over the training images, and a `Loss`;
        None without labels.
    """
    known = (encoder.stored_range, encoder.channels)
    source, loss = inputs.images_of(cfg, cfg.split, *known), None
    if source.labels is None:
        inputs.tell(source, say)
        say(f"No labels{inputs.why(source)}: the loss of int8 in kNN is not measured.")
    else:
        source, queries, _ = inputs.train_and_test(cfg, say, encoder)
        loss = Loss(encoder, source, queries, cfg.batch_size, console)
    numbers = np.linspace(0, len(source) - 1, min(len(source), cfg.calibration_images))
    part = subsets.subset(source, numbers.astype("int64"), f"calibration of {source.name}")
    batches = pipeline.evaluation_batches(part, encoder.image_size, encoder.eval_crop, 64)
    return np.concatenate([np.asarray(batch) for batch, _ in batches]), loss


def onnx_core(core, calibration):
    """An encoder's graph in 8 bits: weights for each channel, activations fitted to images.

    Args:
        core: an `onnx.ModelProto` from `pixels`, float `[n, size, size, c]`.
        calibration: uint8 `[m, size, size, c]`.

    Returns:
        An `onnx.ModelProto` with the same input and output, in floats.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    with tempfile.TemporaryDirectory() as scratch:
        plain, tidy, small = (Path(scratch, f"{name}.onnx") for name in ("plain", "tidy", "small"))
        onnx.save(core, plain)
        shape_inference.quant_pre_process(str(plain), str(tidy), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(tidy),
            str(small),
            _Reader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
        return onnx.load(small)


class _Reader:
    """Calibration images, one at a time, as ONNX Runtime asks for them."""

    def __init__(self, images):
        self.images = iter(images)

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"pixels": image[None].astype("float32")}
