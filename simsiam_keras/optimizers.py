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


@keras.saving.register_keras_serializable("simsiam_keras")
class LARS(keras.optimizers.Optimizer):
    """Momentum SGD on layer-wise scaled gradients.

    `u = lars_update(g, w)`, `v <- mu v + u`, `w <- w - lr v`: the weight decay is coupled, and
    the learning rate stays outside the momentum buffer, as in PyTorch. Keras's own SGD keeps it
    inside, which differs under a schedule. This is apex's `LARC(SGD, clip=False)`, with which
    the SimSiam authors evaluate; they use no weight decay there.

    Args:
        learning_rate: lr, a float or a schedule. Defaults to 0.1.
        momentum: mu in [0, 1). Defaults to 0.9.
        weight_decay: beta >= 0. Defaults to 0.
        trust_coefficient: eta > 0. Defaults to 0.001.
        exclude_1d: whether biases and batch-normalization parameters (all variables of fewer
            than two dimensions) are updated by plain momentum SGD, neither scaled nor decayed,
            as SimCLR and BYOL do. apex, and so the SimSiam authors, exclude nothing.
            Defaults to True.
        name: the optimizer's name. Defaults to "LARS".
        **kwargs: the base optimizer's, such as `global_clipnorm`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
    >>> LARS(4.8, weight_decay=1e-6).get_config()["trust_coefficient"]
    0.001

    Reference:
        You et al. 2017, algorithm 1, https://arxiv.org/abs/1708.03888;
        NVIDIA/apex, apex/parallel/LARC.py; facebookresearch/simsiam, main_lincls.py
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=0.0,
        trust_coefficient=0.001,
        exclude_1d=True,
        name="LARS",
        **kwargs,
    ):
        # The base class would decay the weights a second time, decoupled.
        super().__init__(learning_rate, weight_decay=None, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
        if not weight_decay >= 0:
            raise ValueError(f"`weight_decay` must be >= 0. Received: weight_decay={weight_decay}")
        if not trust_coefficient > 0:
            raise ValueError(
                f"`trust_coefficient` must be > 0. Received: trust_coefficient={trust_coefficient}"
            )
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.exclude_1d = exclude_1d

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        v = self.momentums[self._get_variable_index(variable)]
        update = ops.cast(gradient, variable.dtype)
        if len(variable.shape) > 1 or not self.exclude_1d:
            update = lars_update(
                update, variable, self.coupled_weight_decay, self.trust_coefficient
            )
        self.assign(v, self.momentum * v + update)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * v)

    def get_config(self):
        config = super().get_config()
        config.update(
            momentum=self.momentum,
            weight_decay=self.coupled_weight_decay,
            trust_coefficient=self.trust_coefficient,
            exclude_1d=self.exclude_1d,
        )
        return config


def lars_update(gradient, weight, weight_decay, trust_coefficient, axis=None):
    """Scales a gradient to its weight, by the layer-wise adaptive rate.

    `eta ||w|| / (||g|| + beta ||w||) * (g + beta w)`, eta the trust coefficient and beta the
    weight decay. Where `||w||` or `||g||` is 0, the gradient is returned as it is, without
    decay, as in apex.

    Args:
        gradient: g, a tensor of any shape.
        weight: w, of the same shape.
        weight_decay: beta >= 0.
        trust_coefficient: eta > 0.
        axis: the axes of one layer's norm; the others count layers. Defaults to all.

    Returns:
        The scaled gradient, of the same shape.

    Reference:
        You et al. 2017, equation 6, https://arxiv.org/abs/1708.03888
    """
    w, g = _norm(weight, axis), _norm(gradient, axis)
    adapts = ops.logical_and(w > 0, g > 0)
    ratio = trust_coefficient * w / ops.where(adapts, g + weight_decay * w, 1.0)
    ratio = ops.cast(ratio, weight.dtype)
    return ops.where(adapts, ratio * (gradient + weight_decay * weight), gradient)


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
    return with_rates(optimizer, {"constant": (variables, learning_rate)})


def with_rates(optimizer, rates):
    """The same optimizer, with some variables at a rate of their own.

    Args:
        optimizer: a `keras.optimizers.Optimizer`.
        rates: `{name: (variables, learning_rate)}`; variables are found by their paths, a rate is
            a number or a schedule.

    Returns:
        A `keras.optimizers.MultiOptimizer`.

    Raises:
        ValueError: if two of the variables have one path.
    """
    others = {}
    for name, (variables, rate) in rates.items():
        config = {**optimizer.get_config(), "learning_rate": rate, "name": f"{name}_rate"}
        other = type(optimizer).from_config(config)
        for variable in variables:
            if variable.path in others:
                raise ValueError(
                    f"two variables are called {variable.path}; give their layers other names"
                )
            others[variable.path] = other
    return Rates(keras.optimizers.OptimizerMap(optimizer, others))


@keras.saving.register_keras_serializable("simsiam_keras")
class Rates(keras.optimizers.MultiOptimizer):
    """Keras's optimizer of optimizers, where gradients may be missing behind a stop-gradient.

    They are zero: so every rate is of the same step, and weights whose rate is 0 stay.
    """

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is not None:
            pairs = zip(grads, trainable_variables, strict=True)
            grads = [ops.zeros(v.shape, v.dtype) if g is None else g for g, v in pairs]
        return super().apply(grads, trainable_variables)


def _norm(x, axis):
    # float32, as the sum of squares of a float16 layer overflows.
    return ops.sqrt(ops.sum(ops.square(ops.cast(x, "float32")), axis=axis, keepdims=True))
