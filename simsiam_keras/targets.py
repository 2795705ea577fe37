"""Where a method's targets come from when they are not the other view's z.

Section 5 of SimSiam's paper reads it as alternating between the network's weights theta and one
vector eta_x for each image x, `min over theta and eta of E ||F_theta(T(x)) - eta_x||^2`. `Snapshot`
and `MovingAverage` are the two experiments of its section 5.2; `MomentumEncoder` is BYOL's target
network, which needs neither `z` nor `index`. A method calls `prepare` once and the layer in every
step, on the views whose targets it needs:

    targets(views, z=z, index=index, encoder=encoder, projector=projector, training=training)

`views` and `z` are `{number of the view: tensor}`, images `[n, height, width, channels]` and
outputs `[n, d]`; `index` holds the number of each image, `[n]`, or is None. The result is
`{number of the view: [n, d]}`. In training it counts the step or writes the memory.
"""

import keras
from keras import ops

from simsiam_keras import distribute, schedules
from simsiam_keras.family import BYOLFlags


@keras.saving.register_keras_serializable("simsiam_keras")
class Snapshot(keras.layers.Layer):
    """Targets from the weights as they were at the start of each block of k steps.

    In step t, `eta_x = F(T'(x))` with the weights of step `k * floor(t / k)`. The paper computes
    the eta_x of k steps in advance and keeps them; batch normalization takes the statistics of the
    batch, so that kept weights give the same vectors later. k = 1 is SimSiam itself. It costs a
    second forward pass and a copy of the weights.

    Args:
        steps: k, at least 1. An epoch's steps give the paper's "1-epoch".
        **kwargs: further arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if `steps` is below 1.

    Reference:
        Chen & He, https://arxiv.org/abs/2011.10566, section 5.2, "Multi-step alternation"
    """

    def __init__(self, steps, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1. Received: steps={steps}")
        self.steps = steps

    def prepare(self, encoder, projector):
        """Creates the state for a built encoder and projector, whose weights are copied."""
        self.step = _state(self, (), "int", "step")
        self.kept = _copies(self, _weights(encoder, projector))
        self.built = True

    def call(self, views, z, index, encoder, projector, training=False):
        if training:
            first = ops.equal(self.step % self.steps, 0)
            for kept, weight in zip(self.kept, _weights(encoder, projector), strict=True):
                kept.assign(ops.where(first, weight.value, kept.value))
            self.step.assign_add(1)
        return _outputs(views, encoder, projector, self.kept, training)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


@keras.saving.register_keras_serializable("simsiam_keras")
class MovingAverage(keras.layers.Layer):
    """Targets from a memory of one vector for each training image.

    For a view with output z, the target is

        eta_x <- m eta_x + (1 - m) z

    which approximates the expectation over augmentations that the predictor is thought to stand
    for. The memory starts at zero, which the cosine does not see, and keeps the mean of the targets
    that a step makes for an image. m = 0 gives z, as without a memory.

    The memory takes `images * d` float32 numbers, 410 MB for CIFAR-10 at d = 2048, on the device
    and in every checkpoint. Batches must carry the number of each image:
    `{"views": (x1, x2), "index": index}`.

    Args:
        images: number of training images.
        momentum: m, within [0, 1); default .8, the paper's.
        **kwargs: further arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Chen & He, https://arxiv.org/abs/2011.10566, section 5.2, "Expectation over augmentations"
    """

    def __init__(self, images, momentum=0.8, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if images < 1:
            raise ValueError(f"`images` must be at least 1. Received: images={images}")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be within [0, 1). Received: momentum={momentum}")
        self.images, self.momentum = images, momentum

    def prepare(self, encoder, projector):
        """Creates the memory for outputs of the projector's width."""
        if distribute.replicas() > 1:
            raise ValueError(
                "`MovingAverage` keeps its memory on one replica, as with --strategy=none. "
                f"Received: {distribute.replicas()} replicas"
            )
        self.memory = _state(self, (self.images, projector.output_shape[-1]), "float32", "memory")
        self.built = True

    def call(self, views, z, index, encoder, projector, training=False):
        if index is None:
            raise ValueError(
                "`MovingAverage` needs the number of each image: batches of "
                "{'views': (x1, x2), 'index': index}, or {'images': images, 'index': index} with "
                "an `augmenter`. Received: no index"
            )
        m, eta = self.momentum, ops.take(self.memory.value, index, axis=0)
        new = {i: m * eta + (1 - m) * ops.cast(z_i, "float32") for i, z_i in z.items()}
        if training:
            mean = sum(new.values()) / len(new)
            self.memory.assign(ops.scatter_update(self.memory.value, index[:, None], mean))
        return new

    def get_config(self):
        return {**super().get_config(), "images": self.images, "momentum": self.momentum}


@keras.saving.register_keras_serializable("simsiam_keras")
class MomentumEncoder(keras.layers.Layer):
    """BYOL's target network: an exponential moving average of encoder and projector.

    With the online weights theta and the target's xi, after every optimizer step t of T

        xi <- m_t xi + (1 - m_t) theta,    m_t = schedules.cosine_momentum(m, t, T)

    It is applied at the beginning of the next step, on the same theta; the first step copies theta.
    Moving statistics of batch normalization are averaged like any weight; in training the target
    normalizes by the statistics of its own batch, as the online network does.

    Args:
        momentum: m at the start, within [0, 1]; default the paper's.
        total_steps: T, after which m stays at 1; default None, a constant m.
        every: calls that make an optimizer step, more than one with gradient accumulation.
        **kwargs: further arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Grill et al., Bootstrap Your Own Latent, section 3.1 and appendix J,
        https://arxiv.org/abs/2006.07733
    """

    def __init__(self, momentum=BYOLFlags.ema_momentum, total_steps=None, every=1, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(f"`momentum` must be within [0, 1]. Received: momentum={momentum}")
        if min(1 if total_steps is None else total_steps, every) < 1:
            raise ValueError(
                "`total_steps` and `every` must be at least 1. "
                f"Received: total_steps={total_steps}, every={every}"
            )
        self.momentum, self.total_steps, self.every = momentum, total_steps, every

    def prepare(self, encoder, projector):
        """Creates the state for a built encoder and projector, whose weights are copied."""
        self.step = _state(self, (), "int", "step")
        self.kept = _copies(self, _weights(encoder, projector))
        self.built = True

    def call(self, views, encoder, projector, training=False):
        if training:
            m = self._momentum_of_step()
            for kept, weight in zip(self.kept, _weights(encoder, projector), strict=True):
                mixed = m * ops.cast(kept.value, m.dtype) + (1 - m) * ops.cast(weight, m.dtype)
                kept.assign(ops.cast(mixed, kept.dtype))
            self.step.assign_add(1)
        return _outputs(views, encoder, projector, self.kept, training)

    def _momentum_of_step(self):
        m = ops.convert_to_tensor(self.momentum, "float32")
        if self.total_steps is not None:
            before = self.step // self.every - 1  # the optimizer step that theta has just made
            m = schedules.cosine_momentum(self.momentum, before, self.total_steps)
        m = ops.where(ops.equal(self.step % self.every, 0), m, 1.0)
        return ops.where(ops.equal(self.step, 0), 0.0, m)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "total_steps": self.total_steps,
            "every": self.every,
        }


def _weights(encoder, projector):
    return [*encoder.weights, *projector.weights]


def _copies(layer, weights):
    copies = []
    for i, weight in enumerate(weights):
        copies.append(_state(layer, weight.shape, weight.dtype, f"kept_{i}"))
        # A buffer of its own: JAX donates those of both to the step.
        copies[-1].assign(ops.copy(weight.value))
    return copies


def _outputs(views, encoder, projector, weights, training):
    """`{i: z_i}` of the views, by encoder and projector with other weights."""
    # Other variables, such as seeds, keep their values. What a forward pass in this scope assigns
    # is dropped, so that running statistics are not updated twice.
    live = [(v, v) for v in (*encoder.variables, *projector.variables)]
    own = zip(_weights(encoder, projector), weights, strict=True)
    with keras.StatelessScope([*live, *own]):
        return {
            i: projector(encoder(x, training=training), training=training) for i, x in views.items()
        }


def _state(layer, shape, dtype, name):
    # Every replica would write the same.
    return layer.add_weight(
        shape, "zeros", dtype, trainable=False, aggregation="only_first_replica", name=name
    )
