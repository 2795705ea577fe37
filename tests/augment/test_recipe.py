import dataclasses
import subprocess
import sys

import pytest

from simsiam_keras.augment import CIFAR, DIGITS, IMAGENET, RECIPES, Recipe


def test_recipes_are_the_papers():
    # Chen & He 2020: section 3 (ImageNet: jitter and blur after SimCLR, as in the authors'
    # main_simsiam.py) and appendix D (CIFAR: no blur).
    for recipe in (CIFAR, IMAGENET):
        assert recipe.crop_area == (0.2, 1.0)
        assert recipe.crop_aspect == (3 / 4, 4 / 3)
        assert recipe.jitter == (0.4, 0.4, 0.4, 0.1)
        assert (recipe.flip, recipe.jitter_probability, recipe.grayscale) == (0.5, 0.8, 0.2)
    assert (CIFAR.size, CIFAR.blur, CIFAR.eval_crop) == (32, 0.0, 1.0)
    assert (IMAGENET.size, IMAGENET.blur, IMAGENET.blur_sigma) == (224, 0.5, (0.1, 2.0))
    assert IMAGENET.eval_crop == 0.875
    assert DIGITS.flip == 0 and DIGITS.jitter[3] == 0
    assert RECIPES == {"cifar": CIFAR, "imagenet": IMAGENET, "digits": DIGITS}


@pytest.mark.parametrize(
    "name, value",
    [
        ("size", 0),
        ("size", 32.0),
        ("crop_area", (0.0, 1.0)),
        ("crop_area", (0.5, 0.2)),
        ("crop_area", (0.5, 1.1)),
        ("crop_area", (0.2,)),
        ("crop_aspect", (0.0, 1.0)),
        ("crop_aspect", (2.0, 1.0)),
        ("flip", 1.5),
        ("jitter", (0.4, 0.4, 0.4)),
        ("jitter", (0.4, -0.1, 0.4, 0.1)),
        ("jitter", (0.4, 0.4, 0.4, 0.6)),
        ("jitter_probability", -0.1),
        ("grayscale", float("nan")),
        ("blur", 2),
        ("blur_sigma", (0.0, 2.0)),
        ("blur_sigma", (2.0, 1.0)),
        ("eval_crop", 0.0),
        ("eval_crop", 1.01),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must .* Received: {name}="):
        dataclasses.replace(CIFAR, **{name: value})


def test_limits_are_allowed():
    Recipe(size=1, crop_area=(1, 1), flip=1, jitter=(2, 0, 0, 0.5), blur=1, eval_crop=1)


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CIFAR.size = 64


def test_a_recipe_loads_no_framework():
    code = (
        "import sys, simsiam_keras.augment.recipe;"
        "print(sorted({'tensorflow', 'keras', 'keras_cv'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
