"""The training step on images that stay on the device: Keras's own step under one `jax.jit`.

`pretrain` hands each batch to `fit` from the host's memory. Here the images are on the device from
the beginning and a step is told only which of them to take, so that nothing but the step is timed.
"""

import jax
import keras

from simsiam_keras import train
from simsiam_keras.data import pipeline


def build(cfg, images):
    """The model of a configuration, compiled, with its optimizer's variables."""
    keras.utils.set_random_seed(cfg.seed)
    keras.config.set_dtype_policy(cfg.precision)
    steps = pipeline.steps_per_epoch(images, cfg.batch_size)
    model, _ = train.build_model(cfg, train.recipe_of(cfg), steps)
    model.optimizer.build(model.trainable_variables)
    return model


def state_of(model):
    """Copies of what `train_step` carries from step to step; a jitted step may use them up."""
    parts = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return tuple([jax.numpy.copy(variable.value) for variable in part] for part in parts)


def order(images, batch_size):
    """The rows of an epoch's batches on the device, `[steps, batch_size]`."""
    steps = pipeline.steps_per_epoch(images, batch_size)
    rows = pipeline.epoch_order(images, seed=0, epoch=0)[: steps * batch_size]
    return jax.device_put(rows.astype("int32").reshape(steps, batch_size))


def step_of(model):
    """`(state, images, rows) -> (state, loss)`, not yet compiled; rows are those of the batch."""

    def step(state, images, rows):
        logs, state = model.train_step(state, (images[rows],))
        return state, logs["loss"]

    return step


def runner(model, step, images, batch_size, batches=1):
    """A function that makes at least so many steps, waits for them and returns how many it made.

    Args:
        model: from `build`; it keeps its weights.
        step: `(state, images, rows) -> (state, loss)`, as of `step_of`; it is compiled here.
        images: uint8 `[n, side, side, 3]`.
        batch_size: images in a step.
        batches: steps that a call of `step` makes, with rows `[batches, batch_size]`; default 1,
            with rows `[batch_size]`.
    """
    step = jax.jit(step, donate_argnums=0)
    state, images, rows = state_of(model), jax.device_put(images), order(len(images), batch_size)
    whole = rows[: len(rows) // batches * batches]
    calls = list(whole if batches == 1 else whole.reshape(-1, batches, batch_size))
    made = 0

    def run(steps):
        nonlocal state, made
        count = -(-steps // batches)
        for _ in range(count):
            state, loss = step(state, images, calls[made % len(calls)])
            made += 1
        loss.block_until_ready()
        return count * batches

    return run
