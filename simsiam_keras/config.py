"""Every flag of every command: a command is a frozen dataclass, a flag is one of its fields.

Only absl is imported here, so that `--help` answers at once. Nothing below `__main__` reads a flag:
the commands' functions take these dataclasses, which a script can build as well.
"""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path

from absl import flags


def option(default, help, choices=None, minimum=None):
    """A dataclass field that becomes a flag."""
    metadata = {"help": help, "choices": choices, "minimum": minimum}
    return dataclasses.field(default=default, metadata=metadata)


# What a method's paper uses where the defaults below, SimSiam's, are not its own: the heads and the
# constants of the loss. Applied by `parse` to flags that are neither typed nor in a flagfile. The
# keys are the choices of --method.
METHOD_DEFAULTS = {
    "simsiam": {},
    "byol": {"projector_hidden": 4096, "output_dim": 256, "predictor_hidden": 4096},
    "simclr": {"projector_hidden": 2048, "output_dim": 128, "temperature": 0.5},
    "swav": {"projector_hidden": 2048, "output_dim": 128, "temperature": 0.1},
    "siamese_contrastive": {"margin": 1.0},
    "siamese_triplet": {"margin": 0.2},
}
SUPERVISED = ("siamese_contrastive", "siamese_triplet")  # their losses need labels
NEEDS_OTHERS = ("simclr", "swav", *SUPERVISED)  # their losses compare the images of a batch
# Flags that mean something to some methods only. Widths and constants of a loss are not among them:
# a flagfile that has them serves every method.
ONLY_OF = {
    **dict.fromkeys(
        (
            *("stop_gradient", "predictor", "batch_norm", "output_affine", "similarity"),
            *("symmetrization", "alternate_steps"),
        ),
        ("simsiam",),
    ),
    "predictor_lr": ("simsiam", "byol"),
    "small_views": ("simsiam", "swav"),
    "queue": ("swav",),
    "labels_per_class": SUPERVISED,
}
# The paper's experiments, values of --study, and those that change nothing which only SimSiam has.
EXPERIMENTS = (
    *("stop_gradient", "predictor", "batch_size", "batch_norm", "symmetrization"),
    *("similarity", "output_dim", "alternation"),
)
OF_EVERY_METHOD = ("batch_size", "output_dim")


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    run_dir: str = option("", "Folder to write to; by default named after the input.")
    backend: str = option(
        os.environ.get("KERAS_BACKEND", "tensorflow"),
        "Keras backend.",
        choices=("tensorflow", "jax", "torch"),
    )
    seed: int = option(0, "Seed of initialization, order and augmentation.", minimum=0)
    debug: bool = option(False, "Show tracebacks and library messages.")


@dataclass(frozen=True)
class Images:
    """Where images come from."""

    dataset: str = option(
        "digits",
        "`digits`, `folder:PATH`, `npz:PATH`, or the name of a TensorFlow data set.",
    )
    data_dir: str = option("", "Where TensorFlow data sets are prepared.")
    split: str = option("train", "Split to train or search in.")


@dataclass(frozen=True)
class Views(Images):
    """How two views are made of each image."""

    recipe: str = option("cifar", "Augmentation recipe.", choices=("cifar", "imagenet", "digits"))
    augment: str = option(
        "host",
        "`host`: keras_cv layers in tf.data; `device`: inside the training step, on any backend.",
        choices=("host", "device"),
    )
    image_size: int = option(0, "Side of a view in pixels; 0: the recipe's.", minimum=0)
    min_crop: float = option(
        0.0, "Smallest crop as a share of the area; 0: the recipe's.", minimum=0
    )
    small_views: int = option(
        0, "Low-resolution views beside the full ones (multi-crop, section 3.3 of SwAV).", minimum=0
    )
    small_size: int = option(0, "Their side in pixels; 0: half of a full view's.", minimum=0)
    small_min_crop: float = option(
        0.05, "Their smallest crop; their largest is the full views' smallest.", minimum=0
    )


