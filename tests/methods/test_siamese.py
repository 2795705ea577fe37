"""The supervised twins: what they take, which loss they compute on it, that they learn from it."""

import keras
import numpy as np
import pytest

from simsiam_keras import encoders
from simsiam_keras.methods.siamese import SiameseContrastive, SiameseTriplet
from tests import oracle
from tests.tiny import double as numpy
from tests.tiny import images, tiny_encoder

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def tiny(cls, seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    return cls(tiny_encoder(), **arguments)


def loss_of(model, batch):
    return float(model.compute_loss(y_pred=model(batch, training=True)))


def outputs_of(model, *views):
    return [numpy(model.encoder(x, training=True)) for x in views]


@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_contrastive_over_all_pairs_of_a_batch(margin):
    model = tiny(SiameseContrastive, margin=margin)
    (z,) = outputs_of(model, images())
    batch = {"views": (images(),), "labels": LABELS}
    expected = np.mean(oracle.contrastive_batch(z, LABELS, margin))
    np.testing.assert_allclose(loss_of(model, batch), expected, rtol=1e-4)
    with pytest.raises(AssertionError):  # labels that nobody reads
        wrong = np.mean(oracle.contrastive_batch(z, np.arange(8), margin))
        np.testing.assert_allclose(loss_of(model, batch), wrong, rtol=1e-4)


def test_contrastive_on_given_pairs():
    model, same = tiny(SiameseContrastive), np.array([1, 0, 1, 0, 0, 1, 0, 1])
    x1, x2 = images(seed=0), images(seed=1)
    z1, z2 = outputs_of(model, x1, x2)
    batch = {"views": (x1, x2), "same": same}
    distances = [oracle.euclidean(a, b) for a, b in zip(z1, z2, strict=True)]
    expected = [oracle.contrastive(d, y, 1.0) for d, y in zip(distances, same, strict=True)]
    np.testing.assert_allclose(loss_of(model, batch), np.mean(expected), rtol=1e-4)
    wrong = [oracle.contrastive(d, 1 - y, 1.0) for d, y in zip(distances, same, strict=True)]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(loss_of(model, batch), np.mean(wrong), rtol=1e-4)


@pytest.mark.parametrize(
    "mining, expected", [("all", oracle.triplet_all), ("hard", oracle.triplet_hard)]
)
def test_triplets_mined_from_a_batch(mining, expected):
    model = tiny(SiameseTriplet, mining=mining, margin=0.1)
    (z,) = outputs_of(model, images())
    loss = loss_of(model, {"views": (images(),), "labels": LABELS})
    np.testing.assert_allclose(loss, np.mean(expected(z, LABELS, 0.1)), rtol=1e-4)
    other = {"all": oracle.triplet_hard, "hard": oracle.triplet_all}[mining]
    for wrong in (other(z, LABELS, 0.1), expected(z, LABELS, 0.0)):
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(loss, np.mean(wrong), rtol=1e-4)


def test_given_triplets_pull_the_positive_and_push_the_negative():
    model = tiny(SiameseTriplet, margin=0.1)
    views = tuple(images(seed=seed) for seed in range(3))
    z = outputs_of(model, *views)
    rows = list(zip(*z, strict=True))
    distances = [(oracle.euclidean(a, p), oracle.euclidean(a, n)) for a, p, n in rows]
    expected = [oracle.triplet(d_ap, d_an, 0.1) for d_ap, d_an in distances]
    printed = [oracle.triplet(d_an, d_ap, 0.1) for d_ap, d_an in distances]  # the other way round
    loss = loss_of(model, {"views": views})
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-4)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(loss, np.mean(printed), rtol=1e-4)


CASES = [
    (SiameseContrastive, {}),
    (SiameseTriplet, {"mining": "hard"}),
    (SiameseTriplet, {"mining": "all"}),
]


@pytest.mark.parametrize("cls, arguments", CASES)
def test_a_few_steps_bring_classes_together_and_apart(cls, arguments):
    keras.utils.set_random_seed(0)
    model = cls(encoders.twin((8, 8, 3), width=8), **arguments)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    kinds = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3))
    noise = np.random.default_rng(1).normal(0, 60, (8, 8, 8, 3))
    batch = {"views": ((kinds[LABELS] + noise).astype("float32"),), "labels": LABELS}

    def gap():
        z = numpy(model.encoder(batch["views"][0]))
        d = np.array([[oracle.euclidean(a, b) for b in z] for a in z])
        same = LABELS[:, None] == LABELS[None]
        return d[~same].min() - d[same].max()

    before = gap()
    for _ in range(20):
        model.train_on_batch(batch)
    assert gap() > before + 0.1


@pytest.mark.parametrize("cls", [SiameseContrastive, SiameseTriplet])
def test_labels_are_asked_for(cls):
    with pytest.raises(ValueError, match="needs labels: batches of {'images': images, 'labels'"):
        loss_of(tiny(cls), {"views": (images(),)})


@pytest.mark.parametrize(
    ("cls", "arguments", "sentence"),
    [
        (SiameseContrastive, {"margin": 0.0}, "`margin` must be above 0"),
        (SiameseTriplet, {"margin": -1.0}, "`margin` must be above 0"),
        (SiameseTriplet, {"mining": "semi"}, "`mining` must be one of"),
    ],
)
def test_arguments_are_checked(cls, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(cls, **arguments)


@pytest.mark.parametrize("cls, arguments", [(SiameseContrastive, {}), CASES[2]])
def test_saved_and_loaded(cls, arguments, tmp_path):
    model = tiny(cls, margin=0.7, **arguments)
    model.save(tmp_path / "twin.keras")
    loaded = keras.saving.load_model(tmp_path / "twin.keras")
    assert loaded.margin == 0.7 and loaded.get_config().keys() == model.get_config().keys()
    batch = {"views": (images(),), "labels": LABELS}
    assert loss_of(loaded, batch) == pytest.approx(loss_of(model, batch), abs=1e-6)
