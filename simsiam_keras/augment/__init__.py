"""Two random views of an image, or more: the recipe, and the engines that follow it."""

import importlib

from simsiam_keras.augment.recipe import CIFAR, DIGITS, IMAGENET, RECIPES, Recipe

__all__ = ["CIFAR", "DIGITS", "IMAGENET", "RECIPES", "Recipe", "device", "host"]


def __getattr__(name):
    # At first use: the host engine needs TensorFlow and keras_cv, the device engine Keras.
    if name in ("device", "host"):
        return importlib.import_module(f"simsiam_keras.augment.{name}")
    raise AttributeError(f"module 'simsiam_keras.augment' has no attribute {name!r}")