@dataclass(frozen=True)
class Pretrain(Common, Views):
    """Trains an encoder and leaves a run folder."""

    method: str = option(
        "simsiam",
        "What to train; the last two need labels.",
        choices=tuple(METHOD_DEFAULTS),
    )

    probe_dataset: str = option(
        "", "Labelled images for the kNN monitor; empty: `--dataset` if labelled; `none`: no kNN."
    )
    probe_split: str = option("train", "Split that is the kNN's bank.")
    probe_test_split: str = option(
        "test", "Split that is classified; where there is none, a fifth of the bank is."
    )

    encoder: str = option(
        "resnet18", "resnet10, resnet18, resnet34, resnet50, twin or keras.applications:NAME."
    )
    stem: str = option("cifar", "First layers.", choices=("cifar", "imagenet", "stride2"))
    width: int = option(64, "Channels of the encoder's first stage.", minimum=1)
    zero_init_residual: bool = option(False, "Start every residual block as the identity.")
    projector_layers: int = option(2, "Linear layers of the projector.", minimum=1)
    output_dim: int = option(2048, "Width d of the outputs z and p.", minimum=1)
    projector_hidden: int = option(
        0, "Width of the projector's hidden layers; 0: that of its output.", minimum=0
    )
    output_affine: bool = option(False, "Scale and offset in the projector's last BN.")
    predictor_hidden: int = option(512, "Width of the predictor's bottleneck.", minimum=1)
    stop_gradient: bool = option(
        True, "False removes the stop-gradient: watch it collapse (section 4.1)."
    )
    predictor: str = option(
        "mlp",
        "h: `mlp`, learned; `none`, p = z; `fixed`, as initialized (section 4.2); "
        "`moving_average`, p = z and a memory of each image's z as target (section 5.2).",
        choices=("mlp", "none", "fixed", "moving_average"),
    )
    batch_norm: str = option(
        "default",
        "BN in the heads: `none`; `hidden` layers; `default`, also the projector's output; "
        "`all`, also the predictor's (section 4.4, table 3).",
        choices=("default", "none", "hidden", "all"),
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
        choices=("sym", "asym", "asym2x"),
    )
    alternate_steps: str = option(
        "1",
        "Optimizer steps that targets are made from the same weights, or `epoch`; 1 is SimSiam "
        "(section 5.2).",
    )
    ema_momentum: float = option(
        0.996, "BYOL: momentum of the target network at the start; rises to 1.", minimum=0
    )
    temperature: float = option(0.5, "SimCLR, SwAV: what similarities are divided by.", minimum=0.0)
    prototypes: int = option(3000, "SwAV: number k of prototypes.", minimum=2)
    sinkhorn_epsilon: float = option(0.05, "SwAV: smoothness of the codes.", minimum=0.0)
    sinkhorn_iterations: int = option(3, "SwAV: iterations that balance the codes.", minimum=1)
    freeze_prototypes_epochs: int = option(
        1, "SwAV: epochs at the start without training of the prototypes.", minimum=0
    )
    queue: int = option(
        0, "SwAV: outputs of earlier batches that the codes are balanced over as well.", minimum=0
    )
    queue_start_epoch: int = option(15, "SwAV: epoch that begins to use the queue.", minimum=0)
    margin: float = option(
        1.0, "Siamese: distance that different classes are held apart by.", minimum=0.0
    )
    mining: str = option(
        "all",
        "Siamese triplets: all, or the hardest positive and negative of each anchor.",
        choices=("all", "hard"),
    )
    classes_per_batch: int = option(
        0, "Siamese: classes in a batch, with as many images each; 0: as many as fit.", minimum=0
    )
    labels_per_class: int = option(
        0, "Siamese: labelled images of each class to train on; 0: all.", minimum=0
    )

    epochs: int = option(800, "Passes over the images.", minimum=1)
    batch_size: int = option(512, "Images in an optimizer step.", minimum=2)
    gradient_accumulation: int = option(
        1, "Parts a batch is computed in; BN sees a part at a time.", minimum=1
    )
    base_lr: float = option(
        0.03, "Learning rate for a batch of 256; scaled by batch / 256.", minimum=0
    )
    warmup_epochs: int = option(0, "Epochs of linear warm-up before the cosine.", minimum=0)
    optimizer: str = option(
        "sgd",
        "`sgd`; `lars`, for large batches, which leaves biases and BN out of decay and scaling.",
        choices=("sgd", "lars"),
    )
    momentum: float = option(0.9, "Momentum of the optimizer.", minimum=0)
    weight_decay: float = option(5e-4, "Coupled weight decay, on every parameter.", minimum=0)
    predictor_lr: str = option(
        "decayed", "Learning rate of the predictor (section 4.2).", choices=("decayed", "constant")
    )
    precision: str = option(
        "float32", "Arithmetic.", choices=("float32", "mixed_bfloat16", "mixed_float16")
    )
    jit: str = option(
        "auto",
        "Compile the step with XLA; `auto`: but for TensorFlow on a CPU, where that is slower.",
        choices=("auto", "on", "off"),
    )
    strategy: str = option(
        "auto",
        "`auto`: all GPUs (on JAX all devices of all processes); `mirrored`: MirroredStrategy.",
        choices=("auto", "none", "mirrored"),
    )
    virtual_devices: int = option(
        0, "Split the CPU into this many devices, to try several.", minimum=0
    )
    job_addresses: str = option(
        "",
        "HOST:PORT of the first of several processes, on JAX; this and the next two are by default "
        "what KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID say.",
    )
    num_processes: int = option(0, "Processes of this run.", minimum=0)
    process_id: int = option(-1, "Number of this process; 0 writes the run folder.", minimum=-1)

    knn_every: int = option(
        10, "Epochs between kNN measurements; 0: first and last only.", minimum=0
    )
    knn_k: int = option(200, "Neighbours, at most the bank.", minimum=1)
    knn_temperature: float = option(0.1, "Temperature of the votes.", minimum=0)
    checkpoint_every: int = option(1, "Epochs between checkpoints.", minimum=1)
    stop_on_collapse: bool = option(False, "End the run when the outputs have collapsed.")

    def __post_init__(self):
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                "--batch_size must be a multiple of --gradient_accumulation. Received: "
                f"batch_size={self.batch_size}, gradient_accumulation={self.gradient_accumulation}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                "--warmup_epochs must be below --epochs. Received: "
                f"warmup_epochs={self.warmup_epochs}, epochs={self.epochs}"
            )
        if not re.fullmatch("epoch|[1-9][0-9]*", self.alternate_steps):
            raise ValueError(
                "--alternate_steps must be a whole number of at least 1, or `epoch`. "
                f"Received: {self.alternate_steps}"
            )
        for sentence in _contradictions(self):
            raise ValueError(sentence)


