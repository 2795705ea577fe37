"""Learning rates and momenta that follow from the batch size and the number of steps."""

import math

import keras
from keras import ops


def scaled_lr(base_lr, batch_size):
    """The linear scaling rule, `base_lr * batch_size / 256`.

    Reference:
        Goyal et al., https://arxiv.org/abs/1706.02677

    Example:
    >>> scaled_lr(0.03, batch_size=512)
    0.06
    """
    return base_lr * batch_size / 256


def cosine(learning_rate, total_steps, warmup_steps=0):
    """Linear warm-up from 0, then half a cosine down to 0, per step.

    At step t the rate is `lr * t / warmup` during the warm-up, then
    `lr * (1 + cos(pi * (t - warmup) / (total - warmup))) / 2`.

    Args:
        learning_rate: the peak.
        total_steps: steps in the whole run, the warm-up included.
        warmup_steps: at least 0 and below `total_steps`.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: if the warm-up does not leave a step.

    Reference:
        Loshchilov & Hutter, https://arxiv.org/abs/1608.03983, without restarts
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            "`warmup_steps` must be at least 0 and below `total_steps`. "
            f"Received: warmup_steps={warmup_steps}, total_steps={total_steps}"
        )
    if warmup_steps == 0:
        return keras.optimizers.schedules.CosineDecay(learning_rate, total_steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, total_steps - warmup_steps, warmup_target=learning_rate, warmup_steps=warmup_steps
    )


@keras.saving.register_keras_serializable("simsiam_keras")
class After(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that is 0 before a step, and then what another is there.

    Args:
        schedule: a `keras.optimizers.schedules.LearningRateSchedule`.
        first_step: the first step that counts, at least 0.

    Example:
    >>> schedule = After(cosine(1.0, 4), first_step=2)
    >>> [round(float(schedule(step)), 2) for step in range(4)]
    [0.0, 0.0, 0.5, 0.15]
    """

    def __init__(self, schedule, first_step):
        super().__init__()
        self.schedule, self.first_step = schedule, first_step

    def __call__(self, step):
        return ops.where(step < self.first_step, 0.0, self.schedule(step))

    def get_config(self):
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "first_step": self.first_step}

    @classmethod
    def from_config(cls, config):
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["first_step"])


def cosine_momentum(momentum, step, total_steps):
    """BYOL's momentum of the target network, `1 - (1 - m) (1 + cos(pi t / T)) / 2`.

    It rises from m at t = 0 to 1 at t = T, and stays there.

    Args:
        momentum: m, within [0, 1].
        step: t, an integer scalar, may be a tensor.
        total_steps: T, at least 1.

    Returns:
        A float32 scalar within [m, 1].

    Example:
    >>> [round(float(cosine_momentum(0.9, step, 4)), 4) for step in (0, 2, 4, 5)]
    [0.9, 0.95, 1.0, 1.0]

    Reference:
        Grill et al., https://arxiv.org/abs/2006.07733, section 3.3
    """
    done = ops.clip(ops.cast(step, "float32") / total_steps, 0.0, 1.0)
    return 1 - (1 - momentum) * (1 + ops.cos(math.pi * done)) / 2
