"""Pretraining: a plain function of a configuration, from images to a run folder."""

import contextlib
import dataclasses
import functools
import inspect
import math
import time

import keras
import numpy as np
from rich.console import Console
from tensorboardX import SummaryWriter

from simsiam_keras import (
    callbacks,
    config,
    diagnose,
    distribute,
    encoders,
    export,
    lars,
    monitors,
    optimizers,
    plots,
    runs,
    schedules,
)
from simsiam_keras.augment.recipe import RECIPES
from simsiam_keras.data import balanced, pipeline, sources
from simsiam_keras.methods import METHODS

# Photographs of various sizes become squares of this many times a view's side before they travel to
# the device, which crops from them.
DEVICE_CANVAS = 1.5
# Images whose two views are measured for collapse after each epoch, in 3 % of an epoch's time on
# the 1,437 digits and less on any larger set. An effective rank cannot exceed it.
DIAGNOSED = 200


def pretrain(cfg, console=None):
    """Trains an encoder without labels, or resumes where the same run was stopped.

    Args:
        cfg: a `config.Pretrain`.
        console: a `rich.console.Console` for progress, standard error by default.

    Returns:
        The content of result.json and `run_dir`, a dict.

    Raises:
        ValueError: if the configuration or its input cannot be used; nothing has been trained.
        RunFailed: if the run cannot go on; checkpoints and metrics of earlier epochs are kept.
    """
    keras.utils.set_random_seed(cfg.seed)
    distribute.initialize(cfg.job_addresses, cfg.num_processes, cfg.process_id)
    with (
        distribute.noticing_lost_processes(),
        distribute.scope(cfg.strategy, cfg.virtual_devices),
        _dtype_policy(cfg.precision),
    ):
        # Every process computes the same; the first alone writes and talks.
        first = distribute.process() == 0
        console = console or Console(stderr=True, quiet=not first)
        # Resumed or repeated, a run may have another number of processes: it is the same run.
        flags = dataclasses.replace(cfg, job_addresses="", num_processes=0, process_id=-1)
        flags = config.to_flagfile(flags)
        with runs.locked(config.run_dir(cfg), flags, write=first) as run_dir:
            return _pretrain(cfg, run_dir, first, console)


def _pretrain(cfg, run_dir, first, console):
    say = functools.partial(console.print, soft_wrap=True, markup=False, highlight=False)
    began = time.perf_counter()
    recipe = recipe_of(cfg)
    micro_batch = cfg.batch_size // cfg.gradient_accumulation
    source = _source(cfg)
    pipeline.steps_per_epoch(len(source), cfg.batch_size)  # refuses more than there are
    steps = pipeline.steps_per_epoch(len(source), micro_batch)
    _check_replicas(cfg, micro_batch)
    probe = monitors.load_probe(cfg, source, say)
    model, schedule = build_model(cfg, recipe, steps, len(source))
    monitored = monitors.monitored(model, lambda: build_model(cfg, recipe, steps=1)[0])
    encode = monitors.encoder_of(monitored)
    measure = (
        functools.partial(monitors.knn_accuracy, cfg, encode, recipe, probe) if probe else None
    )

    distribute.check_agreement(runs.last_epoch(run_dir), "The epoch to go on from")
    first_epoch = runs.restore_checkpoint(run_dir, model)
    say(_headline(cfg, source, model, steps, run_dir, first_epoch))
    accuracy = measure() if measure and first_epoch == 0 else None
    part = (distribute.process(), distribute.processes())
    dataset = _dataset(cfg, recipe, source, micro_batch, first_epoch, part)
    with distribute.alone():
        pairs = _sample_pairs(cfg, recipe, source)
    measure_collapse = monitors.collapse_measures(monitored, pairs, jit_compile(cfg))
    flags = diagnose.parse_flags(config.to_flagfile(cfg))
    bar = callbacks.Progress(cfg.epochs, first_epoch, steps, micro_batch, console)
    with contextlib.ExitStack() as stack:
        stack.callback(bar.close)
        records = []
        if first:
            board = stack.enter_context(
                contextlib.closing(SummaryWriter(str(run_dir / "tensorboard")))
            )
            runs.keep_metrics(run_dir, first_epoch)
            if first_epoch == 0:
                _begin(cfg, run_dir, board, recipe, source, accuracy)
            records = [
                callbacks.Record(run_dir, board, schedule, steps, steps * micro_batch),
                callbacks.Checkpoint(run_dir, cfg.checkpoint_every, cfg.epochs),
            ]
        model.fit(
            dataset,
            epochs=cfg.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps,
            verbose=0,
            callbacks=[
                callbacks.StopOnNaN(run_dir if first else None),
                *([callbacks.KNN(measure, cfg.knn_every, cfg.epochs)] if measure else []),
                callbacks.Diagnosis(measure_collapse),
                *records,
                callbacks.CollapseWatch(say, flags, cfg.stop_on_collapse),
                bar,
            ],
        )
    if not first:
        return {}
    return _finish(cfg, run_dir, model, encode, recipe, source, probe, first_epoch, began)


