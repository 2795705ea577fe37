"""Views on the host: keras_cv layers for tf.data, each a pure function of uniform draws.

Where keras_cv's own semantics are not torchvision's (crop, colour jitter) or its layer takes the
images one at a time (crop, blur), the layer is written here on keras_cv's vectorized base.
"""

import math

import keras_cv
import tensorflow as tf

from simsiam_keras.augment.host_ops import (
    HUE,
    between,
    blur_axis,
    crop_by_matrices,
    crop_by_slices,
    image_size,
    jitter_slot,
)
from simsiam_keras.augment.recipe import named

ATTEMPTS = 10  # as torchvision's RandomResizedCrop
LARGEST_DENSE = 64  # px; above, the loop over slices measured faster than the matrices


class DrawnLayer(keras_cv.layers.VectorizedBaseImageAugmentationLayer):
    """Base of the layers here: image i is augmented by its own uniform draws.

    keras_cv hands `labels` to `get_random_transformation_batch`, so the draws come in as the
    labels, `[n, draws]` in [0, 1). The layer then holds no random state and a resumed run repeats
    its views.

    Args:
        draws: uniform numbers that one image needs.
    """

    def __init__(self, draws):
        # Without a seed keras_cv asks for the global generator, which op determinism forbids.
        super().__init__(seed=1, dtype="float32")
        self.draws = draws

    def augment_labels(self, labels, transformations, **kwargs):
        return labels


class RandomResizedCrop(DrawnLayer):
    """Crop a random rectangle and resize it to a square.

    Ten attempts: area uniform in `area` x height x width, aspect log-uniform in `aspect`,
    `w = round(sqrt(area * aspect))`, `h = round(sqrt(area / aspect))`; the first that fits is
    placed at a uniform integer corner. When none fits, the largest central crop within `aspect`.
    Bilinear with half-pixel centres; where it shrinks, the triangle widens to the step (PIL's
    antialiasing). Values stay within the crop's.

    Args:
        size: side of the result in pixels.
        area: range of the crop's share of the image.
        aspect: range of the crop's width / height.

    Reference:
        torchvision.transforms.RandomResizedCrop; Pillow's Resample.c
    """

    def __init__(self, size, area, aspect):
        super().__init__(draws=2 * ATTEMPTS + 2)
        self.size, self.area, self.aspect = size, area, aspect

    def get_random_transformation_batch(self, batch_size, images=None, labels=None, **kwargs):
        height, width = image_size(images)
        area, aspect, corner = tf.split(labels, [ATTEMPTS, ATTEMPTS, 2], axis=1)
        area = between(area, *self.area) * height * width
        aspect = tf.exp(between(aspect, *(math.log(a) for a in self.aspect)))
        h, w = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))
        fits = (h >= 1) & (h <= height) & (w >= 1) & (w <= width)
        first = tf.argmax(tf.cast(fits, tf.int32), axis=1)[:, None]
        h, w = tf.gather(h, first, batch_dims=1)[:, 0], tf.gather(w, first, batch_dims=1)[:, 0]
        top = tf.minimum(tf.floor(corner[:, 0] * (height - h + 1)), height - h)
        left = tf.minimum(tf.floor(corner[:, 1] * (width - w + 1)), width - w)
        box = tf.stack([top, left, h, w], axis=1)
        return tf.where(tf.reduce_any(fits, axis=1, keepdims=True), box, self.central(images))

    def central(self, images):
        height, width = image_size(images)
        h = tf.minimum(height, tf.round(width / self.aspect[0]))
        w = tf.minimum(width, tf.round(height * self.aspect[1]))
        return tf.stack([tf.floor((height - h) / 2), tf.floor((width - w) / 2), h, w])

    def augment_images(self, images, transformations, **kwargs):
        # Dense matrices waste work on large images, and sizes unknown here can be any photo's.
        small = None not in images.shape[1:3] and max(images.shape[1:3]) <= LARGEST_DENSE
        crop = crop_by_matrices if small else crop_by_slices
        return crop(images, transformations, self.size)


