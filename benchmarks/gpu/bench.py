"""Images a second of a training step, ours on JAX and plain PyTorch, in turns.

Each side is a process of its own, idle but for its turns. They are started one after the other,
since XLA chooses kernels by timing them while it compiles. The images are on the device, a step is
told which of them to take and makes their views. A turn makes as many steps as fill it and waits
for the last, as training does, not for each.
"""

import os
import sys
import time

from benchmarks import common
from benchmarks.gpu import sizes
from benchmarks.step import forward_macs, same_work, step_flop

MATRIX = "matrix product, bfloat16"
OURS = "ours on JAX"
PLAIN = "plain PyTorch"
# name: (backend, what its process is asked for)
TURNS = {MATRIX: ("jax", "product"), OURS: ("jax", "step"), PLAIN: ("torch", "step")}
WARM_UP = 3  # steps: the first compiles, and torch.compile once more at the second


def run(size):
    """What is measured, as JSON."""
    running, left_out = {}, {}
    for backend in ("jax", "torch"):
        side = {backend: (backend, backend, size.name)}
        started, failed = common.start("benchmarks.gpu.bench", side)
        running |= started
        left_out |= failed
    turns = {name: turn for name, turn in TURNS.items() if turn[0] in running}
    seconds = {name: [] for name in turns}
    try:
        if "jax" not in running:
            raise common.LeftOut(left_out["jax"])
        for _ in range(size.rounds):
            for name, (backend, request) in turns.items():
                seconds[name].append(running[backend](request))
    finally:
        for process in running.values():
            process.close()
    hellos = {backend: process.hello for backend, process in running.items()}
    return {
        **hellos["jax"],
        "parameters": same_work(hellos),
        "versions": [hello["versions"] for hello in hellos.values()],
        "seconds": seconds,
        "left_out": left_out,
    }


def seconds_a_step(run, seconds):
    """Seconds of one of as many steps as fill `seconds`; `run(steps)` waits for the last."""

    def timed(steps):
        start = time.perf_counter()
        run(steps)
        return (time.perf_counter() - start) / steps

    return timed(max(3, round(seconds / timed(3))))


def jax_side(size):
    """What the JAX process says first, and what its turns run: Keras's own step in one `jit`."""
    import jax
    import keras

    from simsiam_keras import build
    from simsiam_keras.data import pipeline

    cfg, images = size.config(), size.pictures()
    keras.utils.set_random_seed(cfg.seed)
    keras.config.set_dtype_policy(cfg.precision)
    steps = pipeline.steps_per_epoch(len(images), cfg.batch_size)
    model, _ = build.model(cfg, build.recipe(cfg), steps)
    model.optimizer.build(model.trainable_variables)
    macs = forward_macs(model.encoder, model.projector, model.predictor)
    hello = {
        "network": f"{cfg.encoder}, stem {cfg.stem}, width {cfg.width}",
        "batch_size": cfg.batch_size,
        "precision": cfg.precision,
        "device": jax.devices()[0].device_kind,
        "versions": common.versions(("jax", "jaxlib", "keras")),
        "parameters": sum(v.value.size for v in model.trainable_variables),
        "step_flop": step_flop(macs, cfg.batch_size),
        "product_flop": 2 * size.product**3,
    }

    def step(state, images, rows):
        logs, state = model.train_step(state, (images[rows],))
        return state, logs["loss"]

    step = jax.jit(step, donate_argnums=0)
    carried = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    # Copies, since a step uses up what it is given.
    state = tuple([jax.numpy.copy(variable.value) for variable in part] for part in carried)
    order = pipeline.epoch_order(len(images), seed=0, epoch=0)[: steps * cfg.batch_size]
    batches = list(jax.device_put(order.astype("int32").reshape(steps, cfg.batch_size)))
    images, done = jax.device_put(images), 0

    def stepped(steps):
        nonlocal state, done
        for _ in range(steps):
            state, loss = step(state, images, batches[done % len(batches)])
            done += 1
        loss.block_until_ready()

    start = jax.random.normal(jax.random.key(0), (size.product,) * 2, "bfloat16")
    square = start / size.product**0.5  # a product with it keeps its spread
    multiply = jax.jit(lambda x: x @ square)

    def multiplied(products):
        x = start
        for _ in range(products):
            x = multiply(x)
        x.block_until_ready()

    return hello, {"product": multiplied, "step": stepped}


def torch_side(size):
    """What PyTorch's process says first, and what its turns run."""
    from benchmarks.gpu import plain

    model, run = plain.runner(size.config(), size.recipe(), size.pictures())
    hello = {
        "versions": common.versions(("torch",)),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    return hello, {"step": run}


def main(side, size):
    """Be the process of a side."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the other side needs memory too
    size = sizes.SIZES[size]
    hello, runs = {"jax": jax_side, "torch": torch_side}[side](size)
    for run in runs.values():
        run(WARM_UP)
    common.serve(hello, lambda request: seconds_a_step(runs[request], size.seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