def _source(cfg):
    """The training images that the flags name."""
    source = sources.load(cfg.dataset, cfg.data_dir or None, cfg.split)
    if cfg.method in config.SUPERVISED and source.labels is None:
        raise ValueError(
            f"--method={cfg.method} needs labelled images; {source.name} has no labels"
        )
    return sources.few_labels(source, cfg.labels_per_class, 0) if cfg.labels_per_class else source


def _check_replicas(cfg, micro_batch):
    replicas = distribute.replicas()
    if micro_batch % replicas:
        raise ValueError(
            f"--batch_size / --gradient_accumulation must be a multiple of the {replicas} "
            f"replicas. Received: {micro_batch}"
        )
    if distribute.processes() > 1 and cfg.augment == "host":
        raise ValueError(
            "--augment=host makes the views of a whole batch in one process; with "
            f"{distribute.processes()} processes use --augment=device"
        )


@contextlib.contextmanager
def _dtype_policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def recipe_of(cfg):
    """The augmentation recipe that the flags describe."""
    recipe = RECIPES[cfg.recipe]
    if cfg.image_size:
        recipe = dataclasses.replace(recipe, size=cfg.image_size)
    if cfg.min_crop:
        recipe = dataclasses.replace(recipe, crop_area=(cfg.min_crop, recipe.crop_area[1]))
    if cfg.small_views:
        recipe = dataclasses.replace(
            recipe,
            small_views=cfg.small_views,
            small_size=cfg.small_size or recipe.size // 2,
            small_crop_area=(cfg.small_min_crop, recipe.crop_area[0]),
        )
    return recipe


def build_encoder(cfg, size):
    """The encoder that the flags describe, for square images of `size` pixels."""
    shape = (size, size, 3)
    kind, _, name = cfg.encoder.partition(":")
    if kind == "keras.applications":
        return encoders.application(name, shape)
    if cfg.encoder not in encoders.ENCODERS:
        known = ", ".join(encoders.ENCODERS)
        raise ValueError(
            f"--encoder must be one of {known} or keras.applications:NAME. Received: {cfg.encoder}"
        )
    make = encoders.ENCODERS[cfg.encoder]
    flags = {"stem": cfg.stem, "width": cfg.width, "zero_init_residual": cfg.zero_init_residual}
    taken = inspect.signature(make).parameters  # the twin has neither stem nor residual
    return make(shape, **{name: value for name, value in flags.items() if name in taken})


def build_model(cfg, recipe, steps, images=1):
    """The compiled model that the flags describe.

    Args:
        cfg: a `config.Pretrain`.
        recipe: the augmentation recipe, of the views' size.
        steps: optimizer calls in an epoch.
        images: training images, which `--predictor=moving_average` remembers; default 1.

    Returns:
        `(model, schedule)`: a compiled `keras.Model`, and its learning rate over the steps.
    """
    method = METHODS[cfg.method]
    augmenter = None
    if cfg.augment == "device":
        augmenter = _device_views(cfg, recipe, method.full_views(cfg))
    encoder = build_encoder(cfg, recipe.size)
    model = method.from_flags(cfg, encoder, augmenter, steps, images)
    distribute.synchronize(model)
    peak = schedules.scaled_lr(cfg.base_lr, cfg.batch_size)
    schedule = schedules.cosine(peak, cfg.epochs * steps, cfg.warmup_epochs * steps)
    model.compile(optimizer=_optimizer(cfg, model, schedule, peak), jit_compile=jit_compile(cfg))
    return model, schedule


