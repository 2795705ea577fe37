"""Twenty training steps of every method from given weights on given views, for any backend.

    KERAS_BACKEND=tensorflow python -m tests.golden.family > tests/golden/family.json

All that is random is NumPy's. With a strategy as argument, `none` or `mirrored`, the steps are
those of one device or of two replicas of the CPU.
"""

import json
import os
import platform
import sys
from importlib import metadata

import keras
import numpy as np

from simsiam_keras import distribute, heads, optimizers, schedules
from simsiam_keras.methods.ablations import AblatedSimSiam
from simsiam_keras.methods.byol import BYOL
from simsiam_keras.methods.fastsiam import FastSiam
from simsiam_keras.methods.siamese import SiameseContrastive, SiameseTriplet
from simsiam_keras.methods.simclr import SimCLR
from simsiam_keras.methods.simsiam import SimSiam
from simsiam_keras.methods.swav import SwAV
from simsiam_keras.methods.vicreg import VICReg
from simsiam_keras.targets import MomentumEncoder

STEPS, BATCH, SIZE, D = 20, 32, 16, 16
COMMAND = "KERAS_BACKEND=tensorflow python -m tests.golden.family > tests/golden/family.json"


def _projector():
    return heads.projector(D, hidden=24, batch_norm="hidden")


# Method, its heads, further arguments, full views, small views.
CASES = {
    "simsiam": (SimSiam, lambda: (heads.projector(D), heads.predictor(8)), {}, 2, 0),
    "simsiam, multi-crop": (
        AblatedSimSiam,
        lambda: (heads.projector(D), heads.predictor(8)),
        {"small_views": 1},
        2,
        1,
    ),
    "fastsiam": (
        FastSiam,
        lambda: (heads.projector(D), heads.predictor(8)),
        {"views": 3},
        3,
        0,
    ),
    "byol": (BYOL, lambda: (_projector(), heads.predictor(8)), {}, 2, 0),
    "simclr": (SimCLR, lambda: (_projector(),), {"temperature": 0.2}, 2, 0),
    "swav": (SwAV, lambda: (_projector(),), {"prototypes": 6, "freeze_steps": 2}, 2, 0),
    "swav, multi-crop and queue": (
        SwAV,
        lambda: (_projector(),),
        {"prototypes": 6, "queue": 64, "queue_start": 3, "small_views": 1},
        2,
        1,
    ),
    "vicreg": (VICReg, lambda: (_projector(),), {}, 2, 0),
    "siamese_contrastive": (SiameseContrastive, tuple, {}, 1, 0),
    "siamese_triplet": (SiameseTriplet, tuple, {"mining": "all"}, 1, 0),
}
# Of which the losses must be those of another.
EQUAL = {
    "simsiam, no ablation": (
        "simsiam",
        (AblatedSimSiam, lambda: (heads.projector(D), heads.predictor(8)), {}, 2, 0),
    ),
    "fastsiam, two views": (
        "simsiam",
        (FastSiam, lambda: (heads.projector(D), heads.predictor(8)), {"views": 2}, 2, 0),
    ),
}
LABELLED = ("siamese_contrastive", "siamese_triplet")


def _case(name):
    return CASES[name] if name in CASES else EQUAL[name][1]


def _encoder():
    """Two convolutions: a deeper network makes 1e-2 of rounding's 1e-7 within the steps."""
    x = images = keras.Input((None, None, 3))  # multi-crop has two sizes
    x = keras.layers.Rescaling(1 / 64, offset=-2.0)(x)
    for i, filters in enumerate((8, 16)):
        x = keras.layers.Conv2D(filters, 3, strides=2, use_bias=False, name=f"conv_{i}")(x)
        x = keras.layers.ReLU()(heads.batch_norm(name=f"norm_{i}")(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="encoder")


def build(name):
    """The compiled method with weights that NumPy draws."""
    cls, parts, arguments, _, _ = _case(name)
    if cls is BYOL:
        arguments = {"target": MomentumEncoder(0.9, total_steps=STEPS)}
    model = cls(_encoder(), *parts(), **arguments)
    distribute.synchronize(model)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        fan_in = max(1, np.prod(variable.shape[:-1]))
        if len(variable.shape) > 1:
            value = np.sqrt(2 / fan_in) * random.normal(0, 1, variable.shape)
            if variable.constraint is not None:
                value /= np.linalg.norm(value, axis=0)
            variable.assign(value.astype("float32"))
        elif "linear" in variable.path:
            variable.assign(np.zeros(variable.shape, "float32"))
    rate = schedules.cosine(0.05, STEPS, 4)
    model.compile(optimizers.SGD(rate, weight_decay=5e-4), jit_compile=False)
    return model


def batches(name):
    """The views of each step: noise of their own on pictures that they share."""
    _, _, _, full, small = _case(name)
    random = np.random.default_rng(1)
    kinds = random.integers(0, 255, (4, SIZE, SIZE, 3))
    for _ in range(STEPS):
        labels = np.arange(BATCH) % 4
        x = kinds[labels] if name in LABELLED else random.integers(0, 255, (BATCH, SIZE, SIZE, 3))
        views = [x + random.normal(0, 40, x.shape) for _ in range(full + small)]
        views = [view.clip(0, 255).astype("uint8") for view in views]
        views = tuple(views[:full]) + tuple(view[:, ::2, ::2] for view in views[full:])
        yield {"views": views, "labels": labels} if name in LABELLED else {"views": views}


def losses(name):
    """The loss of each step."""
    model = build(name)
    found = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: found.append(float(logs["loss"]))
    )
    if distribute.replicas() > 1:
        import tensorflow as tf

        for batch in batches(name):
            batch = tf.data.Dataset.from_tensors(batch)
            model.fit(batch.unbatch().batch(BATCH), verbose=0, callbacks=[keep])
    else:
        for batch in batches(name):
            model.reset_metrics()
            found.append(float(model.train_on_batch(batch, return_dict=True)["loss"]))
    return found


def main():
    strategy = sys.argv[1] if len(sys.argv) > 1 else "none"
    with distribute.scope(strategy, 2 if strategy == "mirrored" else 0):
        curves = {name: losses(name) for name in sys.argv[2:] or CASES}
    backend = keras.backend.backend()
    made = {
        "command": COMMAND,
        "backend": f"{backend} {metadata.version(backend)}, keras {keras.__version__}",
        "machine": platform.machine(),
    }
    print(json.dumps({**made, "losses": curves}, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
