"""Balanced batches, against wrong samplers."""

import itertools

import numpy as np
import pytest

from simsiam_keras.data import balanced, pipeline
from simsiam_keras.data.balanced import balanced_order, classes_per_batch

# 40, 3, 17, 2 and 25 images; labels with gaps, in no order.
SIZES = {0: 40, 3: 3, 4: 17, 9: 2, 11: 25}
LABELS = np.random.default_rng(0).permutation(np.repeat(list(SIZES), list(SIZES.values())))
N = len(LABELS)
BATCH, P = 12, 3
K, STEPS = BATCH // P, N // BATCH
EPOCHS = 8


def ours(labels, seed, epoch):
    return balanced_order(labels, BATCH, P, seed, epoch)


def drawn(order, seeds=1):
    """Image numbers, `[epochs, steps, batch]`."""
    epochs = [order(LABELS, seed, epoch) for seed in range(seeds) for epoch in range(EPOCHS)]
    return np.array(epochs).reshape(len(epochs), -1, BATCH)


# Checks, and the wrong samplers that they must refuse.


def check_classes_by_images(order):
    epochs = drawn(order)
    assert epochs.shape == (EPOCHS, STEPS, BATCH)
    for batch in epochs.reshape(-1, BATCH):
        _, counts = np.unique(LABELS[batch], return_counts=True)
        assert counts.tolist() == [K] * P


