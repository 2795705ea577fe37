"""Images of one channel and of many: both engines against loops over the channels."""

import dataclasses

import numpy as np
import pytest

from simsiam_keras.augment import CIFAR, DIGITS, IMAGENET
from simsiam_keras.augment.recipe import in_channels
from tests.augment.engines import recipe
from tests.augment.oracles import (
    AREA,
    ASPECT,
    BRIGHTNESS,
    CONTRAST,
    clip,
    crop_box,
    each,
    far,
    photos,
    pil_crop,
    uniform,
)

CHANNELS = [1, 2, 4, 13]


def bands(n, height, width, channels, seed=0):
    """Smooth bands whose means differ, uint8."""
    found = [photos(n, height, width, seed + c)[..., 0] // (1 + c % 3) for c in range(channels)]
    return np.stack(found, axis=-1)


def contrast(x, f):
    """About the mean of all values, in a loop."""
    mean = sum(float(x[..., c].mean()) for c in range(x.shape[-1])) / x.shape[-1]
    return clip(f * x + (1 - f) * mean)


def contrast_of_each(x, f):
    return clip(f * x + (1 - f) * x.mean((0, 1)))


def contrast_of_the_first_three(x, f):
    return clip(f * x + (1 - f) * (x[..., :3] @ [0.299, 0.587, 0.114][: x.shape[-1]]).mean())


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("operation", [BRIGHTNESS, CONTRAST])
def test_brightness_and_contrast_are_of_all_channels(operation, channels, engine):
    images, amounts = bands(5, 12, 10, channels), np.array([0.6, 0.8, 1.0, 1.2, 1.4])
    strengths = [0.0] * 4
    strengths[operation] = 0.4
    draws = np.stack([0 * amounts, 0 * amounts, (amounts - 0.6) / 0.8], axis=1).astype("f4")
    views = engine.jitter(images, draws, tuple(strengths), probability=1.0)
    right = {BRIGHTNESS: lambda x, f: clip(f * x), CONTRAST: contrast}[operation]
    assert views.shape == images.shape
    assert far(views, each(right, images, amounts)) <= 0.01
    wrong = {"mid grey": lambda x, f: clip(f * x + (1 - f) * 127.5)}
    if operation == CONTRAST and channels > 1:
        wrong["each its own"] = contrast_of_each
        wrong["luma of the first"] = contrast_of_the_first_three
    if operation == BRIGHTNESS:
        wrong["additive"] = lambda x, f: clip(x + 255 * (f - 1))
    for name, formula in wrong.items():
        assert far(views, each(formula, images, amounts)) > 1, name


@pytest.mark.parametrize("channels", CHANNELS)
def test_the_jitter_goes_on_from_its_first_operation(channels, engine):
    images, draws = bands(12, 8, 8, channels), uniform(12, 5, seed=3)
    views = engine.jitter(images, draws, (0.4, 0.4, 0.0, 0.0), probability=0.8)

    def jittered(image, row, turn=0):
        operations = [lambda x, f: clip(f * x), contrast]
        order = np.argsort(row[1:3])[:: -1 if turn else 1]
        for slot, operation in enumerate(order):
            if row[0] < 0.8:
                image = operations[operation](image, 0.6 + 0.8 * float(row[3 + slot]))
        return image

    assert far(views, each(jittered, images, draws)) <= 0.01
    assert far(views, each(lambda x, row: jittered(x, row, 1), images, draws)) > 1


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 16), (41, 50, 16), (9, 14, 24)])
def test_every_channel_is_cropped_as_pil_does(height, width, size, channels, engine):
    images = bands(4, height, width, channels)
    boxes = [crop_box(one, height, width) for one in uniform(4, 22)]

    def cropped(image, box, roll=0):
        planes = [pil_crop(image[..., c], box, size) for c in range(channels)]
        return np.roll(np.stack(planes, -1), roll, -1)

    for crop in engine.crops:
        views = crop(images, boxes, size)
        assert views.shape == (4, size, size, channels)
        assert far(views, each(cropped, images, boxes)) <= 1.01
        if channels > 1:
            assert far(views, each(lambda x, b: cropped(x, b, 1), images, boxes)) > 5


@pytest.mark.parametrize("channels", CHANNELS)
def test_the_blur_is_that_of_colours(channels, engine):
    images, draws = bands(4, 12, 12, 3 * channels), uniform(4, 2)
    views = engine.blur(images, draws, (0.5, 2.0), probability=0.9)
    for first in range(0, 3 * channels, 3):
        colours = engine.blur(images[..., first : first + 3], draws, (0.5, 2.0), probability=0.9)
        assert far(views[..., first : first + 3], colours) <= 0.01
    assert far(views, images) > 5


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_view_is_crop_jitter_blur_flip(channels, engine):
    size = 8
    changes = {"size": size, "crop_area": AREA, "crop_aspect": ASPECT, "flip": 0.5}
    only = recipe(**changes, jitter=(0.4, 0.4, 0, 0), jitter_probability=0.8, channels=channels)
    images, draws = bands(6, 16, 16, channels), uniform(6, 22 + 5 + 1, seed=4)
    views = engine.augment(images, draws, only)
    cropped = engine.crop(images, [crop_box(one, 16, 16) for one in draws[:, :22]], size)
    expected = engine.jitter(cropped, draws[:, 22:27], (0.4, 0.4, 0, 0), probability=0.8)
    flipped = draws[:, 27] < 0.5
    expected[flipped] = expected[flipped][:, :, ::-1]
    assert 0 < flipped.sum() < 6
    assert far(views, expected) <= 0.02


@pytest.mark.parametrize("channels", CHANNELS)
def test_views_have_the_channels_of_the_images(channels, engine):
    only = in_channels(dataclasses.replace(CIFAR, size=8, small_views=1, small_size=4), channels)
    images = bands(4, 12, 12, channels)
    first, second, small = engine.views(only, images)
    assert first.shape == second.shape == (4, 8, 8, channels) and small.shape == (4, 4, 4, channels)
    assert far(first, second) > 5
    with pytest.raises(ValueError, match=rf"`images` must be \[n, h, w, {channels}\]"):
        engine.views(only, bands(4, 12, 12, channels + 1))


@pytest.mark.parametrize("made", [CIFAR, IMAGENET, DIGITS])
def test_a_recipe_says_what_is_left_out(made):
    assert in_channels(made, 3) == made
    for channels in CHANNELS:
        other = in_channels(made, channels)
        assert other.channels == channels and other.grayscale == 0
        assert other.jitter == (*made.jitter[:2], 0, 0)
        same = dataclasses.replace(other, channels=3, jitter=made.jitter, grayscale=made.grayscale)
        assert same == made


@pytest.mark.parametrize(
    "changes", [{"jitter": (0, 0, 0.4, 0)}, {"jitter": (0, 0, 0, 0.1)}, {"grayscale": 0.2}]
)
def test_colours_of_what_has_none_are_refused(changes):
    assert recipe(**changes).channels == 3
    with pytest.raises(ValueError, match="`channels` is not 3; `in_channels` makes them so"):
        recipe(**changes, channels=4)


@pytest.mark.parametrize("channels", [0, -1, 1.0])
def test_channels_are_a_number(channels):
    with pytest.raises(ValueError, match="`channels` must be an integer >= 1. Received: channels="):
        recipe(channels=channels)
