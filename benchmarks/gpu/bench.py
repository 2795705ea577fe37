"""Stage `bench`: images a second of a training step, ours on JAX and plain PyTorch, interleaved.

Each side is a process of its own, idle but for its turns. They are started one after the other,
since XLA chooses kernels by timing them while it compiles. A turn makes as many steps as fill it
and waits for the last, as training does, not for each.
"""

import argparse
import os
import time

from benchmarks import common
from benchmarks.gpu import sizes
from benchmarks.step import forward_macs, same_work, step_flop

MATRIX = "matrix product, bfloat16"
OURS = "ours on JAX, images on the device"
FIT = "ours on JAX, `fit` fed by the host as `pretrain` does"
PLAIN = "plain PyTorch"
# name: (backend, what its process is asked for)
TURNS = {MATRIX: ("jax", "product"), OURS: ("jax", "step"), FIT: ("jax", "fit")}
TURNS |= {PLAIN: ("torch", "step")}
WARM_UP = 3  # steps: the first compiles, and torch.compile once more at the second


def run(size_name):
    """Everything that this stage measures, as JSON."""
    size = sizes.SIZES[size_name]
    running, left_out = {}, {}
    for backend in ("jax", "torch"):
        started, failed = common.start(
            "benchmarks.gpu.bench", {backend: (backend, backend, size_name)}
        )
        running |= started
        left_out |= failed
    if "jax" not in running:
        raise common.LeftOut(left_out["jax"])
    turns = {name: turn for name, turn in TURNS.items() if turn[0] in running}
    seconds = {name: [] for name in turns}
    for _ in range(size.rounds):
        for name, (backend, request) in turns.items():
            seconds[name].append(running[backend](request))
    hellos = {backend: process.hello for backend, process in running.items()}
    for process in running.values():
        process.close()
    cfg = size.config()
    return {
        "size": size_name,
        "network": f"{cfg.encoder}, stem {cfg.stem}, width {cfg.width}, heads {cfg.output_dim} and "
        f"{cfg.predictor_hidden}",
        "parameters": same_work(hellos),
        "batch_size": cfg.batch_size,
        "precision": cfg.precision,
        "device": hellos["jax"]["device"],
        "versions": [hello["versions"] for hello in hellos.values()],
        "step_flop": hellos["jax"]["flop"],
        "product_flop": 2 * size.product**3,
        "seconds": seconds,
        "turn_seconds": size.seconds,
        "left_out": {PLAIN: left_out["torch"]} if "torch" in left_out else {},
    }


def seconds_a_step(run, seconds):
    """Seconds of one of as many steps as fill `seconds`, at least three.

    `run(steps)` makes at least so many, waits for the last and returns how many it made.
    """

    def timed(steps):
        start = time.perf_counter()
        made = run(steps)
        return (time.perf_counter() - start) / made

    return timed(max(3, round(seconds / timed(3))))


def jax_side(size):
    """What the JAX process says first, and its turns."""
    import jax

    from benchmarks.gpu import resident
    from benchmarks.loop import make_ticks
    from simsiam_keras.data import ArraySource, training_images

    cfg, images = size.config(), size.pictures()
    model = resident.build(cfg, len(images))
    hello = {
        "versions": common.versions(("jax", "jaxlib", "keras")),
        "device": jax.devices()[0].device_kind,
        "parameters": sum(v.value.size for v in model.trainable_variables),
        "flop": step_flop(
            forward_macs(model.encoder, model.projector, model.predictor), cfg.batch_size
        ),
    }
    run = resident.runner(model, resident.step_of(model), images, cfg.batch_size)
    source = ArraySource("generated", images, fingerprint="generated")
    start = jax.random.normal(jax.random.key(0), (size.product,) * 2, "bfloat16")
    square = start / size.product**0.5  # a product with it keeps its spread
    multiply = jax.jit(lambda x: x @ square)

    def multiplied(products):
        x = start
        for _ in range(products):
            x = multiply(x)
        x.block_until_ready()
        return products

    def fit(steps):
        ticks = make_ticks(steps)
        batches = training_images(source, cfg.batch_size, epochs=10**6)
        model.fit(batches, epochs=1, steps_per_epoch=steps, verbose=0, callbacks=[ticks])
        first, last = ticks.times
        return (last - first) / (steps - 1)

    def fitted():
        steps = max(3, round(size.seconds / fit(3)))
        return fit(steps)

    turns = {
        "product": lambda: seconds_a_step(multiplied, size.seconds),
        "step": lambda: seconds_a_step(run, size.seconds),
        "fit": fitted,
    }
    for warm_up in (multiplied, run, fit):
        warm_up(WARM_UP)
    return hello, turns


def torch_side(size):
    """What PyTorch's process says first, and its turns."""
    import torch

    from benchmarks.gpu import plain

    model, run = plain.runner(size.config(), size.recipe(), size.pictures())
    hello = {
        "versions": common.versions(("torch",)),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "compiled": torch.cuda.is_available(),
    }
    run(WARM_UP)
    return hello, {"step": lambda: seconds_a_step(run, size.seconds)}


def main():
    """Be the process of a side."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("side", choices=("jax", "torch"))
    parser.add_argument("size", choices=sizes.SIZES)
    arguments = parser.parse_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the other side needs memory too
    side = {"jax": jax_side, "torch": torch_side}[arguments.side]
    hello, turns = side(sizes.SIZES[arguments.size])
    common.serve(hello, lambda request: turns[request]())


if __name__ == "__main__":
    main()
