"""Images a second of a training step, ours on JAX and plain PyTorch, in turns.

Each side is a process of its own, idle but for its turns. They are started one after the other,
since XLA chooses kernels by timing them while it compiles. The images are on the device, a step is
told which of them to take and makes their views; ours are the steps of `pretrain`, several in one
program. A turn makes as many steps as fill it and waits for the last, as training does, not for
each. At the end ours says which kernels took the time.
"""

import collections
import dataclasses
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import common
from benchmarks.gpu import sizes
from benchmarks.step import forward_macs, same_work, step_flop

MATRIX = "matrix product, bfloat16"
OURS = "ours on JAX"
PLAIN = "plain PyTorch"
EARLY, LATE = "the run's early step", "the run's late step"
# A process: its backend.
SIDES = {"jax": "jax", "run": "jax", "torch": "torch"}
# name: (process, what it is asked for)
TURNS = {
    MATRIX: ("jax", "product"),
    OURS: ("jax", "step"),
    PLAIN: ("torch", "step"),
    EARLY: ("run", "early"),
    LATE: ("run", "late"),
}
WARM_UP = 3  # steps: the first compiles, and torch.compile once more at the second
KERNELS = 40  # of which the time is told


def run(size, flags, say):
    """What is measured, as JSON; `flags` are the run's, `say` takes a sentence."""
    sides = {name: (backend, name, size.name, *flags) for name, backend in SIDES.items()}
    running, left_out = common.start("benchmarks.gpu.bench", sides, say)
    seconds = {name: [] for name, turn in TURNS.items() if turn[0] in running}
    try:
        if "jax" not in running:
            raise common.LeftOut(left_out["jax"])
        for _ in range(size.rounds):
            for name, times in seconds.items():
                side, request = TURNS[name]
                times.append(running[side](request))
                say(f"{name}: {1000 * times[-1]:.2f} ms")
        kernels = {}
        for side, request in (("jax", "step"), ("run", "late")):
            if side in running:
                kernels[side] = running[side](f"profile {request}")
    finally:
        for process in running.values():
            process.close()
    hellos = {name: process.hello for name, process in running.items()}
    paper = {name: hello for name, hello in hellos.items() if name != "run"}
    return {
        **hellos["jax"],
        "parameters": same_work(paper),
        "versions": [hello["versions"] for hello in paper.values()],
        "seconds": seconds,
        "run": hellos.get("run"),
        "warm_up": {name: hello["warm_up"] for name, hello in hellos.items()},
        "kernels": kernels,
        "left_out": left_out,
    }


def seconds_a_step(run, seconds):
    """Seconds of one of as many steps as fill `seconds`.

    `run(steps)` waits for the last and tells how many there were, a few more than were asked for.
    """

    def timed(steps):
        start = time.perf_counter()
        done = run(steps)
        return (time.perf_counter() - start) / done

    return timed(max(3, round(seconds / timed(3))))


def steps_of(cfg, recipe, images, chunk):
    """The model of a configuration, and a function that makes at least so many steps of it."""
    import jax
    import keras

    from simsiam_keras import build, devices, resident
    from simsiam_keras.data import ArraySource, pipeline, rows

    keras.utils.set_random_seed(cfg.seed)
    keras.config.set_dtype_policy(cfg.precision)
    executions = pipeline.steps_per_epoch(len(images), chunk * cfg.batch_size)
    source = ArraySource("generated", images[: executions * chunk * cfg.batch_size])
    with devices.on_host():
        model, _ = build.model(cfg, recipe, executions * chunk)
        model.optimizer.build(model.trainable_variables)
    carried = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    # Copies, since a step uses up what it is given.
    state = tuple([jax.device_put(np.asarray(variable)) for variable in part] for part in carried)
    execute = resident.train_function(model)
    chunks = rows.training_rows(source, cfg.batch_size, chunk, epochs=sys.maxsize)
    batches = resident.batches(resident.put(source, None), chunks)

    def stepped(steps):
        nonlocal state
        done = 0
        while done < steps:
            logs, state = execute(state, batches)
            done += chunk
        logs["loss"].block_until_ready()
        return done

    return model, stepped


def jax_side(size):
    """What the JAX process says first, and what its turns run: the steps of `pretrain`."""
    import jax

    cfg = size.config()
    model, stepped = steps_of(cfg, size.recipe(), size.pictures(), size.chunk)
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
    start = jax.random.normal(jax.random.key(0), (size.product,) * 2, "bfloat16")
    square = start / size.product**0.5  # a product with it keeps its spread
    multiply = jax.jit(lambda x: x @ square)

    def multiplied(products):
        x = start
        for _ in range(products):
            x = multiply(x)
        x.block_until_ready()
        return products

    return hello, {"product": multiplied, "step": stepped}


def run_side(size, flags):
    """The steps of the run that is planned, with its smaller and its larger views."""
    from simsiam_keras import build, config

    cfg, images = config.parse("pretrain", flags), size.pictures()
    late = build.recipe(cfg)
    early = dataclasses.replace(late, size=cfg.early_size or late.size)
    hello = {"batch_size": cfg.batch_size, "method": cfg.method, "views": cfg.full_views}
    runs = {"late": steps_of(cfg, late, images, size.chunk)[1]}
    runs["early"] = runs["late"]  # without smaller views there is nothing else to compile
    if early != late:
        runs["early"] = steps_of(cfg, early, images, size.chunk)[1]
    return hello, runs


def profile(run, steps):
    """Where the device's time goes, `[[kernel, milliseconds of a step, calls of a step]]`."""
    import jax

    spent, calls = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            done = run(steps)
        for path in Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
                if not plane.name.startswith("/device:GPU"):
                    continue
                for line in plane.lines:
                    for event in line.events if line.name.startswith("Stream") else ():
                        name = re.sub(r"[_.]?[0-9]+$", "", event.name)[:120]
                        spent[name] += event.duration_ns / 1e6 / done
                        calls[name] += 1 / done
    return [[name, time, calls[name]] for name, time in spent.most_common(KERNELS)]


def torch_side(size):
    """What PyTorch's process says first, and what its turns run."""
    from benchmarks.gpu import plain

    model, run = plain.runner(size.config(), size.recipe(), size.pictures())
    hello = {
        "versions": common.versions(("torch",)),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    return hello, {"step": run}


def main(side, size, *flags):
    """Be the process of a side; `flags` are those of the run."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the other side needs memory too
    size = sizes.SIZES[size]
    start = time.perf_counter()
    if side == "run":
        hello, runs = run_side(size, flags)
    else:
        hello, runs = {"jax": jax_side, "torch": torch_side}[side](size)
    made = time.perf_counter()
    hello["warm_up"] = {"setup": round(made - start, 1)}
    for name, run in runs.items():
        began = time.perf_counter()
        run(WARM_UP)
        hello["warm_up"][name] = round(time.perf_counter() - began, 1)

    def turn(request):
        if request.startswith("profile "):
            return profile(runs[request.removeprefix("profile ")], size.chunk)
        return seconds_a_step(runs[request], size.seconds)

    common.serve(hello, turn)


if __name__ == "__main__":
    main(*sys.argv[1:])