class ColorJitter(DrawnLayer):
    """Change brightness, contrast, saturation and hue, in a random order for each image.

    Brightness, contrast and saturation are `clip(f x + (1 - f) target, 0, 255)` with the target
    0, the mean of the grey image, and the grey image; hue is shifted in HSV. A view that is not
    jittered has every f = 1 and a shift of 0. The grey image of other than three channels is their
    mean.

    Args:
        strengths: brightness, contrast, saturation, hue; an operation of strength 0 is left out.
        probability: of jittering a view at all.

    Reference:
        torchvision.transforms.ColorJitter
    """

    def __init__(self, strengths, probability):
        self.operations = [i for i, strength in enumerate(strengths) if strength > 0]
        super().__init__(draws=1 + 2 * len(self.operations))
        self.probability = probability
        self.low = [max(0.0, 1 - s) for s in strengths[:3]] + [-strengths[3]]
        self.high = [1 + s for s in strengths[:3]] + [strengths[3]]

    def get_random_transformation_batch(self, batch_size, labels=None, **kwargs):
        k = len(self.operations)
        jittered, order, amount = tf.split(labels, [1, k, k], axis=1)
        order = tf.gather(self.operations, tf.argsort(order, axis=1))
        amount = between(amount, tf.gather(self.low, order), tf.gather(self.high, order))
        identity = tf.where(order == HUE, 0.0, 1.0)
        return {"order": order, "amount": tf.where(jittered < self.probability, amount, identity)}

    def augment_images(self, images, transformations, **kwargs):
        planes = tf.unstack(images, axis=-1)
        for slot in range(len(self.operations)):
            operation, amount = (
                transformations[name][:, slot, None, None] for name in ("order", "amount")
            )
            planes = jitter_slot(planes, operation, amount, self.operations)
        return tf.stack(planes, axis=-1)


class RandomGrayscale(keras_cv.layers.Grayscale):
    """keras_cv's grayscale in three equal channels, with some probability.

    Args:
        probability: of a grey view.
    """

    draws = 1

    def __init__(self, probability):
        super().__init__(output_channels=3, seed=1, dtype="float32")
        self.probability = probability

    def get_random_transformation_batch(self, batch_size, labels=None, **kwargs):
        return labels < self.probability

    def augment_images(self, images, transformations, **kwargs):
        grey = super().augment_images(images)
        return tf.where(transformations[:, :, None, None], grey, images)


class GaussianBlur(DrawnLayer):
    """Blur with a Gaussian of random width, with some probability.

    A separable Gaussian with replicated borders, cut at three times the largest sigma (beyond that
    lies 0.3 % of its weight, less for a smaller sigma) and normalized. PIL's GaussianBlur, which
    the paper's code calls, approximates the same Gaussian by three box blurs.

    Args:
        sigma: range of the standard deviation in pixels.
        probability: of a blurred view.
    """

    def __init__(self, sigma, probability):
        super().__init__(draws=2)
        self.sigma, self.probability = sigma, probability

    def get_random_transformation_batch(self, batch_size, labels=None, **kwargs):
        # So narrow a Gaussian is exactly one tap: the identity.
        sigma = between(labels[:, 1], *self.sigma)
        return tf.where(labels[:, 0] < self.probability, sigma, 1e-3)

    def augment_images(self, images, transformations, **kwargs):
        radius = math.ceil(3 * self.sigma[1])
        taps = tf.range(-radius, radius + 1, dtype="float32")
        kernels = tf.exp(-0.5 * (taps / transformations[:, None]) ** 2)
        kernels /= tf.reduce_sum(kernels, axis=1, keepdims=True)
        return blur_axis(blur_axis(images, kernels, axis=1), kernels, axis=2)


class RandomFlip(keras_cv.layers.RandomFlip):
    """keras_cv's horizontal flip, from draws.

    Args:
        probability: of a flipped view.
    """

    draws = 1

    def __init__(self, probability):
        super().__init__(rate=probability, seed=1, dtype="float32")

    def get_random_transformation_batch(self, batch_size, labels=None, **kwargs):
        return {"flip_horizontals": 1 - labels, "flip_verticals": tf.zeros_like(labels)}


