"""Optimizers whose arithmetic is that of the papers' code where Keras's differs."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("simsiam_keras")
class SGD(keras.optimizers.SGD):
    """Momentum SGD with *coupled* weight decay, as PyTorch computes it.

    For a variable w with gradient g, momentum buffer v (zero at the start), at learning rate lr:

        g <- g + weight_decay * w
        v <- momentum * v + g
        w <- w - lr * v                              (g + momentum * v with `nesterov`)

    Keras's own SGD subtracts `lr * weight_decay * w` beside the momentum, about ten times weaker
    at a momentum of .9, and keeps the learning rate inside the buffer, which differs under a
    schedule. The decay applies to every variable, batch normalization and biases included, as in
    the authors' code; `exclude_from_weight_decay` takes some out.

    Args:
        learning_rate: a float or a `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: in [0, 1].
        weight_decay: at least 0; `None` is 0.
        nesterov: see above.
        name: default `"SGD"`.
        **kwargs: further arguments of `keras.optimizers.Optimizer`, such as
            `gradient_accumulation_steps`.

    Raises:
        ValueError: if `weight_decay` is negative or `momentum` is outside [0, 1].

    Reference:
        https://pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=0.0,
        nesterov=False,
        name="SGD",
        **kwargs,
    ):
        weight_decay = 0.0 if weight_decay is None else weight_decay
        if not weight_decay >= 0:
            raise ValueError(
                f"`weight_decay` must be at least 0. Received: weight_decay={weight_decay}"
            )
        # Not handed to Keras, which would apply its decoupled decay as well.
        super().__init__(
            learning_rate, momentum=float(momentum), nesterov=nesterov, name=name, **kwargs
        )
        self.coupled_weight_decay = weight_decay

    def update_step(self, gradient, variable, learning_rate):
        lr = ops.cast(learning_rate, variable.dtype)
        g = ops.cast(gradient, variable.dtype)
        if self.coupled_weight_decay and self._use_weight_decay(variable):
            g = g + ops.cast(self.coupled_weight_decay, variable.dtype) * variable
        if self.momentum:
            v = self.momentums[self._get_variable_index(variable)]
            momentum = ops.cast(self.momentum, variable.dtype)
            new_v = momentum * v + g
            self.assign(v, new_v)
            g = g + momentum * new_v if self.nesterov else new_v
        self.assign_sub(variable, lr * g)

    def get_config(self):
        return {**super().get_config(), "weight_decay": self.coupled_weight_decay}


def with_constant_rate(optimizer, variables, learning_rate):
    """The same optimizer, with some variables at a constant rate.

    SimSiam's predictor "should adapt to the latest representations, so it is not necessary to
    force it converge (by reducing lr)" (section 4.2).

    Args:
        optimizer: a `keras.optimizers.Optimizer`.
        variables: the variables, found by their paths.
        learning_rate: the constant rate.

    Returns:
        A `keras.optimizers.MultiOptimizer` over two optimizers.

    Reference:
        Chen & He, https://arxiv.org/abs/2011.10566, section 4.2
    """
    constant = type(optimizer).from_config(
        {**optimizer.get_config(), "learning_rate": learning_rate, "name": "constant_rate"}
    )
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(optimizer, {v.path: constant for v in variables})
    )
