"""Parts of sources: which images and labels they hold, in memory and on the fly."""

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import data
from simsiam_keras.data import base, pipeline, sources

# 20, 3 and 7 images; labels with gaps, in no order.
SIZES = {1: 20, 2: 3, 6: 7}
LABELS = np.random.default_rng(0).permutation(np.repeat(list(SIZES), list(SIZES.values())))
N = len(LABELS)
NAMES = tuple("abcdefg")


def in_memory(folder):
    """Image i has the value i in every pixel."""
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 4, 5, 3))
    return base.ArraySource("numbers", images.copy(), LABELS, NAMES)


def on_the_fly(folder):
    """The same as files of various sizes."""
    files = []
    for i in range(N):
        files.append(str(folder / f"{i:02}.png"))
        Image.fromarray(np.full((4 + i % 2, 5, 3), i, np.uint8)).save(files[-1])
    return base.EncodedSource("numbers", files, LABELS, NAMES, None, "0")


@pytest.fixture(params=[in_memory, on_the_fly])
def source(request, tmp_path):
    return request.param(tmp_path)


def held(source):
    """Which images a source holds, read one by one."""
    return [int(source.read(i)[0, 0, 0]) for i in range(len(source))]


def check_parts_of(source, part):
    numbers = held(part)
    assert type(part) is type(source) and len(part) == len(numbers)
    assert part.labels.tolist() == LABELS[numbers].tolist() and part.labels.dtype == np.int64
    assert part.class_names == NAMES and part.image_shape == source.image_shape
    assert part.fingerprint != source.fingerprint and len(part.fingerprint) == 16
    batches = list(pipeline.evaluation_batches(part, 4, batch_size=3))
    assert np.concatenate([x[:, 0, 0, 0] for x, _ in batches]).tolist() == numbers
    assert np.concatenate([y for _, y in batches]).tolist() == part.labels.tolist()


def test_a_subset_holds_the_images_in_the_order_given(source):
    part = sources.subset(source, [7, 2, 2, 29], "some")
    check_parts_of(source, part)
    assert held(part) == [7, 2, 2, 29] and part.name == "some"
    assert part.fingerprint == sources.subset(source, np.array([7, 2, 2, 29]), "x").fingerprint
    assert part.fingerprint != sources.subset(source, [7, 2, 29, 2], "some").fingerprint


def test_a_subset_of_unlabelled_images():
    plain = base.ArraySource("plain", in_memory(None).images)
    part = sources.subset(plain, [3, 1], "two")
    assert held(part) == [3, 1] and part.labels is None and part.class_names is None


@pytest.mark.parametrize("indices, received", [([], "none"), ([0, 30], "0 to 30"), ([-1], "-1")])
def test_a_subset_refuses_what_is_not_there(indices, received, source):
    with pytest.raises(ValueError, match=f"the 30 images of numbers. Received: {received}"):
        sources.subset(source, indices, "x")


@pytest.mark.parametrize("per_class", [1, 3, 5, 100])
def test_few_labels_of_each_class(per_class, source):
    part = sources.few_labels(source, per_class, seed=1)
    check_parts_of(source, part)
    numbers = held(part)
    assert numbers == sorted(set(numbers))
    for c, size in SIZES.items():
        assert np.sum(part.labels == c) == min(per_class, size)
    assert part.name == f"numbers, {per_class} per class"


def test_few_labels_are_random_repeatable_and_nested(source):
    few = [held(sources.few_labels(source, 3, seed)) for seed in range(40)]
    assert few[0] == held(sources.few_labels(source, 3, 0))
    # Each of 20 images comes in about 3/20 of the seeds; the three of class 2 in all.
    counts = np.bincount(np.concatenate(few), minlength=N)
    assert counts[LABELS == 2].tolist() == [40] * 3
    assert 0 < counts[LABELS == 1].min() and counts[LABELS == 1].max() < 20
    for seed in range(5):
        more = [set(held(sources.few_labels(source, k, seed))) for k in (1, 2, 5, 20)]
        assert more[0] < more[1] < more[2] < more[3]
    prints = [sources.few_labels(source, 3, seed).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_fewer_than_one_of_each_class_is_refused(source):
    with pytest.raises(ValueError, match="`per_class` must be >= 1. Received: per_class=0"):
        sources.few_labels(source, 0)


def test_unlabelled_sources_are_refused():
    plain = base.ArraySource("plain", in_memory(None).images)
    with pytest.raises(ValueError, match="must have labels. Received: plain, without labels"):
        sources.few_labels(plain, 3)


def test_digits_with_few_labels():
    digits = data.load("digits")
    part = data.few_labels(digits, 5)
    assert part.name == "digits, 5 per class" and np.bincount(part.labels).tolist() == [5] * 10
    assert {x.tobytes() for x in part.images} <= {x.tobytes() for x in digits.images}