def jit_compile(cfg):
    """What `--jit` means to `keras.Model.compile`.

    `auto` is XLA, but for TensorFlow on a CPU, whose own kernels are 1.4 to 8 times faster
    (benchmarks/results/step.md).
    """
    if cfg.jit != "auto":
        return cfg.jit == "on"
    on_cpu = not any("gpu" in device.lower() for device in distribute.devices())
    return False if keras.backend.backend() == "tensorflow" and on_cpu else "auto"


def _optimizer(cfg, model, schedule, peak):
    optimizer = {"sgd": optimizers.SGD, "lars": lars.LARS}[cfg.optimizer](
        schedule,
        momentum=cfg.momentum,
        weight_decay=cfg.weight_decay,
        gradient_accumulation_steps=cfg.gradient_accumulation
        if cfg.gradient_accumulation > 1
        else None,
    )
    if cfg.predictor_lr == "decayed":
        return optimizer
    return optimizers.with_constant_rate(optimizer, model.predictor.trainable_variables, peak)


def _dataset(cfg, recipe, source, batch_size, first_epoch=0, part=(0, 1)):
    """Batches for `fit`: views made on the host, or images for the model's augmenter."""
    options = {"seed": cfg.seed, "first_epoch": first_epoch, "epochs": cfg.epochs}
    options["with_index"] = cfg.predictor == "moving_average"
    if cfg.method in config.SUPERVISED:
        options["with_labels"] = True
        options["order"] = functools.partial(
            balanced.balanced_order, source.labels, batch_size, cfg.classes_per_batch, cfg.seed
        )
    if cfg.augment == "host":
        views = _host_views(recipe, METHODS[cfg.method].full_views(cfg))
        return pipeline.training_views(source, views, batch_size, **options)
    size = None if source.image_shape else _canvas(recipe)
    batches = functools.partial(
        pipeline.training_images, source, batch_size, size, **options, part=part
    )
    return distribute.feed(batches)


def _canvas(recipe):
    return math.ceil(DEVICE_CANVAS * recipe.size)


def _host_views(recipe, count=2):
    try:
        from simsiam_keras.augment import host
    except ImportError as error:
        raise ImportError(
            f"--augment=host needs tensorflow and keras-cv ({error.name} is not installed): "
            "install requirements.txt, or use --augment=device"
        ) from error
    return host.TwoViews(recipe, count)


def _device_views(cfg, recipe, count=2):
    from simsiam_keras.augment import device

    return device.TwoViews(recipe, cfg.seed, count)


def _sample_pairs(cfg, recipe, source):
    """Two views of the first epoch's first images, made by the engine that trains."""
    n = min(DIAGNOSED, len(source))
    recipe = dataclasses.replace(recipe, small_views=0)
    order = {"seed": cfg.seed, "epochs": 1}
    if cfg.augment == "host":
        views = next(iter(pipeline.training_views(source, _host_views(recipe), n, **order)))
    else:
        size = None if source.image_shape else _canvas(recipe)
        (images,) = next(pipeline.training_images(source, n, size, **order))
        views = _device_views(cfg, recipe)(images)  # not the model's layer, which counts steps
    return [np.rint(keras.ops.convert_to_numpy(x)).astype("uint8") for x in views]


def _begin(cfg, run_dir, board, recipe, source, knn_accuracy):
    """Writes what does not change: environment, flags, a picture of the views, kNN before."""
    data = {"name": source.name, "images": len(source), "fingerprint": source.fingerprint}
    environment = runs.environment(keras.backend.backend(), distribute.devices(), data)
    runs.write_json(run_dir / "environment.json", environment)
    board.add_text("flags", "    " + config.to_flagfile(cfg).replace("\n", "\n    "))
    with distribute.alone():
        grid = preview_grid(cfg, recipe, source, pairs=16)
    (run_dir / "plots").mkdir(exist_ok=True)
    plots.write_png(run_dir / "plots" / "views.png", grid)
    board.add_image("augmented_pairs", grid, 0, dataformats="HWC")
    if knn_accuracy is not None:
        callbacks.record(run_dir, board, callbacks.row(0, 0, {"knn_accuracy": knn_accuracy}))


