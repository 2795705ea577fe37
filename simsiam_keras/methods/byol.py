"""BYOL: SimSiam with a momentum encoder that makes the targets."""

import keras
from keras import ops

from simsiam_keras import heads
from simsiam_keras.losses import NormalizedRegression
from simsiam_keras.methods.base import JointEmbedding, output_std
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
        projector: a table of `heads.Row`, or a Keras model; default the paper's, 4096 hidden and
            256 output units, the output not normalized.
        predictor: likewise; default the paper's, `heads.predictor(4096)`.
        augmenter: optional layer, images to `(x1, x2)`, called inside the training step.
        target: a `targets.MomentumEncoder`; default `MomentumEncoder(0.996)`. Given the number of
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
            projector = heads.projector(256, hidden=4096, batch_norm="hidden")
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        predictor = heads.predictor(4096) if predictor is None else predictor
        self.predictor = heads.build_predictor(predictor, self.projector)
        self.target = MomentumEncoder() if target is None else target
        self.target.prepare(self.encoder, self.projector)
        self.distance = NormalizedRegression()
        self.built = True  # every part is built

    @classmethod
    def from_flags(cls, cfg, encoder, augmenter, steps, images):
        hidden = cfg.projector_hidden or None
        return cls(
            encoder,
            heads.projector(
                cfg.output_dim, layers=cfg.projector_layers, hidden=hidden, batch_norm="hidden"
            ),
            heads.predictor(cfg.predictor_hidden),
            augmenter,
            MomentumEncoder(
                cfg.ema_momentum,
                total_steps=cfg.epochs * steps // cfg.gradient_accumulation,
                every=cfg.gradient_accumulation,
            ),
        )

    def embed(self, views, training):
        x1, x2 = views
        # First, so that the average is of the weights, moving statistics too, that the last step
        # left.
        parts = {"encoder": self.encoder, "projector": self.projector}
        target = self.target({1: x1, 2: x2}, **parts, training=training)
        z1, z2 = (
            self.projector(self.encoder(x, training=training), training=training) for x in (x1, x2)
        )
        p1, p2 = (self.predictor(z, training=training) for z in (z1, z2))
        return {"z1": z1, "z2": z2, "p1": p1, "p2": p2, "target1": target[1], "target2": target[2]}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.z_std.update_state(output_std(y_pred["z1"]))
        loss = 0.0
        for i, j in ((1, 2), (2, 1)):
            target = ops.stop_gradient(y_pred[f"target{j}"])
            loss = loss + self.distance(target, y_pred[f"p{i}"])
        return self.with_regularization(loss)

    def get_config(self):
        return {
            **super().get_config(),
            "projector": self.projector,
            "predictor": self.predictor,
            "target": self.target,
        }
