"""What every joint-embedding method shares: views in, loss out, one training step.

Legend, kept throughout the package: x1, x2 two views of an image; f encoder and projector,
z = f(x); h the predictor, p = h(z); n samples, d output dimension, k neighbours.
"""

import functools
import math

import keras
from keras import ops

from simsiam_keras import encoders
from simsiam_keras.losses import l2_normalize


class JointEmbedding(keras.Model):
    """Base of the methods: owns the encoder, the step over views and the `z_std` metric.

    A method adds its heads, `embed(views, training)`, which returns the outputs that its loss
    needs, `compute_loss`, and `from_flags`. What an input is does not depend on the mode:

    - a tuple or list is views, and gives the method's outputs; a dict `{"views": views}` likewise;
    - a dict `{"images": images}` asks the `augmenter` for views first; `fit` and `evaluate` on
      images do so;
    - what else is in either dict, such as `"index"`, the number of each image, or `"labels"`, is
      handed on to `embed` by its name;
    - a tensor is images, and gives features; `predict` does so.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        augmenter: optional layer, images to a tuple of views, called inside the training step.
        **kwargs: further arguments of `keras.Model`.
    """

    def __init__(self, encoder, augmenter=None, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        # A function, which Keras does not look into: the copies share the encoder's layers.
        self.at_size = functools.cache(functools.partial(encoders.at_size, encoder))
        self.augmenter = augmenter
        self.z_std = keras.metrics.Mean(name="z_std")

    def call(self, inputs, training=False):
        if isinstance(inputs, (tuple, list)):
            inputs = {"views": inputs}
        if not isinstance(inputs, dict):
            return self.encoder(inputs, training=training)
        others = {name: x for name, x in inputs.items() if name not in ("views", "images")}
        views = inputs.get("views")
        if views is None:
            views = self.augmenter(inputs["images"], training=training)
        return self.embed(views, training=training, **others)

    def embed(self, views, training):
        raise NotImplementedError

    def features(self, x, training):
        """The encoder's features of views, which may be smaller than its images (multi-crop)."""
        size = self.encoder.input_shape[1]
        encoder = self.encoder if size in (None, x.shape[1]) else self.at_size(x.shape[1])
        return encoder(x, training=training)

    @classmethod
    def from_flags(cls, cfg, encoder, augmenter, steps, images):
        """The method that a `config.Pretrain` describes.

        Args:
            cfg: a `config.Pretrain`.
            encoder: its encoder.
            augmenter: as in the constructor.
            steps: optimizer calls in an epoch.
            images: training images.
        """
        raise NotImplementedError

    @staticmethod
    def full_views(cfg):
        """Number of views of full size that a `config.Pretrain` asks for of each image."""
        return 2

    def train_step(self, *args):
        # TensorFlow and torch pass (data,), JAX passes (state, data).
        *state, data = args
        return super().train_step(*state, self._inputs_only(data))

    def test_step(self, *args):
        *state, data = args
        return super().test_step(*state, self._inputs_only(data))

    def _inputs_only(self, data):
        # Keras reads a pair as (inputs, targets); here it is two views, or images and labels that a
        # self-supervised loss has no use for.
        first = data[0] if isinstance(data, (tuple, list)) else data
        if isinstance(first, dict):
            if "views" not in first and self.augmenter is None:
                raise ValueError(
                    f"`{type(self).__name__}` needs an `augmenter` for batches without 'views'. "
                    f"Received: {sorted(first)}"
                )
            return (first,)
        if self.augmenter is not None:
            return ({"images": first},)
        # Arrays come as ((x1, x2), None), a data set's pairs as (x1, x2).
        views = first if isinstance(first, (tuple, list)) else data
        views = tuple(views) if isinstance(views, (tuple, list)) else (views,)
        rank = len(self.encoder.input_shape)
        if len(views) < 2 or any(len(x.shape) != rank for x in views):
            raise ValueError(
                f"`{type(self).__name__}` needs batches of views (x1, x2), or images and an "
                f"`augmenter`. Received shapes: {[tuple(x.shape) for x in views]}"
            )
        return (views,)

    def with_regularization(self, loss):
        """Adds what the layers' regularizers ask for, as Keras does for a compiled loss."""
        for extra in self.losses:
            loss = loss + self._aggregate_additional_loss(extra)
        return loss

    def get_config(self):
        return {**super().get_config(), "encoder": self.encoder, "augmenter": self.augmenter}

    @classmethod
    def from_config(cls, config):
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value)
                if isinstance(value, dict) and "class_name" in value
                else value
                for name, value in config.items()
            }
        )


def output_std(z):
    """Spread of the outputs over the unit sphere, `sqrt(d) * mean_j std_i(z_ij / ||z_i||)`.

    0 when every output is the same constant (collapse); about 1 when the directions are uniform,
    where the per-channel deviation is `1 / sqrt(d)`.

    Args:
        z: outputs, `[n, d]`; n = 1 gives 0.

    Returns:
        A scalar in [0, 1], float32 or wider.

    Reference:
        Chen & He, https://arxiv.org/abs/2011.10566, section 4.1
    """
    return math.sqrt(z.shape[-1]) * ops.mean(ops.std(l2_normalize(z), axis=0))
