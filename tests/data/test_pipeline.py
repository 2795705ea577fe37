"""The pipeline: permutations, pairs, resumption and evaluation, each against a wrong variant."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simsiam_keras.data import base, pipeline, sources
from tests.conftest import ROOT
from tests.memory import resident

N, BATCH, SIZE = 23, 5, 4


def numbered(n=N, shape=(6, 8, 3)):
    """Image i has the value i in every pixel."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, *shape))
    return base.ArraySource("numbers", images.copy(), np.arange(n) % 3)


class SlowSource(base.EncodedSource):
    """Numbered images of various sizes, read in unpredictable time."""

    def __init__(self, n=N):
        super().__init__("slow", list(range(n)), np.arange(n) % 3, None, None, "0")
        self.asked = set()

    def read(self, index, min_side=None):
        self.asked.add(min_side)
        time.sleep((index * 7 % 5) / 1000)
        return np.full((6 + index % 3, 8, 3), index, np.uint8)


SOURCES = {"in memory": numbered, "on the fly": SlowSource}


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]()


def same(images, seed):
    return images[:, :SIZE, :SIZE], images[:, :SIZE, :SIZE]


def marked(images, seed):
    """Writes a draw from the seed over all but the first column, as an augmentation would."""
    import tensorflow as tf

    n = tf.shape(images)[0]
    draws = tf.random.stateless_uniform([2, n, SIZE, SIZE - 1, 3], seed, 0, 256, tf.int32)
    first = images[:, :SIZE, :1]
    return tuple(tf.concat([first, tf.cast(d, tf.uint8)], axis=2) for d in tf.unstack(draws))


def take(dataset):
    return [tuple(np.asarray(x) for x in views) for views in dataset]


def numbers(batches):
    """Which image each view came from, `[batches, 2, batch]`."""
    return np.array([[x[:, 0, 0, 0] for x in pair] for pair in batches])


def default(source, first_epoch=0, epochs=3, views=marked, seed=1):
    return pipeline.training_views(source, views, BATCH, seed, first_epoch, epochs)


# Checks, and the wrong pipelines that they must refuse.


def check_permutations(make, source):
    steps = N // BATCH
    batches = take(make(source))
    if len(batches) != 3 * steps:
        raise AssertionError("batches reach over the end of an epoch")
    seen = numbers(batches)[:, 0].reshape(3, steps * BATCH)
    for epoch in seen:
        if len(set(epoch.tolist())) != steps * BATCH:
            raise AssertionError("an image came twice in an epoch")
    if any(np.array_equal(seen[a], seen[b]) for a, b in ((0, 1), (0, 2), (1, 2))):
        raise AssertionError("two epochs have one order")


def check_pairs(make, source):
    seen = numbers(take(make(source)))
    if not np.array_equal(seen[:, 0], seen[:, 1]):
        raise AssertionError("the views of a pair show different images")


def check_resumption(make, source):
    whole, tail = take(make(source)), take(make(source, first_epoch=2))
    steps = N // BATCH
    if len(tail) != steps:
        raise AssertionError("the wrong number of batches")
    for pair, again in zip(whole[2 * steps :], tail, strict=True):
        if not all(np.array_equal(a, b) for a, b in zip(pair, again, strict=True)):
            raise AssertionError("a resumed run sees something else")


def keras_style(source, first_epoch=0, epochs=3):
    """Two views data sets, shuffled each on its own and zipped."""
    import tensorflow as tf

    images = tf.data.Dataset.from_tensor_slices(source.images).repeat(epochs - first_epoch)
    one, two = (images.shuffle(N, seed=s).batch(BATCH, drop_remainder=True) for s in (1, 2))
    return tf.data.Dataset.zip((one, two))


def shuffled_once(source, first_epoch=0, epochs=3):
    """One shuffle that every epoch repeats, and seeds that restart with the run."""
    import tensorflow as tf

    order = np.random.default_rng(0).permutation(N)
    images = tf.data.Dataset.from_tensor_slices(source.images[order])
    batches = images.batch(BATCH, drop_remainder=True).repeat(epochs - first_epoch)
    return batches.enumerate().map(lambda i, x: marked(x, tf.stack([i, i])))


CHECKS = [check_permutations, check_pairs, check_resumption]


@pytest.mark.parametrize("check", CHECKS)
def test_training_views(check, source):
    check(default, source)


