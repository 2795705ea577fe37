"""The mean over the global batch."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import losses
from tests.conftest import ROOT
from tests.gradients import gradients_of_arrays


def check_batch_mean(mean):
    values = np.array([1.0, 2.0, 6.0, 7.0], "float32")
    np.testing.assert_allclose(float(mean(ops.convert_to_tensor(values))), 4.0)
    (gradient,) = gradients_of_arrays(mean, values)
    np.testing.assert_allclose(gradient, 0.25)


def test_batch_mean_is_the_mean():
    check_batch_mean(losses.BatchMean())
    assert losses.BatchMean(reduction=None)(ops.ones(3)).shape == (3,)


@pytest.mark.parametrize("wrong", ["sum", None])
def test_another_reduction_is_rejected(wrong):
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check_batch_mean(losses.BatchMean(reduction=wrong))


# Gradients of the weights of z = x w on two replicas of four rows each, and of all eight rows. The
# CPU must be split before TensorFlow uses it.
REPLICAS = """
import json
import keras, numpy as np, tensorflow as tf
from simsiam_keras import distribute, losses

random = np.random.default_rng(0)
x1, x2 = random.normal(size=(2, 8, 6)).astype("float32")
kernel = random.normal(size=(6, 5)).astype("float32")

def gradient(case):
    w = tf.Variable(kernel)
    @tf.function
    def step():
        context = tf.distribute.get_replica_context()
        first = 4 * context.replica_id_in_sync_group
        with tf.GradientTape() as tape:
            rows = (tf.constant(x)[first : first + 4] for x in (x1, x2))
            z, others = (tf.matmul(x, w) for x in rows)
            gathered = [context.all_gather(a, axis=0) for a in (z, others)]
            if case == "local":
                first, gathered = 0, [None, None]
            if case == "no gradient from others":
                gathered = map(tf.stop_gradient, gathered)
            values = losses.nt_xent(z, others, 0.5, first, *gathered)
            mean = tf.reduce_mean if case == "plain mean" else losses.BatchMean()
            loss = mean(values)
        return context.all_reduce("SUM", tape.gradient(loss, w))
    strategy = tf.distribute.get_strategy()
    return strategy.experimental_local_results(strategy.run(step))[0].numpy().tolist()

with distribute.scope("mirrored", 2):
    cases = ("", "local", "no gradient from others", "plain mean")
    found = {case: gradient(case) for case in cases}
w = tf.Variable(kernel)
with tf.GradientTape() as tape:
    loss = losses.BatchMean()(losses.nt_xent(tf.matmul(x1, w), tf.matmul(x2, w)))
print(json.dumps([tape.gradient(loss, w).numpy().tolist(), found]))
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs MirroredStrategy")
def test_two_replicas_have_the_gradient_of_one_and_known_mistakes_do_not():
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected, found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 4
    for case, gradient in found.items():
        same = np.allclose(gradient, expected, rtol=0, atol=1e-6)
        assert same == (case == ""), case


# BYOL's regression