def _contradictions(cfg):
    """A sentence for each of the flags that do not go together."""
    for flag, methods in ONLY_OF.items():
        if cfg.method not in methods and getattr(cfg, flag) != getattr(Pretrain, flag):
            yield f"--{flag} belongs to --method={'|'.join(methods)}, not to {cfg.method}"
    if cfg.small_views and cfg.symmetrization != "sym":
        yield f"--small_views needs --symmetrization=sym, not {cfg.symmetrization}"
    if cfg.method in NEEDS_OTHERS and cfg.batch_size // cfg.gradient_accumulation < 2:
        yield (
            f"--method={cfg.method} tells the images of a batch apart: --batch_size must be at "
            f"least twice --gradient_accumulation. Received: {cfg.batch_size} and "
            f"{cfg.gradient_accumulation}"
        )
    remembers, alternates = cfg.predictor == "moving_average", cfg.alternate_steps != "1"
    if cfg.predictor_lr == "constant" and cfg.predictor != "mlp":
        yield f"--predictor_lr=constant needs a predictor that learns, not {cfg.predictor}"
    if cfg.batch_norm == "all" and cfg.predictor in ("none", "moving_average"):
        yield f"--batch_norm=all needs a predictor to normalize, not {cfg.predictor}"
    if cfg.batch_norm in ("none", "hidden") and cfg.output_affine:
        yield f"--output_affine needs BN on the output, not --batch_norm={cfg.batch_norm}"
    if remembers and alternates:
        yield "--predictor=moving_average and --alternate_steps both make the targets; use one"
    if remembers and cfg.similarity != "cosine":
        yield (
            "--predictor=moving_average needs --similarity=cosine: its memory starts at zero, and "
            "only the cosine does not see lengths"
        )
    if (remembers or alternates) and not cfg.stop_gradient:
        yield (
            "--stop_gradient=false has no effect on the targets of --predictor=moving_average and "
            "--alternate_steps, which are constants"
        )


@dataclass(frozen=True)
class Grid(Pretrain):
    """Several settings of a recipe, each with several seeds."""

    study_dir: str = option(
        "",
        "Folder to write to, which `--run_dir` typed on the command line names as well; by "
        "default that of the recipe's own run, followed by the command's name.",
    )
    seeds: int = option(3, "Runs of every setting: seeds `--seed`, `--seed` + 1, ...", minimum=1)
    jobs: int = option(
        1,
        "Runs at a time, each on its share of the processors: faster where one run does not keep "
        "all of them busy, as small ones do not.",
        minimum=1,
    )
    linear: bool = option(True, "Also train a linear classifier on each encoder.")
    retry_failed: bool = option(False, "Run again what has failed.")


