"""Small things that several test modules share: images, models, arrays of tensors."""

import signal

import keras
import numpy as np
from keras import ops

from simsiam_keras import callbacks, heads, losses, optimizers
from simsiam_keras.methods.ablations import AblatedSimSiam
from simsiam_keras.methods.simsiam import SimSiam

SHAPE, D = (8, 8, 3), 16


def numpy(x):
    return ops.convert_to_numpy(x)


def noise(size, n=4, seed=0):
    """Images of noise, float32 `[n, size, size, 3]`."""
    return np.random.default_rng(seed).uniform(0, 255, (n, size, size, 3)).astype("float32")


def pixels(*shape, seed=0):
    """Images of noise, uint8 of any shape."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")


def tiny_encoder(width=12):
    """A convolution with batch normalization, its features averaged over space."""
    images = keras.Input((None, None, SHAPE[-1]))  # of any size, for small views
    x = keras.layers.Rescaling(1 / 64, offset=-2.0)(images)
    x = keras.layers.Conv2D(width, 3, strides=2, use_bias=False, name="conv")(x)
    x = keras.layers.ReLU()(heads.batch_norm(name="conv_norm")(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="encoder")


def randomized(model, seed=0):
    """Random statistics and offsets, so that no normalization is the identity by accident."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        if v.path.endswith(("beta", "moving_mean")):
            v.assign(rng.normal(size=v.shape))
        if v.path.endswith("moving_variance"):
            v.assign(rng.uniform(0.5, 2, size=v.shape))
    return model


def mean_of(loss, **reduction):
    """The mean of per-sample values as Keras's losses are called: `f(target, output)`."""
    mean = losses.BatchMean(**reduction)
    return lambda target, output: mean(loss(output, target))


def double(x):
    """A tensor of any dtype as a float64 array."""
    return ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")


def simsiam(seed=0, predictor=None, cls=SimSiam, **arguments):
    """SimSiam on the tiny encoder, with the weights of a seed."""
    keras.utils.set_random_seed(seed)
    predictor = heads.predictor(4) if predictor is None else predictor
    return cls(tiny_encoder(), heads.projector(D), predictor, **arguments)


def ablated(**arguments):
    """The same with switches."""
    return simsiam(cls=AblatedSimSiam, **arguments)


def stopped(stop_gradient, **arguments):
    """SimSiam, or it without the stop-gradient."""
    return simsiam(**arguments) if stop_gradient else ablated(stop_gradient=False, **arguments)


def images(n=8, seed=0):
    """Images of noise, float32 `[n, *SHAPE]`."""
    return np.random.default_rng(seed).uniform(0, 255, size=(n, *SHAPE)).astype("float32")


@keras.saving.register_keras_serializable("simsiam_keras_tests")
class MirrorAndDim(keras.layers.Layer):
    """Two fixed views: the image mirrored, and the image at half its brightness."""

    def call(self, x, training=False):
        return ops.flip(x, axis=2), x * 0.5


def two_views(x):
    """What `MirrorAndDim` makes, as arrays."""
    return x[:, :, ::-1], x * np.float32(0.5)


def compiled_model(model, optimizer=None):
    model.compile(optimizer or optimizers.SGD(0.05, weight_decay=5e-4))
    return model


def fit(model, data, steps=1):
    """The loss of each of a few steps on the same batch."""
    history = [model.fit(data, batch_size=len(images()), verbose=0).history for _ in range(steps)]
    return [h["loss"][0] for h in history]


def outputs_of(model, x1, x2):
    """A method's outputs on two views in training mode, as float64 arrays."""
    return {name: double(v) for name, v in model((x1, x2), training=True).items()}


class StoppedAfterTwo(callbacks.Checkpoint):
    """Is interrupted after the second epoch's checkpoint."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if epoch == 1:
            signal.raise_signal(signal.SIGINT)
