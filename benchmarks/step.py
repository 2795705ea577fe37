"""Seconds of a training step: every backend, with and without jit, beside plain PyTorch.

    python -m benchmarks.step --output=benchmarks/results/step.md

A step takes a batch of ready views to updated weights: no data, no augmentation, no callbacks
(`benchmarks.loop` has those). Every contender is a process of its own, warm when the turns begin
and idle but for its turns, in which it makes as many steps as begin within `--seconds`, at least
one. A backend's own environment `.venv-BACKEND`, if there is one, goes before this Python. Plain
PyTorch (`benchmarks/plain_torch.py`) has the same parameters, or nothing is reported.
"""

import argparse
import dataclasses
import math
import os
import statistics
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks import common
from simsiam_keras import config

SIDE = 32
WARM_UP = 2  # steps before the turns: the first compiles, and torch.compile once more at the second
PRODUCT = 4096  # side of the matrices
NEAR = 1.05  # times whose ratio is below this count as equal

PLAIN = "plain PyTorch"
# name: (backend, --jit or plain)
CONTENDERS = {
    "TensorFlow + XLA": ("tensorflow", "on"),
    "TensorFlow": ("tensorflow", "off"),
    "JAX, jit": ("jax", "on"),
    "JAX, no jit": ("jax", "off"),
    "torch, compiled": ("torch", "on"),
    "torch": ("torch", "off"),
    PLAIN: ("torch", "plain"),
}
# Too slow for a large network, and never the choice of --jit=auto; measured at the smaller size.
HOPELESS = {
    "JAX, no jit": "runs operation by operation",
    "torch, compiled": "warms up for minutes, since each of Keras's layers breaks the graph",
}


@dataclass(frozen=True)
class Size:
    """A network and a batch."""

    title: str
    flags: tuple
    contenders: tuple
    left_out: dict = dataclasses.field(default_factory=dict)

    def config(self, jit="auto"):
        return config.parse("pretrain", [*self.flags, f"--jit={jit}"])


def cpu_recipe(**changes):
    """The flags of the CPU recipe, and what is changed of it."""
    flagfile = common.ROOT / "flags" / "cifar10_cpu.cfg"
    return (f"--flagfile={flagfile}", *(f"--{name}={value}" for name, value in changes.items()))


def xla_or_not(width):
    return Size(
        f"the CPU recipe {width} wide, for the rule of --jit=auto",
        cpu_recipe(width=width, batch_size=64),
        ("TensorFlow + XLA", "TensorFlow"),
    )


SIZES = {
    "resnet18": Size(
        "ResNet-18 with the paper's heads",
        ("--batch_size=64",),
        tuple(name for name in CONTENDERS if name not in HOPELESS),
        HOPELESS,
    ),
    "small": Size("the CPU recipe's network", cpu_recipe(batch_size=256), tuple(CONTENDERS)),
    **{f"width{width}": xla_or_not(width) for width in (16, 32, 64)},
    "tiny": Size(
        "a network for trying this script",
        cpu_recipe(width=8, batch_size=8, output_dim=16, predictor_hidden=4),
        tuple(CONTENDERS),
    ),
}


def ready_views(batch_size):
    """Two batches of uint8 images, `[2, n, side, side, 3]`."""
    shape = (2, batch_size, SIDE, SIDE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, "uint8")


def forward_macs(*models):
    """Multiplications of one forward pass of an image through functional Keras models.

    A convolution's or dense layer's kernel, `[..., inputs, outputs]`, is used once at every place
    of its output; all else is not counted.
    """
    return sum(
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for model in models
        for layer in model.layers
        if hasattr(layer, "kernel")
    )


def step_flop(macs, batch_size):
    """Floating-point operations of a step: two views, and backward is twice forward."""
    return 2 * 3 * 2 * macs * batch_size


def keras_contender(size, jit):
    """What a contender says first, and its step."""
    import keras

    from simsiam_keras import build

    def made(cfg):
        return build.model(cfg, dataclasses.replace(build.recipe(cfg), size=SIDE), 1000)[0]

    auto = made(size.config("auto")).jit_compile
    cfg = size.config(jit)
    model = made(cfg)
    views = tuple(keras.ops.convert_to_tensor(x) for x in ready_views(cfg.batch_size))
    hello = {
        "versions": common.versions((keras.backend.backend(), "keras")),
        "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
        "flop": step_flop(
            forward_macs(model.encoder, model.projector, model.predictor), cfg.batch_size
        ),
        "is_auto": auto == (jit == "on"),
    }
    return hello, lambda: model.train_on_batch(views)


def plain_contender(size, _):
    """What plain PyTorch says first, and its step."""
    import torch

    from benchmarks import plain_torch

    cfg = size.config()
    model = plain_torch.SimSiam(cfg)
    optimizer = plain_torch.sgd(model, cfg)
    x1, x2 = torch.from_numpy(ready_views(cfg.batch_size)).permute(0, 1, 4, 2, 3).contiguous()
    hello = {
        "versions": common.versions(("torch",)),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return hello, lambda: plain_torch.train_step(model, optimizer, x1, x2)


def serve(name, size, seconds):
    """Be the process of a contender."""
    _, way = CONTENDERS[name]
    make = plain_contender if way == "plain" else keras_contender
    hello, step = make(size, way)
    for _ in range(WARM_UP):
        step()
    common.serve(hello, lambda _: common.seconds_a_call(step, seconds))


def same_work(hellos):
    """Raise unless all contenders train the same number of parameters; returns it."""
    counts = {name: hello["parameters"] for name, hello in hellos.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"the contenders must train the same parameters. Received: {counts}")
    return next(iter(counts.values()))


def measure(contenders, rounds):
    """Seconds a step, `{name: [round]}`, and of a matrix product as `None`; they take turns."""
    matrix = np.random.default_rng(0).random((PRODUCT, PRODUCT), "float32")
    turns = {None: lambda: common.seconds_a_call(lambda: matrix @ matrix, 1), **contenders}
    turns[None]()
    seconds = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            seconds[name].append(turn())
    return seconds


def relative(seconds, to):
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(seconds, to, strict=True))


