"""Oracles of the augmentations, from torchvision's definitions in NumPy and PIL; and wrong ones."""

import colorsys
import itertools
import math

import numpy as np
import scipy.ndimage
import scipy.stats
from PIL import Image

from simsiam_keras.augment.recipe import Recipe

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
AREA, ASPECT = (0.2, 1.0), (3 / 4, 4 / 3)
PLAIN = Recipe(
    size=8, crop_area=(1, 1), crop_aspect=(1, 1), flip=0, jitter=(0, 0, 0, 0), grayscale=0
)
# Two small views; all that a full one does, on a side and a share of the area of their own.
MULTI = Recipe(
    size=16, blur=0.5, blur_sigma=(1, 2), small_views=2, small_size=6, small_crop_area=(0.1, 0.3)
)
# Unlikely below this when the claim is true; the seeds are fixed, so the tests do not flicker.
SIGNIFICANCE = 1e-3


def photos(n, height, width, seed=0):
    """Smooth colour images with some grain, uint8."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(n, height, width, 3))
    smooth = scipy.ndimage.gaussian_filter(smooth, (0, 2, 2, 0), mode="nearest")
    smooth = 128 + 60 * smooth / smooth.std() + rng.normal(scale=8, size=smooth.shape)
    return np.clip(smooth, 0, 255).astype("uint8")


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype="float32")


def each(operation, images, *parameters):
    """Apply a NumPy or PIL operation image by image."""
    results = (operation(*one) for one in zip(images, *parameters, strict=True))
    return np.stack([np.asarray(result, dtype="float64") for result in results])


def far(x, y):
    """Largest difference over all pixels."""
    return np.abs(np.asarray(x, "float64") - np.asarray(y, "float64")).max()


# p-values


def same(x, y):
    """That two samples come from one distribution."""
    return scipy.stats.ks_2samp(x, y).pvalue


def flat(x, low=0.0, high=1.0):
    """That a sample is uniform in [low, high)."""
    return scipy.stats.kstest((np.asarray(x) - low) / (high - low), "uniform").pvalue


def rate(changed, probability):
    """That so many of a sample have a probability."""
    return scipy.stats.binomtest(int(np.sum(changed)), changed.size, probability).pvalue


def unrelated(x, y):
    """That two properties, each true or false, are independent."""
    return scipy.stats.chi2_contingency(np.histogram2d(x, y, bins=2)[0]).pvalue


# Random resized crop


def crop_box(draws, height, width, aspect=ASPECT, log=True):
    """torchvision's RandomResizedCrop.get_params, fed with the layer's draws."""
    areas, aspects, corner = np.split(draws.astype("float64"), [10, 20])
    for u, v in zip(areas, aspects, strict=True):
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * u)
        if log:
            ratio = math.exp(math.log(aspect[0]) + v * math.log(aspect[1] / aspect[0]))
        else:
            ratio = aspect[0] + v * (aspect[1] - aspect[0])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(corner[0] * (height - h + 1)), int(corner[1] * (width - w + 1)), h, w
    if width / height < aspect[0]:
        h, w = round(width / aspect[0]), width
    elif width / height > aspect[1]:
        h, w = height, round(height * aspect[1])
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


def pil_crop(image, box, size, resample=Image.Resampling.BILINEAR):
    top, left, h, w = (int(x) for x in box)
    crop = Image.fromarray(image).crop((left, top, left + w, top + h))
    return crop.resize((size, size), resample)


def sampled_crop(image, box, size, corners):
    """Bilinear samples of the crop without antialiasing, or with aligned corners."""
    top, left, h, w = (int(x) for x in box)
    crop = image[top : top + h, left : left + w].astype("float64")
    grids = []
    for length in (h, w):
        i = np.arange(size)
        at = i * (length - 1) / (size - 1) if corners else (i + 0.5) * length / size - 0.5
        grids.append(np.clip(at, 0, length - 1))
    points = np.meshgrid(*grids, indexing="ij")
    return np.stack(
        [scipy.ndimage.map_coordinates(crop[..., c], points, order=1) for c in range(3)], axis=-1
    )


# Colour jitter


def luma(image):
    return image @ [0.299, 0.587, 0.114]


def clip(image):
    return np.clip(image, 0, 255)


def brightness(x, f):
    return clip(f * x)


def contrast(x, f):
    return clip(f * x + (1 - f) * luma(x).mean())


def saturation(x, f):
    return clip(f * x + (1 - f) * luma(x)[..., None])


def hue(x, shift):
    result = np.empty_like(x, dtype="float64")
    for i, j in itertools.product(*map(range, x.shape[:2])):
        h, s, v = colorsys.rgb_to_hsv(*(x[i, j] / 255.0))
        result[i, j] = colorsys.hsv_to_rgb((h + shift) % 1.0, s, v)
    return 255 * result


def hue_in_yiq(x, shift):
    turn = np.exp(2j * np.pi * shift)
    result = np.empty_like(x, dtype="float64")
    for i, j in itertools.product(*map(range, x.shape[:2])):
        y, a, b = colorsys.rgb_to_yiq(*(x[i, j] / 255.0))
        chroma = complex(a, b) * turn
        result[i, j] = colorsys.yiq_to_rgb(y, chroma.real, chroma.imag)
    return 255 * result


def saturation_in_hsv(x, f):
    result = np.empty_like(x, dtype="float64")
    for i, j in itertools.product(*map(range, x.shape[:2])):
        h, s, v = colorsys.rgb_to_hsv(*(x[i, j] / 255.0))
        result[i, j] = colorsys.hsv_to_rgb(h, min(1.0, f * s), v)
    return 255 * result


JITTER = [brightness, contrast, saturation, hue]
AMOUNTS = {
    BRIGHTNESS: [0.6, 0.8, 1.0, 1.2, 1.4],
    CONTRAST: [0.6, 0.8, 1.0, 1.2, 1.4],
    SATURATION: [0.6, 0.8, 1.0, 1.2, 1.4],
    HUE: [-0.45, -0.1, 0.0, 0.1, 0.3],
}
WRONG_JITTER = {
    BRIGHTNESS: {
        "additive, as keras_cv": lambda x, f: clip(x + 255 * (f - 1)),
        "not clipped": lambda x, f: f * x,
        "inverse factor": lambda x, f: clip(x / f),
    },
    CONTRAST: {
        "mean of each channel, as keras_cv": lambda x, f: clip(f * x + (1 - f) * x.mean((0, 1))),
        "about mid grey": lambda x, f: clip(f * x + (1 - f) * 127.5),
        "mean of the plain average": lambda x, f: clip(f * x + (1 - f) * x.mean()),
    },
    SATURATION: {
        "plain average grey": lambda x, f: clip(f * x + (1 - f) * x.mean(-1, keepdims=True)),
        "in HSV, as keras_cv": saturation_in_hsv,
        "Rec. 709 grey": lambda x, f: clip(
            f * x + (1 - f) * (x @ [0.2126, 0.7152, 0.0722])[..., None]
        ),
    },
    HUE: {
        "halved, as keras_cv": lambda x, shift: hue(x, shift / 2),
        "other direction": lambda x, shift: hue(x, -shift),
        "in YIQ": hue_in_yiq,
    },
}


def jittered(draws, images, k=4, probability=0.8, sequence=None, chain=JITTER):
    """The whole jitter from the layer's draws, in float64."""
    views = []
    for row, image in zip(draws.astype("float64"), images.astype("float64"), strict=True):
        order = np.argsort(row[1 : 1 + k]) if sequence is None else sequence
        for slot, operation in enumerate(order):
            u = row[1 + k + slot]
            amount = 0.2 * u - 0.1 if operation == HUE else 0.6 + 0.8 * u
            if row[0] < probability:
                image = chain[operation](image, amount)
        views.append(image)
    return np.stack(views)
