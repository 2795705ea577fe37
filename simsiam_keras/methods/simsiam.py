"""SimSiam: two views, one encoder, a predictor on one side and a stop-gradient on the other."""

import keras
from keras import ops

from simsiam_keras import heads
from simsiam_keras.losses import negative_cosine_similarity
from simsiam_keras.methods.base import JointEmbedding


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
            `heads.projector()`.
        predictor: likewise; default `heads.predictor(d / 4)`.
        augmenter: optional layer, images to `(x1, x2)`, called inside the training step.
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

    def __init__(self, encoder, projector=None, predictor=None, augmenter=None, **kwargs):
        super().__init__(encoder, augmenter, **kwargs)
        projector = heads.projector() if projector is None else projector
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        d = self.projector.output_shape[-1]
        predictor = heads.predictor(max(1, d // 4)) if predictor is None else predictor
        self.predictor = heads.build_predictor(predictor, self.projector)
        self.built = True  # every part is built

    def embed(self, views, training):
        x1, x2 = views
        z1, z2 = self.project(x1, training), self.project(x2, training)
        p1, p2 = self.predictor(z1, training=training), self.predictor(z2, training=training)
        return {"z1": z1, "z2": z2, "p1": p1, "p2": p2}

    def objective(self, z1, z2, p1, p2):
        D = negative_cosine_similarity
        return D(p1, ops.stop_gradient(z2)) / 2 + D(p2, ops.stop_gradient(z1)) / 2

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images, **more):
        norm = flags.batch_norm
        projector = heads.projector_of(flags, norm, flags.output_affine)
        parts = {"projector": projector, "predictor": heads.predictor_of(flags, norm), **more}
        return cls(encoder, augmenter=augmenter, **parts)

    def get_config(self):
        parts = {"projector": self.projector, "predictor": self.predictor}
        return {**super().get_config(), **parts}
