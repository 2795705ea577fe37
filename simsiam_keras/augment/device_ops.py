"""What the device engine does to images: crop, colour, blur, as pure functions of `keras.ops`.

Shapes are static and every draw is an argument, so that one definition serves TensorFlow, JAX and
PyTorch, eager or compiled. An image is its channels' planes, `[c, h, w]`, three of RGB.
"""

import math

import numpy as np
from keras import ops

ATTEMPTS = 10  # as torchvision's RandomResizedCrop
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL


def crop_boxes(draws, image_size, recipe):
    """Draw the rectangles of torchvision's RandomResizedCrop.

    Ten attempts: area uniform in `crop_area` x height x width, aspect log-uniform in `crop_aspect`,
    `w = round(sqrt(area * aspect))`, `h = round(sqrt(area / aspect))`; the first that fits is
    placed at a uniform integer corner. When none fits, the largest central crop within
    `crop_aspect`.

    Args:
        draws: `[n, 22]`: ten areas, ten aspects, two corners.
        image_size: `(height, width)` of the images, numbers, or float32 `[n, 1]` each where every
            image has its own.
        recipe: a `Recipe`.

    Returns:
        `(top, left, h, w)`, each float32 `[n, 1]`, whole pixels.
    """
    height, width = image_size
    area, aspect, corner = ops.split(draws, [ATTEMPTS, 2 * ATTEMPTS], axis=1)
    area = between(area, *recipe.crop_area) * (height * width)
    aspect = ops.exp(between(aspect, *(math.log(a) for a in recipe.crop_aspect)))
    h, w = ops.round(ops.sqrt(area / aspect)), ops.round(ops.sqrt(area * aspect))
    fits = (h >= 1) & (h <= height) & (w >= 1) & (w <= width)
    first = ops.argmax(ops.cast(fits, "int32"), axis=1, keepdims=True)
    h, w = ops.take_along_axis(h, first, axis=1), ops.take_along_axis(w, first, axis=1)
    top = ops.minimum(ops.floor(corner[:, :1] * (height - h + 1)), height - h)
    left = ops.minimum(ops.floor(corner[:, 1:] * (width - w + 1)), width - w)
    fitted = ops.any(fits, axis=1, keepdims=True)
    central = central_box(height, width, recipe.crop_aspect)
    return [ops.where(fitted, x, y) for x, y in zip((top, left, h, w), central, strict=True)]


def central_box(height, width, aspect):
    """`(top, left, h, w)` of the largest central crop with width / height within `aspect`."""
    height, width = (ops.cast(side, "float32") for side in (height, width))
    h = ops.minimum(height, ops.round(width / aspect[0]))
    w = ops.minimum(width, ops.round(height * aspect[1]))
    return ops.floor((height - h) / 2), ops.floor((width - w) / 2), h, w


def crop(images, boxes, size, flipped=None, lying=None, count=1):
    """Crop, resize and mirror, as two products with interpolation matrices.

    Mirroring is last in the recipe, but everything between works on single pixels or alike to both
    sides, so it may as well be done here, where it costs nothing.

    The rows come first: they need no transposition of the images, which are the largest array here,
    and one conversion to float serves all views of an image.

    Args:
        images: `[n, h, w, c]`.
        boxes: `(top, left, h, w)`, each `[n * count, 1]`, those of an image one after another.
        size: side of the result in pixels.
        flipped: bool `[n * count, 1]`, or None for no mirroring.
        lying: bool `[n * count, 1]`, which pictures are stored transposed, to which boxes and
            mirroring do not refer; None for no one.
        count: views of each image.

    Returns:
        float32 `[n * count, c, size, size]`.
    """
    height, width, channels = images.shape[1:]
    top, left, h, w = boxes
    mirrored_rows, mirrored_columns = None, flipped
    if lying is not None:
        top, left = ops.where(lying, left, top), ops.where(lying, top, left)
        h, w = ops.where(lying, w, h), ops.where(lying, h, w)
        if flipped is not None:
            mirrored_rows, mirrored_columns = flipped & lying, flipped & ~lying
    rows = interpolation(top, h, height, size, mirrored_rows)
    columns = interpolation(left, w, width, size, mirrored_columns)
    views = ops.reshape(ops.cast(images, "float32"), (-1, height, width * channels))
    views = ops.matmul(ops.reshape(rows, (-1, count * size, height)), views)
    views = ops.transpose(ops.reshape(views, (-1, size, width, channels)), (0, 3, 1, 2))
    views = ops.reshape(views, (-1, channels * size, width))
    views = ops.matmul(views, ops.transpose(columns, (0, 2, 1)))
    views = ops.reshape(views, (-1, channels, size, size))
    if lying is None:
        return views
    return ops.where(lying[:, :, None, None], ops.transpose(views, (0, 1, 3, 2)), views)


