"""The pipeline of views: permutations, pairs, resumption, each against a wrong variant."""

import numpy as np
import pytest

from simsiam_keras.data import pipeline
from tests.data.numbered import (
    BATCH,
    SIZE,
    N,
    OnTheFly,
    default,
    marked,
    numbered,
    numbers,
    same,
    take,
)

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
        assert spec.shape == (BATCH, SIZE, SIZE, 3) or isinstance(source, OnTheFly)
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

    source = OnTheFly()
    take(default(source, views=Views(), epochs=1))
    assert source.asked == {2 * SIZE}
    source = OnTheFly()
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
    from simsiam_keras.augment.recipe import Recipe, needed_side

    class Views:
        recipe = Recipe(
            size=4,
            crop_area=(area, 1.0),
            crop_aspect=aspect,
            small_views=1,
            small_size=small_size,
            small_crop_area=(small_area, 0.5),
        )

    assert needed_side(Views.recipe) == side


def test_with_the_real_augmentation(source):
    host = pytest.importorskip("simsiam_keras.augment.host")
    from simsiam_keras.augment.recipe import Recipe

    views = host.Views(Recipe(size=SIZE, jitter_probability=0.0))
    seen = numbers(take(default(source, views=views, epochs=2)))
    # Crops and flips of a plain image leave its value.
    assert np.array_equal(seen[:, 0], seen[:, 1])
    assert seen[:, 0].reshape(2, -1)[0].tolist() == pipeline.epoch_order(N, 1, 0)[:20].tolist()


def test_small_views_come_in_the_same_batch(source):
    host = pytest.importorskip("simsiam_keras.augment.host")
    from simsiam_keras.augment.recipe import Recipe

    recipe = Recipe(size=SIZE, jitter_probability=0.0, small_views=3, small_size=2)
    for batch in take(default(source, views=host.Views(recipe), epochs=1)):
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
