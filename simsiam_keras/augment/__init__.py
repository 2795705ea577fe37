"""Random views of an image: the recipe, and the two engines that follow it.

`Views` is the device engine's layer; `host.Views` maps a `tf.data.Dataset`.
"""

import importlib

from simsiam_keras.augment.recipe import CIFAR, DIGITS, IMAGENET, RECIPES, Recipe

__all__ = ["CIFAR", "DIGITS", "IMAGENET", "RECIPES", "Recipe", "Views", "device", "host"]


def __getattr__(name):
    # At first use: the host engine needs TensorFlow and keras_cv, the device engine Keras.
    if name == "Views":
        return importlib.import_module("simsiam_keras.augment.device").Views
    if name in ("device", "host"):
        return importlib.import_module(f"simsiam_keras.augment.{name}")
    raise AttributeError(f"module 'simsiam_keras.augment' has no attribute {name!r}")
