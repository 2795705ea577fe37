"""SimCLR: no predictor and no stop-gradient; negative pairs are what prevents the collapse."""

import keras
from keras import ops

from simsiam_keras import distribute, heads
from simsiam_keras.losses import BatchMean, at_least_float32, nt_xent
from simsiam_keras.methods.base import JointEmbedding, output_std


@keras.saving.register_keras_serializable("simsiam_keras")
class SimCLR(JointEmbedding):
    """A simple framework for contrastive learning.

    With z = f(x) of both views of n images, s(i, j) the cosine of the i-th and j-th of the 2n
    outputs, and tau the temperature, every output is told from the 2n - 2 of other images:

        L = mean over i of -log(exp(s(i, i') / tau) / sum over j != i of exp(s(i, j) / tau))

    i' being the other view of i's image. `fit` takes what `SimSiam`'s does; the n images are those
    of all replicas. It reports `loss`, log(2n - 1) when collapsed, and `z_std`.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        projector: a table of `heads.Row`, or a Keras model; default the paper's, 2048 hidden and
            128 output units, both normalized as in its code.
        augmenter: optional layer, images to `(x1, x2)`, called inside the training step.
        temperature: tau > 0; default .5, the paper's for CIFAR-10.
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if `temperature` is not above 0, or a batch has one image.

    Example:
    >>> from simsiam_keras import encoders
    >>> model = SimCLR(encoders.resnet10(width=8), heads.projector(32, hidden=64))
    >>> model.projector.output_shape
    (None, 32)

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020,
        https://arxiv.org/abs/2002.05709, section 2 and appendix B.9
    """

    def __init__(self, encoder, projector=None, augmenter=None, temperature=0.5, **kwargs):
        super().__init__(encoder, augmenter, **kwargs)
        projector = heads.projector(128, hidden=2048) if projector is None else projector
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        if not temperature > 0:
            raise ValueError(f"`temperature` must be above 0. Received: temperature={temperature}")
        self.temperature = temperature
        self.mean = BatchMean()
        self.built = True  # every part is built

    @classmethod
    def from_flags(cls, cfg, encoder, augmenter, steps, images):
        hidden = cfg.projector_hidden or None
        projector = heads.projector(cfg.output_dim, layers=cfg.projector_layers, hidden=hidden)
        return cls(encoder, projector, augmenter, cfg.temperature)

    def embed(self, views, training):
        if views[0].shape[0] == 1:
            raise ValueError(
                "`SimCLR` needs at least 2 images in a batch, which are each other's negatives. "
                "Received: 1 image"
            )
        z1, z2 = (
            self.projector(self.encoder(x, training=training), training=training) for x in views
        )
        return {"z1": z1, "z2": z2}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        z1, z2 = (at_least_float32(y_pred[name]) for name in ("z1", "z2"))
        self.z_std.update_state(output_std(z1))
        values = nt_xent(
            z1,
            z2,
            self.temperature,
            first=distribute.replica() * ops.shape(z1)[0],
            all_z=distribute.gather(z1),
            all_others=distribute.gather(z2),
        )
        return self.with_regularization(self.mean(values))

    def get_config(self):
        return {
            **super().get_config(),
            "projector": self.projector,
            "temperature": self.temperature,
        }
