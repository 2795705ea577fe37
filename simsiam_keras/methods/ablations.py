"""SimSiam with the switches of its paper's experiments, and with small views (multi-crop)."""

import keras
from keras import ops

from simsiam_keras import heads
from simsiam_keras.family import PAIRS
from simsiam_keras.losses import SIMILARITIES
from simsiam_keras.methods.simsiam import SimSiam
from simsiam_keras.targets import MovingAverage, Snapshot


@keras.saving.register_keras_serializable("simsiam_keras")
class AblatedSimSiam(SimSiam):
    """SimSiam of which parts are taken away or exchanged; with the defaults, SimSiam itself.

    Args:
        encoder: as of `SimSiam`; with `small_views` one that takes images of any size, as
            `encoders.resnet18((None, None, 3))`.
        projector: as of `SimSiam`.
        predictor: as of `SimSiam`; `()` is none, p = z (section 4.2).
        augmenter: as of `SimSiam`, images to as many views as there are.
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
    >>> encoder = encoders.resnet10(width=8)
    >>> model = AblatedSimSiam(encoder, heads.projector(64), symmetrization="asym2x")
    >>> model.views
    4

    Reference:
        Chen & He, https://arxiv.org/abs/2011.10566, sections 4 and 5
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
        super().__init__(encoder, projector, predictor, augmenter, **kwargs)
        self.stop_gradient, self.fixed_predictor = stop_gradient, fixed_predictor
        self.similarity, self.symmetrization = similarity, symmetrization
        self.small_views, self.targets = small_views, targets
        _refuse(self)
        self.pairs = _pairs(symmetrization, small_views)
        self.views = max(map(max, self.pairs))
        if fixed_predictor:
            heads.freeze(self.predictor)
        if targets is not None:
            targets.prepare(self.encoder, self.projector)

    def embed(self, views, training, index=None):
        x = dict(enumerate(views, start=1))
        z = {i: self.project(x[i], training) for i in x}
        p = {i: self.predictor(z[i], training=training) for i, _ in self.pairs}
        outputs = {f"z{i}": z[i] for i in z} | {f"p{i}": p[i] for i in p}
        if self.targets is not None:
            x, z = ({j: each[j] for _, j in self.pairs} for each in (x, z))
            parts = {"encoder": self.encoder, "projector": self.projector}
            eta = self.targets(x, z=z, index=index, **parts, training=training)
            outputs |= {f"eta{j}": eta[j] for j in eta}
        return outputs

    def objective(self, **outputs):
        loss = 0.0
        for i, j in self.pairs:
            target = outputs[f"z{j}" if self.targets is None else f"eta{j}"]
            if self.stop_gradient:
                target = ops.stop_gradient(target)
            D = SIMILARITIES[self.similarity]
            loss = loss + D(outputs[f"p{i}"], target) / len(self.pairs)
        return loss

    @classmethod
    def from_flags(cls, flags, encoder, augmenter, steps, images):
        more = {} if flags.predictor in ("mlp", "fixed") else {"predictor": ()}
        return super().from_flags(
            flags,
            encoder,
            augmenter,
            steps,
            images,
            stop_gradient=flags.stop_gradient,
            fixed_predictor=flags.predictor == "fixed",
            similarity=flags.similarity,
            symmetrization=flags.symmetrization,
            small_views=flags.small_views,
            targets=_targets(flags, steps, images),
            **more,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "stop_gradient": self.stop_gradient,
            "fixed_predictor": self.fixed_predictor,
            "similarity": self.similarity,
            "symmetrization": self.symmetrization,
            "small_views": self.small_views,
            "targets": self.targets,
        }


def _targets(flags, steps, images):
    if flags.predictor == "moving_average":
        return MovingAverage(images)
    if flags.alternate_steps == "epoch":
        return Snapshot(steps)
    if flags.alternate_steps == "1":
        return None  # the targets that SimSiam has
    return Snapshot(int(flags.alternate_steps) * flags.gradient_accumulation)


def _pairs(symmetrization, small_views):
    full = PAIRS[symmetrization]
    first = max(map(max, full)) + 1
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
