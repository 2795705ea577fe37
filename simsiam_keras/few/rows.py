"""The rows of the table: what is compared, of features and of networks that are trained."""

import dataclasses
import math

from simsiam_keras import monitors
from simsiam_keras.evaluation import encoded, hog
from simsiam_keras.few.finetune import random_like

PIXELS, HOG, RANDOM, START, TRAINED = "pixels", "hog", "random", "start", "trained"
START_FINETUNED, FINETUNED, SCRATCH = "start_finetuned", "finetuned", "scratch"


@dataclasses.dataclass(frozen=True)
class Described:
    """What gives the features of a row, as `evaluation.encoded` takes it.

    Attributes:
        image_size: side of the images in pixels.
        eval_crop: share of the short side that evaluation's centre crop keeps.
        encode: function of uint8 images to features `[n, d]`.
    """

    image_size: int
    eval_crop: float
    encode: object

    def __call__(self, images):
        return self.encode(images)


def titles(source, finetune, start, missing, trained="after self-supervision"):
    """The rows in the table's order, `{name: title}`, and why some are left out, likewise.

    Args:
        source: the training images.
        finetune: whether networks are trained.
        start: whether the weights that training began with are known.
        missing: why there is no HOG, or "".
        trained: what the encoder is called.

    Returns:
        Two dicts.
    """
    rows = {
        PIXELS: f"raw pixels, {pixel_side(source)} px",
        HOG: f"HOG, {hog_side(source)} px",
        RANDOM: "random encoder, linear",
        START: "start weights, linear",
        TRAINED: f"{trained}, linear",
        START_FINETUNED: "start weights, fine-tuned",
        FINETUNED: f"{trained}, fine-tuned",
        SCRATCH: "trained from scratch",
    }
    left_out = {HOG: missing} if missing else {}
    if not start:
        left_out[START] = left_out[START_FINETUNED] = ""
    if not finetune:
        left_out |= dict.fromkeys((START_FINETUNED, FINETUNED, SCRATCH), "")
    kept = {name: title for name, title in rows.items() if name not in left_out}
    return kept, {rows[name]: why for name, why in left_out.items() if why}


def features(name, encoder, start, source, seed):
    """What gives the features of a row that has some.

    Args:
        name: one of the first five.
        encoder: an `export.LoadedEncoder`, after self-supervision.
        start: another, before it, or None.
        source: the training images.
        seed: of the random encoder.

    Returns:
        A `Described`.
    """
    crop = encoder.eval_crop
    if name == PIXELS:
        return Described(pixel_side(source), crop, encoded.flat)
    if name == HOG:
        return Described(hog_side(source), crop, hog.hog)
    if name == RANDOM:
        made = random_like(encoder.model, seed)
        return Described(encoder.image_size, crop, monitors.encode_with(made))
    chosen = {START: start, TRAINED: encoder}[name]
    return Described(chosen.image_size, crop, chosen)


def of_both(described, train_set, test_set, batch_size, run_dir, console):
    """Features and labels of the training and of the test images, as memory maps."""
    return tuple(
        part
        for source in (train_set, test_set)
        for part in encoded.mapped(described, source, batch_size, run_dir, console)
    )


def pixel_side(source):
    """Side in pixels of the images whose pixels are compared: 32, or theirs where all have less."""
    return min(encoded.PIXEL_SIDE, *_sides(source))


def hog_side(source):
    """Side of the images that HOG describes: 128, or theirs, but a block's at least."""
    return max(min(hog.SIDE, *_sides(source)), hog.CELL * hog.BLOCK)


def _sides(source):
    return (source.image_shape or (math.inf,))[:2]
