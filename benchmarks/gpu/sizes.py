"""The two sizes of the GPU script: the paper's, and one that a CPU tries in two minutes."""

from dataclasses import dataclass

import numpy as np

from benchmarks import common
from simsiam_keras import config
from simsiam_keras.augment import RECIPES

FLAGFILE = f"--flagfile={common.ROOT / 'flags' / 'cifar10.cfg'}"
BACKEND = "--backend=jax"
ON_THE_DEVICE = (BACKEND, "--augment=device", "--precision=mixed_bfloat16")


@dataclass(frozen=True, eq=False)
class Size:
    """What a stage does at a size; the flags are those of `pretrain` that differ from the recipe.

    A run writes a checkpoint about once a minute at the speed hoped for, and measures kNN ten
    times or more: both are done by the host and take seconds, as long as an epoch does.
    """

    title: str
    flags: tuple
    probe_flags: tuple
    images: int  # that the steps of `bench` and `profile` draw from
    epochs: dict  # {stage: epochs}
    knn_every: dict
    checkpoint_every: int
    product: int  # side of the matrices
    rounds: int
    seconds: float  # of a turn
    report_after: float  # seconds until a run tells its speed

    def config(self, *flags):
        return config.parse("pretrain", [FLAGFILE, *ON_THE_DEVICE, *self.flags, *flags])

    def recipe(self):
        return RECIPES[self.config().recipe]

    def pictures(self):
        """Generated images, uint8 `[images, side, side, 3]`, of which some thousands differ."""
        drawn = common.smooth_images(min(self.images, 4096), self.recipe().size)
        return np.resize(drawn, (self.images, *drawn.shape[1:]))


PAPER = Size(
    title="the paper's size on a GPU",
    flags=(),
    probe_flags=(),
    images=50_000,
    epochs={"train200": 200, "train800": 800},
    knn_every={"train200": 20, "train800": 50},
    checkpoint_every=40,
    product=8192,
    rounds=7,
    seconds=3.0,
    report_after=60.0,
)
TINY = Size(
    title="a trial of the script, whose numbers mean nothing",
    flags=(
        *("--encoder=resnet10", "--width=8", "--batch_size=32"),
        *("--output_dim=32", "--predictor_hidden=8", "--base_lr=0.3"),
    ),
    probe_flags=("--epochs=3",),
    images=256,
    epochs={"train200": 2, "train800": 4},
    knn_every={"train200": 1, "train800": 2},
    checkpoint_every=1,
    product=128,
    rounds=3,
    seconds=0.05,
    report_after=0.0,
)

SIZES = {"paper": PAPER, "tiny": TINY}
