"""FastSiam: SimSiam with several views of an image, each of which predicts the mean of the rest."""

import keras
from keras import ops

from simsiam_keras import heads, passes
from simsiam_keras.family import FastSiamFlags
from simsiam_keras.losses import at_least_float32, negative_cosine_similarity
from simsiam_keras.methods.base import JointEmbedding


@keras.saving.register_keras_serializable("simsiam_keras")
class FastSiam(JointEmbedding):
    """SimSiam whose targets are means over views, which vary less than one view's output.

    With z_i = f(x_i) and p_i = h(z_i) of K views x_1 ... x_K of an image, and
    `D(p, z) = -p/||p|| . z/||z||`:

        L = mean over i of D(p_i, stopgrad(mean over j != i of z_j))

    With K = 2 it is SimSiam. The mean is of the outputs as they are, not of unit vectors, as in
    lightly's implementation. An epoch costs K / 2 times one of SimSiam.
    `fit` takes K views `(x1, ..., xK)`, or images when an `augmenter` is given. It reports `loss`,
    in [-1, 1] and falling, and `z_std`, 0 when collapsed and about 1 when spread.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        projector: a table of `heads.Row`, or a Keras model; default SimSiam's,
            `heads.projector()`.
        predictor: likewise; default `heads.predictor(d / 4)`.
        augmenter: optional layer, images to K views, called inside the training step.
        views: K >= 2; default the paper's.
        one_pass: all views through the network as one batch; default False, each by itself (see
            `passes.apart`), so that batch normalization has the statistics of each.
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if `views` is below 2, or the predictor's output is not as wide as the
            projector's.

    Example:
    >>> from simsiam_keras import encoders
    >>> model = FastSiam(encoders.resnet10(width=8), heads.projector(64), views=3)
    >>> model.views
    3

    Reference:
        Pototzky, Sultan & Schmidt-Thieme, FastSiam: Resource-Efficient Self-supervised Learning on
        a Single GPU, 2022, https://doi.org/10.1007/978-3-031-16788-1_4
    """

    def __init__(
        self,
        encoder,
        projector=None,
        predictor=None,
        augmenter=None,
        views=FastSiamFlags.views,
        one_pass=FastSiamFlags.one_pass,
        **kwargs,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        if views < 2:
            raise ValueError(f"`views` must be at least 2. Received: views={views}")
        projector = heads.projector() if projector is None else projector
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        d = self.projector.output_shape[-1]
        predictor = heads.predictor(max(1, d // 4)) if predictor is None else predictor
        self.predictor = heads.build_predictor(predictor, self.projector)
        self.views, self.one_pass = views, one_pass
        self.built = True  # every part is built

    def embed(self, views, training):
        if self.one_pass:
            z = self.project(ops.concatenate(views), training)
            p = self.predictor(z, training=training)
            z, p = ops.split(z, self.views), ops.split(p, self.views)
        else:
            features = [self.held(f) for f in passes.apart(self.encoder, views, training)]
            z = passes.apart(self.projector, features, training)
            p = passes.apart(self.predictor, z, training)
        return {f"z{i}": zi for i, zi in enumerate(z, 1)} | {
            f"p{i}": pi for i, pi in enumerate(p, 1)
        }

    def objective(self, **outputs):
        views = range(1, self.views + 1)
        z = {j: at_least_float32(outputs[f"z{j}"]) for j in views}
        D = negative_cosine_similarity
        loss = 0.0
        for i in views:
            target = sum(z[j] for j in views if j != i) / (self.views - 1)
            loss = loss + D(outputs[f"p{i}"], ops.stop_gradient(target)) / self.views
        return loss

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        projector = heads.projector_of(flags, output_affine=flags.output_affine)
        parts = (projector, heads.predictor_of(flags))
        return cls(encoder, *parts, augmenter, flags.views, flags.one_pass)

    def get_config(self):
        parts = {"projector": self.projector, "predictor": self.predictor}
        more = {"views": self.views, "one_pass": self.one_pass}
        return {**super().get_config(), **parts, **more}
