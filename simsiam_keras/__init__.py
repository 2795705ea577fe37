"""SimSiam for Keras 3: the flat public names."""

import importlib

from simsiam_keras import family, registration
from simsiam_keras.version import __version__

# Imported at first use: `python -m simsiam_keras --help` must not wait for Keras, and the backend
# is chosen before Keras is imported.
_MODULES = (
    "augment",
    "data",
    "encoders",
    "evaluation",
    "export",
    "heads",
    "losses",
    "mining",
    "optimizers",
    "schedules",
    "targets",
)
_NAMES = {
    **{name: module for module, name in map(family.split, family.classes())},
    "NegativeCosineSimilarity": "simsiam_keras.losses",
    "load_encoder": "simsiam_keras.export",
}

__all__ = ["__version__", *_MODULES, *_NAMES]

registration.install()  # Keras finds the classes of saved models


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"simsiam_keras.{name}")
    raise AttributeError(f"module 'simsiam_keras' has no attribute {name!r}")
