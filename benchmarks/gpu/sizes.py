"""The two sizes of the GPU script: the paper's, and one that a CPU tries in a minute."""

from dataclasses import dataclass

import numpy as np

from benchmarks import common
from simsiam_keras import config
from simsiam_keras.augment import RECIPES

FLAGFILE = common.ROOT / "flags" / "cifar10.cfg"
ON_THE_DEVICE = ("--backend=jax", "--augment=device", "--precision=mixed_bfloat16")


@dataclass(frozen=True)
class Size:
    """What the script does at a size; the values are the paper's."""

    name: str = "paper"
    flags: tuple = ()  # of `pretrain`, that differ from the recipe
    probe_flags: tuple = ()
    images: int = 50_000  # that the steps of `bench` draw from
    product: int = 8192  # side of the matrices
    rounds: int = 5
    seconds: float = 1.0  # of a turn
    trial: int = 6  # epochs that the plan is made from
    epochs: int = 800  # at most
    every: int = 25  # epochs between two checkpoints, and two kNN measurements
    reserve: float = 90.0  # seconds that are kept for the linear probes

    def config(self):
        return config.parse("pretrain", [f"--flagfile={FLAGFILE}", *ON_THE_DEVICE, *self.flags])

    def recipe(self):
        return RECIPES[self.config().recipe]

    def pictures(self):
        """Generated images, uint8 `[images, side, side, 3]`, of which some thousands differ."""
        drawn = common.smooth_images(min(self.images, 4096), self.recipe().size)
        return np.resize(drawn, (self.images, *drawn.shape[1:]))


TINY = Size(
    name="tiny",
    flags=(
        "--encoder=resnet10",
        "--stem=stride2",
        "--width=8",
        "--batch_size=32",
        "--output_dim=32",
        "--predictor_hidden=8",
        "--base_lr=0.3",
    ),
    probe_flags=("--epochs=2", "--learning_rates=0.1,1"),
    images=128,
    product=128,
    rounds=3,
    seconds=0.05,
    trial=3,
    epochs=4,
    every=2,
    reserve=0.0,
)
SIZES = {size.name: size for size in (Size(), TINY)}
