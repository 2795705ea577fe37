"""Two random views of an image: the recipe, and the engines that follow it."""

from simsiam_keras.augment.recipe import CIFAR, DIGITS, IMAGENET, RECIPES, Recipe

__all__ = ["CIFAR", "DIGITS", "IMAGENET", "RECIPES", "Recipe"]
