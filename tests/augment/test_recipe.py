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
    assert all(recipe.small_views == 0 and recipe.small is None for recipe in RECIPES.values())
    # Caron et al. 2020, the authors' main_swav.py: --min_scale_crops, --max_scale_crops.
    assert IMAGENET.small_crop_area == (0.05, 0.14)


def test_small_views_differ_in_size_and_crop_area_alone():
    changes = {"small_views": 6, "small_size": 96, "small_crop_area": (0.1, 0.2)}
    small = dataclasses.replace(IMAGENET, **changes).small
    assert (small.size, small.crop_area, small.small_views, small.small) == (
        96,
        (0.1, 0.2),
        0,
        None,
    )
    own = {"size", "crop_area", *changes}
    for field in {field.name for field in dataclasses.fields(Recipe)} - own:
        assert getattr(small, field) == getattr(IMAGENET, field), field


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
        ("eval_crop", 1e-4),
        ("size", 10**6),
        ("blur_sigma", (1.0, 1e6)),
        ("jitter", (float("inf"), 0.4, 0.4, 0.1)),
        ("eval_crop", 1.01),
        ("small_views", -1),
        ("small_views", 1.0),
        ("small_crop_area", (0.0, 0.14)),
        ("small_crop_area", (0.14, 0.05)),
        ("small_crop_area", (0.5, 1.1)),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must .* Received: {name}="):
        dataclasses.replace(CIFAR, **{name: value})


@pytest.mark.parametrize("size", [0, -1, 33, 16.0])
def test_small_views_must_have_a_size_within_the_full_ones(size):
    with pytest.raises(ValueError, match=r"`small_size` must .* \[1, 32\].* Received: small_size="):
        dataclasses.replace(CIFAR, small_views=1, small_size=size)


def test_limits_are_allowed():
    Recipe(size=1, crop_area=(1, 1), flip=1, jitter=(2, 0, 0, 0.5), blur=1, eval_crop=1)
    for size in (1, 32):
        dataclasses.replace(CIFAR, small_views=1, small_size=size, small_crop_area=(1, 1))


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
