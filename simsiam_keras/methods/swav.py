"""SwAV: no predictor; an online clustering whose codes one view predicts from the other."""

import keras
from keras import ops

from simsiam_keras import distribute, heads
from simsiam_keras.family import SwAVFlags
from simsiam_keras.losses import check_temperature, l2_normalize, swapped_prediction
from simsiam_keras.methods.base import JointEmbedding
from simsiam_keras.sinkhorn import sinkhorn

FULL = (1, 2)  # the views that codes are made of


@keras.saving.register_keras_serializable("simsiam_keras")
class SwAV(JointEmbedding):
    """Swapping assignments between views.

    With the l2-normalized outputs z, k prototypes c of unit length, and codes q of the full views
    that Sinkhorn-Knopp balances over the batch of all replicas, every other view v predicts them:

        L = mean over i in (1, 2) and v != i of
            -sum_k stopgrad(q_i)_k log softmax(z_v . c / tau)_k

    `fit` takes two views `(x1, x2)`, or these and `small_views` more of any size. It reports
    `loss`, at least log(k) when collapsed, and `z_std`.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        projector: a table of `heads.Row`, or a Keras model; default the paper's,
            `family.SwAVFlags`, the output not normalized.
        augmenter: optional layer, images to views, called inside the training step.
        prototypes: k >= 2; default the paper's.
        temperature: tau > 0; default the paper's.
        epsilon: smoothness of the codes, > 0; default the paper's.
        iterations: of Sinkhorn-Knopp, >= 1; default the paper's.
        small_views: low-resolution views beside the two (multi-crop); default 0. They want an
            encoder for images of any size, as `encoders.resnet18((None, None, 3))`.
        freeze_steps: training steps at the start in which the prototypes stay; default 0, the
            paper's is an epoch.
        queue: earlier outputs of each full view that its codes are balanced over as well, a
            multiple of the replicas; default 0. The paper takes 3840 for small batches.
        queue_start: training step that begins to use the queue, when it is full; default 0.
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
    >>> from simsiam_keras import encoders
    >>> model = SwAV(encoders.resnet10(width=8), heads.projector(32), prototypes=10)
    >>> tuple(model.prototypes.shape)
    (32, 10)

    Reference:
        Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
        2020, https://arxiv.org/abs/2006.09882, section 3 and appendix A
    """

    def __init__(
        self,
        encoder,
        projector=None,
        augmenter=None,
        prototypes=SwAVFlags.prototypes,
        temperature=SwAVFlags.temperature,
        epsilon=SwAVFlags.sinkhorn_epsilon,
        iterations=SwAVFlags.sinkhorn_iterations,
        small_views=0,
        freeze_steps=0,
        queue=0,
        queue_start=0,
        **kwargs,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        if prototypes < 2:
            raise ValueError(f"`prototypes` must be at least 2. Received: prototypes={prototypes}")
        if queue < 0 or queue % distribute.replicas():
            raise ValueError(
                f"`queue` must be a multiple of the {distribute.replicas()} replicas. "
                f"Received: queue={queue}"
            )
        if projector is None:
            projector = heads.projector_of(SwAVFlags, batch_norm="hidden")
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        d = self.projector.output_shape[-1]
        # Unit length after every update, by Keras; no layer, so that float16 does not reach it.
        self.prototypes = self.add_weight(
            (d, prototypes),
            constraint=keras.constraints.UnitNorm(axis=0),
            autocast=False,
            name="prototypes",
        )
        self.prototypes.assign(self.prototypes.constraint(self.prototypes))
        self.epsilon, self.iterations = epsilon, iterations
        self.small_views, self.freeze_steps = small_views, freeze_steps
        self.queue_start = queue_start
        state = {"trainable": False, "aggregation": "only_first_replica"}
        self.step = self.add_weight((), "zeros", "int", name="step", **state)
        self.queue = None
        if queue:
            shape = (len(FULL), queue, d)
            self.queue = self.add_weight(shape, "zeros", "float32", name="queue", **state)
            self.seen = self.add_weight((), "zeros", "int", name="seen", **state)  # of its rows
        check_temperature(temperature)
        self.temperature = temperature
        self.views = len(FULL) + small_views
        self.built = True  # every part is built

    def embed(self, views, training):
        x = dict(enumerate(views, start=1))
        z = {i: l2_normalize(self.project(x[i], training)) for i in x}
        prototypes = self.prototypes.value
        if self.freeze_steps:
            held = ops.stop_gradient(prototypes)
            prototypes = ops.where(self.step < self.freeze_steps, held, prototypes)
        scores = {i: ops.matmul(z[i], prototypes) for i in z}
        codes = {i: self._codes(scores[i], i) for i in FULL}
        if training:
            self._remember(z)
        outputs = {f"z{i}": z[i] for i in FULL} | {f"scores{i}": scores[i] for i in scores}
        return outputs | {f"codes{i}": codes[i] for i in FULL}

    def objective(self, **outputs):
        pairs = [(i, v) for i in FULL for v in range(1, self.views + 1) if v != i]
        loss = 0.0
        for i, v in pairs:
            codes = ops.stop_gradient(outputs[f"codes{i}"])
            scores = outputs[f"scores{v}"]
            loss = loss + swapped_prediction(scores, codes, self.temperature) / len(pairs)
        return loss

    def _codes(self, scores, i):
        balance = {"epsilon": self.epsilon, "iterations": self.iterations}
        codes = sinkhorn(scores, **balance, total=distribute.total)
        if self.queue is None:
            return codes
        earlier = distribute.own_rows(self.queue.value[i - 1])
        more = ops.concatenate([scores, ops.matmul(earlier, self.prototypes.value)])
        more = sinkhorn(more, **balance, total=distribute.total)[: ops.shape(scores)[0]]
        full = ops.logical_and(self.step >= self.queue_start, self.seen >= self.queue.shape[1])
        return ops.where(full, more, codes)

    def _remember(self, z):
        self.step.assign_add(1)
        if self.queue is None:
            return
        length = self.queue.shape[1]
        latest = ops.stack([distribute.gather(z[i]) for i in FULL])
        seen = self.seen + ops.shape(latest)[1]
        self.seen.assign(ops.minimum(seen, length))
        self.queue.assign(ops.concatenate([latest, self.queue.value], axis=1)[:, :length])

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        return cls(
            encoder,
            heads.projector_of(flags, batch_norm="hidden"),
            augmenter,
            prototypes=flags.prototypes,
            temperature=flags.temperature,
            epsilon=flags.sinkhorn_epsilon,
            iterations=flags.sinkhorn_iterations,
            small_views=flags.small_views,
            freeze_steps=flags.freeze_prototypes_epochs * steps,
            queue=flags.queue,
            queue_start=flags.queue_start_epoch * steps,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "projector": self.projector,
            "prototypes": self.prototypes.shape[1],
            "temperature": self.temperature,
            "epsilon": self.epsilon,
            "iterations": self.iterations,
            "small_views": self.small_views,
            "freeze_steps": self.freeze_steps,
            "queue": 0 if self.queue is None else self.queue.shape[1],
            "queue_start": self.queue_start,
        }
