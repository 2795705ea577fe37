"""Images that stay on the device, and many training steps of them in one program, on JAX.

A step then waits neither for a copy of its images nor for Python. The decision is made here; what
is computed is Keras's own step.
"""

import math

import keras

from simsiam_keras import devices, distribute
from simsiam_keras.data.rows import KEPT, all_images

SHARE = 0.25  # of the device's memory that images may take unasked
MOST_STEPS = 100  # in one program unasked: seconds between two looks at a signal


def wanted(cfg, source, size):
    """Whether a run keeps its images on the device.

    Args:
        cfg: a `config.Pretrain`.
        source: the training images.
        size: `(height, width)` of the canvas on which they lie; None: they have one size already.

    Raises:
        ValueError: if `--data_on_device=on` cannot be.
    """
    why_not = _why_not(cfg)
    if cfg.data_on_device == "on" and why_not:
        raise ValueError(f"--data_on_device=on needs {why_not}")
    if cfg.data_on_device != "auto" or why_not:
        return cfg.data_on_device == "on"
    free = devices.accelerator_memory()
    return free is not None and nbytes(source, size) <= SHARE * free


def _why_not(cfg):
    needs = {
        "--backend=jax": keras.backend.backend() == "jax",
        "--augment=device": cfg.augment == "device",
        "a compiled step: leave out --jit=off": cfg.jit != "off",
        "one device: add --strategy=none": not distribute.spread(),
    }
    return next((need for need, met in needs.items() if not met), None)


def nbytes(source, size):
    """Bytes of all images of a source on canvases of `size`, or as they are."""
    shape = (*size, source.channels) if size else source.image_shape
    return len(source) * math.prod(shape)


def steps_per_execution(asked, steps):
    """Steps in one program: those asked for, else as many as divide an epoch, 100 at most.

    Args:
        asked: `--steps_per_execution`; 0 leaves it to this rule.
        steps: optimizer calls in an epoch.

    Raises:
        ValueError: if an epoch is no multiple of those asked for.

    Example:
    >>> steps_per_execution(0, 390)
    78
    """
    if not asked:
        return max(n for n in range(1, min(MOST_STEPS, steps) + 1) if steps % n == 0)
    if steps % asked:
        divisors = ", ".join(str(n) for n in range(1, steps + 1) if steps % n == 0)
        raise ValueError(
            f"--steps_per_execution must divide the {steps} steps of an epoch: {divisors}. "
            f"Received: {asked}"
        )
    return asked


def batches(images, rows):
    """What `fit` takes: all images, and which of them the next steps take.

    Args:
        images: what `put` gives.
        rows: of `data.rows.training_rows`.

    Yields:
        `({**images, **rows},)`.
    """
    for chosen in rows:
        yield ({**images, **chosen},)


def put(source, size):
    """All images of a source on the device, as `data.rows.all_images` gives them."""
    import jax

    return jax.device_put(all_images(source, size))


def train_function(model):
    """What `fit` calls: as many of Keras's steps as a batch has lists of rows, in one program.

    Keras's own `steps_per_execution` comes back to Python after every step on JAX.

    Args:
        model: a compiled method.

    Returns:
        A function of Keras's state and an iterator of `batches`, to logs and state.
    """
    import jax

    def steps(state, data):
        (batch,) = data
        kept = {name: x for name, x in batch.items() if name in KEPT}
        rows = {name: x for name, x in batch.items() if name not in KEPT}

        def step(state, rows):
            logs, after = model.train_step(state, ({**kept, **rows},))
            # Keras gives back lists for tuples.
            return jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(after)), logs

        state, logs = jax.lax.scan(step, state, rows)
        return jax.tree.map(lambda x: x[-1], logs), state

    steps = jax.jit(steps, donate_argnums=0)
    return lambda state, iterator: steps(state, next(iterator))
