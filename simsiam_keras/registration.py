"""What makes a saved model load after `import simsiam_keras` alone, without an import of Keras.

Keras looks a class of a file up in a dictionary, by a name such as `"simsiam_keras>SimSiam"`, and
`register_keras_serializable` puts it there when its module is imported. Ours are imported at first
use, which for a file to load is too late. So each name is given a stand-in that imports the module
when Keras asks for its `from_config`; the module's decorator then puts the class in its place.

The dictionary exists once Keras is imported, in either order with this package. Importing our
modules at that moment would go in circles: it may be one of them that imports Keras.
"""

import importlib
import sys

from simsiam_keras import family

CLASSES = (
    *family.classes(),
    # What they and their compiled state consist of
    "simsiam_keras.augment.device.Views",
    "simsiam_keras.losses.base.BatchMean",
    "simsiam_keras.losses.similarity.NegativeCosineSimilarity",
    "simsiam_keras.optimizers.LARS",
    "simsiam_keras.optimizers.Rates",
    "simsiam_keras.optimizers.SGD",
    "simsiam_keras.schedules.After",
    "simsiam_keras.targets.MomentumEncoder",
    "simsiam_keras.targets.MovingAverage",
    "simsiam_keras.targets.Snapshot",
)
# The public module comes last in `import keras`, when no import follows that we could see; what it
# re-exports comes early.
_WHERE = ("keras.saving", "keras.src.saving")
_registered = False


class StandIn:
    """Behaves as the class at a dotted path, which is imported when it is first needed.

    Args:
        path: such as `"simsiam_keras.optimizers.SGD"`.
    """

    __slots__ = ("_path",)

    def __init__(self, path):
        self._path = path

    def _class(self):
        module, name = family.split(self._path)
        return getattr(importlib.import_module(module), name)

    def __getattr__(self, name):
        return getattr(self._class(), name)

    def __call__(self, *args, **kwargs):
        return self._class()(*args, **kwargs)

    def __repr__(self):  # Keras prints it in its errors
        return repr(self._class())

    def __reduce__(self):
        return StandIn, (self._path,)


def install():
    """Registers now, or as soon as Keras is imported; a second call changes nothing."""
    this = sys.modules[__name__]
    if this not in sys.meta_path:
        # For good: to take it out of the list that an import goes through, in this thread or in
        # another, would make that import skip a finder.
        sys.meta_path.insert(0, this)
    _register()


def find_spec(name, path=None, target=None):
    """Finds no module; Python calls it before each import of a new one, as one of its finders.

    Only watching leaves Keras's own loader, and the tracebacks of its errors, as they are.
    """
    if not _registered:
        _register()


def _register():
    global _registered
    for name in _WHERE:
        get_custom_objects = getattr(sys.modules.get(name), "get_custom_objects", None)
        if get_custom_objects is not None:
            objects = get_custom_objects()
            for path in CLASSES:
                objects.setdefault(f"simsiam_keras>{family.split(path)[1]}", StandIn(path))
            _registered = True
            return
