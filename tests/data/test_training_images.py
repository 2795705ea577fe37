"""Batches of images without TensorFlow: their order, their detail, their memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.generated import photograph
from simsiam_keras.data import base, batches, pipeline, sources
from simsiam_keras.data import images as codec
from tests.conftest import ROOT
from tests.data.numbered import (
    BATCH,
    N,
    OnTheFly,
    default,
    numbered,
    numbers,
    same,
    take,
)
from tests.memory import resident


def test_training_images_have_the_same_order(source):
    batches = pipeline.training_images(source, BATCH, 3, seed=1, first_epoch=1, epochs=3)
    images = [batch for (batch,) in batches]
    assert {(x.shape, str(x.dtype)) for x in images} == {((BATCH, 3, 3, 3), "uint8")}
    seen = np.array([x[:, 0, 0, 0] for x in images])
    assert np.array_equal(seen, numbers(take(default(source, first_epoch=1)))[:, 0])


def test_training_images_name_theirs(source):
    arguments = (source, BATCH, 3, 1, 1, 3)
    plain = [images for (images,) in pipeline.training_images(*arguments)]
    batches = [batch for (batch,) in pipeline.training_images(*arguments, with_index=True)]
    assert len(batches) == 2 * (N // BATCH)
    for batch, images in zip(batches, plain, strict=True):
        assert np.array_equal(batch["images"], images)
        assert np.array_equal(batch["index"], images[:, 0, 0, 0])


def test_training_images_as_they_are():
    (batch,) = next(pipeline.training_images(numbered(), BATCH))
    assert batch.shape == (BATCH, 6, 8, 3)
    with pytest.raises(ValueError, match="`size` must be given where the sizes"):
        pipeline.training_images(OnTheFly(), BATCH)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Sixteen JPEGs of 400 x 300 and 300 x 400 with detail of every size."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(16):
        size = (400, 300) if i % 2 else (300, 400)
        pixels = sum(
            np.asarray(Image.fromarray(rng.integers(0, 256, (s, s, 3), np.uint8)).resize(size), int)
            for s in (4, 16, 64, 256)
        )
        Image.fromarray((pixels // 4).astype(np.uint8)).save(folder / f"{i:02}.jpg", quality=90)
    return sources.load(f"folder:{folder}")


def test_training_images_read_no_more_of_a_jpeg_than_they_need():
    source = OnTheFly()
    list(pipeline.training_images(source, BATCH, 3))
    assert source.asked == {3}
    source = OnTheFly()
    list(pipeline.evaluation_batches(source, 3))
    assert source.asked == {batches.OVERSAMPLED * 3}


def detail(images):
    """Mean difference of neighbouring pixels."""
    return np.mean([np.abs(np.diff(images.astype(int), axis=axis)).mean() for axis in (1, 2)])


@pytest.mark.parametrize("size", [74, 75, 76, 100, 140, 150, 160])
def test_reading_less_costs_no_detail(photographs, size):
    order = pipeline.epoch_order(16, 0, 0)
    ((whole, _),) = pipeline.evaluation_batches(photographs, size)
    ((images,),) = pipeline.training_images(photographs, 16, size)
    (too_small,) = batches.read_batches(photographs, order, size, 1.0, 16, min_side=size // 4)
    assert detail(images) > 0.9 * detail(whole)
    assert detail(too_small) < 0.6 * detail(whole)


def test_evaluation_of_a_photograph_at_a_fraction_is_that_of_the_whole(tmp_path):
    for i, ending in enumerate(("jpg", "png")):
        image = photograph(np.random.default_rng(i), 1200, 1600 + i)
        image.save(tmp_path / f"x.{ending}")
    source = sources.load(f"folder:{tmp_path}")
    assert source.read(0, batches.OVERSAMPLED * 32).shape[0] < 300
    ((images, _),) = pipeline.evaluation_batches(source, 32)
    for i, image in enumerate(images.astype(int)):
        pixels = source.read(i)
        whole = codec.resize_and_crop(pixels, 32).astype(int)
        assert np.abs(image - whole).max() <= 4 and np.abs(image - whole).mean() < 0.5
        nearest = Image.fromarray(pixels).resize((43, 32), Image.Resampling.NEAREST)
        assert np.abs(np.asarray(nearest)[:, 5:37] - whole).mean() > 2  # without averaging


class Leaking(base.EncodedSource):
    """Keeps what it has read."""

    def __init__(self, source):
        super().__init__(source.name, source.items, None, None, None, "0")
        self.kept = []

    def read(self, index, min_side=None):
        image = super().read(index, min_side)
        self.kept.append(image.copy())
        return image


def views_on_the_fly(source, epochs):
    return pipeline.training_views(source, same, 8, epochs=epochs)


def images_on_the_fly(source, epochs):
    return pipeline.training_images(source, 8, 400, epochs=epochs)


def grown(make, source, epochs=12):
    """Megabytes by which this process grew from the end of the second epoch to that of the last."""
    batches = iter(make(source, epochs))
    after = []
    for _ in range(epochs):
        for _ in range(len(source) // 8):
            next(batches)
        after.append(resident())
    return after[-1] - after[1]


MEASURED = """
import sys
from simsiam_keras.data import sources
from tests.data.test_training_images import Leaking, grown, images_on_the_fly, views_on_the_fly
source = sources.load(f"folder:{sys.argv[1]}")
ways = views_on_the_fly, images_on_the_fly
leaking = [Leaking(source) for _ in ways]
print([grown(make, source) for make in ways])
print([grown(make, wrong) for make, wrong in zip(ways, leaking)])
"""


@pytest.mark.slow
def test_memory_is_flat_over_epochs(photographs):
    resident()  # skips where this cannot be measured
    # A process of its own: in this one a leak could hide in memory that other tests have left.
    folder = str(Path(photographs.items[0]).parent)
    command = [sys.executable, "-c", MEASURED, folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flat, leaking = (json.loads(line) for line in done.stdout.splitlines())
    kept = 16 * 300 * 400 * 3 * 10 / 1e6  # of ten epochs, were they kept
    assert max(flat) < 0.4 * kept and min(leaking) > 0.8 * kept
