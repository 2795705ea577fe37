"""SimSiam: two views, one encoder, a predictor on one side and a stop-gradient on the other."""

import keras
from keras import ops

from simsiam_keras import heads
from simsiam_keras.losses import SIMILARITIES
from simsiam_keras.methods.base import JointEmbedding, output_std
from simsiam_keras.targets import MovingAverage, Snapshot

# (i, j): view i predicts the target that is made from view j. Section 4.6.
PAIRS = {"sym": ((1, 2), (2, 1)), "asym": ((1, 2),), "asym2x": ((1, 2), (3, 4))}


def views_of(symmetrization):
    """Number of views that a `symmetrization` takes of each image."""
    return max(map(max, PAIRS[symmetrization]))


@keras.saving.register_keras_serializable("simsiam_keras")
class SimSiam(JointEmbedding):
    """Simple siamese representation learning.

    With z = f(x) from encoder and projector, p = h(z) from the predictor, and
    `D(p, z) = -p/||p|| . z/||z||`:

        L = D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2

    `fit` takes a data set of view pairs `(x1, x2)`, or of images when an `augmenter` is given;
    calling the model or `predict` on images gives the encoder's features. It reports `loss`, in
    [-1, 1] and falling, and `z_std`, 0 when collapsed and about 1 when spread.

    The arguments after `augmenter` are the paper's ablations.

    Args:
        encoder: a built `keras.Model`, images `[n, height, width, channels]` with values 0..255 to
            features `[n, width]`.
        projector: a table of `heads.Row`, or a Keras model; default the paper's for CIFAR-10,
            `heads.projector(2048, layers=2)`.
        predictor: likewise; default `heads.predictor(d / 4)`; `()` is none, p = z (section 4.2).
        augmenter: optional layer, images to `(x1, x2)`, called inside the training step.
        stop_gradient: False removes the stop-gradient, to watch the collapse (section 4.1).
        fixed_predictor: True leaves the predictor at its random initialization (section 4.2).
        similarity: D, `"cosine"` or `"cross_entropy"` (section 4.5).
        symmetrization: `"sym"`; `"asym"`, `L = D(p1, stopgrad(z2))`; or `"asym2x"`, two such pairs
            of each image, `L = D(p1, stopgrad(z2)) / 2 + D(p3, stopgrad(z4)) / 2`, which takes
            four views (section 4.6).
        small_views: low-resolution views beside x1 and x2, which predict the targets of both and
            make none (SwAV's multi-crop); default 0. L is then the mean over all pairs.
        targets: default None, the z above; a `targets.Snapshot` or `targets.MovingAverage` makes
            the vectors eta that stand in their place (section 5.2).
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is unknown, the predictor's output is not as wide as the
            projector's, or arguments do not go together.

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
        fixed_predictor=False,
        similarity="cosine",
        symmetrization="sym",
        small_views=0,
        targets=None,
        **kwargs,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        projector = heads.projector() if projector is None else projector
        self.projector = heads.build(projector, encoder.output_shape[-1], name="projector")
        d = self.projector.output_shape[-1]
        predictor = heads.predictor(max(1, d // 4)) if predictor is None else predictor
        self.predictor = heads.build_predictor(predictor, self.projector)
        self.stop_gradient, self.fixed_predictor = stop_gradient, fixed_predictor
        self.similarity, self.symmetrization = similarity, symmetrization
        self.small_views, self.targets = small_views, targets
        _refuse(self)
        self.distance, self.pairs = SIMILARITIES[similarity](), _pairs(symmetrization, small_views)
        if fixed_predictor:
            heads.freeze(self.predictor)
        if targets is not None:
            targets.prepare(self.encoder, self.projector)
        self.built = True  # every part is built

    @classmethod
    def from_flags(cls, cfg, encoder, augmenter, steps, images):
        has_predictor = cfg.predictor in ("mlp", "fixed")
        return cls(
            encoder,
            projector=heads.projector(
                cfg.output_dim,
                layers=cfg.projector_layers,
                hidden=cfg.projector_hidden or None,
                output_affine=cfg.output_affine,
                batch_norm=cfg.batch_norm,
            ),
            predictor=heads.predictor(cfg.predictor_hidden, batch_norm=cfg.batch_norm)
            if has_predictor
            else (),
            augmenter=augmenter,
            stop_gradient=cfg.stop_gradient,
            fixed_predictor=cfg.predictor == "fixed",
            similarity=cfg.similarity,
            symmetrization=cfg.symmetrization,
            small_views=cfg.small_views,
            targets=_targets(cfg, steps, images),
        )

    @staticmethod
    def full_views(cfg):
        return views_of(cfg.symmetrization)

    def embed(self, views, training, index=None):
        expected = views_of(self.symmetrization) + self.small_views
        if len(views) != expected:
            raise ValueError(
                f"`symmetrization={self.symmetrization!r}` with `small_views={self.small_views}` "
                f"takes {expected} views of each image. Received: {len(views)} views"
            )
        x = dict(enumerate(views, start=1))
        features = {i: self.features(x[i], training=training) for i in x}
        z = {i: self.projector(features[i], training=training) for i in x}
        p = {i: self.predictor(z[i], training=training) for i, _ in self.pairs}
        outputs = {f"z{i}": z[i] for i in z} | {f"p{i}": p[i] for i in p}
        if self.targets is not None:
            x, z = ({j: each[j] for _, j in self.pairs} for each in (x, z))
            parts = {"encoder": self.encoder, "projector": self.projector}
            eta = self.targets(x, z=z, index=index, **parts, training=training)
            outputs |= {f"eta{j}": eta[j] for j in eta}
        return outputs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.z_std.update_state(output_std(y_pred["z1"]))
        loss = 0.0
        for i, j in self.pairs:
            p, target = y_pred[f"p{i}"], y_pred[f"z{j}" if self.targets is None else f"eta{j}"]
            if self.stop_gradient:
                target = ops.stop_gradient(target)
            loss = loss + self.distance(target, p) / len(self.pairs)
        return self.with_regularization(loss)

    def get_config(self):
        return {
            **super().get_config(),
            "projector": self.projector,
            "predictor": self.predictor,
            "stop_gradient": self.stop_gradient,
            "fixed_predictor": self.fixed_predictor,
            "similarity": self.similarity,
            "symmetrization": self.symmetrization,
            "small_views": self.small_views,
            "targets": self.targets,
        }


def _targets(cfg, steps, images):
    if cfg.predictor == "moving_average":
        return MovingAverage(images)
    if cfg.alternate_steps == "epoch":
        return Snapshot(steps)
    if cfg.alternate_steps == "1":
        return None  # the targets that SimSiam has
    return Snapshot(int(cfg.alternate_steps) * cfg.gradient_accumulation)


def _pairs(symmetrization, small_views):
    full = PAIRS[symmetrization]
    first = views_of(symmetrization) + 1
    small = range(first, first + small_views)
    return full + tuple((i, j) for i in small for _, j in full)


def _refuse(model):
    """Raises where arguments are unknown or do not go together."""
    for name, known in (("similarity", SIMILARITIES), ("symmetrization", PAIRS)):
        value = getattr(model, name)
        if value not in known:
            raise ValueError(f"`{name}` must be one of {tuple(known)}. Received: {name}={value!r}")
    if model.small_views and model.symmetrization != "sym":
        raise ValueError(
            "`small_views` must be 0 where `symmetrization` is not 'sym'. Received: "
            f"small_views={model.small_views}, symmetrization={model.symmetrization!r}"
        )
    if model.fixed_predictor and not model.predictor.weights:
        raise ValueError(
            "`fixed_predictor` must be False without a predictor. Received: fixed_predictor=True"
        )
    if model.targets is not None and not model.stop_gradient:
        raise ValueError(
            "`stop_gradient` must be True with `targets`, which are constants of a step. "
            f"Received: stop_gradient={model.stop_gradient}, targets={model.targets}"
        )
    if isinstance(model.targets, MovingAverage) and model.similarity != "cosine":
        raise ValueError(
            "`similarity` must be 'cosine' with `targets=MovingAverage(...)`, whose memory starts "
            f"at zero: the cosine does not see lengths. Received: similarity={model.similarity!r}"
        )
