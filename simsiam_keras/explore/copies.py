"""From what similarity on two pictures are taken for one, by copies of the user's own."""

import io

import numpy as np
from PIL import Image

from simsiam_keras import cards, export
from simsiam_keras.data import images as codec
from simsiam_keras.evaluation.knn import unit

FIXED = 0.95  # without an encoder to measure with
PHOTOGRAPHS = 100
SHARE = 0.05  # of copies that are less similar than the threshold
LARGE = 512  # pixels of the short side, from which photographs are copied at this size


def threshold(cfg, found, say):
    """The threshold that flags ask for, and how it was chosen, in words.

    Args:
        cfg: an `options.Duplicates`.
        found: a `collection.Collection`.
        say: function of a sentence.

    Returns:
        A float and a text.

    Raises:
        ValueError: if --encoder is not the one that made the vectors, or no picture can be read.
    """
    if cfg.threshold != "auto":
        return float(cfg.threshold), f"--threshold={cfg.threshold}"
    if not cfg.encoder:
        why = f"{FIXED}, as without --encoder no copies can be measured"
        say(f"The threshold is {why}.")
        return FIXED, why
    if cfg.vectors and cards.digest(cfg.encoder) != found.encoder:
        raise ValueError(
            f"--encoder={cfg.encoder} is not the one that made {cfg.vectors}; give that one, or a "
            "--threshold"
        )
    encoder = export.load_encoder(cfg.encoder, cfg.trust_encoder)
    similarity, kinds = measured(encoder, found.pictures, len(found), cfg.batch_size)
    value = float(np.quantile(similarity, SHARE))
    why = (
        f"{value:.3f}, which {100 * (1 - SHARE):.0f} % of {similarity.size} copies reach: "
        f"{similarity.shape[1]} photographs {', '.join(kinds)}"
    )
    say(f"The threshold is {why}.")
    return value, why


def measured(encoder, pictures, n, batch_size=256):
    """The similarity of photographs to copies of them.

    Args:
        encoder: an `export.LoadedEncoder` of images of 3 channels, or of what 3 are made of.
        pictures: a `pictures.Files` or the like.
        n: how many there are, of which up to 100 are taken, evenly spaced.
        batch_size: images in a step.

    Returns:
        `[kinds, photographs]`, and the names of the kinds.

    Raises:
        ValueError: if no picture can be read.
    """
    numbers = sorted({round(i) for i in np.linspace(0, n - 1, PHOTOGRAPHS)})
    originals = []
    for number in numbers:
        try:
            originals.append(_at_most(pictures.read(number, LARGE), LARGE))
        except Exception:  # every decoder raises what it likes; said where thumbnails are made
            continue
    if not originals:
        raise ValueError("No picture can be read to measure copies of; give a --threshold")

    def encoded(images):
        squares = [codec.resize_and_crop(x, encoder.image_size, encoder.eval_crop) for x in images]
        batch = _in_channels(np.stack(squares), encoder.channels)
        parts = [batch[i : i + batch_size] for i in range(0, len(batch), batch_size)]
        return unit(np.concatenate([encoder(part) for part in parts]))

    base = encoded(originals)
    similarity = [
        np.sum(base * encoded([make(x) for x in originals]), axis=1) for make in KINDS.values()
    ]
    return np.stack(similarity), tuple(KINDS)


def saved_again(image):
    """An image as a JPEG of quality 60 gives it back."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def halved(image):
    """An image of half the sides."""
    size = [max(1, side // 2) for side in image.shape[1::-1]]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def cropped(image):
    """The middle of an image, with 95 % of its sides."""
    height, width = image.shape[:2]
    top, left = height // 40, width // 40
    return image[top : height - top, left : width - left]


KINDS = {"saved again as JPEG 60": saved_again, "halved": halved, "cropped to 95 %": cropped}


def _at_most(image, side):
    short = min(image.shape[:2])
    if short <= side:
        return image
    size = [round(length * side / short) for length in image.shape[1::-1]]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _in_channels(images, channels):
    """RGB images as an encoder of other channels takes them: grey, or the first three and grey."""
    if channels == 3:
        return images
    grey = np.stack([codec.to_grey(Image.fromarray(image)) for image in images])
    if channels < 3:
        return grey.repeat(channels, axis=-1)
    return np.concatenate([images, grey.repeat(channels - 3, axis=-1)], axis=-1)
