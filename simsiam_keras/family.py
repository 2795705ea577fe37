"""The family: for each method its class, its own flags, and what sets it apart. No Keras here.

A flag is a field of a dataclass. Every method has one with the flags that it has to itself, whose
defaults are its paper's and stand nowhere else: its class takes them from here, and `config` puts
them beside the flags of every run.
"""

import dataclasses
import re
from dataclasses import dataclass

# (i, j): view i predicts the target that is made from view j. Section 4.6 of SimSiam's paper.
PAIRS = {"sym": ((1, 2), (2, 1)), "asym": ((1, 2),), "asym2x": ((1, 2), (3, 4))}


def option(default, help, choices=None, minimum=None):
    """A dataclass field that becomes a flag."""
    metadata = {"help": help, "choices": choices, "minimum": minimum}
    return dataclasses.field(default=default, metadata=metadata)


def redefine(flags, name, **changed):
    """The field `name` of another dataclass of flags with another `default` or other metadata."""
    field = flags.__dataclass_fields__[name]
    default = changed.pop("default", field.default)
    return dataclasses.field(default=default, metadata={**field.metadata, **changed})


@dataclass(frozen=True)
class Flags:
    """What a run asks of the flags of any method; a method makes flags of some, or answers itself.

    Attributes:
        group: heading of a class's flags in `--help`.
        full_views: views of full size of each image.
        small_views: small views beside them.
        ablated: whether `Member.ablations` is the class to build.
        predictor_lr: see `PredictorFlags`.
        remembers: whether batches carry the number of each image.
        labels_per_class: see `SiameseFlags`.
        classes_per_batch: see `SiameseFlags`.
    """

    group = "method"
    full_views = 2
    small_views = 0
    ablated = False
    predictor_lr = "decayed"
    remembers = False
    labels_per_class = 0
    classes_per_batch = 0

    def contradictions(self):
        """A sentence for each of the flags that do not go together."""
        return ()


@dataclass(frozen=True)
class ProjectorFlags(Flags):
    """A projector between the encoder's features and the outputs."""

    projector_layers: int = option(2, "Linear layers of the projector.", minimum=1)
    output_dim: int = option(2048, "Width d of the outputs.", minimum=1)
    projector_hidden: int = option(
        0, "Width of the projector's hidden layers; 0: that of its output.", minimum=0
    )


@dataclass(frozen=True)
class PredictorFlags(ProjectorFlags):
    """A predictor h on top of it."""

    predictor_hidden: int = option(512, "Width of the predictor's bottleneck.", minimum=1)
    predictor_lr: str = option(
        "decayed", "Learning rate of the predictor (section 4.2).", choices=("decayed", "constant")
    )


@dataclass(frozen=True)
class SmallViewFlags(Flags):
    """Small views beside the full ones."""

    group = "views"

    small_views: int = option(
        0, "Low-resolution views beside the full ones (multi-crop, section 3.3 of SwAV).", minimum=0
    )
    small_size: int = option(0, "Their side in pixels; 0: half of a full view's.", minimum=0)
    small_min_crop: float = option(
        0.05, "Their smallest crop; their largest is the full views' smallest.", minimum=0
    )


