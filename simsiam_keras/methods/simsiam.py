"""SimSiam: two views, one encoder, a predictor on one side and a stop-gradient on the other."""

import keras
from keras import ops

from simsiam_keras import heads
from simsiam_keras.losses import NegativeCosineSimilarity
from simsiam_keras.methods.base import JointEmbedding, output_std


@keras.saving.register_keras_serializable("simsiam_keras")
class SimSiam(JointEmbedding):
    """Simple siamese representation learning.

    With z = f(x) from encoder and projector, p = h(z) from the predictor, and
    `D(p, z) = -p/||p|| . z/||z||`:

        L = D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2

    `fit` takes a data set of view pairs `(x1, x2)`, or of images when an `augmenter` is given;
    calling the model or `predict` on images gives the encoder's features. It reports `loss`, in
    [-1, 1] and falling, and `z_std`, 0 when collapsed and about 1 when spread.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        projector: a table of `heads.Row`, or a Keras model; default the paper's for CIFAR-10,
            `heads.projector(2048, layers=2)`.
        predictor: likewise; default `heads.predictor(d / 4)`.
        augmenter: optional layer, images to `(x1, x2)`, called inside the training step.
        stop_gradient: False removes the stop-gradient, to watch the collapse (section 4.1).
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if the predictor's output is not as wide as the projector's.

    Example:
    >>> from simsiam_keras import encoders
    >>> model = SimSiam(encoders.resnet10(width=8), projector=heads.projector(64))
    >>> model.predictor.output_shape
    (None, 64)

    Reference:
        Chen & He, Exploring Simple Siamese Representation Learning, 2020,
        https://arxiv.org/abs/2011.10566
    """

    def __init__(
        self,
        encoder,
        projector=None,
        predictor=None,
        augmenter=None,
        stop_gradient=True,
        **kwargs,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        self.projector = heads.build(
            projector or heads.projector(), encoder.output_shape[-1], name="projector"
        )
        d = self.projector.output_shape[-1]
        self.predictor = heads.build(
            predictor or heads.predictor(max(1, d // 4)), d, name="predictor"
        )
        if self.predictor.output_shape[-1] != d:
            raise ValueError(
                "`predictor` must be as wide as `projector`. Received output shapes: "
                f"predictor={self.predictor.output_shape}, projector={self.projector.output_shape}"
            )
        self.stop_gradient = stop_gradient
        self.distance = NegativeCosineSimilarity()
        self.built = True  # every part is built

    def embed(self, views, training):
        x1, x2 = views
        z1 = self.projector(self.encoder(x1, training=training), training=training)
        z2 = self.projector(self.encoder(x2, training=training), training=training)
        p1 = self.predictor(z1, training=training)
        p2 = self.predictor(z2, training=training)
        return {"z1": z1, "z2": z2, "p1": p1, "p2": p2}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        z1, z2, p1, p2 = (y_pred[name] for name in ("z1", "z2", "p1", "p2"))
        self.z_std.update_state(output_std(z1))
        if self.stop_gradient:
            z1, z2 = ops.stop_gradient(z1), ops.stop_gradient(z2)
        return self.with_regularization(self.distance(z2, p1) / 2 + self.distance(z1, p2) / 2)

    def get_config(self):
        return {
            **super().get_config(),
            "projector": self.projector,
            "predictor": self.predictor,
            "stop_gradient": self.stop_gradient,
        }