def two_products(rows, views, columns):
    """`rows @ plane @ columns^T` for each plane of `[n, c, h, w]`."""
    channels, height, width = views.shape[1:]
    size = rows.shape[1]
    views = ops.reshape(views, (-1, channels * height, width))
    views = ops.matmul(views, ops.transpose(columns, (0, 2, 1)))
    return ops.matmul(rows[:, None], ops.reshape(views, (-1, channels, height, size)))


def interpolation(start, length, pixels, size, mirrored=None):
    """Matrices that resize the interval `[start, start + length)` of a line to `size` pixels.

    Row i holds the triangle `max(0, 1 - |x - c| / s)` around `c = start + (i + 1/2) length / size`
    at the pixel centres x of the interval, with `s = max(1, length / size)`, scaled to sum 1:
    bilinear with half-pixel centres, widened to the step where it shrinks (PIL's antialiasing).

    Args:
        start: first pixel, `[n, 1]`.
        length: pixels in the interval, `[n, 1]`.
        pixels: pixels of the whole line.
        size: pixels of the result.
        mirrored: bool `[n, 1]`, whose rows come in the opposite order, or None for no one.

    Returns:
        float32 `[n, size, pixels]`.
    """
    start, length = start[:, :, None], length[:, :, None]
    step = length / size
    place = ops.arange(size, dtype="float32")[:, None]
    if mirrored is not None:
        place = ops.where(mirrored[:, :, None], size - 1 - place, place)
    target = start + (place + 0.5) * step
    source = ops.arange(pixels, dtype="float32") + 0.5
    weights = ops.maximum(1 - ops.abs(source - target) / ops.maximum(step, 1.0), 0.0)
    weights = ops.where((source > start) & (source < start + length), weights, 0.0)
    return weights / ops.sum(weights, axis=2, keepdims=True)


def jitter(views, draws, recipe):
    """Change brightness, contrast, saturation and hue, in a random order for each view.

    A view that is not jittered has every factor 1 and a shift of 0. Hue costs most, so it is not
    computed in every slot but once, between what comes before it in a view's order and what after.

    Args:
        views: `[n, c, h, w]`.
        draws: `[n, 1 + 2k]` for k operations of strength > 0: whether, k for the order, k amounts.
        recipe: a `Recipe`.

    Returns:
        `[n, c, h, w]`.

    Reference:
        torchvision.transforms.ColorJitter
    """
    order, amount = jitter_amounts(draws, recipe)
    if not recipe.jitter[HUE]:
        return blends(views, order, amount)
    slots = ops.arange(order.shape[1])
    turn = ops.argmax(ops.cast(order == HUE, "int32"), axis=1, keepdims=True)
    before, after = ops.where(slots < turn, amount, 1.0), ops.where(slots > turn, amount, 1.0)
    views = blends(views, order[:, :-1], before[:, :-1])
    shift = ops.take_along_axis(amount, turn, axis=1)
    views = shift_hue(views, shift[:, :, None, None])
    return blends(views, order[:, 1:], after[:, 1:])


def jitter_amounts(draws, recipe):
    """The operation in each slot of a view's order and its amount, each `[n, k]`."""
    strengths = recipe.jitter
    operations = [i for i, strength in enumerate(strengths) if strength > 0]
    k = len(operations)
    low = [max(0.0, 1 - s) for s in strengths[:3]] + [-strengths[3]]
    high = [1 + s for s in strengths[:3]] + [strengths[3]]
    jittered, order, amount = ops.split(draws, [1, 1 + k], axis=1)
    order = ops.take(np.array(operations, "int32"), ops.argsort(order, axis=1))
    low, high = (ops.take(np.array(x, "float32"), order) for x in (low, high))
    identity = ops.where(order == HUE, 0.0, 1.0)
    amount = ops.where(jittered < recipe.jitter_probability, between(amount, low, high), identity)
    return order, amount


