"""The flags of every command but those of a method: tables without logic, but for what is refused.

A command is a frozen dataclass, a flag is one of its fields. `config` puts a method's flags beside
those of a command that trains, and reads and writes them.
"""

import dataclasses
import math
import os
from dataclasses import dataclass

from simsiam_keras import family
from simsiam_keras.family import option, redefine

# The paper's experiments, values of --study; `study.grids` has what they change.
EXPERIMENTS = (
    "stop_gradient",
    "predictor",
    "batch_size",
    "batch_norm",
    "symmetrization",
    "similarity",
    "output_dim",
    "alternation",
)


# What `export` writes, values of --format.
EXPORTED = ("saved_model", "keras", "onnx", "litert", "openvino")


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    group = "run"

    run_dir: str = option("", "Folder to write to; by default named after the input.")
    backend: str = option(
        os.environ.get("KERAS_BACKEND") or "tensorflow",
        "Keras backend.",
        choices=("tensorflow", "jax", "torch"),
    )
    seed: int = option(0, "Seed of initialization, order and augmentation.", minimum=0)
    debug: bool = option(False, "Show tracebacks and library messages.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.type is float and not math.isfinite(getattr(self, field.name)):
                value = getattr(self, field.name)
                raise ValueError(f"--{field.name} must be a finite number. Received: {value}")


@dataclass(frozen=True)
class Images:
    """Where images come from."""

    group = "data"

    dataset: str = option(
        "digits",
        "`digits`, `folder:PATH`, `npz:PATH`, or the name of a TensorFlow data set.",
    )
    data_dir: str = option("", "Where TensorFlow data sets are prepared.")
    split: str = option("train", "Split to train or search in.")
    labels: str = option(
        "", "Labels of `folder:PATH`: a csv, tsv or json file; by default a folder is a class."
    )
    labels_columns: str = option(
        "",
        "Its columns: file, label and, maybe, split, separated by commas; empty: by usual names.",
    )
    value_range: str = option(
        "auto",
        "LOW,HIGH: the values that become 0 and 255 in files deeper than 8 bits; `file`: of each "
        "its own; `auto`: those of the encoder's card, otherwise of the set.",
    )


@dataclass(frozen=True)
class Channels:
    """How many channels images get; what evaluates an encoder takes those of its card."""

    group = "data"

    channels: int = option(
        3,
        "Channels of the images. 3: colour, grey is repeated; 1: grey, colour becomes its luma; "
        "any other number: files must have as many, which are taken as they are. But for 3, views "
        "are jittered in brightness and contrast alone.",
        minimum=1,
    )


@dataclass(frozen=True)
class Views:
    """How two views are made of each image."""

    group = "views"

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
    eval_crop: float = option(
        0.0,
        "Share of the short side that is looked at where features are made; 0: the recipe's, .875 "
        "of imagenet, otherwise 1.",
        minimum=0,
    )
    color_strength: float = option(
        1.0,
        "Strengths of the colour jitter and share of grey views, as a share of the recipe's: lower "
        "where colours tell your classes apart, 0 leaves them as they are.",
        minimum=0,
    )


@dataclass(frozen=True)
class Encoder:
    """What is trained."""

    group = "encoder"

    encoder: str = option(
        "",
        "resnet10, resnet18, resnet34, resnet50, twin, keras.applications:NAME or "
        "keras_hub:PRESET; empty: that of --weights, otherwise resnet18.",
    )
    weights: str = option(
        "",
        "What training starts from: a run folder, an encoder.keras, a .weights.h5, a ResNet of "
        "PyTorch (.pth, .ckpt, .safetensors); `imagenet` for keras.applications; `none`: at "
        "random; empty: the preset of keras_hub, otherwise none.",
    )
    stem: str = option(
        "auto",
        "First layers; `auto`: those of the recipe, imagenet or else cifar.",
        choices=("auto", "cifar", "imagenet", "stride2"),
    )
    width: int = option(64, "Channels of the encoder's first stage.", minimum=1)
    zero_init_residual: bool = option(False, "Start every residual block as the identity.")

    def settle_encoder(self):
        """Names the encoder where nothing else does; raises where it has no such weights."""
        if not self.encoder and self.weights in ("", "none", "imagenet"):
            object.__setattr__(self, "encoder", "resnet18")
        if self.weights == "imagenet" and not self.encoder.startswith("keras.applications:"):
            raise ValueError(
                "--weights=imagenet is for --encoder=keras.applications:NAME; of a ResNet give a "
                f"file of PyTorch's. Received: --encoder={self.encoder}"
            )

    @property
    def known(self):
        """Whether its weights are known before training, and not at random."""
        named = self.weights or self.encoder.startswith("keras_hub:")
        return bool(named) and self.weights != "none"


@dataclass(frozen=True)
class Start:
    """How training treats an encoder that starts from known weights."""

    group = "optimization"

    freeze_encoder_epochs: int = option(
        0, "First epochs, in which the heads alone are trained.", minimum=0
    )
    encoder_lr_scale: float = option(
        1.0, "Learning rate of the encoder as a share of that of the heads.", minimum=0
    )
    encoder_batch_norm: str = option(
        "trained",
        "`frozen`: the encoder's batch normalization keeps its statistics, scale and shift.",
        choices=("trained", "frozen"),
    )
    keep: str = option(
        "auto",
        "Which epoch's encoder the run leaves: `last`, or the `best` by kNN within the bank, no "
        "test image choosing, and the start unless one exceeds it by more than its noise; `auto`: "
        "best from known weights, otherwise last.",
        choices=("auto", "best", "last"),
    )


@dataclass(frozen=True)
class Optimizer:
    """What a paper tunes with its method, and `compare` so leaves to each."""

    group = "optimization"

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


@dataclass(frozen=True)
class Optimization(Optimizer):
    """How long, and in which parts."""

    epochs: int = option(800, "Passes over the images.", minimum=1)
    batch_size: int = option(512, "Images in an optimizer step.", minimum=2)
    gradient_accumulation: int = option(
        1, "Parts a batch is computed in; BN sees a part at a time.", minimum=1
    )


@dataclass(frozen=True)
class Machine:
    """What computes, and how a run is kept."""

    group = "run"

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
    data_on_device: str = option(
        "auto",
        "Keep all images in the GPU's memory, and make many steps in one program there (JAX with "
        "--augment=device); `auto`: where they take a quarter of it at most.",
        choices=("auto", "on", "off"),
    )
    steps_per_execution: int = option(
        0,
        "Steps in one program, with images on the device; 0: what divides an epoch, up to 100.",
        minimum=0,
    )
    cache: str = option(
        "memory",
        "Where images are kept once they are decoded for training; no pixel depends on it. "
        "`memory`: up to a quarter of the machine's; `disk`: for later runs too.",
        choices=("memory", "disk", "none"),
    )
    cache_dir: str = option(
        "", "Folder for `--cache=disk`; by default simsiam_keras in the user's cache folder."
    )
    checkpoint_every: int = option(1, "Epochs between checkpoints.", minimum=1)


@dataclass(frozen=True)
class Monitors:
    """What is watched while it trains."""

    group = "monitors"

    probe_dataset: str = option(
        "", "Labelled images for the kNN monitor; empty: `--dataset` if labelled; `none`: no kNN."
    )
    probe_split: str = option("train", "Split that is the kNN's bank.")
    probe_test_split: str = option(
        "test", "Split that is classified; where it has no labels, a fifth of the bank is."
    )
    knn_every: int = option(
        10, "Epochs between kNN measurements; 0: first and last only.", minimum=0
    )
    knn_k: int = option(
        0,
        "Neighbours, at most the bank; 0: its square root, no more than 200 and the images of its "
        "median class.",
        minimum=0,
    )
    knn_temperature: float = option(0.1, "Temperature of the votes.", minimum=0)
    view_whitening: float = option(
        0.0,
        "End the encoder with a linear layer by which directions count less where the views of one "
        "image differ; the smaller, the stronger: 0.3 is mild, 0 leaves it out. With --keep=best "
        "it stays only where kNN is no worse for it.",
        minimum=0,
    )
    projector: bool = option(
        False,
        "At the end also write the features of up to 5,000 images for TensorBoard's projector, "
        "with thumbnails.",
    )
    stop_on_collapse: bool = option(False, "End the run when the outputs have collapsed.")
    stop_when: str = option(
        "never",
        "`plateau`: end the run when kNN, or without labels the measure that stands in for it, has "
        "not risen by more than its noise in --patience measurements. The learning rate is planned "
        "for all --epochs and will not have come down.",
        choices=("never", "plateau"),
    )
    patience: int = option(
        5, "Measurements without a rise, --knn_every epochs apart, also without labels.", minimum=2
    )


@dataclass(frozen=True)
class Growth:
    """Smaller views at first, which cost less."""

    group = "views"

    early_size: int = option(
        0, "Side of the full views in the first epochs; 0: as later.", minimum=0
    )
    early_epochs: int = option(0, "Number of these epochs.", minimum=0)


@dataclass(frozen=True)
class Pretrain(
    Monitors, Common, Machine, Start, Optimization, Encoder, Growth, Views, Channels, Images
):
    """Trains an encoder and leaves a run folder."""

    group = "method"

    method: str = option(
        "simsiam",
        "What to train; of this list "
        + " and ".join(name for name, member in family.FAMILY.items() if member.supervised)
        + " need labels.",
        choices=tuple(family.FAMILY),
    )
    plan: bool = option(
        False,
        "Say what was understood and what the run will take, by a few steps; write nothing.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.stem == "auto":  # flags.cfg has what it is
            stem = "imagenet" if self.recipe == "imagenet" else "cifar"
            object.__setattr__(self, "stem", stem)
        self.settle_encoder()
        if self.keep == "auto":
            object.__setattr__(self, "keep", "best" if self.known else "last")
        if self.freeze_encoder_epochs >= self.epochs:
            raise ValueError(
                "--freeze_encoder_epochs must be below --epochs. Received: "
                f"{self.freeze_encoder_epochs} and {self.epochs}"
            )
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                "--batch_size must be a multiple of --gradient_accumulation. Received: "
                f"batch_size={self.batch_size}, gradient_accumulation={self.gradient_accumulation}"
            )
        if self.stop_when == "plateau" and not self.knn_every:
            raise ValueError(
                "--stop_when=plateau looks at what is measured every --knn_every epochs: give it "
                "at least 1. Received: knn_every=0"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                "--warmup_epochs must be below --epochs. Received: "
                f"warmup_epochs={self.warmup_epochs}, epochs={self.epochs}"
            )
        if self.early_epochs >= self.epochs or bool(self.early_size) != bool(self.early_epochs):
            raise ValueError(
                "--early_size and --early_epochs go together, with --early_epochs below --epochs. "
                f"Received: early_size={self.early_size}, early_epochs={self.early_epochs}, "
                f"epochs={self.epochs}"
            )
        if self.member.compares and self.batch_size // self.gradient_accumulation < 2:
            raise ValueError(
                f"--method={self.method} compares the images of a batch: --batch_size must be at "
                f"least twice --gradient_accumulation. Received: {self.batch_size} and "
                f"{self.gradient_accumulation}"
            )
        for sentence in self.contradictions():
            raise ValueError(sentence)

    @property
    def member(self):
        """The method's entry in the family."""
        return family.FAMILY[self.method]


@dataclass(frozen=True)
class Grid(Pretrain):
    """Several settings of a recipe, each with several seeds."""

    group = "run"

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
        "Experiment of the paper, or all that change what the method has.",
        choices=(*EXPERIMENTS, "all"),
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
            if method not in family.FAMILY:
                raise ValueError(
                    f"--methods must be among {', '.join(family.FAMILY)}, separated by commas. "
                    f"Received: {self.methods}"
                )


@dataclass(frozen=True)
class TakesEncoder(Common):
    """An encoder that is there."""

    group = "encoder"

    encoder: str = option("", ".keras file or SavedModel folder (required).")
    trust_encoder: bool = option(
        False,
        "Take an encoder that the card beside it, encoder.json, does not know, and one that holds "
        "code. Loading it may run whatever its author wrote.",
    )
    batch_size: int = option(
        256, "Images in a forward step; on a CPU large ones are taken fewer at a time.", minimum=1
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.encoder:
            raise ValueError("--encoder is required: the path of a .keras file or a SavedModel")


@dataclass(frozen=True)
class EncoderInput(TakesEncoder, Images):
    """An encoder and the images to put through it."""


@dataclass(frozen=True)
class LinearProbe(EncoderInput):
    """Trains a linear classifier on frozen features and reports its accuracy."""

    group = "optimization"

    test_split: str = option(
        "test", "Split that is classified once, at the end; without a `test`, a fifth of --split."
    )
    optimizer: str = option(
        "sgd",
        "Optimizer; `logistic`: scikit-learn's regression, of which the penalty is chosen on "
        "held-out images, in seconds where there are few.",
        choices=("sgd", "lars", "logistic"),
    )
    protocol: str = option(
        "cached",
        "`cached`: features of fixed images, made once. `paper`: in each epoch those of a new crop "
        "of each image, which takes as long as so many passes through the encoder.",
        choices=("cached", "paper"),
    )
    flip: str = option(
        "auto",
        "Mirror the crops of --protocol=paper; `auto`: as the views of the run were, without a run "
        "on.",
        choices=("auto", "on", "off"),
    )
    learning_rates: str = option("", "Comma-separated rates to sweep; empty: a wide grid.")
    epochs: int = option(90, "Passes over the features.", minimum=1)
    probe_batch_size: int = option(
        0, "Features in a step; 0: 256 for sgd, 4096 for lars.", minimum=0
    )
    validation_fraction: float = option(0.1, "Share of train that chooses the rate.", minimum=0)
    classes: int = option(0, "Classes expected; 0: as many as are found.", minimum=0)

    def __post_init__(self):
        super().__post_init__()
        if self.protocol == "paper" and self.optimizer == "logistic":
            raise ValueError("--protocol=paper trains by steps: --optimizer must be sgd or lars")


@dataclass(frozen=True)
class KNN(EncoderInput):
    """Classifies by weighted nearest neighbours in feature space."""

    group = "monitors"

    test_split: str = option(
        "test", "Split that is classified; without a `test`, a fifth of --split."
    )
    knn_k: int = option(
        0,
        "Neighbours, at most the bank; 0: its square root, no more than 200 and the images of its "
        "median class.",
        minimum=0,
    )
    knn_temperature: float = option(0.1, "Temperature of the votes.", minimum=0)
    leave_one_out: bool = option(
        False, "Classify each image of --split by all others of it, and no other split."
    )
    sweep: bool = option(
        False,
        "Also try other k and temperatures, and name the best by leaving one out of --split: no "
        "query has chosen it.",
    )


@dataclass(frozen=True)
class Worth(EncoderInput):
    """Says what an encoder is worth with few labels, beside what can be had without it."""

    group = "optimization"

    encoder: str = redefine(EncoderInput, "encoder", help="Run folder or .keras file (required).")
    test_split: str = redefine(LinearProbe, "test_split")
    labels_per_class: str = option(
        "1,5,10,all", "Labels of each class to learn from: numbers and `all`, with commas."
    )
    draws: int = option(5, "Times that so many labels are drawn.", minimum=1)
    finetune: bool = option(
        True, "Also fine-tune the encoder, and train the same network from scratch."
    )
    finetune_epochs: int = option(20, "Passes of these over the labelled images.", minimum=1)
    finetune_steps: int = option(60, "Steps of these at the least.", minimum=1)
    finetune_batch: int = option(32, "Views in such a step.", minimum=2)
    finetune_rates: str = option(
        "0.0003,0.001",
        "Their learning rates: the best is chosen on held-out labels where a class has five, else "
        "the middle one is taken.",
    )
    finetune_batch_norm: str = option(
        "learned",
        "Batch normalization in fine-tuning: learned, or kept as the encoder has it. From scratch "
        "it is learned.",
        choices=("kept", "learned"),
    )
    finetune_min_crop: float = option(
        0.5, "Smallest crop of their views as a share of the area.", minimum=0
    )
    flip: str = option(
        "auto",
        "Mirror their views; `auto`: as the views of the run were, without a run on.",
        choices=("auto", "on", "off"),
    )

    def __post_init__(self):
        if not self.encoder:
            raise ValueError("--encoder is required: a run folder or a .keras file")
        super().__post_init__()


@dataclass(frozen=True)
class FineTune(EncoderInput):
    """Trains an encoder and a classifier on labels, beside the linear probe."""

    group = "optimization"

    encoder: str = redefine(Worth, "encoder")
    test_split: str = redefine(LinearProbe, "test_split")
    classes: int = redefine(LinearProbe, "classes")
    labels_per_class: int = option(
        0, "Labels of each class to learn from, drawn by --seed; 0: all.", minimum=0
    )
    labels_fraction: float = option(
        0.0, "Share of each class's labels, likewise; 0: all.", minimum=0
    )
    validation_fraction: float = option(
        0.2, "Share of these that chooses the epoch and calibrates.", minimum=0
    )
    lr: float = option(3e-4, "Highest learning rate of the last layer, of Adam.", minimum=0)
    layer_decay: float = option(
        0.75,
        "Rate of a group of layers as a share of that of the group above it; the encoder has up to "
        "12. 1: the same rate for all, 0: the last layer alone.",
        minimum=0,
    )
    class_balance: str = option(
        "none",
        "`balanced`: batches have as many images of one class as of another, and held-out classes "
        "count alike.",
        choices=("none", "balanced"),
    )
    epochs: int = option(
        20, "Passes over the images, after each of which it is measured.", minimum=1
    )
    steps: int = option(
        60, "Steps in all of them at the least: few images come more often.", minimum=1
    )
    patience: int = option(
        5, "Epochs without a better one on the held-out part, after which it ends.", minimum=1
    )
    train_batch_size: int = option(32, "Views in an optimizer step.", minimum=2)
    batch_norm: str = option(
        "kept",
        "The encoder's batch normalization: kept, so that training begins at the linear probe, or "
        "learned.",
        choices=("kept", "learned"),
    )
    min_crop: float = option(
        0.5, "Smallest crop of a view as a share of the area; 1: the whole image.", minimum=0
    )
    flip: str = redefine(Worth, "flip", help="Mirror views; `auto`: as the views of a run were.")

    def __post_init__(self):
        if not self.encoder:
            raise ValueError("--encoder is required: a run folder or a .keras file")
        if self.labels_per_class and self.labels_fraction:
            raise ValueError(
                "--labels_per_class and --labels_fraction both say how many labels to take; give "
                f"one. Received: {self.labels_per_class} and {self.labels_fraction}"
            )
        super().__post_init__()


@dataclass(frozen=True)
class Predict(Common, Images):
    """Labels images with a classifier of `fine-tune`, and says how sure it is, as CSV."""

    group = "run"

    run_dir: str = redefine(Common, "run_dir", help="Folder of the table where --output has none.")
    split: str = redefine(Images, "split", default="all", help="Split to label.")
    classifier: str = option("", "Run folder of `fine-tune`, or its classifier.keras (required).")
    output: str = option("", "Table to write; default RUN_DIR/labels.csv.")
    precision: float = option(
        0.95,
        "An image is `sure` where its probability is so high that of held-out images with that "
        "much, at least this share was right.",
        minimum=0,
    )
    batch_size: int = redefine(EncoderInput, "batch_size")

    def __post_init__(self):
        super().__post_init__()
        if not self.classifier:
            raise ValueError("--classifier is required: a run folder of `fine-tune`")
        if not (self.output or self.run_dir):
            raise ValueError("--output is required: the table to write, such as labels.csv")


@dataclass(frozen=True)
class Embed(EncoderInput):
    """Writes the features of a data set, and which image each is of."""

    group = "run"

    format: str = option(
        "npy,parquet",
        "`parquet`: one vectors.parquet with path, split, label and vector; `npy`: features.npy, "
        "labels.npy and files.txt; with a comma both.",
    )
    shard: str = option("", "Part of the images, such as 3/16, the third of 16; empty: all.")
    update: bool = option(
        False,
        "Bring the vectors.parquet of --run_dir up to date: files that are new or changed are put "
        "through the encoder, those that are gone are left out.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.update and "parquet" not in self.format.split(","):
            raise ValueError("--update goes by vectors.parquet: leave --format as it is")


@dataclass(frozen=True)
class Search(TakesEncoder):
    """Finds the images of a gallery that are most like given ones."""

    group = "run"

    gallery: str = option(
        "",
        "folder:PATH, whose vectors are made once and then brought up to date, or a .parquet that "
        "`embed` wrote, a folder or pattern of several (required).",
    )
    gallery_dir: str = option("", "Where the vectors of folder:PATH are; empty: as `embed` has it.")
    split: str = redefine(Images, "split", help="Split of folder:PATH.")
    labels: str = redefine(Images, "labels")
    labels_columns: str = redefine(Images, "labels_columns")
    value_range: str = redefine(Images, "value_range")
    query: str = option("", "Files of images, with commas between them (required).")
    k: int = option(10, "Images to find for each.", minimum=1)
    index: str = option(
        "exact",
        "`exact`, or an index of FAISS, which is built once and lies beside the vectors: hnsw or "
        "ivf.",
        choices=("exact", "hnsw", "ivf"),
    )
    rebuild_index: bool = option(False, "Build the index anew.")

    def __post_init__(self):
        super().__post_init__()
        if not self.gallery or not self.query:
            raise ValueError(
                "--gallery and --query are required: a folder:PATH or a .parquet, and files"
            )


@dataclass(frozen=True)
class OfVectors(EncoderInput):
    """Vectors to look at, and the images that they are of."""

    group = "data"

    split: str = redefine(
        Images, "split", default="all", help="Splits with commas; `all`: those there are."
    )
    vectors: str = option(
        "", "Vectors that `embed` wrote, .parquet; empty: those of --encoder and --dataset."
    )

    def __post_init__(self):
        Common.__post_init__(self)
        if not (self.encoder or self.vectors):
            raise ValueError(
                "--vectors or --encoder is required: a .parquet that `embed` wrote, or a .keras "
                "file or SavedModel with --dataset"
            )


@dataclass(frozen=True)
class Explore(OfVectors):
    """Writes one HTML page with a map of all images, to look through and to select from."""

    group = "run"

    map: str = option(
        "auto",
        "How images are laid out; `auto`: UMAP where it is installed, else t-SNE of up to 5,000 "
        "images, else PCA.",
        choices=("auto", "umap", "tsne", "pca"),
    )
    clusters: int = option(
        0,
        "Groups of similar images, by k-means; 0: the root of a tenth of the images, at least 2 "
        "and at most 30.",
        minimum=0,
    )
    neighbours: int = option(12, "Nearest neighbours shown of each image.", minimum=1)
    page_mb: float = option(
        50.0,
        "Megabytes of the page: thumbnails are as large as fit, and where even the smallest do "
        "not, they are files in a folder beside it.",
        minimum=0,
    )


@dataclass(frozen=True)
class Duplicates(OfVectors):
    """Finds groups of files that show the same, and names the best of each; deletes nothing."""

    group = "run"

    threshold: str = option(
        "auto",
        "Cosine similarity from which on two files are duplicates, in (0, 1]; `auto`: what 95 % of "
        "copies reach that are made of 100 of the photographs, and .95 without --encoder.",
    )
    page_groups: int = option(
        500, "Groups on the page, the largest first; groups.csv has all.", minimum=1
    )

    def __post_init__(self):
        super().__post_init__()
        try:
            usable = self.threshold == "auto" or 0 < float(self.threshold) <= 1
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                f"--threshold must be a number in (0, 1], or auto. Received: {self.threshold}"
            )


@dataclass(frozen=True)
class Export(Common, Encoder, Channels, Images):
    """Writes the encoder of a run's last checkpoint, or one with known weights as they are."""

    group = "run"

    run_dir: str = redefine(
        Common,
        "run_dir",
        help="Run folder to read the last checkpoint of; empty: the encoder that --weights names.",
    )
    encoder: str = redefine(
        Encoder,
        "encoder",
        help="Architecture of --weights, as in `pretrain`; or the path of an encoder of ours, "
        "which is the same as --weights=PATH alone.",
    )
    image_size: int = option(
        0,
        "Side of the images of an encoder that is not a run's, in pixels; 0: that of the file of "
        "--weights, otherwise 224.",
        minimum=0,
    )
    eval_crop: float = option(
        0.0,
        "Share of the short side that is looked at, likewise; 0: as the card of --weights has it, "
        "otherwise 1.",
        minimum=0,
    )
    output: str = option("", "Folder to write to (required).")
    format: str = option(
        "",
        "What to write, with commas: " + ", ".join(EXPORTED) + "; empty: keras, and saved_model "
        "where TensorFlow is.",
    )
    with_preprocessing: bool = option(
        False,
        "Take uint8 images of any size: the resize and the crop of evaluation are in the file. Not "
        "in that of keras.",
    )
    quantize: str = option(
        "none",
        "`int8`: a smaller, less exact file, by the format's own tool; calibrated on images of "
        "--dataset, on which its loss in kNN is measured where they have labels.",
        choices=("none", "int8"),
    )
    calibration_images: int = option(200, "Images of --split that int8 is fitted to.", minimum=1)
    opset: int = option(18, "Operator set of the ONNX file.", minimum=1)
    license: str = option(
        "unknown",
        "Licence of the weights for the model card, as Hugging Face abbreviates it. It is yours to "
        "choose, within what the images and the known weights allow.",
    )
    dataset: str = redefine(
        Images,
        "dataset",
        default="",
        help="Images for --quantize, as in `knn`; no others are read.",
    )
    test_split: str = redefine(KNN, "test_split")
    trust_encoder: bool = redefine(EncoderInput, "trust_encoder")
    batch_size: int = redefine(EncoderInput, "batch_size")

    def __post_init__(self):
        super().__post_init__()
        if not self.run_dir and not self.weights and _is_path(self.encoder):
            object.__setattr__(self, "weights", self.encoder)
            object.__setattr__(self, "encoder", "")
        if not self.output or not (self.run_dir or self.known):
            raise ValueError("--output is required, and --run_dir or the --weights of an encoder")
        for name in self.formats:
            if name not in EXPORTED:
                raise ValueError(
                    f"--format must be among {', '.join(EXPORTED)}, separated by commas. "
                    f"Received: {self.format}"
                )
        if self.quantize != "none" and not self.dataset:
            raise ValueError(
                "--quantize=int8 is fitted to images: give some like those that it will see, as "
                "--dataset=folder:PATH. Received: no --dataset"
            )
        if self.eval_crop > 1:
            raise ValueError(f"--eval_crop must be in (0, 1]. Received: {self.eval_crop}")
        if self.stem == "auto":
            object.__setattr__(self, "stem", "imagenet")
        if not self.run_dir:
            self.settle_encoder()

    @property
    def formats(self):
        """The names in --format, each once; empty where nothing is asked for."""
        return tuple(dict.fromkeys(name.strip() for name in self.format.split(",") if name.strip()))


def _is_path(encoder):
    """Whether --encoder is a file or a folder, and no name of an architecture."""
    kind = encoder.partition(":")[0]
    named = kind in ("keras.applications", "keras_hub")
    return not named and (encoder.endswith(".keras") or os.sep in encoder or os.path.isdir(encoder))


@dataclass(frozen=True)
class Diagnose(Common):
    """Says whether a run collapsed, when, and what to try."""

    run_dir: str = redefine(Common, "run_dir", help="Run folder to read (required).")

    def __post_init__(self):
        super().__post_init__()
        if not self.run_dir:
            raise ValueError("--run_dir is required: the folder of a run, finished or not")


@dataclass(frozen=True)
class Preview(Common, family.SmallViewFlags, Views, Channels, Images):
    """Draws pairs of views, to see what the encoder will be shown."""

    group = "run"

    pairs: int = option(8, "Images to show.", minimum=1)
    output: str = option("", "PNG to write; default RUN_DIR/views.png or views.png.")


COMMANDS = {
    "pretrain": Pretrain,
    "linear-probe": LinearProbe,
    "knn": KNN,
    "worth": Worth,
    "fine-tune": FineTune,
    "predict": Predict,
    "embed": Embed,
    "search": Search,
    "duplicates": Duplicates,
    "explore": Explore,
    "export": Export,
    "preview": Preview,
    "diagnose": Diagnose,
    "study": Study,
    "compare": Compare,
}
