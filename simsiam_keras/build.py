"""Flags to parts: the recipe, the images, the views, the model and its optimizer of a run."""

import contextlib
import dataclasses
import functools
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from simsiam_keras import (
    devices,
    distribute,
    family,
    feeds,
    inputs,
    moments,
    monitors,
    optimizers,
    runs,
    schedules,
    settings,
    start,
    views,
)
from simsiam_keras.augment.recipe import RECIPES, Recipe, in_channels, weaker_colors
from simsiam_keras.data import cache, pipeline, ranges, sources, subsets


@dataclass(frozen=True)
class Parts:
    """All that a run is made of.

    Attributes:
        facts: what result.json begins with: method, dataset, backend, epochs, seed.
        flags: the resolved flags by name, of which diagnosis and advice speak.
        identity: what makes the run this one, see `checkpoints.save`.
        headline: what the run is about, in words.
        recipe: the augmentation recipe.
        source: the training images.
        probe: a `monitors.Probe`, or None without labels.
        model: the compiled method.
        schedule: its learning rate as a function of the step.
        copy: function without arguments to another such method.
        encoder: likewise to another such encoder, in float32 on one device.
        batches: function of the first epoch, and its steps to leave out, to what `fit` takes.
        last: function of an epoch to the number after the last epoch like it.
        enter: function of an epoch that readies the model for it and those like it.
        pairs: function without arguments to the views that are measured for collapse.
        preview: function of a number of images to a picture of their views.
        many_pairs: function of a number of images to batches of pairs of views of so many.
        epochs: passes over the images.
        steps: optimizer calls in an epoch.
        batch_size: images in one of them.
        seed: of everything that is drawn.
        jit_compile: as in `keras.Model.compile`.
        knn_every: epochs between kNN measurements; 0: first and last only.
        checkpoint_every: epochs between checkpoints.
        known: whether the encoder starts from known weights.
        keep: "best" or "last", the epoch whose encoder is left.
        view_whitening: shrinkage of the encoder's last layer; 0: it has none.
        projector: whether what TensorBoard's projector shows is written.
        stop_on_collapse: whether a collapse ends the run.
        patience: measurements without a rise that end the run; None: whatever they say.
    """

    facts: Mapping
    flags: Mapping
    identity: Mapping
    headline: str
    recipe: Recipe
    source: sources.Source
    probe: monitors.Probe | None
    model: keras.Model
    schedule: Callable
    copy: Callable
    encoder: Callable
    batches: Callable
    last: Callable
    enter: Callable
    pairs: Callable
    preview: Callable
    many_pairs: Callable
    epochs: int
    steps: int
    batch_size: int
    seed: int
    jit_compile: bool | str
    knn_every: int
    checkpoint_every: int
    known: bool
    keep: str
    view_whitening: float
    projector: bool
    stop_on_collapse: bool
    patience: int | None


@contextlib.contextmanager
def place(cfg):
    """Seeds everything, and computes within on the processes, devices and precision of the flags.

    Args:
        cfg: a `config.Pretrain`.

    Raises:
        ValueError: if the backend does not have what is asked for.
        ProcessLost: if another process of the run has ended.
    """
    keras.utils.set_random_seed(cfg.seed)
    distribute.initialize(cfg.job_addresses, cfg.num_processes, cfg.process_id)
    with (
        distribute.noticing_lost_processes(),
        distribute.scope(cfg.strategy, cfg.virtual_devices),
        settings.changed(dtype_policy=cfg.precision),
    ):
        yield


