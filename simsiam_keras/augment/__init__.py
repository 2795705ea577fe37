"""Two random views of an image: the recipe, and the engines that follow it."""

import importlib

from simsiam_keras.augment.recipe import CIFAR, DIGITS, IMAGENET, RECIPES, Recipe

__all__ = ["CIFAR", "DIGITS", "IMAGENET", "RECIPES", "Recipe", "host"]


def __getattr__(name):
    # At first use: the host engine needs TensorFlow and keras_cv.
    if name == "host":
        return importlib.import_module("simsiam_keras.augment.host")
    raise AttributeError(f"module 'simsiam_keras.augment' has no attribute {name!r}")