@dataclass(frozen=True)
class SimSiamFlags(SmallViewFlags, PredictorFlags):
    """SimSiam, and its paper's ablations."""

    group = "method"

    output_affine: bool = option(False, "Scale and offset in the projector's last BN.")
    batch_norm: str = option(
        "default",
        "BN in the heads: `none`; `hidden` layers; `default`, also the projector's output; "
        "`all`, also the predictor's (section 4.4, table 3).",
        choices=("default", "none", "hidden", "all"),
    )
    stop_gradient: bool = option(
        True, "False removes the stop-gradient: watch it collapse (section 4.1)."
    )
    predictor: str = option(
        "mlp",
        "h: `mlp`, learned; `none`, p = z; `fixed`, as initialized (section 4.2); "
        "`moving_average`, p = z and a memory of each image's z as target (section 5.2).",
        choices=("mlp", "none", "fixed", "moving_average"),
    )
    similarity: str = option(
        "cosine",
        "D: negative cosine, or cross-entropy of softmaxes over the d channels (section 4.5).",
        choices=("cosine", "cross_entropy"),
    )
    symmetrization: str = option(
        "sym",
        "`sym`: both views predict; `asym`: one does; `asym2x`: one of each of two pairs "
        "(section 4.6).",
        choices=tuple(PAIRS),
    )
    alternate_steps: str = option(
        "1",
        "Optimizer steps that targets are made from the same weights, or `epoch`; 1 is SimSiam "
        "(section 5.2).",
    )

    @property
    def full_views(self):
        """Views of full size that the pairs are formed of."""
        return max(map(max, PAIRS[self.symmetrization]))

    @property
    def ablated(self):
        """Whether anything differs from plain SimSiam but the width and BN of the heads."""
        return bool(
            self.small_views
            or not self.stop_gradient
            or self.predictor != "mlp"
            or self.similarity != "cosine"
            or self.symmetrization != "sym"
            or self.alternate_steps != "1"
        )

    @property
    def remembers(self):
        """Whether there is a memory with a place for each image."""
        return self.predictor == "moving_average"

    def contradictions(self):
        if not re.fullmatch("epoch|[1-9][0-9]*", self.alternate_steps):
            yield (
                "--alternate_steps must be a whole number of at least 1, or `epoch`. "
                f"Received: {self.alternate_steps}"
            )
        if self.small_views and self.symmetrization != "sym":
            yield f"--small_views needs --symmetrization=sym, not {self.symmetrization}"
        alternates = self.alternate_steps != "1"
        if self.predictor_lr == "constant" and self.predictor != "mlp":
            yield f"--predictor_lr=constant needs a predictor that learns, not {self.predictor}"
        if self.batch_norm == "all" and self.predictor in ("none", "moving_average"):
            yield f"--batch_norm=all needs a predictor to normalize, not {self.predictor}"
        if self.batch_norm in ("none", "hidden") and self.output_affine:
            yield f"--output_affine needs BN on the output, not --batch_norm={self.batch_norm}"
        if self.remembers and alternates:
            yield "--predictor=moving_average and --alternate_steps both make the targets; use one"
        if self.remembers and self.similarity != "cosine":
            yield (
                "--predictor=moving_average needs --similarity=cosine: its memory starts at zero, "
                "and only the cosine does not see lengths"
            )
        if (self.remembers or alternates) and not self.stop_gradient:
            yield (
                "--stop_gradient=false has no effect on the targets of "
                "--predictor=moving_average and --alternate_steps, which are constants"
            )


@dataclass(frozen=True)
class FastSiamFlags(PredictorFlags):
    """Of https://doi.org/10.1007/978-3-031-16788-1_4; the heads are SimSiam's."""

    views: int = option(
        4, "Full views of each image, each of which predicts the mean of the others.", minimum=2
    )
    one_pass: bool = option(
        False,
        "All views through the network as one batch, a little faster with small batches on a GPU; "
        "BN then has the statistics of all of them.",
    )
    output_affine: bool = redefine(SimSiamFlags, "output_affine")

    @property
    def full_views(self):
        """Views of full size of each image."""
        return self.views


@dataclass(frozen=True)
class BYOLFlags(PredictorFlags):
    """Section 3.3 of arXiv 2006.07733."""

    output_dim: int = redefine(ProjectorFlags, "output_dim", default=256)
    projector_hidden: int = redefine(ProjectorFlags, "projector_hidden", default=4096)
    predictor_hidden: int = redefine(PredictorFlags, "predictor_hidden", default=4096)
    ema_momentum: float = option(
        0.996, "Momentum of the target network at the start; rises to 1.", minimum=0
    )


@dataclass(frozen=True)
class SimCLRFlags(ProjectorFlags):
    """Section 4.2 and appendix B.9 of arXiv 2002.05709; the head is its code's."""

    output_dim: int = redefine(ProjectorFlags, "output_dim", default=128)
    projector_hidden: int = redefine(ProjectorFlags, "projector_hidden", default=2048)
    temperature: float = option(0.5, "What similarities are divided by.", minimum=0)


@dataclass(frozen=True)
class SwAVFlags(SmallViewFlags, ProjectorFlags):
    """Appendix A of arXiv 2006.09882."""

    group = "method"

    output_dim: int = redefine(ProjectorFlags, "output_dim", default=128)
    projector_hidden: int = redefine(ProjectorFlags, "projector_hidden", default=2048)
    temperature: float = redefine(SimCLRFlags, "temperature", default=0.1)
    prototypes: int = option(3000, "Number k of prototypes.", minimum=2)
    sinkhorn_epsilon: float = option(0.05, "Smoothness of the codes.", minimum=0)
    sinkhorn_iterations: int = option(3, "Iterations that balance the codes.", minimum=1)
    freeze_prototypes_epochs: int = option(
        1, "Epochs at the start without training of the prototypes.", minimum=0
    )
    queue: int = option(
        0, "Outputs of earlier batches that the codes are balanced over as well.", minimum=0
    )
    queue_start_epoch: int = option(15, "Epoch that begins to use the queue.", minimum=0)


@dataclass(frozen=True)
class VICRegFlags(ProjectorFlags):
    """Section 4.2 of arXiv 2105.04906; the coefficients' names are its code's."""

    projector_layers: int = redefine(ProjectorFlags, "projector_layers", default=3)
    output_dim: int = redefine(ProjectorFlags, "output_dim", default=8192)
    sim_coeff: float = option(
        25.0, "Weight of the invariance, the views' squared distance.", minimum=0
    )
    std_coeff: float = option(
        25.0, "Weight of the variance, of channels that deviate by less than 1.", minimum=0
    )
    cov_coeff: float = option(
        1.0, "Weight of the covariance between different channels.", minimum=0
    )


