"""The pipelines follow any order, with labels and in parts."""

import numpy as np
import pytest

from simsiam_keras.data import base, pipeline
from simsiam_keras.data.balanced import balanced_order
from tests.data.numbered import OnTheFly
from tests.data.numbered import numbered as numbered_source

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 3, 4, 9, 11], [40, 3, 17, 2, 25]))
N, BATCH, P, SIZE = len(LABELS), 12, 3, 4
STEPS = N // BATCH


def numbered():
    return numbered_source(LABELS)


def on_the_fly():
    return OnTheFly(LABELS)


@pytest.fixture(params=[numbered, on_the_fly])
def source(request):
    return request.param()


def one_view(images, seed):
    return (images[:, :SIZE, :SIZE],)


def balanced_epoch(epoch):
    return balanced_order(LABELS, BATCH, P, 5, epoch)


def epoch_of_two_batches(epoch):
    return np.arange(2 * BATCH) + epoch


def views(source, order=balanced_epoch, first_epoch=1, epochs=3, **options):
    dataset = pipeline.training_views(
        source, one_view, BATCH, 1, first_epoch, epochs, order=order, **options
    )
    return list(dataset.as_numpy_iterator())


def images(source, order=balanced_epoch, first_epoch=1, epochs=3, **options):
    return list(
        pipeline.training_images(
            source, BATCH, SIZE, 1, first_epoch, epochs, order=order, **options
        )
    )


def pixels(batch):
    """Which images a batch of either pipeline shows."""
    batch = batch[0] if isinstance(batch, tuple) else batch
    if isinstance(batch, dict):
        batch = batch["views"][0] if "views" in batch else batch["images"]
    return batch[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("order", [balanced_epoch, epoch_of_two_batches])
@pytest.mark.parametrize("make", [views, images])
def test_pipelines_follow_the_order(make, order, source):
    expected = np.concatenate([order(1), order(2)]).reshape(-1, BATCH).tolist()
    assert [pixels(b) for b in make(source, order)] == expected
    resumed = make(source, order, first_epoch=2)
    assert [pixels(b) for b in resumed] == expected[len(expected) // 2 :]


def test_the_cardinality_is_that_of_the_order(source):
    dataset = pipeline.training_views(
        source, one_view, BATCH, first_epoch=1, epochs=4, order=epoch_of_two_batches
    )
    assert dataset.cardinality() == 3 * 2
    assert [spec.shape[0] for spec in dataset.element_spec] == [BATCH]


@pytest.mark.parametrize("make, key", [(views, "views"), (images, "images")])
@pytest.mark.parametrize("order", [None, balanced_epoch])
@pytest.mark.parametrize("with_index", [False, True])
def test_labels_are_those_of_the_images(make, key, order, with_index, source):
    batches = make(source, order, with_labels=True, with_index=with_index)
    plain = make(source, order)
    assert len(batches) == len(plain) == 2 * STEPS
    for batch, alone in zip(batches, plain, strict=True):
        batch = batch[0] if isinstance(batch, tuple) else batch
        assert set(batch) == {key, "labels"} | ({"index"} if with_index else set())
        assert pixels(batch) == pixels(alone)
        assert batch["labels"].dtype == "int64"
        assert batch["labels"].tolist() == LABELS[pixels(batch)].tolist()
        if with_index:
            assert batch["index"].tolist() == pixels(batch)


def test_one_view_is_a_tuple_of_one(source):
    assert all(len(batch) == 1 for batch in views(source))
    assert all(len(batch["views"]) == 1 for batch in views(source, with_labels=True))


def test_parts_of_a_balanced_batch_hold_every_class():
    whole = images(numbered(), with_labels=True)
    parts = [images(numbered(), with_labels=True, part=(i, 2)) for i in (0, 1)]
    for (batch,), *halves in zip(whole, *parts, strict=True):
        labels = [half["labels"] for (half,) in halves]
        assert np.concatenate(labels).tolist() == batch["labels"].tolist()
        assert set(labels[0]) == set(labels[1])
        assert sum((pixels(half) for half in halves), []) == pixels(batch)


@pytest.mark.parametrize("make", [views, images])
def test_pipeline_refusals(make):
    with pytest.raises(ValueError, match="`order` must visit a multiple.*13 images in epoch 1"):
        make(numbered(), lambda epoch: np.arange(13))
    with pytest.raises(ValueError, match="`order` must visit.*Received: 0 images"):
        make(numbered(), lambda epoch: np.arange(0))
    unlabelled = base.ArraySource("plain", numbered().images)
    with pytest.raises(ValueError, match="`with_labels` needs.*Received: plain, without labels"):
        make(unlabelled, with_labels=True)