@pytest.mark.parametrize(
    "check, wrong",
    [
        (check_pairs, keras_style),
        (check_permutations, keras_style),
        (check_resumption, keras_style),
        (check_permutations, shuffled_once),
        (check_resumption, shuffled_once),
    ],
)
def test_the_checks_refuse_wrong_pipelines(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong, numbered())


def test_order_is_that_of_epoch_order(source):
    seen = numbers(take(default(source, first_epoch=1)))[:, 0].reshape(2, -1)
    for epoch, row in zip((1, 2), seen, strict=True):
        order = pipeline.epoch_order(N, 1, epoch)
        assert sorted(order.tolist()) == list(range(N))
        assert row.tolist() == order[: N // BATCH * BATCH].tolist()


def test_parallel_maps_keep_the_order(source):
    first, second = take(default(source)), take(default(source))
    assert len(first) == 3 * (N // BATCH)
    for pair, again in zip(first, second, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(pair, again, strict=True))


def test_every_batch_has_its_own_augmentation(source):
    batches = take(default(source, epochs=4))
    draws = [x[..., 1:, :].tobytes() for pair in batches for x in pair]
    assert len(set(draws)) == len(draws)
    other = take(default(source, seed=2))[0]
    assert not np.array_equal(other[0], batches[0][0])


def test_the_data_set_says_what_it_holds(source):
    dataset = default(source, first_epoch=1, views=same)
    assert dataset.cardinality() == 2 * (N // BATCH)
    for spec in dataset.element_spec:
        assert spec.shape == (BATCH, SIZE, SIZE, 3) or isinstance(source, SlowSource)
        assert spec.shape[0] == BATCH and spec.dtype == "uint8"
    assert take(default(source, first_epoch=3)) == []


def test_the_index_names_the_image_of_each_view(source):
    dataset = pipeline.training_views(source, marked, BATCH, 1, 1, 3, with_index=True)
    plain = take(default(source, first_epoch=1))
    batches = list(dataset.as_numpy_iterator())
    assert len(batches) == len(plain) == 2 * (N // BATCH)
    for batch, pair in zip(batches, plain, strict=True):
        assert set(batch) == {"views", "index"} and batch["index"].dtype == "int64"
        for a, b in zip(batch["views"], pair, strict=True):
            assert np.array_equal(a, b)
            assert np.array_equal(batch["index"], a[:, 0, 0, 0])


def test_any_number_of_views(source):
    def four(images, seed):
        return (*marked(images, seed), *same(images, seed))

    for batch in take(default(source, views=four, epochs=1)):
        assert len(batch) == 4
        assert all(np.array_equal(x[:, 0, 0, 0], batch[0][:, 0, 0, 0]) for x in batch)


def test_a_recipe_says_how_far_a_jpeg_may_shrink():
    from simsiam_keras.augment.recipe import Recipe

    class Views:
        recipe = Recipe(size=SIZE, crop_area=(0.25, 1.0), crop_aspect=(1.0, 1.0))

        def __call__(self, images, seed):
            return same(images, seed)

    source = SlowSource()
    take(default(source, views=Views(), epochs=1))
    assert source.asked == {2 * SIZE}
    source = SlowSource()
    take(default(source, views=same, epochs=1))
    assert source.asked == {None}


@pytest.mark.parametrize(
    "area, small_size, small_area, aspect, side",
    [
        (0.25, 2, 0.04, (1.0, 1.0), 10),  # the small views need 2 / 0.2, the full ones 4 / 0.5
        (0.25, 2, 0.25, (1.0, 1.0), 8),
        (0.25, 4, 0.04, (0.25, 1.0), 40),  # half as wide as high
        (0.01, 4, 0.04, (0.25, 2.0), 80),
    ],
)
def test_small_views_have_a_say_in_how_far_a_jpeg_may_shrink(
    area, small_size, small_area, aspect, side
):
    from simsiam_keras.augment.recipe import Recipe

    class Views:
        recipe = Recipe(
            size=4,
            crop_area=(area, 1.0),
            crop_aspect=aspect,
            small_views=1,
            small_size=small_size,
            small_crop_area=(small_area, 0.5),
        )

    assert pipeline._min_side(Views()) == side


def test_with_the_real_augmentation(source):
    host = pytest.importorskip("simsiam_keras.augment.host")
    from simsiam_keras.augment.recipe import Recipe

    views = host.TwoViews(Recipe(size=SIZE, jitter_probability=0.0))
    seen = numbers(take(default(source, views=views, epochs=2)))
    # Crops and flips of a plain image leave its value.
    assert np.array_equal(seen[:, 0], seen[:, 1])
    assert seen[:, 0].reshape(2, -1)[0].tolist() == pipeline.epoch_order(N, 1, 0)[:20].tolist()


def test_small_views_come_in_the_same_batch(source):
    host = pytest.importorskip("simsiam_keras.augment.host")
    from simsiam_keras.augment.recipe import Recipe

    recipe = Recipe(size=SIZE, jitter_probability=0.0, small_views=3, small_size=2)
    for batch in take(default(source, views=host.TwoViews(recipe), epochs=1)):
        assert [x.shape[1:] for x in batch] == [(SIZE, SIZE, 3)] * 2 + [(2, 2, 3)] * 3
        for x in batch:
            assert np.array_equal(x[:, 0, 0, 0], batch[0][:, 0, 0, 0])


@pytest.mark.parametrize("make", [pipeline.training_views, pipeline.training_images])
def test_training_refusals(make):
    source = numbered()
    arguments = (source, same) if make is pipeline.training_views else (source,)
    for batch_size in (N + 1, 0):
        with pytest.raises(ValueError, match=f"number of images, 23. Received: .*{batch_size}"):
            make(*arguments, batch_size)
    with pytest.raises(ValueError, match="`seed` must be >= 0. Received: seed=-1"):
        make(*arguments, BATCH, seed=-1)


def test_steps_per_epoch():
    assert [pipeline.steps_per_epoch(23, b) for b in (1, 5, 23)] == [23, 4, 1]
    with pytest.raises(ValueError, match="Received: batch_size=24"):
        pipeline.steps_per_epoch(23, 24)


# Without TensorFlow.


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
        pipeline.training_images(SlowSource(), BATCH)


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
    source = SlowSource()
    list(pipeline.training_images(source, BATCH, 3))
    assert source.asked == {3}
    source = SlowSource()
    list(pipeline.evaluation_batches(source, 3))
    assert source.asked == {None}


def detail(images):
    """Mean difference of neighbouring pixels."""
    return np.mean([np.abs(np.diff(images.astype(int), axis=axis)).mean() for axis in (1, 2)])


@pytest.mark.parametrize("size", [74, 75, 76, 100, 140, 150, 160])
def test_reading_less_costs_no_detail(photographs, size):
    order = pipeline.epoch_order(16, 0, 0)
    ((whole, _),) = pipeline.evaluation_batches(photographs, size)
    ((images,),) = pipeline.training_images(photographs, 16, size)
    (too_small,) = pipeline._read_batches(photographs, order, size, 1.0, 16, min_side=size // 4)
    assert detail(images) > 0.9 * detail(whole)
    assert detail(too_small) < 0.6 * detail(whole)


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
from tests.data.test_pipeline import *
source = sources.load(f"folder:{sys.argv[1]}")
ways = views_on_the_fly, images_on_the_fly
leaking = [Leaking(source) for _ in ways]
print([grown(make, source) for make in ways])
print([grown(make, wrong) for make, wrong in zip(ways, leaking)])
"""


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
        ((4, 0.0), r"`eval_crop` must be within \(0, 1\]. Received: eval_crop=0.0"),
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


def test_fit_takes_the_views():
    keras = pytest.importorskip("keras")
    seen = []

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale = keras.layers.Dense(1)

        def call(self, pair):
            return self.scale(keras.ops.mean(keras.ops.cast(pair[0], "float32"), (1, 2)))

        def train_step(self, *arguments):
            seen.append(np.asarray(arguments[-1][0])[:, 0, 0, 0])
            return {"loss": 0.0}

    if keras.config.backend() != "tensorflow":
        pytest.skip("the stand-in model is written for one backend")
    model = Model()
    model.compile(optimizer="sgd", run_eagerly=True)
    steps = pipeline.steps_per_epoch(N, BATCH)
    dataset = default(numbered(), first_epoch=1, epochs=3, views=same)
    model.fit(dataset, epochs=3, initial_epoch=1, steps_per_epoch=steps, verbose=0)
    expected = [pipeline.epoch_order(N, 1, epoch)[: steps * BATCH] for epoch in (1, 2)]
    assert np.array_equal(np.concatenate(seen[-2 * steps :]), np.concatenate(expected))
