"""Learning rates that follow from the batch size and the number of steps."""

import keras


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
