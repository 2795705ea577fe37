"""The device engine on a canvas with pictures of various sizes: torchvision's crops of each."""

import numpy as np
import pytest

from simsiam_keras.augment import device, device_ops
from simsiam_keras.data import images as codec
from tests.augment.engines import (
    BLURRED,
    SHORT,
    SHORT_MULTI,
    Device,
    compiled,
    recipe,
    tensor,
    views_of,
)
from tests.augment.oracles import (
    AREA,
    ASPECT,
    SIGNIFICANCE,
    crop_box,
    far,
    photos,
    rate,
    same,
    uniform,
)
from tests.test_backends import OTHERS
from tests.test_backends import call as run
from tests.tiny import numpy

CANVAS = (36, 24)
# Upright, wide, square, thin both ways, small, and of the canvas itself.
SIZES = [(36, 24), (24, 36), (24, 24), (36, 9), (9, 36), (12, 15), (30, 22)]
CROP = recipe(size=16, crop_area=AREA, crop_aspect=ASPECT, flip=0.3)


def pictures(sizes=SIZES):
    return [photos(1, height, width, seed)[0] for seed, (height, width) in enumerate(sizes)]


def placed(images, canvas=CANVAS, beside=None):
    """Canvases and extents; `beside` the pictures another value than black."""
    found = [codec.on_canvas(image, canvas) for image in images]
    canvases, extent = (np.stack(x) for x in zip(*found, strict=True))
    if beside is not None:
        for image, (height, width) in zip(canvases, extent, strict=True):
            image[max(height, width) :] = beside
            image[:, min(height, width) :] = beside
    return canvases, extent


def augment(canvases, draws, which, extent):
    function = compiled(lambda x, u, e: device.augment(x, u, which, e))
    return numpy(function(tensor(canvases, "uint8"), tensor(draws), tensor(extent, "int32")))


@pytest.mark.parametrize("aspect", [ASPECT, (0.5, 3.0)])
def test_every_picture_has_torchvisions_boxes(aspect):
    sizes = np.array([(200, 300), (300, 200), (400, 100), (100, 400), (7, 90), (1, 40)] * 60)
    draws = uniform(len(sizes), 22)
    which = recipe(crop_area=AREA, crop_aspect=aspect)

    def boxes(u, sizes):
        return device_ops.crop_boxes(u, (sizes[:, :1], sizes[:, 1:]), which)

    found = compiled(boxes)(tensor(draws), tensor(sizes))
    found = np.concatenate([numpy(x) for x in found], axis=1)
    every = list(zip(draws, sizes.tolist(), strict=True))
    expected = np.array([crop_box(u, *size, aspect=aspect) for u, size in every])
    np.testing.assert_array_equal(found, expected)
    squares = np.array([crop_box(u, min(size), min(size), aspect=aspect) for u, size in every])
    swapped = np.array([crop_box(u, *size[::-1], aspect=aspect) for u, size in every])
    for wrong in (squares, swapped):
        assert (found != wrong).any(axis=1).mean() > 0.8


@pytest.mark.parametrize("which", [CROP, BLURRED], ids=["crop", "whole"])
def test_a_canvas_changes_no_view(which):
    images = pictures()
    draws = uniform(len(images), sum(device.widths(which).values()), seed=3)
    canvases, extent = placed(images)
    assert (extent == SIZES).all()
    found = augment(canvases, draws, which, extent)
    each = [Device().augment(x[None], u[None], which) for x, u in zip(images, draws, strict=True)]
    expected = np.concatenate(each)
    assert far(found, expected) <= 0.01
    wrong = {
        "of the whole canvas": augment(canvases, draws, which, np.array([CANVAS] * len(images))),
        "sides swapped": augment(canvases, draws, which, extent[:, ::-1]),
        "another's": augment(canvases, draws, which, np.roll(extent, 1, axis=0)),
    }
    for name, views in wrong.items():
        assert far(views, expected) > 50, name


def test_every_view_of_a_picture_is_of_its_own_extent():
    images = pictures()
    canvases, extent = placed(images)
    draws = uniform(len(images), 3 * sum(device.widths(SHORT).values()), seed=4)
    function = compiled(lambda x, u, e: device.several(x, u, SHORT, 3, e))
    found = function(tensor(canvases, "uint8"), tensor(draws), tensor(extent, "int32"))
    views = [augment(canvases, own, SHORT, extent) for own in np.split(draws, 3, axis=1)]
    for i, view in enumerate(found):
        assert far(numpy(view), views[i]) <= 0.01
        assert far(numpy(view), views[i - 1]) > 50


def test_what_is_beside_a_picture_is_in_no_view():
    shades = np.arange(40, 40 + 10 * len(SIZES), 10)
    images = [
        np.full((*size, 3), shade, "uint8") for size, shade in zip(SIZES, shades, strict=True)
    ]
    for beside in (0, 255):
        canvases, extent = placed(images, beside=beside)
        assert (canvases == beside).any()
        layer = device.Views(recipe(**{**vars(SHORT_MULTI), "jitter": (0, 0, 0, 0), "blur": 0.5}))
        for _ in range(5):
            for view in views_of(layer, canvases, extent):
                expected = np.broadcast_to(shades[:, None, None, None], view.shape)
                np.testing.assert_allclose(view, expected, atol=1e-2)
        leaked = views_of(layer, canvases, np.array([CANVAS] * len(images)))[0]
        assert far(leaked, expected[:, :1, :1]) > 30


# The distribution of thousands of views, of photographs made smaller