def parts(cfg, say):
    """Builds a run, within `place`.

    Args:
        cfg: a `config.Pretrain`.
        say: function of a sentence.

    Returns:
        A `Parts`.

    Raises:
        ValueError: if the configuration or its input cannot be used.
    """
    augmentation = recipe(cfg)
    batch_size = cfg.batch_size // cfg.gradient_accumulation
    images = source(cfg)
    inputs.tell(images, say)
    pipeline.steps_per_epoch(len(images), cfg.batch_size)  # refuses more than there are
    steps = pipeline.steps_per_epoch(len(images), batch_size)
    _check_replicas(cfg, batch_size)
    _check_memory(cfg, augmentation, batch_size)
    side = views.min_side(cfg, images, augmentation)
    cached = cache.keep_decoded(images, cfg.cache, cfg.cache_dir, side)
    if cached:
        say(cached)
    probe = inputs.probe(cfg, images, say)
    with devices.on_host():
        trained, schedule = model(cfg, augmentation, steps, len(images), say)
    kept = feeds.kept(cfg, augmentation, images)
    return Parts(
        facts={
            "method": cfg.method,
            "dataset": cfg.dataset,
            "backend": keras.backend.backend(),
            "epochs": cfg.epochs,
            "seed": cfg.seed,
        },
        flags=dataclasses.asdict(cfg),
        identity={
            "flags": runs.spelled(dataclasses.asdict(cfg)),
            "data": {**_data(images, probe), **start.fingerprints(cfg)},
        },
        headline=_headline(cfg, images, trained, steps, batch_size),
        recipe=augmentation,
        source=images,
        probe=probe,
        model=trained,
        schedule=schedule,
        copy=lambda: model(cfg, augmentation, steps=1)[0],
        encoder=functools.partial(plain_encoder, cfg, augmentation.size),
        batches=functools.partial(
            feeds.batches, cfg, augmentation, images, batch_size, trained, kept
        ),
        last=functools.partial(feeds.last, cfg),
        enter=functools.partial(feeds.enter, cfg, augmentation, trained, kept is not None),
        pairs=functools.partial(views.sample_pairs, cfg, augmentation, images, views.PAIRS),
        preview=functools.partial(views.preview, cfg, augmentation, images),
        many_pairs=functools.partial(views.many_pairs, cfg, augmentation, images),
        epochs=cfg.epochs,
        steps=steps,
        batch_size=batch_size,
        seed=cfg.seed,
        jit_compile=devices.jit_compile(cfg.jit),
        knn_every=cfg.knn_every,
        checkpoint_every=cfg.checkpoint_every,
        known=cfg.known,
        keep=cfg.keep,
        view_whitening=cfg.view_whitening,
        projector=cfg.projector,
        stop_on_collapse=cfg.stop_on_collapse,
        patience=cfg.patience if cfg.stop_when == "plateau" else None,
    )


def source(cfg):
    """The training images that the flags name.

    Raises:
        ValueError: if the method needs labels and there are none.
    """
    images = inputs.images_of(cfg, cfg.split, channels=cfg.channels)
    if cfg.member.supervised and images.labels is None:
        raise ValueError(
            f"--method={cfg.method} needs labelled images; {images.name} has no labels"
            f"{inputs.why(images)}"
        )
    if cfg.member.supervised and images.labels.ndim == 2:
        raise ValueError(
            f"--method={cfg.method} needs one label for each image; {images.name} has several"
        )
    return subsets.few_labels(images, cfg.labels_per_class) if cfg.labels_per_class else images


def _data(images, probe):
    """The fingerprints of what is trained and measured on, by what a sentence calls it."""
    prints = {f"the images of {images.name}": images.fingerprint}
    for source in (probe.bank, probe.queries) if probe else ():
        if source is not None and source is not images:
            prints[f"the {'bank' if source is probe.bank else 'queries'} of {source.name}"] = (
                source.fingerprint
            )
    return prints


def _check_replicas(cfg, batch_size):
    replicas = distribute.replicas()
    if batch_size % replicas:
        raise ValueError(
            f"--batch_size / --gradient_accumulation must be a multiple of the {replicas} "
            f"replicas. Received: {batch_size}"
        )
    if distribute.processes() > 1 and cfg.augment == "host":
        raise ValueError(
            "--augment=host makes the views of a whole batch in one process; with "
            f"{distribute.processes()} processes use --augment=device"
        )