@dataclass(frozen=True)
class Study(Grid):
    """Repeats the paper's experiments and reports them beside the paper's numbers."""

    study: str = option(
        "all",
        "Experiment of the paper; with another method than SimSiam "
        f"{' or '.join(OF_EVERY_METHOD)}.",
        choices=(*EXPERIMENTS, "all"),
    )

    def __post_init__(self):
        super().__post_init__()
        possible = experiments(self.method, "all")
        if self.study not in ("all", *possible):
            raise ValueError(
                f"--study={self.study} changes a part that only SimSiam has; with "
                f"--method={self.method} it may be {', '.join(possible)} or all"
            )


def experiments(method, study):
    """The names of the experiments that `--study` stands for with a method."""
    possible = EXPERIMENTS if method in ONLY_OF["stop_gradient"] else OF_EVERY_METHOD
    return possible if study == "all" else (study,)


# The settings that a method has to itself; everything else is the same for all that are compared.
OWN = (
    *("projector_layers", "output_dim", "projector_hidden", "output_affine", "predictor_hidden"),
    *("stop_gradient", "predictor", "batch_norm", "similarity", "symmetrization"),
    *("alternate_steps", "ema_momentum", "temperature", "prototypes", "sinkhorn_epsilon"),
    *("sinkhorn_iterations", "freeze_prototypes_epochs", "queue", "queue_start_epoch", "margin"),
    *("mining", "classes_per_batch", "small_views", "small_size", "small_min_crop"),
    *("optimizer", "base_lr", "warmup_epochs", "momentum", "weight_decay", "predictor_lr"),
)


@dataclass(frozen=True)
class Compare(Grid):
    """Trains several methods alike and reports them beside each other."""

    methods: str = option("simsiam,byol,simclr,swav", "Methods, separated by commas.")
    recipes: str = option(
        "",
        "Flagfile of each method, `{method}` standing for its name, from which only what it has to "
        "itself is taken: heads, constants of the loss, optimizer. By default `{method}_NAME` "
        "beside --flagfile=NAME. A method without one takes the flags here and its paper's heads.",
    )

    def __post_init__(self):
        super().__post_init__()
        for method in self.methods.split(","):
            if method not in METHOD_DEFAULTS:
                raise ValueError(
                    f"--methods must be among {', '.join(METHOD_DEFAULTS)}, separated by commas. "
                    f"Received: {self.methods}"
                )


@dataclass(frozen=True)
class EncoderInput(Common, Images):
    """An encoder and the images to put through it."""

    encoder: str = option("", "SavedModel folder or .keras file (required).")
    batch_size: int = option(256, "Images in a forward step.", minimum=1)

    def __post_init__(self):
        if not self.encoder:
            raise ValueError("--encoder is required: the path of a SavedModel or a .keras file")


@dataclass(frozen=True)
class LinearProbe(EncoderInput):
    """Trains a linear classifier on frozen features and reports its accuracy."""

    test_split: str = option("test", "Split that is classified once, at the end.")
    optimizer: str = option("sgd", "Optimizer.", choices=("sgd", "lars"))
    learning_rates: str = option("", "Comma-separated rates to sweep; empty: a wide grid.")
    epochs: int = option(90, "Passes over the features.", minimum=1)
    probe_batch_size: int = option(
        0, "Features in a step; 0: 256 for sgd, 4096 for lars.", minimum=0
    )
    validation_fraction: float = option(0.1, "Share of train that chooses the rate.", minimum=0)
    classes: int = option(0, "Classes expected; 0: as many as are found.", minimum=0)


@dataclass(frozen=True)
class KNN(EncoderInput):
    """Classifies by weighted nearest neighbours in feature space."""

    test_split: str = option("test", "Split that is classified.")
    knn_k: int = option(200, "Neighbours, at most the bank.", minimum=1)
    knn_temperature: float = option(0.1, "Temperature of the votes.", minimum=0)


@dataclass(frozen=True)
class Embed(EncoderInput):
    """Writes the features of a data set to features.npy, its labels to labels.npy."""


@dataclass(frozen=True)
class Export(Common):
    """Writes the encoder of a run's last checkpoint, finished or not."""

    output: str = option("", "Folder to write encoder/ and encoder.keras to (required).")

    def __post_init__(self):
        if not self.run_dir or not self.output:
            raise ValueError("--run_dir and --output are required")