def preview_grid(cfg, recipe, source, pairs):
    """A picture of the views of some images, made by the engine that will train.

    Args:
        cfg: a configuration with `augment` and `seed`.
        recipe: the augmentation recipe.
        source: a `data.Source`.
        pairs: number of images, at most those of the source.

    Returns:
        A uint8 image.
    """
    if cfg.augment == "host":
        host = _host_views(recipe)

        def views(batch, number):
            return host(batch, (cfg.seed, number))
    else:
        device = _device_views(cfg, recipe)

        def views(batch, number):
            return device(batch, training=True)  # each call is another step

    images = pipeline.sample_images(source, pairs, cfg.seed)
    batches = [np.stack(images)] if source.image_shape else [x[None] for x in images]
    made = [views(batch, number) for number, batch in enumerate(batches)]
    x1, x2, *small = (
        np.concatenate([np.rint(keras.ops.convert_to_numpy(x)) for x in same]).astype("uint8")
        for same in zip(*made, strict=True)
    )
    return plots.pair_grid(x1, x2, small, zoom=max(1, 96 // recipe.size))


def _headline(cfg, source, model, steps, run_dir, first_epoch):
    resumed = f"resumes after epoch {first_epoch}" if first_epoch else "starts"
    return (
        f"{cfg.method} {resumed} in {run_dir}: {len(source):,} images of {source.name}, "
        f"{cfg.encoder} with {model.encoder.count_params():,} parameters, {cfg.epochs} epochs of "
        f"{steps} steps of {cfg.batch_size // cfg.gradient_accumulation}, "
        f"peak learning rate {schedules.scaled_lr(cfg.base_lr, cfg.batch_size):g}, "
        f"{keras.backend.backend()}, {distribute.replicas()} replica(s)"
        + (f" in {distribute.processes()} processes" if distribute.processes() > 1 else "")
    )


def _finish(cfg, run_dir, model, encode, recipe, source, probe, first_epoch, began):
    rows = runs.read_metrics(run_dir)
    trained = [row for row in rows if row["epoch"] > 0]
    earlier = sum(row["seconds"] for row in trained if row["epoch"] <= first_epoch)
    plots.curves(rows, run_dir / "plots" / "curves.png", f"{cfg.method} on {source.name}")
    shown = probe.queries or probe.bank if probe else source
    features = monitors.embed(encode, recipe, shown)
    plots.embedding_map(
        features,
        shown.labels,
        shown.class_names,
        run_dir / "plots" / "embedding.png",
        f"features of {shown.name} after {cfg.epochs} epochs (t-SNE)",
        seed=cfg.seed,
    )
    with _dtype_policy("float32"), distribute.alone():
        plain = build_encoder(cfg, recipe.size)  # no mixed precision, no replicas
    plain.set_weights(model.encoder.get_weights())
    peak_memory = distribute.peak_memory()
    export.save_encoder(plain, run_dir, recipe.eval_crop)
    result = {
        "method": cfg.method,
        "dataset": cfg.dataset,
        "backend": keras.backend.backend(),
        "epochs": cfg.epochs,
        "seed": cfg.seed,
        "loss": trained[-1]["loss"],
        "z_std": trained[-1]["z_std"],
        **{name: trained[-1][name] for name in diagnose.MEASURES},
        "knn_accuracy": trained[-1]["knn_accuracy"],
        "knn_accuracy_random_init": rows[0]["knn_accuracy"] if probe else None,
        "knn": monitors.knn_protocol(cfg, probe) if probe else None,
        "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
        "images_per_second": float(np.median([row["images_per_second"] for row in trained])),
        "peak_memory_mb": peak_memory and round(peak_memory / 2**20, 1),
        "wall_seconds": round(time.perf_counter() - began + earlier, 1),
    }
    runs.write_json(run_dir / "result.json", result)
    return {**result, "run_dir": str(run_dir)}