def contender_row(name, seconds, hello, flop, batch_size):
    """A line of the table."""
    own, median = seconds[name], statistics.median(seconds[name])
    product = 2 * PRODUCT**3 / statistics.median(seconds[None])
    plain = f"{relative(own, seconds[PLAIN]):.2f}" if PLAIN in seconds else ""
    return (
        name,
        f"{median:.3f}",
        f"{min(own):.3f} - {max(own):.3f}",
        f"{batch_size / median:,.0f}",
        f"{100 * flop / median / product:.0f} %",
        plain,
        "*" if hello.get("is_auto") else "",
    )


def compared(ratio):
    if ratio < 1 / NEAR:
        return "the faster way"
    return "the slower way" if ratio > NEAR else "one of two equal ways"


def verdicts(seconds, hellos):
    """Sentences: the best against plain PyTorch, and whether `--jit=auto` takes the faster way."""
    ours = {name: times for name, times in seconds.items() if name not in (None, PLAIN)}
    if PLAIN in seconds and ours:
        best = min(ours, key=lambda name: statistics.median(ours[name]))
        ratio = relative(ours[best], seconds[PLAIN])
        yield f"The fastest of ours, {best}, takes {ratio:.2f} of plain PyTorch's time."
    for backend in common.BACKENDS:
        both = {name: times for name, times in ours.items() if CONTENDERS[name][0] == backend}
        if len(both) == 2:
            (auto,) = [name for name in both if hellos[name]["is_auto"]]
            (other,) = both.keys() - {auto}
            ratio = relative(both[auto], both[other])
            yield (
                f"On {backend}, --jit=auto takes {compared(ratio)}: "
                f"{auto}, {ratio:.2f} of {other}'s time."
            )


def report(key, names, arguments):
    """Measure one size and describe it, as Markdown."""
    size = SIZES[key]
    flags = (f"--sizes={key}", f"--seconds={arguments.seconds}")
    contenders, failed = common.start(
        "benchmarks.step", {n: (CONTENDERS[n][0], f"--serve={n}", *flags) for n in names}
    )
    left_out = {**size.left_out, **failed}
    skipped = [f"Left out: {name} ({reason})." for name, reason in left_out.items()]
    if not contenders:
        return "\n\n".join([f"## {key}", *skipped]) + "\n", {}
    hellos = {name: contender.hello for name, contender in contenders.items()}
    parameters = same_work(hellos)
    seconds = measure(contenders, arguments.rounds)
    for contender in contenders.values():
        contender.close()
    cfg = size.config()
    flop = next((hello["flop"] for hello in hellos.values() if "flop" in hello), 0)
    product = 2 * PRODUCT**3 / statistics.median(seconds[None]) / 1e9
    head = (
        "",
        "s a step",
        "min - max",
        "images/s",
        "of the matrix rate",
        "of PyTorch's time",
        "--jit=auto",
    )
    rows = [contender_row(n, seconds, hellos[n], flop, cfg.batch_size) for n in contenders]
    text = (
        f"## {key}: {size.title}\n\n"
        f"{cfg.encoder}, stem {cfg.stem}, width {cfg.width}, heads {cfg.output_dim} and "
        f"{cfg.predictor_hidden}: {parameters:,} parameters. Batch {cfg.batch_size}, "
        f"{flop / 1e9:,.1f} GFLOP a step; the matrix product ran at {product:,.0f} GFLOP/s.\n\n"
        + common.table(head, rows)
        + "".join(f"\n{sentence}\n" for sentence in (*verdicts(seconds, hellos), *skipped))
    )
    return text, hellos


def main():
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="resnet18,small,width16,width32,width64")
    parser.add_argument("--backends", default=",".join(common.BACKENDS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--output", help="Markdown file to write as well")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, SIZES[arguments.sizes], arguments.seconds)

    machine, sections, versions = common.machine(), [], set()
    for key in arguments.sizes.split(","):
        chosen = arguments.backends.split(",")
        names = [name for name in SIZES[key].contenders if CONTENDERS[name][0] in chosen]
        text, hellos = report(key, names, arguments)
        sections.append(text)
        versions |= {hello["versions"] for hello in hellos.values()}
    setting = common.setting("benchmarks.step", machine, versions)
    protocol = (
        f"- protocol: bare step at {SIDE} px, float32; {arguments.rounds} rounds in which every "
        f"contender takes a turn of {arguments.seconds:g} s, at least one step; medians, and "
        f"medians of the ratios within a round. FLOP are 3 x 2 x the multiplications of the "
        f"convolutions and dense layers in forward, two views; the matrix rate is NumPy's product "
        f"of {PRODUCT} x {PRODUCT} float32 matrices in the same rounds.\n"
    )
    title = "# Training step: this package and plain PyTorch\n\n"
    common.publish(title + setting + protocol + "\n" + "\n".join(sections), arguments.output)


if __name__ == "__main__":
    main()
