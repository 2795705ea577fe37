"""Stage `profile`: where the time of a step goes, from parts that are timed by themselves.

    python -m benchmarks.gpu.breakdown SIZE FILE

Every line is compiled and timed alone and written at once, so that a process that is cut off goes
on with the next line.
"""

import argparse
import functools
import json
from pathlib import Path

import jax
import keras
from keras import ops

from benchmarks.gpu import resident, sizes
from benchmarks.gpu.bench import WARM_UP, seconds_a_step
from simsiam_keras import runs

WHOLE = "whole step"
READY = "step on ready views"
BACKWARD = "forward and backward, on ready views"
FORWARD = "forward and loss, on ready views"
AUGMENTATION = "augmentation"
SCAN = "whole step, four in a call (`lax.scan`)"
BFLOAT16 = "whole step, batch normalization in bfloat16"
FLOAT32 = "whole step in float32"
STEPS_IN_A_CALL = 4


def measure(size, path):
    """Times the lines that a JSON file, `{"seconds": {line: seconds}}`, does not have yet."""
    found = json.loads(path.read_text()) if path.exists() else {"seconds": {}}
    for name, line in LINES.items():
        if name in found["seconds"]:
            continue
        run = line(size)
        run(WARM_UP)
        found["seconds"][name] = seconds_a_step(run, size.seconds)
        runs.write_json(path, found | {"device": jax.devices()[0].device_kind})


# Parts: functions of arrays that change nothing.


@functools.cache
def model_of(size, *flags):
    return resident.build(size.config(*flags), size.images)


def augmentation(size):
    return repeated(views_of(model_of(size)), batch(size))


def forward(size):
    return repeated(*loss_on_views(size))


def backward(size):
    loss, *arguments = loss_on_views(size)
    return repeated(jax.value_and_grad(loss, has_aux=True), *arguments)


def repeated(function, *arguments):
    """A function that calls a jitted function so many times, waits for the last, and says so."""
    function = jax.jit(function)

    def run(times):
        for _ in range(times):
            result = function(*arguments)
        jax.block_until_ready(result)
        return times

    return run


def batch(size):
    return jax.device_put(size.pictures()[: size.config().batch_size])


def views_of(model):
    """`images -> (x1, x2)`, the views of the augmenter's present step."""
    layer = model.augmenter
    values = [variable.value for variable in layer.non_trainable_variables]
    return lambda images: layer.stateless_call([], values, images, training=True)[0]


def loss_on_views(size):
    """`(trainable, views) -> (loss, what else a step updates)`, and its arguments."""
    model = model_of(size)
    trainable, other, optimizer, metrics = resident.state_of(model)

    def loss(trainable, views):
        value, (_, _, *updates) = model.compute_loss_and_updates(
            *(trainable, other, metrics, {"views": views}, None, None),
            training=True,
            optimizer_variables=optimizer,
        )
        return value, updates

    return loss, trainable, jax.jit(views_of(model))(batch(size))


# Whole steps, which hand their state on.


def whole(size, *flags):
    return stepping(size, resident.step_of(model_of(size, *flags)), *flags)


def ready(size):
    """Views instead of images lie on the device."""
    model = model_of(size)
    views = jax.jit(views_of(model))(batch(size))

    def step(state, images, rows):
        logs, state = model.train_step(state, ({"views": views},))
        return state, logs["loss"]

    return stepping(size, step)


def scan(size):
    """Steps of one call in one program: Keras's `steps_per_execution` on JAX calls each."""
    step = resident.step_of(model_of(size))

    def steps(state, images, rows):
        state, losses = jax.lax.scan(lambda state, rows: step(state, images, rows), state, rows)
        return state, losses[-1]

    return stepping(size, steps, batches=STEPS_IN_A_CALL)


def in_bfloat16(size):
    """Batch normalization with nothing but the moments in float32, which is Keras's otherwise."""
    keras_call = keras.layers.BatchNormalization.call
    keras.layers.BatchNormalization.call = _normalize
    try:
        run = whole(size)
        run(1)  # traces
        return run
    finally:
        keras.layers.BatchNormalization.call = keras_call


def _normalize(layer, inputs, training=None, mask=None):
    # In training, and for its time alone: E[x^2] - E[x]^2 cancels.
    x = ops.cast(inputs, "float32")
    mean = ops.mean(x, axis=layer._reduction_axes)
    variance = ops.mean(ops.square(x), axis=layer._reduction_axes) - ops.square(mean)
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + value * (1 - layer.momentum))
    scale = ops.rsqrt(ops.maximum(variance, 0.0) + layer.epsilon)
    scale = scale * layer.gamma if layer.scale else scale
    offset = layer.beta - mean * scale if layer.center else -mean * scale
    return inputs * ops.cast(scale, inputs.dtype) + ops.cast(offset, inputs.dtype)


def stepping(size, step, *flags, batches=1):
    batch_size = size.config(*flags).batch_size
    return resident.runner(model_of(size, *flags), step, size.pictures(), batch_size, batches)


LINES = {
    WHOLE: whole,
    READY: ready,
    BACKWARD: backward,
    FORWARD: forward,
    AUGMENTATION: augmentation,
    SCAN: scan,
    BFLOAT16: in_bfloat16,
    FLOAT32: lambda size: whole(size, "--precision=float32"),
}


def main():
    """Measure into a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("size", choices=sizes.SIZES)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    measure(sizes.SIZES[arguments.size], arguments.file)


if __name__ == "__main__":
    main()
