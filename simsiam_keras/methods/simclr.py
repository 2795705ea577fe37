"""SimCLR: no predictor and no stop-gradient; negative pairs are what prevents the collapse."""

import keras
from keras import ops

from simsiam_keras import distribute, heads
from simsiam_keras.family import SimCLRFlags
from simsiam_keras.losses import at_least_float32, check_temperature, nt_xent
from simsiam_keras.methods.base import JointEmbedding


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
        projector: a table of `heads.Row`, or a Keras model; default the paper's,
            `family.SimCLRFlags`, both layers normalized as in its code.
        augmenter: optional layer, images to `(x1, x2)`, called inside the training step.
        temperature: tau > 0; default the paper's for CIFAR-10.
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

    def __init__(
        self,
        encoder,
        projector=None,
        augmenter=None,
        temperature=SimCLRFlags.temperature,
        **kwargs,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        projector = heads.projector_of(SimCLRFlags) if projector is None else projector
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        check_temperature(temperature)
        self.temperature = temperature
        self.built = True  # every part is built

    def embed(self, views, training):
        x1, x2 = views
        if x1.shape[0] == 1:
            raise ValueError(
                "`SimCLR` needs at least 2 images in a batch, which are each other's negatives. "
                "Received: 1 image"
            )
        return {"z1": self.project(x1, training), "z2": self.project(x2, training)}

    def objective(self, z1, z2):
        z1, z2 = at_least_float32(z1), at_least_float32(z2)
        return nt_xent(
            z1,
            z2,
            self.temperature,
            first=distribute.replica() * ops.shape(z1)[0],
            all_z=distribute.gather(z1),
            all_others=distribute.gather(z2),
        )

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        return cls(encoder, heads.projector_of(flags), augmenter, flags.temperature)

    def get_config(self):
        return {
            **super().get_config(),
            "projector": self.projector,
            "temperature": self.temperature,
        }