@dataclass(frozen=True)
class Diagnose(Common):
    """Says whether a run collapsed, when, and what to try."""

    def __post_init__(self):
        if not self.run_dir:
            raise ValueError("--run_dir is required: the folder of a run, finished or not")


@dataclass(frozen=True)
class Preview(Common, Views):
    """Draws pairs of views, to see what the encoder will be shown."""

    pairs: int = option(8, "Images to show.", minimum=1)
    output: str = option("", "PNG to write; default RUN_DIR/views.png or views.png.")


COMMANDS = {
    "pretrain": Pretrain,
    "linear-probe": LinearProbe,
    "knn": KNN,
    "embed": Embed,
    "export": Export,
    "preview": Preview,
    "diagnose": Diagnose,
    "study": Study,
    "compare": Compare,
}


def parse(command, argv):
    """Reads the flags of a command.

    Args:
        command: a key of `COMMANDS`.
        argv: the arguments after the command.

    Returns:
        The command's dataclass.

    Raises:
        absl.flags.Error: on an unknown flag, a wrong value or a missing flagfile.
        ValueError: on values that do not go together, or an argument that is no flag.
    """
    values = flags.FlagValues()
    cls = COMMANDS[command]
    if issubclass(cls, Grid):
        # A flagfile names the folder of the recipe's own run, which a grid must not write to.
        argv = [re.sub("^--?run_dir(?==|$)", "--study_dir", argument) for argument in argv]
    for field in dataclasses.fields(cls):
        _define(field, values)
    rest = values([command, *argv])[1:]
    if rest:
        raise ValueError(f"{command} takes flags only. Received: {' '.join(rest)}")
    if issubclass(cls, Pretrain):
        for flag, value in METHOD_DEFAULTS[values.method].items():
            if not values[flag].present:
                values[flag].value = value
    if cls is Compare and not values["recipes"].present:
        values["recipes"].value = _beside_flagfile(argv)
    return cls(**{field.name: values[field.name].value for field in dataclasses.fields(cls)})


def _beside_flagfile(argv):
    """The template of the methods' flagfiles that belongs to the last `--flagfile=NAME`."""
    named = [re.fullmatch("--?flagfile=(.+)", argument) for argument in argv]
    paths = [Path(match[1]) for match in named if match]
    return str(paths[-1].with_name("{method}_" + paths[-1].name)) if paths else ""


def _define(field, values):
    help, choices, minimum = (field.metadata[k] for k in ("help", "choices", "minimum"))
    if choices:
        flags.DEFINE_enum(field.name, field.default, choices, help, flag_values=values)
    elif field.type is bool:
        flags.DEFINE_boolean(field.name, field.default, help, flag_values=values)
    elif field.type is int:
        flags.DEFINE_integer(
            field.name, field.default, help, lower_bound=minimum, flag_values=values
        )
    elif field.type is float:
        flags.DEFINE_float(field.name, field.default, help, lower_bound=minimum, flag_values=values)
    else:
        flags.DEFINE_string(field.name, field.default, help, flag_values=values)


def help_text(command):
    """The flags of a command with their defaults, one to a line."""
    cls = COMMANDS[command]
    lines = [
        cls.__doc__,
        "",
        f"usage: python -m simsiam_keras {command} [--flagfile=FILE] [--flag=value ...]",
        "",
    ]
    for field in dataclasses.fields(cls):
        choices = field.metadata["choices"]
        kind = "|".join(choices) if choices else field.type.__name__
        lines.append(f"  --{field.name}={kind}")
        lines.append(f"      {field.metadata['help']} [{_spell(field.default)}]")
    return "\n".join(lines)


def to_flagfile(config):
    """The configuration as the text of a flagfile that gives it back."""
    pairs = dataclasses.asdict(config).items()
    return "".join(f"--{name}={_spell(value)}\n" for name, value in pairs)


def _spell(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def run_dir(config):
    """The folder that a pretraining run writes to, as a `pathlib.Path`."""
    if config.run_dir:
        return Path(config.run_dir)
    name = config.dataset.rstrip("/").split(":")[-1].split("/")[-1]
    return Path("saved_models") / f"{config.method}_{name}"


def study_dir(config):
    """The folder that a `Grid` writes to, as a `pathlib.Path`."""
    return Path(config.study_dir or f"{run_dir(config)}_{type(config).__name__.lower()}")
