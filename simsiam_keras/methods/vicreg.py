"""VICReg: neither predictor nor negatives; the batch's variances and covariances are the loss."""

import keras

from simsiam_keras import distribute, heads
from simsiam_keras.family import VICRegFlags
from simsiam_keras.losses import at_least_float32, vicreg
from simsiam_keras.methods.base import JointEmbedding


@keras.saving.register_keras_serializable("simsiam_keras")
class VICReg(JointEmbedding):
    """Variance-invariance-covariance regularization.

    With Z = (z_1 ... z_n) and Z' the outputs z = f(x) of both views of n images, Var and Cov over
    the n, and lambda, mu, nu the coefficients:

        L = lambda mean over i of ||z_i - z'_i||^2 / d + mu (v(Z) + v(Z')) / 2 + nu (c(Z) + c(Z'))
        v(Z) = mean over j of max(0, 1 - sqrt(Var(Z_j) + 1e-4))
        c(Z) = sum over j != k of Cov(Z)_jk^2 / d

    `fit` takes what `SimSiam`'s does; the n images are those of all replicas. It reports `loss`,
    .99 mu when collapsed, and `z_std`.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        projector: a table of `heads.Row`, or a Keras model; default the paper's expander,
            `family.VICRegFlags`, the output not normalized. Its output has a bias, unlike the
            authors', on which the loss does not depend.
        augmenter: optional layer, images to `(x1, x2)`, called inside the training step.
        sim_coeff: lambda >= 0, the invariance's; default the paper's.
        std_coeff: mu >= 0, the variance's; default the paper's.
        cov_coeff: nu >= 0, the covariance's; default the paper's.
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if a coefficient is below 0, or a batch has one image.

    Example:
    >>> from simsiam_keras import encoders
    >>> model = VICReg(encoders.resnet10(width=8), heads.projector(64, layers=3))
    >>> model.projector.output_shape
    (None, 64)

    Reference:
        Bardes, Ponce & LeCun, VICReg: Variance-Invariance-Covariance Regularization for
        Self-Supervised Learning, 2021, https://arxiv.org/abs/2105.04906, section 4
    """

    def __init__(
        self,
        encoder,
        projector=None,
        augmenter=None,
        sim_coeff=VICRegFlags.sim_coeff,
        std_coeff=VICRegFlags.std_coeff,
        cov_coeff=VICRegFlags.cov_coeff,
        **kwargs,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        if projector is None:
            projector = heads.projector_of(VICRegFlags, batch_norm="hidden")
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        self.coefficients = dict(sim_coeff=sim_coeff, std_coeff=std_coeff, cov_coeff=cov_coeff)
        for name, value in self.coefficients.items():
            if not value >= 0:
                raise ValueError(f"`{name}` must be at least 0. Received: {name}={value}")
        self.built = True  # every part is built

    def embed(self, views, training):
        x1, x2 = views
        return {"z1": self.project(x1, training), "z2": self.project(x2, training)}

    def objective(self, z1, z2):
        z1, z2 = at_least_float32(z1), at_least_float32(z2)
        all_z1, all_z2 = distribute.gather(z1), distribute.gather(z2)
        return vicreg(z1, z2, **self.coefficients, all_z=all_z1, all_others=all_z2)

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        return cls(
            encoder,
            heads.projector_of(flags, batch_norm="hidden"),
            augmenter,
            sim_coeff=flags.sim_coeff,
            std_coeff=flags.std_coeff,
            cov_coeff=flags.cov_coeff,
        )

    def get_config(self):
        return {**super().get_config(), "projector": self.projector, **self.coefficients}
