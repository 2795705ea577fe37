"""BYOL: SimSiam with a momentum encoder that makes the targets."""

import keras
from keras import ops

from simsiam_keras import heads
from simsiam_keras.family import BYOLFlags
from simsiam_keras.losses import regression
from simsiam_keras.methods.base import JointEmbedding
from simsiam_keras.targets import MomentumEncoder


@keras.saving.register_keras_serializable("simsiam_keras")
class BYOL(JointEmbedding):
    """Bootstrap your own latent.

    With the online network's z = f(x) and p = h(z), the target network's z' = f'(x), whose weights
    are a moving average of f's, and `l(p, z') = ||p/||p|| - z'/||z'||||^2 = 2 - 2 cos(p, z')`:

        L = l(p1, stopgrad(z'2)) + l(p2, stopgrad(z'1))

    in [0, 8]. `fit` takes what `SimSiam`'s does. It reports `loss` and `z_std`.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        projector: a table of `heads.Row`, or a Keras model; default the paper's,
            `family.BYOLFlags`, the output not normalized.
        predictor: likewise; default the paper's.
        augmenter: optional layer, images to `(x1, x2)`, called inside the training step.
        target: a `targets.MomentumEncoder`; default `MomentumEncoder()`. Given the number of
            training steps, its momentum rises to 1, as in the paper.
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if the predictor is not as wide as the projector, or an argument is out of its
            range.

    Example:
    >>> from simsiam_keras import encoders
    >>> model = BYOL(encoders.resnet10(width=8), heads.projector(32), heads.predictor(64))
    >>> model.predictor.output_shape
    (None, 32)

    Reference:
        Grill et al., Bootstrap Your Own Latent, 2020, https://arxiv.org/abs/2006.07733
    """

    def __init__(
        self,
        encoder,
        projector=None,
        predictor=None,
        augmenter=None,
        target=None,
        **kwargs,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        if projector is None:
            projector = heads.projector_of(BYOLFlags, batch_norm="hidden")
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        predictor = heads.predictor_of(BYOLFlags) if predictor is None else predictor
        self.predictor = heads.build_predictor(predictor, self.projector)
        self.target = MomentumEncoder() if target is None else target
        self.target.prepare(self.encoder, self.projector)
        self.built = True  # every part is built

    def embed(self, views, training):
        x1, x2 = views
        # First, so that the average is of the weights, moving statistics too, that the last step
        # left.
        parts = {"encoder": self.encoder, "projector": self.projector}
        target = self.target({1: x1, 2: x2}, **parts, training=training)
        z1, z2 = self.project(x1, training), self.project(x2, training)
        p1, p2 = self.predictor(z1, training=training), self.predictor(z2, training=training)
        return {"z1": z1, "z2": z2, "p1": p1, "p2": p2, "target1": target[1], "target2": target[2]}

    def objective(self, p1, p2, target1, target2, **outputs):
        target1, target2 = (ops.stop_gradient(target) for target in (target1, target2))
        return regression(p1, target2) + regression(p2, target1)

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        target = MomentumEncoder(
            flags.ema_momentum,
            total_steps=flags.epochs * steps // flags.gradient_accumulation,
            every=flags.gradient_accumulation,
        )
        projector = heads.projector_of(flags, batch_norm="hidden")
        return cls(encoder, projector, heads.predictor_of(flags), augmenter, target)

    def get_config(self):
        return {
            **super().get_config(),
            "projector": self.projector,
            "predictor": self.predictor,
            "target": self.target,
        }