def _check_memory(cfg, recipe, batch_size):
    """Refuses views of one batch that alone are more than the machine's memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told, as on Windows
        return
    values = cfg.full_views * recipe.size**2 + cfg.small_views * recipe.small_size**2
    needed = 4 * cfg.channels * values * batch_size
    if needed > memory:
        raise ValueError(
            "--image_size, --batch_size and the number of views must fit in memory: the views of "
            f"a batch are {needed / 1e9:.0f} GB in float32, this machine has {memory / 1e9:.0f} GB"
        )


def recipe(cfg):
    """The augmentation recipe that the flags describe."""
    made = in_channels(RECIPES[cfg.recipe], cfg.channels)
    if cfg.image_size:
        made = dataclasses.replace(made, size=cfg.image_size)
    if cfg.min_crop:
        made = dataclasses.replace(made, crop_area=(cfg.min_crop, made.crop_area[1]))
    if cfg.eval_crop:
        made = dataclasses.replace(made, eval_crop=cfg.eval_crop)
    if cfg.color_strength != 1:
        made = weaker_colors(made, cfg.color_strength)
    if cfg.small_views:
        made = dataclasses.replace(
            made,
            small_views=cfg.small_views,
            small_size=cfg.small_size or made.size // 2,
            small_crop_area=(cfg.small_min_crop, made.crop_area[0]),
        )
    return made


def plain_encoder(cfg, size):
    """The encoder as it is exported: in float32, on one device, for images of one size."""
    with settings.changed(dtype_policy="float32"), distribute.alone(), devices.on_host():
        return start.architecture(cfg, size)


def model(cfg, recipe, steps, images=1, say=None):
    """The compiled method that the flags describe.

    Args:
        cfg: a `config.Pretrain`.
        recipe: the augmentation recipe, of the views' size.
        steps: optimizer calls in an epoch.
        images: training images, which `--predictor=moving_average` remembers; default 1.
        say: function of a sentence on the known weights that it starts from; default None, it is
            at random.

    Returns:
        `(model, schedule)`: a compiled `keras.Model`, and its learning rate over the steps.
    """
    module, name = family.split(cfg.member.ablations if cfg.ablated else cfg.member.path)
    method = getattr(importlib.import_module(module), name)
    augmenter = views.device(recipe, cfg.seed, cfg.full_views) if cfg.augment == "device" else None
    backbone = start.architecture(cfg, None if cfg.small_views or cfg.early_size else recipe.size)
    if say and cfg.known:  # before a target network copies it
        say(start.load(cfg, backbone))
    if cfg.encoder_batch_norm == "frozen":
        start.freeze_batch_norm(backbone)
    built = method.from_flags(cfg, backbone, augmenter, steps, images)
    distribute.synchronize(built)
    on_gpu = keras.backend.backend() == "jax" and devices.on_accelerator()
    if on_gpu:
        moments.read_once(built)
    peak = schedules.scaled_lr(cfg.base_lr, cfg.batch_size)
    total, warmup, frozen = (
        epochs * steps for epochs in (cfg.epochs, cfg.warmup_epochs, cfg.freeze_encoder_epochs)
    )
    schedule = schedules.cosine(peak, total, warmup)
    optimizer = {"sgd": optimizers.SGD, "lars": optimizers.LARS}[cfg.optimizer](
        schedule,
        momentum=cfg.momentum,
        weight_decay=cfg.weight_decay,
        gradient_accumulation_steps=cfg.gradient_accumulation
        if cfg.gradient_accumulation > 1
        else None,
    )
    rates = {}
    if cfg.predictor_lr == "constant":
        rates["constant"] = built.predictor.trainable_variables, peak
    if frozen or cfg.encoder_lr_scale != 1:
        slower = schedules.cosine(cfg.encoder_lr_scale * peak, total, warmup)
        rates["encoder"] = built.encoder.trainable_variables, schedules.After(slower, frozen)
    if rates:
        optimizer = optimizers.with_rates(optimizer, rates)
    built.compile(optimizer=optimizer, jit_compile=devices.jit_compile(cfg.jit))
    if on_gpu:
        built.optimizer.build(built.trainable_variables)  # here, and not operation by operation
    return built, schedule


def _headline(cfg, source, model, steps, batch_size):
    scaled = ranges.described(source.value_range)
    return (
        f"{len(source):,} images of {source.name}, "
        + ("" if source.channels == 3 else f"{source.channels} channel(s), ")
        + (f"{scaled}, " if scaled else "")
        + f"{cfg.encoder or 'an encoder'} with {model.encoder.count_params():,} parameters, "
        f"{cfg.epochs} epochs of {steps} steps of {batch_size}, "
        f"peak learning rate {schedules.scaled_lr(cfg.base_lr, cfg.batch_size):g}, "
        f"{keras.backend.backend()}, {distribute.replicas()} replica(s)"
        + (f" in {distribute.processes()} processes" if distribute.processes() > 1 else "")
    )