def ramps(height, width):
    """A photograph whose red tells the column and whose green the row, as shares of 255."""
    y, x = np.mgrid[:height, :width]
    shares = np.stack([(x + 0.5) / width, (y + 0.5) / height, 0 * x], axis=2)
    return np.round(255 * shares).astype("uint8")


def decoded(views):
    """(area, log aspect, top, left, flipped) of views of ramps, in shares of the picture."""
    size = views.shape[1]
    low, high = views[:, 4, 4, :2] / 255, views[:, size - 5, size - 5, :2] / 255
    sides = (high - low) * size / (size - 9)
    w, h = np.abs(sides).T
    left, top = ((high + low) / 2).T - np.stack([w, h]) / 2
    return np.stack([w * h, np.log(w / h), top, left, sides[:, 0] < 0])


def loop(height, width, n=4000):
    """torchvision's, of the photograph as it is; in the same shares."""
    top, left, h, w = np.array([crop_box(u, height, width) for u in uniform(n, 22, seed=9)]).T
    return shares(top, left, h, w, height, width)


def shares(top, left, h, w, height, width):
    return np.stack(
        [h * w / (height * width), np.log(w / width * height / h), top / height, left / width]
    )


def centred(height, width):
    """The same within the centred square, which is what was cropped from in 0.2."""
    side = min(height, width)
    top, left, h, w = np.array([crop_box(u, side, side) for u in uniform(4000, 22, seed=9)]).T
    return shares(top + (height - side) // 2, left + (width - side) // 2, h, w, height, width)


@pytest.mark.parametrize("height, width", [(600, 900), (900, 600), (1200, 300), (300, 1200)])
def test_crops_of_a_photograph_have_torchvisions_distribution(height, width):
    canvas, extent = codec.on_canvas(ramps(height, width), (144, 96))
    assert max(extent) == 144
    n = 1000
    layer = device.Views(recipe(**{**vars(CROP), "size": 64}), views=2, seed=1)
    views = views_of(layer, np.repeat(canvas[None], n, 0), np.repeat(extent[None], n, 0))
    *found, flipped = decoded(np.concatenate(views).astype("float64"))
    assert rate(flipped, 0.3) > SIGNIFICANCE

    def p_values(expected):
        # To a tenth, for the canvas is coarser than the photograph, and an eighth of all crops or
        # more have one corner, or one area.
        return [
            same(np.round(10 * x), np.round(10 * y)) for x, y in zip(found, expected, strict=True)
        ]

    expected = loop(height, width)
    assert min(p_values(expected)) > SIGNIFICANCE
    for x, y in zip(found, expected, strict=True):
        apart = np.subtract(*(np.quantile(z, np.linspace(0.02, 0.98, 25)) for z in (x, y)))
        assert np.abs(apart).max() < 0.05
    assert min(p_values(centred(height, width))) < 1e-30
    assert min(p_values(loop(width, height))) < 1e-30


@pytest.mark.parametrize("height, width", [(90, 40), (40, 90)])
def test_all_corners_of_a_picture_are_seen(height, width):
    image = np.zeros((height, width, 3), "uint8")
    corners = [(slice(0, 8), slice(0, 8)), (slice(0, 8), slice(-8, None))]
    corners += [(slice(-8, None), slice(0, 8)), (slice(-8, None), slice(-8, None))]
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    for corner, colour in zip(corners, colours, strict=True):
        image[corner] = colour
    layer = device.Views(recipe(size=16, crop_area=AREA, crop_aspect=ASPECT), views=1)
    canvases, extent = placed([image] * 200, (72, 48))
    (views,) = views_of(layer, canvases, extent)
    for colour in colours:
        seen = (np.abs(views - colour) < 60).all(axis=-1).any(axis=(1, 2))
        assert 0.02 < seen.mean() < 0.98, colour
    square = codec.resize_and_crop(image, 48)
    (views,) = views_of(layer, np.repeat(square[None], 200, 0))
    assert views.max() < 60


# The layer


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 1)])
def test_an_extent_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="`extent` must be .n, 2.* Received: shape="):
        device.Views(SHORT)(np.zeros((4, 12, 12, 3), "uint8"), np.ones(shape, "int32"))


def test_without_an_extent_the_image_is_the_picture():
    images = photos(4, 36, 24)
    plain = views_of(device.Views(SHORT), images)
    whole = views_of(device.Views(SHORT), images, np.array([CANVAS] * 4, "int32"))
    for x, y in zip(plain, whole, strict=True):
        assert far(x, y) <= 0.01


# Of the same canvases; argv: the file with them, and the one to write to.
PARITY = """
import sys
import numpy as np
from simsiam_keras.augment.device import Views
from tests.augment.engines import SHORT_MULTI, views_of

given = np.load(sys.argv[1])
np.savez(sys.argv[2], *views_of(Views(SHORT_MULTI, seed=2), given["images"], given["extent"]))
"""


@pytest.mark.parametrize("backend", OTHERS)
def test_the_views_are_the_same_on_every_backend(backend, tmp_path):
    given, file = tmp_path / "given.npz", tmp_path / "views.npz"
    canvases, extent = placed(pictures())
    np.savez(given, images=canvases, extent=extent)
    run(backend, "-c", PARITY, given, file)
    other = list(np.load(file).values())
    found = views_of(device.Views(SHORT_MULTI, seed=2), canvases, extent)
    assert len(found) == len(other) == 4
    for x, y in zip(found, other, strict=True):
        assert far(x, y) <= 0.02
    for x, y in zip(views_of(device.Views(SHORT_MULTI, seed=2), canvases), other, strict=True):
        assert far(x, y) > 50
