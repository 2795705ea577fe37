"""The two engines behind one interface, so that one test holds for both.

Beside each are its tolerances, in levels of 255.

Images are arrays `[n, h, w, 3]`, draws are arrays `[n, ...]`, and results are not rounded but for
`views`: those are what the engine's users get.
"""

import dataclasses
import functools
import importlib.util

import keras
import numpy as np
from keras import ops

from simsiam_keras.augment import Recipe, device, device_ops, threefry
from tests.augment.oracles import PLAIN
from tests.tiny import numpy

HAS_HOST = all(importlib.util.find_spec(name) for name in ("tensorflow", "keras_cv"))


def recipe(**changes):
    """A recipe that does nothing, with changes."""
    return Recipe(**{**vars(PLAIN), **changes})


# Where the operations do not matter: few compile fast, and no two views are alike by chance.
SHORT = recipe(crop_area=(0.2, 1.0), jitter=(0.4, 0.0, 0.0, 0.0), jitter_probability=1.0, flip=0.5)
SHORT_MULTI = dataclasses.replace(SHORT, small_views=2, small_size=6, small_crop_area=(0.1, 0.3))
BLURRED = Recipe(size=16, blur=0.5, blur_sigma=(1.0, 2.0))


def compiled(function, xla=False):
    """Compiled on JAX, where op by op is slow, and on TensorFlow if asked for."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow" and xla:
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return function


def tensor(x, dtype="float32"):
    return ops.convert_to_tensor(np.asarray(x, dtype))


def on_planes(operation, images, *arguments):
    """Apply an operation of `[n, 3, h, w]` tensors to `[n, h, w, 3]` arrays."""
    planes = tensor(np.moveaxis(images, 3, 1))
    result = compiled(operation)(planes, *(tensor(x) for x in arguments))
    return np.moveaxis(numpy(result), 1, 3)


@functools.cache
def jitted(layer, training):
    function = functools.partial(layer.stateless_call, training=training)
    return compiled(lambda state, images: function([], state, images))


def call(layer, images, training=False):
    """The layer's views; on JAX compiled, for op by op its first call takes many seconds."""
    if keras.backend.backend() != "jax":
        return [numpy(view) for view in layer(images, training=training)]
    state = [variable.value for variable in layer.non_trainable_variables]
    views, state = jitted(layer, training)(state, images)
    for variable, value in zip(layer.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return [numpy(view) for view in views]


def views_of(layer, images, extent=None):
    """The views of the next step."""
    if extent is None or keras.backend.backend() != "jax":
        if extent is None:
            return call(layer, images, training=True)
        return [numpy(view) for view in layer(images, extent, training=True)]
    state = [variable.value for variable in layer.non_trainable_variables]
    function = compiled(lambda s, x, e: layer.stateless_call([], s, x, e, training=True))
    views, state = function(state, images, extent)
    for variable, value in zip(layer.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return [numpy(view) for view in views]


class Device:
    whole_levels = False
    rounding = 0.01  # of a view, from the same operations
    whole = 0.02  # of a view, from the oracles
    grey = 0.51  # PIL's rounding

    def __init__(self):
        self.Views = device.Views
        self.crops = [self.crop]

    def boxes(self, draws, height, width, **changes):
        """`(top, left, h, w)`, `[n, 4]`."""
        changed = recipe(**changes)
        function = compiled(lambda u: device_ops.crop_boxes(u, (height, width), changed))
        return np.concatenate([numpy(x) for x in function(tensor(draws))], axis=1)

    def crop(self, images, boxes, size):
        boxes = [tensor(column[:, None]) for column in np.asarray(boxes).T]
        function = compiled(lambda x: device_ops.crop(x, boxes, size))
        return np.moveaxis(numpy(function(tensor(images, images.dtype))), 1, 3)

    def jitter(self, images, draws, strengths, probability):
        changed = recipe(jitter=strengths, jitter_probability=probability)
        return on_planes(lambda x, u: device_ops.jitter(x, u, changed), images, draws)

    def jitter_amounts(self, draws, strengths, probability):
        """The operation in each slot of a view's order and its amount, each `[n, k]`."""
        changed = recipe(jitter=strengths, jitter_probability=probability)
        function = compiled(lambda u: device_ops.jitter_amounts(u, changed))
        return [numpy(x) for x in function(tensor(draws))]

    def blur(self, images, draws, sigma, probability):
        changed = recipe(blur=probability, blur_sigma=sigma)
        return on_planes(lambda x, u: device_ops.blur(x, u, changed), images, draws)

    def augment(self, images, draws, recipe, xla=False):
        """The whole of a view, from its draws."""
        function = compiled(lambda x, u: device.augment(x, u, recipe), xla)
        return numpy(function(tensor(images, images.dtype), tensor(draws)))

    def views(self, recipe, images, seed=0, steps=1, **options):
        """Views of the images in the first steps, each `[steps * n, size, size, 3]`."""
        layer = device.Views(recipe, seed=seed, **options)
        found = [call(layer, images, training=True) for _ in range(steps)]
        return [np.concatenate(views) for views in zip(*found, strict=True)]

    def draws(self, recipe, n, seed, views=2):
        """The draws behind the `views` of the first step, `[n, ...]` for each."""
        views, width = views + recipe.small_views, sum(device.widths(recipe).values())
        return np.split(numpy(threefry.uniform(seed, 0, n, views * width)), views, axis=1)


class Host:
    whole_levels = True
    rounding = 0.51
    whole = 0.53  # rounding, and keras_cv's grey weights: 0.2989 in place of 0.299
    grey = 0.53  # PIL's rounding, and the weights

    def __init__(self):
        import tensorflow as tf

        from simsiam_keras.augment import host, host_ops

        self.tf, self.host, self.Views = tf, host, host.Views
        self.made = functools.cache(host.Views)  # each compiles for itself
        self.crops = [
            lambda x, boxes, size, crop=crop: crop(
                tf.cast(x, "float32"), tf.constant(boxes, "float32"), size
            ).numpy()
            for crop in (host_ops.crop_by_matrices, host_ops.crop_by_slices)
        ]
        self.crop = self.crops[0]

    def apply(self, layer, images, draws):
        draws = self.tf.constant(draws, "float32")
        return self.host.augment(layer, self.tf.cast(images, "float32"), draws).numpy()

    def boxes(self, draws, height, width, crop_area, crop_aspect):
        layer = self.host.RandomResizedCrop(8, crop_area, crop_aspect)
        images = self.tf.zeros([1, height, width, 3])  # only the size is read
        return layer.get_random_transformation_batch(
            len(draws), images=images, labels=self.tf.constant(draws)
        ).numpy()

    def jitter(self, images, draws, strengths, probability):
        return self.apply(self.host.ColorJitter(strengths, probability), images, draws)

    def jitter_amounts(self, draws, strengths, probability):
        layer = self.host.ColorJitter(strengths, probability)
        numbers = layer.get_random_transformation_batch(len(draws), labels=self.tf.constant(draws))
        return numbers["order"].numpy(), numbers["amount"].numpy()

    def blur(self, images, draws, sigma, probability):
        return self.apply(self.host.GaussianBlur(sigma, probability), images, draws)

    def augment(self, images, draws, recipe):
        views = self.made(recipe)
        layers = [views.crop, *views.layers]
        ends = np.cumsum([layer.draws for layer in layers])[:-1]
        for layer, own in zip(layers, np.split(draws, ends, axis=1), strict=True):
            images = self.apply(layer, images, own)
        return images

    def views(self, recipe, images, seed=0, steps=1, **options):
        views = self.made(recipe, **options)
        found = [views(images, [seed, step]) for step in range(steps)]
        return [np.concatenate(views).astype("float32") for views in zip(*found, strict=True)]

    def draws(self, recipe, n, seed, views=2):
        total = views + recipe.small_views
        found = self.made(recipe, views=views).draw(total * n, [seed, 0])
        return np.split(np.concatenate(found, axis=1), total)