def check_no_class_is_more_common(order):
    for epoch in drawn(order):
        counts = [np.sum(LABELS[epoch] == c) // K for c in SIZES]
        assert sum(counts) == STEPS * P and max(counts) - min(counts) <= 1


def check_images_come_in_turn(order):
    for epoch, c in itertools.product(drawn(order), SIZES):
        seen = epoch.ravel()[LABELS[epoch.ravel()] == c]
        for stop in range(len(seen) + 1):
            counts = np.bincount(seen[:stop], minlength=N)[LABELS == c]
            assert counts.max() - counts.min() <= 1


def check_no_image_twice_in_a_batch(order):
    for batch in drawn(order).reshape(-1, BATCH):
        for c in np.unique(LABELS[batch]):
            _, counts = np.unique(batch[LABELS[batch] == c], return_counts=True)
            assert len(counts) == min(K, SIZES[c])
            assert counts.max() == -(-K // SIZES[c])  # evenly, where it must repeat


def check_turns_are_shuffled_again(order):
    # The class of 3 images: the orders of its turns, over epochs.
    seen = [e[LABELS[e] == 3] for e in drawn(order).reshape(EPOCHS, -1)]
    turns = [tuple(t) for s in seen for t in s[: len(s) // 3 * 3].reshape(-1, 3)]
    assert len(set(turns)) == 6 and len({t[0] for t in turns}) == 3


def check_epochs_differ_and_repeat(order):
    epochs = drawn(order, seeds=2).reshape(2 * EPOCHS, -1)
    assert len({e.tobytes() for e in epochs}) == 2 * EPOCHS
    np.testing.assert_array_equal(epochs, drawn(order, seeds=2).reshape(2 * EPOCHS, -1))


def check_classes_meet_evenly(order):
    """All pairs of classes share a batch about equally often."""
    batches = drawn(order, seeds=6).reshape(-1, BATCH)
    pairs = [p for b in batches for p in itertools.combinations(np.unique(LABELS[b]).tolist(), 2)]
    counts = np.array([pairs.count(p) for p in itertools.combinations(SIZES, 2)])
    mean = len(pairs) / len(counts)
    # Five deviations of a binomial around the mean; a batch holds 3 of the 10 pairs.
    assert np.abs(counts - mean).max() < 5 * np.sqrt(mean * 0.7)


def permutation(labels, seed, epoch):
    return pipeline.epoch_order(N, seed, epoch)[: STEPS * BATCH]


def generator(seed, epoch):
    return np.random.default_rng([seed, epoch])


def classes_drawn_freely(labels, seed, epoch):
    """Different classes in a batch, but each batch by itself; images without regard to turns."""
    random = generator(seed, epoch)
    batches = []
    for _ in range(STEPS):
        for c in random.choice(list(SIZES), P, replace=False):
            batches.append(random.choice(np.flatnonzero(labels == c), K))
    return np.concatenate(batches)


def classes_by_their_images(labels, seed, epoch):
    random = generator(seed, epoch)
    share = np.array(list(SIZES.values())) / N
    batches = []
    for _ in range(STEPS):
        for c in random.choice(list(SIZES), P, replace=False, p=share):
            images = np.flatnonzero(labels == c)
            batches.append(random.choice(images, K, replace=len(images) < K))
    return np.concatenate(batches)


def by_turns(classes, images):
    """Groups out of what `classes` and `images` yield, without interleaving."""
    return np.concatenate([next(images[c]) for _ in range(STEPS) for c in next(classes)])


def groups(endless, size):
    while True:
        yield [next(endless) for _ in range(size)]


def end_to_end(items, random):
    while True:
        yield from random.permutation(items).tolist()


def one_shuffle(items, random):
    yield from itertools.cycle(random.permutation(items).tolist())


def turns_end_to_end(labels, seed, epoch):
    """Permutations end to end, which may hold a class or an image twice where two of them meet."""
    random = generator(seed, epoch)
    images = {c: groups(end_to_end(np.flatnonzero(labels == c), random), K) for c in SIZES}
    return by_turns(groups(end_to_end(list(SIZES), random), P), images)


def never_shuffled_again(labels, seed, epoch):
    random = generator(seed, 0)
    images = {c: groups(one_shuffle(np.flatnonzero(labels == c), random), K) for c in SIZES}
    return by_turns(groups(one_shuffle(list(SIZES), random), P), images)


CHECKS = [
    check_classes_by_images,
    check_no_class_is_more_common,
    check_images_come_in_turn,
    check_no_image_twice_in_a_batch,
    check_turns_are_shuffled_again,
    check_epochs_differ_and_repeat,
    check_classes_meet_evenly,
]


@pytest.mark.parametrize("check", CHECKS)
def test_balanced_order(check):
    check(ours)


@pytest.mark.parametrize(
    "check, wrong",
    [
        (check_classes_by_images, permutation),
        (check_no_class_is_more_common, permutation),
        (check_no_class_is_more_common, classes_drawn_freely),
        (check_no_class_is_more_common, classes_by_their_images),
        (check_images_come_in_turn, classes_drawn_freely),
        (check_no_image_twice_in_a_batch, classes_drawn_freely),
        (check_classes_by_images, turns_end_to_end),
        (check_no_image_twice_in_a_batch, turns_end_to_end),
        (check_turns_are_shuffled_again, never_shuffled_again),
        (check_epochs_differ_and_repeat, never_shuffled_again),
        (check_classes_meet_evenly, classes_by_their_images),
    ],
)
def test_the_checks_refuse_wrong_samplers(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)


def test_a_batch_lists_its_classes_in_turn():
    labels = LABELS[ours(LABELS, 0, 0)].reshape(STEPS, K, P)
    assert (labels == labels[:, :1]).all()
    # So that each of two parts has them all.
    halves = labels.reshape(STEPS, 2, -1)
    assert all(set(a) == set(b) for a, b in halves)


def test_a_large_class_is_gone_through_over_epochs():
    assert set(drawn(ours, seeds=4).ravel().tolist()) == set(range(N))


def test_every_class_in_every_batch():
    labels = np.arange(30) % 5
    order = balanced_order(labels, 10, 5, seed=0, epoch=0)
    # 6 of each and K = 2: every image once, as without balancing.
    assert sorted(order.tolist()) == list(range(30)) and order.dtype == np.int64
    assert all(np.bincount(b).tolist() == [2] * 5 for b in labels[order].reshape(3, 10))


def test_order_depends_on_which_images_are_of_one_class_only():
    renamed = np.searchsorted(list(SIZES), LABELS) * 7 - 3
    np.testing.assert_array_equal(ours(LABELS, 1, 2), ours(renamed, 1, 2))
    np.testing.assert_array_equal(ours(LABELS, 1, 2), ours(LABELS.tolist(), 1, 2))


@pytest.mark.parametrize(
    "known, batch_size, expected",
    [
        (10, 64, 8),  # of 2, 4, 8 at most 10
        (10, 512, 8),
        (10, 40, 10),
        (10, 32, 8),  # K = 4
        (10, 16, 4),
        (100, 64, 16),
        (3, 64, 2),
        (3, 6, 2),  # K = 3: nothing leaves four
        (3, 9, 3),
        (2, 4, 2),
        (7, 35, 7),
    ],
)
def test_the_default_number_of_classes(known, batch_size, expected):
    labels = np.arange(1000) % known
    assert classes_per_batch(labels, batch_size) == expected
    assert classes_per_batch(labels, batch_size, expected) == expected
    order = balanced_order(labels, batch_size, 0, 0, 0)
    assert len(np.unique(labels[order[:batch_size]])) == expected


PAIRS = np.arange(20) % 5


@pytest.mark.parametrize(
    "labels, batch_size, classes, message",
    [
        (None, 4, 2, "`labels` must be given to balance the classes. Received: labels=None"),
        ([7] * 9, 4, 2, "at least 2 classes. Received: 1 in 9 labels"),
        ([], 4, 2, "at least 2 classes. Received: 0 in 0 labels"),
        ([0, 0, 8], 4, 2, "`labels` must hold at least 2 images.*Received: 1 image of label 8$"),
        ([5, 0, 0, 8], 4, 2, r"Received: 1 image of label 5 and 1 other class\(es\)$"),
        (PAIRS, 4, 1, "`classes` must be between 2 and .*, 5. Received: classes=1$"),
        (PAIRS, 12, 6, "between 2 and the number of classes, 5. Received: classes=6"),
        (PAIRS, 4, -1, "Received: classes=-1"),
        (PAIRS, 7, 3, "`batch_size` must be a multiple of `classes`.*batch_size=7, classes=3"),
        (PAIRS, 3, 3, "with at least 2 images of each. Received: batch_size=3, classes=3"),
        (PAIRS, 7, 0, "`batch_size` must be a multiple"),
        (PAIRS, 0, 2, "Received: batch_size=0, classes=2"),
        (PAIRS, 22, 2, "number of images, 20. Received: batch_size=22"),
    ],
)
def test_refusals(labels, batch_size, classes, message):
    with pytest.raises(ValueError, match=message):
        balanced_order(labels, batch_size, classes, seed=0, epoch=0)


def test_groups_are_turns_end_to_end_and_hold_nothing_twice():
    random = np.random.default_rng(0)
    for n, size in itertools.product(range(1, 8), range(1, 8)):
        turns = balanced._turns(np.arange(n), size, random)
        drawn_groups = np.array([next(turns) for _ in range(3 * n)])
        counts = np.bincount(drawn_groups.ravel(), minlength=n)
        assert counts.tolist() == [3 * size] * n  # 3 n groups are 3 size whole turns
        assert all(len(set(g)) == min(n, size) for g in drawn_groups.tolist())