def blends(views, order, amount):
    """Apply `clip(f x + (1 - f) target, 0, 255)` slot after slot.

    The target is 0 for brightness, the mean of the grey image for contrast, the grey image for
    saturation.

    Args:
        views: `[n, c, h, w]`.
        order: the operation in each slot, `[n, slots]`; where it is hue, f must be 1.
        amount: the factors f, `[n, slots]`.

    Returns:
        `[n, c, h, w]`.
    """
    order, amount = order[:, :, None, None, None], amount[:, :, None, None, None]
    for slot in range(order.shape[1]):
        operation, factor = order[:, slot], amount[:, slot]
        grey = luma(views)
        mean = ops.mean(grey, axis=(1, 2, 3), keepdims=True)
        target = ops.where(operation == CONTRAST, mean, 0.0)
        target = ops.where(operation == SATURATION, grey, target)
        views = ops.clip(factor * views + (1 - factor) * target, 0.0, 255.0)
    return views


def luma(views):
    """Grey image `[n, 1, h, w]` of `[n, c, h, w]`: of RGB its luma, otherwise the mean."""
    if views.shape[1] != 3:
        return ops.mean(views, axis=1, keepdims=True)
    return sum(weight * views[:, c : c + 1] for c, weight in enumerate(LUMA))


def shift_hue(views, shift):
    """Turn the hue by a share `shift` of the colour circle, in HSV.

    Value and chroma stay, so with hue `h` in sixths of the circle, a channel is
    `high - chroma * clip(min(k, 4 - k), 0, 1)` where `k = (h + 5) mod 6` for red, `h + 3` for
    green, `h + 1` for blue.

    Args:
        views: `[n, 3, h, w]`.
        shift: share of the circle, `[n, 1, 1, 1]`.

    Returns:
        `[n, 3, h, w]`.
    """
    r, g, b = (views[:, c : c + 1] for c in range(3))
    high, low = ops.maximum(r, ops.maximum(g, b)), ops.minimum(r, ops.minimum(g, b))
    chroma = high - low
    difference = ops.where(high == r, g - b, ops.where(high == g, b - r, r - g))
    sector = ops.where(high == r, 0.0, ops.where(high == g, 2.0, 4.0))
    hue = sector + difference / ops.maximum(chroma, 1e-6) + 6 * shift
    k = hue + ops.convert_to_tensor([[[5.0]], [[3.0]], [[1.0]]], "float32")
    k = k - 6 * ops.floor(k / 6)
    return high - chroma * ops.clip(ops.minimum(k, 4 - k), 0.0, 1.0)


def blur(views, draws, recipe):
    """Blur with a Gaussian of random width, with some probability.

    A separable Gaussian with replicated borders, cut at three times the largest sigma and
    normalized, as two products with its matrix.

    Args:
        views: `[n, c, h, w]`, h = w.
        draws: `[n, 2]`: whether, and sigma.
        recipe: a `Recipe`.

    Returns:
        `[n, c, h, w]`.
    """
    # So narrow a Gaussian is exactly one tap: the identity.
    sigma = ops.where(draws[:, :1] < recipe.blur, between(draws[:, 1:], *recipe.blur_sigma), 1e-3)
    matrix = gaussian(sigma, views.shape[2], math.ceil(3 * recipe.blur_sigma[1]))
    return two_products(matrix, views, matrix)


def gaussian(sigma, size, radius):
    """Matrices that blur a line of `size` pixels whose borders are replicated.

    Args:
        sigma: standard deviations in pixels, `[n, 1]`.
        size: pixels of the line.
        radius: taps on each side of the centre.

    Returns:
        float32 `[n, size, size]`, rows of sum 1.
    """
    source = ops.arange(-radius, size + radius, dtype="float32")
    distance = source - ops.arange(size, dtype="float32")[:, None]
    taps = ops.exp(-0.5 * ops.square(distance / sigma[:, :, None]))
    taps = ops.where(ops.abs(distance) <= radius, taps, 0.0)
    taps = taps / ops.sum(taps, axis=2, keepdims=True)
    # What falls beyond a border is the border's pixel.
    first, last = (ops.one_hot(i, size, dtype="float32") for i in (0, size - 1))
    left = ops.sum(taps[:, :, :radius], axis=2, keepdims=True)
    right = ops.sum(taps[:, :, radius + size :], axis=2, keepdims=True)
    return taps[:, :, radius : radius + size] + left * first + right * last


def between(uniform, low, high):
    """Stretch uniform draws in [0, 1) to [low, high)."""
    return low + (high - low) * uniform
