"""Images a second of training as `pretrain` does it, and what each part of the loop costs.

    python -m benchmarks.loop --output=benchmarks/results/loop.md

The network is that of the CPU recipe, small, so that everything around the step weighs most. Four
stages, each with one thing more: the bare step on a resident batch of ready views; `fit` over
batches read from memory without augmentation; with augmentation; with the callbacks of `pretrain`
and a progress bar, but without kNN, which is a measurement of its own whenever `--knn_every` says.
A backend's process takes each stage in turn, then the next backend's.

A stage is timed over two short epochs and told for one of CIFAR-10's 50,000 images: the time of a
step is taken within an epoch, and what lies between two epochs is added once.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks import common
from benchmarks.step import cpu_recipe, ready_views
from simsiam_keras import config

EPOCH = 50_000  # images of CIFAR-10
MODES = {
    "TensorFlow, host": ("tensorflow", "host"),
    "TensorFlow, device": ("tensorflow", "device"),
    "JAX, device": ("jax", "device"),
    "torch, device": ("torch", "device"),
}
STAGES = ("step", "feed", "augmentation", "callbacks")  # a name says what the stage adds
REACH = 0.9  # of the bare step's speed


def shares(seconds):
    """Share of the whole loop's time that each stage added, `{stage: share}`, the step's first.

    They sum to 1, so the step's is the whole loop's speed over the bare step's.
    """
    whole = seconds[STAGES[-1]]
    before = dict(zip(STAGES[1:], STAGES, strict=False))
    return {
        stage: (seconds[stage] - (seconds[before[stage]] if stage in before else 0)) / whole
        for stage in STAGES
    }


def epoch_seconds(step, between, batch_size):
    """Time of an epoch of CIFAR-10, of that of a step and that between two epochs."""
    return EPOCH // batch_size * step + between


def make_ticks(steps):
    """A callback that notes when the first and the last step of each epoch are done."""
    import keras

    class Ticks(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.times = []

        def on_train_batch_end(self, batch, logs=None):
            if batch in (0, steps - 1):
                float(logs["loss"])  # waits for the step
                self.times.append(time.perf_counter())

    return Ticks()


class Loop:
    """The stages of one backend and one way to augment; a stage's call gives its epoch's time."""

    def __init__(self, cfg, seconds):
        import keras

        from simsiam_keras import build
        from simsiam_keras.data import sources

        keras.utils.set_random_seed(0)
        self.cfg, self.recipe = cfg, build.recipe(cfg)
        images = common.smooth_images(4096, self.recipe.size)
        images = np.resize(images, (EPOCH, *images.shape[1:]))  # again and again the same
        self.source = sources.ArraySource("generated", images, fingerprint="generated")
        of_views = dataclasses.replace(cfg, augment="host")  # a model that is given its views
        steps = EPOCH // cfg.batch_size
        self.views_model, self.schedule = build.model(of_views, self.recipe, steps)
        self.model = self.views_model
        if cfg.augment == "device":
            self.model, _ = build.model(cfg, self.recipe, steps)
        self.ready = tuple(map(keras.ops.convert_to_tensor, ready_views(cfg.batch_size)))
        self.bare_step()
        steps = round(seconds / common.seconds_a_call(self.bare_step, seconds / 2))
        self.steps = min(max(3, steps), EPOCH // cfg.batch_size // 2)

    def bare_step(self):
        return self.views_model.train_on_batch(self.ready)

    def __call__(self, stage):
        return getattr(self, stage)()

    def step(self):
        start = time.perf_counter()
        for _ in range(self.steps):
            self.bare_step()
        step = (time.perf_counter() - start) / self.steps
        return epoch_seconds(step, 0, self.cfg.batch_size)

    def feed(self):
        return self.fit(self.views_model, self.host_views(lambda images, seed: (images, images)))

    def augmentation(self):
        return self.fit(self.model, self.augmented())

    def callbacks(self):
        with contextlib.ExitStack() as stack:
            return self.fit(self.model, self.augmented(), self.pretrain_callbacks(stack))

    def host_views(self, views):
        from simsiam_keras.data import pipeline

        if self.cfg.augment == "host":
            return pipeline.training_views(self.source, views, self.cfg.batch_size)
        return (views(*x, None) for x in pipeline.training_images(self.source, self.cfg.batch_size))

    def augmented(self):
        from simsiam_keras.data import pipeline

        if self.cfg.augment == "host":
            from simsiam_keras.augment.host import Views

            return self.host_views(Views(self.recipe))
        return pipeline.training_images(self.source, self.cfg.batch_size)

    def pretrain_callbacks(self, stack):
        """Those of `train.pretrain` but kNN, in its order, writing to a temporary run folder."""
        from rich.console import Console

        from simsiam_keras import board, callbacks, checkpoints, devices, monitors, views
        from simsiam_keras.progress import Progress

        cfg, epochs = self.cfg, 2
        measure = monitors.collapse_measures(
            monitors.monitored(self.model, make_copy=None),
            views.sample_pairs(cfg, self.recipe, self.source),
            devices.jit_compile(cfg.jit),
        )
        measure()  # compiles
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # The bar is drawn as on a terminal, where nobody sees it.
        console = Console(file=stack.enter_context(open(os.devnull, "w")), force_terminal=True)
        writer = stack.enter_context(contextlib.closing(board.Board(run_dir, console.print)))
        clock, rows = callbacks.Clock(self.steps * cfg.batch_size), []
        bar = Progress(epochs, clock, self.steps, cfg.batch_size, console)
        stack.callback(bar.close)
        write = functools.partial(checkpoints.save, run_dir, rows=rows)
        flags = dataclasses.asdict(cfg)
        return [
            clock,
            callbacks.StopOnNaN(run_dir, clock, self.steps),
            callbacks.Diagnosis(measure),
            callbacks.Row(rows, self.schedule, self.steps),
            callbacks.Record(run_dir, writer, rows),
            callbacks.Checkpoint(write, clock, cfg.checkpoint_every, epochs),
            callbacks.CollapseWatch(console.print, flags, rows, cfg.stop_on_collapse),
            bar,
        ]

    def fit(self, model, dataset, callbacks=()):
        ticks = make_ticks(self.steps)
        model.fit(
            dataset,
            epochs=2,
            steps_per_epoch=self.steps,
            verbose=0,
            callbacks=[*callbacks, ticks],
        )
        first, last, next_first, next_last = ticks.times
        step = (last - first + next_last - next_first) / (2 * self.steps - 2)
        between = next_first - last - step
        return epoch_seconds(step, between, self.cfg.batch_size)


def recipe_config(augment, flags=()):
    return config.parse("pretrain", [*cpu_recipe(augment=augment), *flags])


def serve(mode, arguments):
    """Be the process of a mode."""
    backend, augment = MODES[mode]
    loop = Loop(recipe_config(augment, arguments.flags), arguments.seconds)
    for stage in STAGES:
        loop(stage)  # compiles
    hello = {
        "versions": common.versions((backend, "keras")),
        "jit": loop.model.jit_compile,
        "steps": loop.steps,
    }
    common.serve(hello, loop)


def row(name, seconds, hello):
    """A line of the table, of `{stage: [round]}`."""
    medians = {stage: statistics.median(times) for stage, times in seconds.items()}
    share = shares(medians)
    ratios = [a / b for a, b in zip(seconds["step"], seconds["callbacks"], strict=True)]
    return (
        f"{name}{', jit' if hello['jit'] else ''}",
        *(f"{EPOCH / medians[stage]:,.0f}" for stage in STAGES),
        f"{100 * share['step']:.0f} %",
        f"{100 * min(ratios):.0f} - {100 * max(ratios):.0f} %",
        *(f"{100 * share[stage]:.1f} %" for stage in STAGES[1:]),
    )


def verdict(name, seconds):
    """A sentence: is the reach kept, and if not, what costs most."""
    share = shares({stage: statistics.median(times) for stage, times in seconds.items()})
    if share["step"] >= REACH:
        return f"{name}: at least {100 * REACH:.0f} % of the bare step's speed."
    worst = max(STAGES[1:], key=share.get)
    return f"{name}: {100 * share['step']:.0f} % of the bare step's speed; most goes to {worst}."


def report(seconds, hellos, left_out, machine, arguments):
    """What was measured, as Markdown."""
    cfg = recipe_config("host", arguments.flags)
    versions = {hello["versions"] for hello in hellos.values()}
    steps = ", ".join(f"{hello['steps']} on {name}" for name, hello in hellos.items())
    protocol = (
        f"- protocol: {cfg.encoder}, stem {cfg.stem}, width {cfg.width}, heads {cfg.output_dim} "
        f"and {cfg.predictor_hidden}, batch {cfg.batch_size}; {arguments.rounds} rounds of all "
        f"stages on every backend in turn, two epochs of {arguments.seconds:g} s each ({steps} "
        f"steps), told for an epoch of {EPOCH:,} images; medians. What a stage costs is its share "
        f"of the whole loop's time.\n"
    )
    head = ["images/s", "bare step", *(f"+ {stage}" for stage in STAGES[1:]), "whole / bare"]
    head += ["min - max", *(f"{stage} costs" for stage in STAGES[1:])]
    rows = [row(name, seconds[name], hellos[name]) for name in seconds]
    sentences = [verdict(name, seconds[name]) for name in seconds]
    sentences += [f"Left out: {name} ({reason})." for name, reason in left_out.items()]
    return (
        "# The whole loop: what surrounds the step\n\n"
        + common.setting("benchmarks.loop", machine, versions)
        + protocol
        + "\n"
        + common.table(head, rows)
        + "".join(f"\n{sentence}\n" for sentence in sentences)
    )


def main():
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default=",".join(common.BACKENDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of an epoch")
    parser.add_argument("--output", help="Markdown file to write as well")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument(
        "flags", nargs="*", help="after --: flags of pretrain, to change the recipe"
    )
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, arguments)

    machine = common.machine()
    passed = (f"--seconds={arguments.seconds}", "--", *arguments.flags)
    loops, left_out = common.start(
        "benchmarks.loop",
        {
            name: (backend, f"--serve={name}", *passed)
            for name, (backend, _) in MODES.items()
            if backend in arguments.backends.split(",")
        },
    )
    seconds = {name: {stage: [] for stage in STAGES} for name in loops}
    for _ in range(arguments.rounds):
        for name, loop in loops.items():
            for stage in STAGES:
                seconds[name][stage].append(loop(stage))
    hellos = {name: loop.hello for name, loop in loops.items()}
    common.publish(report(seconds, hellos, left_out, machine, arguments), arguments.output)


if __name__ == "__main__":
    main()
