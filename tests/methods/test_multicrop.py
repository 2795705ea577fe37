"""SimSiam with small views beside the two: which predict what."""

import numpy as np
import pytest

from simsiam_keras import optimizers
from simsiam_keras.methods.ablations import AblatedSimSiam
from tests import oracle
from tests.tiny import ablated as tiny
from tests.tiny import double as numpy
from tests.tiny import images, tiny_encoder


def views(small):
    return (images(seed=0), images(seed=1)) + tuple(
        images(seed=2 + i)[:, 2:7, 1:6] for i in range(small)
    )


def by_hand(p, z, targets=(0, 1)):
    """The mean of D(p_i, z_j) over views i and full views j other than i."""
    values = [
        np.mean(oracle.distance(p[i], z[j])) for i in range(len(p)) for j in targets if i != j
    ]
    return sum(values) / len(values)


WRONG = {
    "small targets": lambda p, z: by_hand(p, z, range(len(z))),
    "one target": lambda p, z: by_hand(p, z, (0,)),
    "no small views": lambda p, z: by_hand(p[:2], z),
    "z for p": lambda p, z: by_hand(z, z),
}


def check_loss(small, expected):
    model = tiny(small_views=small)
    y = model(views(small), training=True)
    p, z = ([numpy(y[f"{name}{i}"]) for i in range(1, 3 + small)] for name in "pz")
    np.testing.assert_allclose(float(model.compute_loss(y_pred=y)), expected(p, z), atol=1e-6)


@pytest.mark.parametrize("small", [0, 1, 3])
def test_loss_equals_the_oracle(small):
    check_loss(small, by_hand)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_losses_are_rejected(name):
    with pytest.raises(AssertionError):
        check_loss(3, WRONG[name])


def test_small_views_go_through_the_same_weights_at_their_own_size():
    model = tiny(small_views=1)
    before = [numpy(v) for v in model.encoder.trainable_variables]
    count = len(model.variables)
    model.compile(optimizers.SGD(0.5), run_eagerly=True)
    model.train_on_batch({"views": views(1)})
    after = [numpy(v) for v in model.encoder.trainable_variables]
    assert all(abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))
    assert len(model.variables) == count  # no copy of the encoder


def test_small_views_need_symmetric_pairs():
    with pytest.raises(ValueError, match="`small_views` must be 0 where `symmetrization`"):
        AblatedSimSiam(tiny_encoder(), small_views=1, symmetrization="asym")


def test_another_number_of_views_is_refused():
    with pytest.raises(ValueError, match="takes 4 views of each image here. Received: 3"):
        tiny(small_views=2)(views(1), training=True)