class Views:
    """Make two random views, or more, of every image of a batch, for `tf.data.Dataset.map`.

    Full views come first; the small views that the recipe asks for follow, smaller tensors in the
    same tuple. The same images and seed give the same views, in any process and at any parallelism.
    Each view is drawn on its own: crop, colour jitter, grayscale, blur, flip, as in the paper's
    code. Results are rounded once, at the end.

    Args:
        recipe: a `Recipe`, or the name of one in `RECIPES`.
        size: side of a full view in pixels; default the recipe's.
        views: number of full views of each image, at least 1; default 2.

    Raises:
        ValueError: if no recipe has the name, or `size` or `views` is below 1.

    Example:
    >>> views = Views("cifar", size=16)
    >>> x1, x2 = views(tf.zeros([4, 32, 48, 3], tf.uint8), seed=[0, 1])
    >>> x1.shape
    TensorShape([4, 16, 16, 3])
    """

    def __init__(self, recipe, size=None, views=2):
        if views < 1:
            raise ValueError(f"`views` must be at least 1. Received: views={views}")
        self.recipe = recipe = named(recipe, size)
        self.views = views
        self.small = Views(recipe.small, views=recipe.small_views) if recipe.small_views else None
        self.crop = RandomResizedCrop(recipe.size, recipe.crop_area, recipe.crop_aspect)
        self.layers = []
        if recipe.jitter_probability and any(recipe.jitter):
            self.layers.append(ColorJitter(recipe.jitter, recipe.jitter_probability))
        if recipe.grayscale:
            self.layers.append(RandomGrayscale(recipe.grayscale))
        if recipe.blur:
            self.layers.append(GaussianBlur(recipe.blur_sigma, recipe.blur))
        if recipe.flip:
            self.layers.append(RandomFlip(recipe.flip))
        # Only what follows the crop is compiled: its shapes do not vary with the photo's, and one
        # trace serves every n (XLA still compiles once for each).
        views = tf.TensorSpec([None, recipe.size, recipe.size, recipe.channels], "float32")
        draws = [tf.TensorSpec([None, layer.draws], "float32") for layer in self.layers]
        self.compiled = tf.function(
            self.finish, input_signature=[views, draws], jit_compile=True, autograph=False
        )

    def __call__(self, images, seed=None):
        """Make the views.

        Args:
            images: uint8 `[n, h, w, channels]`; n, h and w may be unknown until run time. Or one
                image `[h, w, channels]`.
            seed: two integers, `[2]`; default None, drawn by TensorFlow's global generator, so that
                `dataset.map(views)` does. Of a data set with labels
                `dataset.map(lambda images, labels: views(images))`.

        Returns:
            `(x1, x2)`, or as many as `views`, each uint8 `[n, size, size, c]`; then the small ones,
            each uint8 `[n, small_size, small_size, c]`. Of one image all without n.

        Raises:
            ValueError: if the images are no batch of the recipe's channels.
        """
        images = tf.convert_to_tensor(images)
        if seed is None:
            seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        if images.shape.rank == 3:
            return tuple(view[0] for view in self(images[None], seed))
        channels = self.recipe.channels
        if images.shape.rank != 4 or images.shape[3] != channels:
            raise ValueError(
                f"`images` must be [n, h, w, {channels}]. Received: shape={images.shape}"
            )
        with tf.device("CPU:0"):
            n = tf.shape(images)[0]
            draws = self.draw(n * (self.views + self.recipe.small_views), seed)
            views = self.make(images, [x[: n * self.views] for x in draws])
            if self.small:
                views += self.small.make(images, [x[n * self.views :] for x in draws])
            return views

    def make(self, images, draws):
        """The full views, from draws for all of them."""
        size, (crop, *draws) = self.recipe.size, draws
        images = tf.concat([images] * self.views, axis=0)
        views = self.compiled(augment(self.crop, images, crop), draws)
        views = tf.ensure_shape(views, [images.shape[0], size, size, self.recipe.channels])
        return tuple(tf.split(views, self.views))

    def draw(self, n, seed):
        """Uniform draws of n views, `[n, layer.draws]` for the crop and each layer after it."""
        widths = [layer.draws for layer in (self.crop, *self.layers)]
        # The generator is named because the default one differs between devices.
        draws = tf.random.stateless_uniform([n, sum(widths)], seed, alg="philox")
        return tf.split(draws, widths, axis=1)

    def finish(self, views, draws):
        """Everything after the crop: float `[n, size, size, c]` to uint8."""
        for layer, numbers in zip(self.layers, draws, strict=True):
            views = augment(layer, views, numbers)
        return tf.cast(tf.round(views), tf.uint8)


def augment(layer, images, draws):
    """Apply a layer to `images` `[n, h, w, c]` with its `draws` `[n, layer.draws]`."""
    return layer({"images": images, "labels": draws})["images"]
