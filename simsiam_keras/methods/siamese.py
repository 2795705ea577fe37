"""The supervised twins: one encoder, labels that say what is alike, a margin for the rest."""

import keras

from simsiam_keras import heads
from simsiam_keras.family import SiameseFlags, SiameseTripletFlags
from simsiam_keras.losses import contrastive, distances, triplet
from simsiam_keras.methods.base import JointEmbedding
from simsiam_keras.mining import MINING, contrastive_batch, triplet_batch


class Siamese(JointEmbedding):
    """What the two methods share: labelled images in, z the encoder's features.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        margin: m > 0.
        augmenter: optional layer, images to a tuple of one view, called inside the training step.
        **kwargs: further arguments of `keras.Model`.
    """

    views = None  # one with labels, two or three that are given

    def __init__(self, encoder, margin, augmenter=None, **kwargs):
        super().__init__(encoder, augmenter, **kwargs)
        if not margin > 0:
            raise ValueError(f"`margin` must be above 0. Received: margin={margin}")
        self.projector = heads.build((), encoder.output_shape[-1], name="projector")
        self.margin = margin
        self.built = True  # every part is built

    def embed(self, views, training, **labels):
        z = {f"z{i}": self.project(x, training) for i, x in enumerate(views, start=1)}
        return z | labels

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable("simsiam_keras")
class SiameseContrastive(Siamese):
    """Twins under the contrastive loss, on labelled images or on given pairs.

    With D the distance of two l2-normalized outputs and Y = 1 for the same class, else 0:

        L = Y D^2 + (1 - Y) max(m - D, 0)^2

    a mean over all pairs of a batch of `{"images": images, "labels": labels}`, integers `[n]`, or
    over the pairs of `{"views": (x1, x2), "same": Y}`. Several replicas pair within their own part.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        margin: m > 0, of distances in [0, 2]; default 1.
        augmenter: optional layer, images to a tuple of one view, called inside the training step.
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if `margin` is not above 0, or a batch has neither labels nor pairs.

    Example:
    >>> from simsiam_keras import encoders
    >>> SiameseContrastive(encoders.twin()).encoder.output_shape
    (None, 4096)

    Reference:
        Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, 2006, equation 4
    """

    def __init__(self, encoder, margin=SiameseFlags.margin, augmenter=None, **kwargs):
        super().__init__(encoder, margin, augmenter, **kwargs)

    def objective(self, z1, z2=None, same=None, labels=None, **others):
        if same is not None:
            return contrastive(distances(z1, z2), same, self.margin)
        return contrastive_batch(z1, _known(labels, self), self.margin)

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        return cls(encoder, flags.margin, augmenter)


@keras.saving.register_keras_serializable("simsiam_keras")
class SiameseTriplet(Siamese):
    """Twins under the triplet loss, on labelled images or on given triplets.

    With d the distance of two l2-normalized outputs, and an anchor a, a positive p of its class and
    a negative n of another:

        L = max(d(a, p) - d(a, n) + m, 0)

    on a batch of `{"images": images, "labels": labels}`, integers `[n]`, for all p and n of every
    a, or for the hardest; or on the triplets of `{"views": (a, p, n)}`. Several replicas mine
    within their own part.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        margin: m > 0, of distances in [0, 2]; default .2, FaceNet's.
        mining: `"all"`, the default, or `"hard"`, Hermans et al.'s, which in our measurements draws
            the outputs of a network with random weights together.
        augmenter: optional layer, images to a tuple of one view, called inside the training step.
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, or a batch has neither labels nor triplets.

    Example:
    >>> from simsiam_keras import encoders
    >>> SiameseTriplet(encoders.resnet10(width=8)).encoder.output_shape
    (None, 64)

    Reference:
        Schroff et al., FaceNet, 2015, https://arxiv.org/abs/1503.03832, section 3.1;
        Hermans et al., In Defense of the Triplet Loss, 2017, https://arxiv.org/abs/1703.07737
    """

    def __init__(
        self,
        encoder,
        margin=SiameseTripletFlags.margin,
        mining=SiameseTripletFlags.mining,
        augmenter=None,
        **kwargs,
    ):
        super().__init__(encoder, margin, augmenter, **kwargs)
        if mining not in MINING:
            raise ValueError(
                f"`mining` must be one of {tuple(MINING)}. Received: mining={mining!r}"
            )
        self.mining = mining

    def objective(self, z1, z2=None, z3=None, labels=None, **others):
        if z3 is not None:
            return triplet(distances(z1, z2), distances(z1, z3), self.margin)
        return triplet_batch(z1, _known(labels, self), self.margin, self.mining)

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        return cls(encoder, flags.margin, flags.mining, augmenter)

    def get_config(self):
        return {**super().get_config(), "mining": self.mining}


def _known(labels, model):
    if labels is None:
        raise ValueError(
            f"`{type(model).__name__}` needs labels: batches of {{'images': images, 'labels': "
            "labels}. Received: no labels"
        )
    return labels
