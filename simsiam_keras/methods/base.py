"""What every joint-embedding method shares: views in, loss out, one training step.

Legend, kept throughout the package: x1, x2 two views of an image; f encoder and projector,
z = f(x); h the predictor, p = h(z); n samples, d output dimension, k neighbours.
"""

import math

import keras
from keras import ops

from simsiam_keras import checks, distribute, encoders
from simsiam_keras.data import watch
from simsiam_keras.data.rows import KEPT
from simsiam_keras.losses import BatchMean, l2_normalize


class JointEmbedding(keras.Model):
    """Base of the methods: owns the encoder, the step over views, the loss's mean and `z_std`.

    A method adds its heads and

    - `embed(views, training)`, which returns the outputs that its loss needs by name, `z1` among
      them;
    - `objective(**outputs)`, its loss for each sample, `[n]`;
    - `from_flags`.

    What an input is does not depend on the mode: a dict `{"views": views}`, or a tuple or list of
    views, gives the method's outputs; a dict `{"images": images}` asks the `augmenter` for views
    first, with `"extent"` where the images lie on a canvas, see `augment.Views`; a tensor is images
    and gives features, as `predict` does. What else is in a dict, such as `"index"`, the number of
    each image, or `"labels"`, is handed on to `embed` by its name.

    `evaluate`, and `val_loss` and `val_z_std` of `fit`, are of inference: batch normalization takes
    its moving statistics, which after s steps still have `momentum ** s` of their first values in
    them. In the first hundred steps they differ from `loss` and `z_std` of training for that alone.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        augmenter: optional layer, images to a tuple of views, called inside the training step.
        **kwargs: further arguments of `keras.Model`.
    """

    views = 2  # of each image; None: any number
    encoder_frozen = False  # read when the step is compiled

    def __init__(self, encoder, augmenter=None, **kwargs):
        checks.check_encoder(encoder)
        checks.check_augmenter(augmenter)
        super().__init__(**kwargs)
        encoders.warn_of_onednn(encoder)
        self.encoder = encoder
        self.augmenter = augmenter
        self.mean = BatchMean()
        self.z_std = keras.metrics.Mean(name="z_std")
        self.looked = not checks.takes_pixels(encoder, augmenter)  # at the values of images

    def embed(self, views, training):
        raise NotImplementedError

    def objective(self, **outputs):
        raise NotImplementedError

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        """The method that a `config.Pretrain` describes.

        Args:
            flags: the configuration.
            encoder: its encoder.
            augmenter: as in the constructor.
            steps: optimizer calls in an epoch.
            images: training images.
        """
        raise NotImplementedError

    def project(self, x, training):
        """The output z = f(x)."""
        features = self.held(self.encoder(x, training=training))
        return self.projector(features, training=training)

    def held(self, features):
        """Features that gradients do not pass while the heads alone learn."""
        return ops.stop_gradient(features) if self.encoder_frozen else features

    def call(self, inputs, training=False):
        if isinstance(inputs, (tuple, list)):
            inputs = {"views": inputs}
        if not isinstance(inputs, dict):
            return self.encoder(inputs, training=training)
        others = {name: x for name, x in inputs.items() if name not in ("views", *KEPT)}
        views = inputs.get("views")
        if views is None:
            extent = {name: x for name, x in inputs.items() if name == "extent"}
            checks.check_takes(self.augmenter, extent)
            views = self.augmenter(inputs["images"], training=training, **extent)
            checks.check_made(views, self.augmenter)
        if self.views not in (None, len(views)):
            raise ValueError(
                f"`{type(self).__name__}` takes {self.views} views of each image here. "
                f"Received: {len(views)} views"
            )
        checks.check_views(views, self.encoder)
        return self.embed(views, training=training, **others)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.z_std.update_state(output_std(y_pred["z1"]))
        loss = self.mean(self.objective(**y_pred))
        for extra in self.losses:  # of regularizers, as Keras adds them to a compiled loss
            loss = loss + self._aggregate_additional_loss(extra)
        return loss

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        **kwargs,
    ):
        given = {"loss": loss, "loss_weights": loss_weights, "metrics": metrics}
        checks.check_compiled(type(self).__name__, **given, weighted_metrics=weighted_metrics)
        super().compile(optimizer, **kwargs)

    def compile_from_config(self, config):
        # Keras's own leaves a model that overrides `compile` without an optimizer.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, *args, **kwargs):
        checks.check_rate(self.optimizer, kwargs.get("callbacks"))
        if distribute.replicas() == 1:  # else a batch is not what one of them gets
            split = kwargs.get("validation_split", 0.0)
            x = watch.watched(
                x, self._look, lambda a: checks.check_arrays(a, batch_size, split), checks.ONE_IMAGE
            )
        try:
            return super().fit(x, y, batch_size, *args, **kwargs)
        except Exception as error:  # a backend's own, by way of its pipeline
            if checks.ONE_IMAGE in str(error):
                raise ValueError(checks.ONE_IMAGE) from None
            raise

    def train_on_batch(self, x, *args, **kwargs):
        self._look(keras.tree.flatten(x))
        return super().train_on_batch(x, *args, **kwargs)

    def train_step(self, *args):
        # TensorFlow and torch pass (data,), JAX passes (state, data).
        *state, data = args
        inputs = inputs_of(self, data)
        if distribute.replicas() == 1:
            checks.check_batch(keras.tree.flatten(inputs)[0])
        return super().train_step(*state, (inputs,))

    def test_step(self, *args):
        *state, data = args
        return super().test_step(*state, (inputs_of(self, data),))

    def export(self, filepath, *args, **kwargs):
        # What `predict` computes; Keras's own would look for the shape of views.
        return self.encoder.export(filepath, *args, **kwargs)

    def _look(self, arrays):
        """Looks at the values of the first images, once."""
        rank = len(self.encoder.input_shape)
        images = [x for x in watch.floats(arrays) if len(x.shape) == rank]
        if self.looked or not images:
            return
        self.looked = True
        what = "Views" if self.augmenter is None else "Images"
        checks.warn_of_range(ops.convert_to_numpy(images[0][: checks.FIRST]), what)

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


def inputs_of(model, data):
    """The dict that a method is called on, from a batch of `fit` or `evaluate`.

    Keras reads a pair as (inputs, targets). Here a pair is two views, and targets, the labels that
    come beside images, are left out: no loss but the supervised ones has a use for them, and these
    take a dict.
    """
    first = data[0] if isinstance(data, (tuple, list)) else data
    if isinstance(first, dict):
        if "views" not in first and model.augmenter is None:
            raise ValueError(
                f"`{type(model).__name__}` needs an `augmenter` for batches without 'views'. "
                f"Received: {sorted(first)}"
            )
        if "rows" in first:  # of all images, which lie on the device
            rows = first["rows"]
            first = {
                name: ops.take(x, rows, axis=0) if name in KEPT else x
                for name, x in first.items()
                if name != "rows"
            }
        return first
    if model.augmenter is not None:
        return {"images": first}
    # Arrays come as ((x1, x2), None), the pairs of a data set as (x1, x2).
    views = first if isinstance(first, (tuple, list)) else data
    views = tuple(views) if isinstance(views, (tuple, list)) else (views,)
    rank = len(model.encoder.input_shape)
    if len(views) < 2 or any(len(x.shape) != rank for x in views):
        raise ValueError(
            f"`{type(model).__name__}` needs batches of views (x1, x2), or images and an "
            f"`augmenter`. Received shapes: {[tuple(x.shape) for x in views]}"
        )
    return {"views": views}


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