@dataclass(frozen=True)
class SiameseFlags(Flags):
    """What both supervised twins take."""

    full_views = 1

    margin: float = option(1.0, "Distance that different classes are held apart by.", minimum=0)
    classes_per_batch: int = option(
        0, "Classes in a batch, with as many images each; 0: as many as fit.", minimum=0
    )
    labels_per_class: int = option(
        0, "Labelled images of each class to train on; 0: all.", minimum=0
    )


@dataclass(frozen=True)
class SiameseTripletFlags(SiameseFlags):
    """The margin is that of arXiv 1503.03832."""

    margin: float = redefine(SiameseFlags, "margin", default=0.2)
    mining: str = option(
        "all",
        "Triplets: all, or the hardest positive and negative of each anchor.",
        choices=("all", "hard"),
    )


@dataclass(frozen=True)
class Member:
    """A method.

    Attributes:
        title: its name in tables.
        path: its class.
        flags: the dataclass of its own flags.
        ablations: the class that takes its paper's ablations, or None.
        supervised: whether its loss needs labels.
        compares: whether its loss compares the images of a batch, and so needs two at least.
        high_loss: above it a model has not learnt; None where the loss has no fixed range.
        rate: its paper's `--base_lr` on ImageNet; None where ours has no such meaning.
        negatives: whether other images are pushed away.
        momentum: whether a moving average of the encoder makes the targets.
        clustering: whether outputs are assigned to clusters.
        paper: accuracies in percent after 100, 200, 400 and 800 epochs in table 4 of SimSiam's
            paper, or None.
    """

    title: str
    path: str
    flags: type
    ablations: str | None = None
    supervised: bool = False
    compares: bool = False
    high_loss: float | None = None
    rate: float | None = None
    negatives: bool = False
    momentum: bool = False
    clustering: bool = False
    paper: tuple | None = None


FAMILY = {
    "simsiam": Member(
        "SimSiam",
        "simsiam_keras.methods.simsiam.SimSiam",
        SimSiamFlags,
        ablations="simsiam_keras.methods.ablations.AblatedSimSiam",
        # A predictor that stays random ends at -.13 on the digits, the trained one at -.39.
        high_loss=-0.3,
        rate=0.05,
        paper=(68.1, 70.0, 70.8, 71.3),
    ),
    "fastsiam": Member(
        "FastSiam",
        "simsiam_keras.methods.fastsiam.FastSiam",
        FastSiamFlags,
        # A predictor that stays random ends at -.25 on the digits, the trained one at -.87.
        high_loss=-0.3,
    ),
    "byol": Member(
        "BYOL",
        "simsiam_keras.methods.byol.BYOL",
        BYOLFlags,
        momentum=True,
        paper=(66.5, 70.6, 73.2, 74.3),
    ),
    "simclr": Member(
        "SimCLR",
        "simsiam_keras.methods.simclr.SimCLR",
        SimCLRFlags,
        compares=True,
        negatives=True,
        paper=(66.5, 68.3, 69.8, 70.4),
    ),
    "swav": Member(
        "SwAV",
        "simsiam_keras.methods.swav.SwAV",
        SwAVFlags,
        compares=True,
        clustering=True,
        paper=(66.5, 69.1, 70.7, 71.8),
    ),
    "vicreg": Member(
        "VICReg",
        "simsiam_keras.methods.vicreg.VICReg",
        VICRegFlags,
        compares=True,
    ),
    "siamese_contrastive": Member(
        "Siamese, contrastive",
        "simsiam_keras.methods.siamese.SiameseContrastive",
        SiameseFlags,
        supervised=True,
        compares=True,
        negatives=True,
    ),
    "siamese_triplet": Member(
        "Siamese, triplet",
        "simsiam_keras.methods.siamese.SiameseTriplet",
        SiameseTripletFlags,
        supervised=True,
        compares=True,
        negatives=True,
    ),
}


def own_flags(method):
    """The names of the flags that a method has to itself."""
    return tuple(field.name for field in dataclasses.fields(FAMILY[method].flags))


def owners(flag):
    """The methods that a flag belongs to; none of a flag of every run, or of no flag."""
    return tuple(method for method in FAMILY if flag in own_flags(method))


def classes():
    """The paths of the family's classes, a list."""
    paths = [path for member in FAMILY.values() for path in (member.path, member.ablations)]
    return [path for path in paths if path]


def split(path):
    """Module and name of a class's path."""
    module, _, name = path.rpartition(".")
    return module, name
