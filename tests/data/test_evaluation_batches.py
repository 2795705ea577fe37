"""Images for evaluation: all, in order, resized and cropped as Pillow does."""

import numpy as np
import pytest
from PIL import Image

from simsiam_keras.data import base, pipeline, sources
from tests.data.numbered import N, numbered


def test_evaluation_batches_come_in_order(source):
    batches = list(pipeline.evaluation_batches(source, 3, batch_size=10))
    assert [len(images) for images, _ in batches] == [10, 10, 3]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    assert images.shape == (N, 3, 3, 3) and images.dtype == np.uint8
    assert np.array_equal(images, np.broadcast_to(np.arange(N)[:, None, None, None], images.shape))
    assert np.array_equal(labels, source.labels) and labels.dtype == np.int64


def test_evaluation_of_unlabelled_images():
    source = base.ArraySource("plain", np.zeros((3, 4, 4, 3), np.uint8))
    assert [(len(x), y) for x, y in pipeline.evaluation_batches(source, 4, 1.0, 2)] == [
        (2, None),
        (1, None),
    ]


NOISE = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "size, eval_crop, resized, box",
    [
        (40, 1.0, None, (10, 0, 50, 40)),  # the short side fits: cropped, not resampled
        (20, 0.5, None, (20, 10, 40, 30)),
        (20, 1.0, (30, 20), (5, 0, 25, 20)),
        (28, 0.875, (48, 32), (10, 2, 38, 30)),
        (80, 1.0, (120, 80), (20, 0, 100, 80)),
    ],
)
def test_evaluation_resizes_then_crops_the_centre(size, eval_crop, resized, box):
    source = base.ArraySource("noise", NOISE)
    ((images, _),) = pipeline.evaluation_batches(source, size, eval_crop)
    for image, result in zip(NOISE, images, strict=True):
        expected = Image.fromarray(image)
        if resized:
            expected = expected.resize(resized, Image.Resampling.BILINEAR)
        assert np.array_equal(result, np.asarray(expected.crop(box)))


def test_evaluation_leaves_images_of_the_size_alone():
    source = base.ArraySource("square", NOISE[:, :, :40])
    ((images, _),) = pipeline.evaluation_batches(source, 40)
    assert np.array_equal(images, NOISE[:, :, :40])


def test_evaluation_of_a_folder(tmp_path):
    for i, shape in enumerate([(50, 40), (40, 60), (40, 41)]):
        Image.fromarray(NOISE[0, : shape[0], : shape[1]].repeat(2, 0)[: shape[0]]).save(
            tmp_path / f"{i}.png"
        )
    source = sources.load(f"folder:{tmp_path}")
    ((images, labels),) = pipeline.evaluation_batches(source, 40)
    assert images.shape == (3, 40, 40, 3) and labels is None
    assert np.array_equal(images[1], source.read(1)[:, 10:50])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0,), "`size` must be >= 1. Received: size=0"),
        ((4, 1.0, 0), "`batch_size` must be >= 1. Received: batch_size=0"),
        ((4, 0.0), r"`eval_crop` must be within \[0.1, 1\]. Received: eval_crop=0.0"),
        ((4, 1e-4), r"`eval_crop` must be within \[0.1, 1\]. Received: eval_crop=0.0001"),
        ((4, 1.5), "Received: eval_crop=1.5"),
    ],
)
def test_evaluation_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.evaluation_batches(numbered(), *arguments)


def test_sample_images(source):
    images = pipeline.sample_images(source, 5, seed=3)
    values = [int(image[0, 0, 0]) for image in images]
    assert len(set(values)) == 5
    assert values == [int(i[0, 0, 0]) for i in pipeline.sample_images(source, 5, seed=3)]
    assert len(pipeline.sample_images(source, 100)) == N
