"""The two sizes of the GPU script: the paper's, and one that a CPU tries in a minute."""

from dataclasses import dataclass

import numpy as np

from benchmarks import common
from simsiam_keras import config
from simsiam_keras.augment import RECIPES

FLAGFILE = common.ROOT / "flags" / "cifar10.cfg"  # of the steps
RECIPE = common.ROOT / "flags" / "fastsiam_cifar10.cfg"  # of the run
ON_THE_DEVICE = (
    "--backend=jax",
    "--augment=device",
    "--precision=mixed_bfloat16",
    "--data_on_device=on",
)


@dataclass(frozen=True)
class Size:
    """What the script does at a size; the values are the paper's."""

    name: str = "paper"
    flags: tuple = ()  # of `pretrain`, that differ from the recipe
    probe_flags: tuple = ()
    images: int = 50_000  # that the steps of `bench` draw from
    product: int = 8192  # side of the matrices
    chunk: int = 16  # steps in one program
    rounds: int = 3
    seconds: float = 0.7  # of a turn
    epochs: int = 800  # at most
    every: int = 30  # epochs between two checkpoints, and two kNN measurements
    reserve: float = 40.0  # seconds that are kept for what comes after the run
    rest: float = 120.0  # seconds of the run besides its epochs, kNN and compiling
    look: float = 4.0  # seconds of a kNN and a checkpoint
    between: float = 0.15  # seconds between two epochs

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
    chunk=2,
    rounds=3,
    seconds=0.05,
    epochs=4,
    every=2,
    reserve=0.0,
)
SIZES = {size.name: size for size in (Size(), TINY)}
