"""What the host engine does to images: crop, colour, blur, as pure functions in TensorFlow."""

import tensorflow as tf

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL


def between(uniform, low, high):
    """Stretch uniform draws in [0, 1) to [low, high)."""
    return low + (high - low) * uniform


def image_size(images):
    """Height and width of a batch as float scalars."""
    return tf.unstack(tf.cast(tf.shape(images)[1:3], "float32"))


def crop_by_matrices(images, boxes, size):
    """Crop and resize as two products with interpolation matrices, `[n, h, w, c]`."""
    height, width = image_size(images)
    top, left, h, w = tf.unstack(boxes, axis=1)
    rows = interpolation(top, h, height, size)
    columns = interpolation(left, w, width, size)
    return tf.einsum("nyh,nhwc,nxw->nyxc", rows, images, columns)


def crop_by_slices(images, boxes, size):
    """Crop and resize image by image, `[n, h, w, c]`."""

    def one(image_and_box):
        image, box = image_and_box
        top, left, h, w = tf.unstack(tf.cast(box, "int32"))
        crop = image[top : top + h, left : left + w]
        return tf.image.resize(crop, [size, size], antialias=True)

    signature = tf.TensorSpec([size, size, images.shape[-1]], "float32")
    return tf.map_fn(one, (images, boxes), fn_output_signature=signature)


def interpolation(start, length, pixels, size):
    """Matrices that resize the interval `[start, start + length)` of a line to `size` pixels.

    Row i holds the triangle `max(0, 1 - |x - c| / s)` around `c = start + (i + 1/2) length / size`
    at the pixel centres x of the interval, with `s = max(1, length / size)`, scaled to sum 1.

    Args:
        start: first pixel, `[n]`.
        length: pixels in the interval, `[n]`.
        pixels: pixels of the whole line, scalar.
        size: pixels of the result.

    Returns:
        float32 `[n, size, pixels]`.
    """
    start, length = start[:, None, None], length[:, None, None]
    step = length / size
    target = start + (tf.range(size, dtype="float32")[:, None] + 0.5) * step
    source = tf.range(pixels) + 0.5
    weights = tf.maximum(1 - tf.abs(source - target) / tf.maximum(step, 1.0), 0.0)
    weights = tf.where((source > start) & (source < start + length), weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)


def jitter_slot(planes, operation, amount, operations):
    """Apply to each image the one operation that its order has in this slot.

    Args:
        planes: red, green and blue, or those of other channels, each `[n, h, w]`.
        operation: index of the operation, `[n, 1, 1]`.
        amount: its factor, or the shift for hue, `[n, 1, 1]`.
        operations: the indices that can occur.

    Returns:
        As many planes.
    """
    weights = LUMA if len(planes) == 3 else [1 / len(planes)] * len(planes)
    grey = sum(weight * plane for weight, plane in zip(weights, planes, strict=True))
    target = tf.zeros_like(grey)
    if CONTRAST in operations:
        mean = tf.reduce_mean(grey, axis=[1, 2], keepdims=True)
        target = tf.where(operation == CONTRAST, mean, target)
    if SATURATION in operations:
        target = tf.where(operation == SATURATION, grey, target)
    results = [tf.clip_by_value(amount * x + (1 - amount) * target, 0, 255) for x in planes]
    if HUE in operations:
        shifted = shift_hue(planes, amount)
        results = [tf.where(operation == HUE, x, y) for x, y in zip(shifted, results, strict=True)]
    return results


def shift_hue(planes, shift):
    """Turn the hue by a share `shift` of the colour circle, in HSV.

    Value and chroma stay, so with hue `h` in sixths of the circle, red is
    `low + chroma * clip(|h - 3| - 1, 0, 1)` and so on.

    Args:
        planes: red, green and blue, each `[n, h, w]`.
        shift: share of the circle, `[n, 1, 1]`.

    Returns:
        The three planes.
    """
    r, g, b = planes
    high, low = tf.maximum(r, tf.maximum(g, b)), tf.minimum(r, tf.minimum(g, b))
    chroma = high - low
    difference = tf.where(high == r, g - b, tf.where(high == g, b - r, r - g))
    sector = tf.where(high == r, 0.0, tf.where(high == g, 2.0, 4.0))
    hue = sector + difference / tf.maximum(chroma, 1e-6) + 6 * shift
    hue -= 6 * tf.floor(hue / 6)
    shares = (tf.abs(hue - 3) - 1, 2 - tf.abs(hue - 2), 2 - tf.abs(hue - 4))
    return [low + chroma * tf.clip_by_value(share, 0, 1) for share in shares]


def blur_axis(images, kernels, axis):
    """Convolve each image along one axis with its own kernel, borders replicated.

    Args:
        images: `[n, h, w, c]`.
        kernels: `[n, 2 radius + 1]`.
        axis: 1 or 2.

    Returns:
        `[n, h, w, c]`.
    """
    taps, length = tf.unstack(kernels[:, :, None, None, None], axis=1), images.shape[axis]
    first, last = (tf.gather(images, [i], axis=axis) for i in (0, length - 1))
    radius = len(taps) // 2
    padded = tf.concat([first] * radius + [images] + [last] * radius, axis=axis)
    shifted = [
        padded[:, i : i + length] if axis == 1 else padded[:, :, i : i + length]
        for i in range(len(taps))
    ]
    return sum(tap * image for tap, image in zip(taps, shifted, strict=True))
