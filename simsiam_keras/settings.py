"""What is set for all of Keras, by `~/.keras/keras.json`, the environment or a script.

A run takes none of it: its flags say what it computes.
"""

import contextlib
import functools

import keras

DEFAULTS = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "max_epochs": None,
    "max_steps_per_epoch": None,
    "dtype_policy": "float32",
}


@contextlib.contextmanager
def changed(**values):
    """Within it settings of `keras.config` are these, by name; afterwards as they were."""
    with contextlib.ExitStack() as stack:
        for name, value in values.items():
            change = getattr(keras.config, f"set_{name}")
            stack.callback(change, getattr(keras.config, name)())
            change(value)
        yield


def own(command):
    """Decorates a command, function of a configuration and a console: it runs by `DEFAULTS`.

    The command raises `ValueError` where Keras was imported with another backend than its flags
    ask for.
    """

    @functools.wraps(command)
    def run(cfg, console=None):
        found = keras.backend.backend()
        if found != cfg.backend:
            raise ValueError(
                f"--backend must be the one that Keras was imported with, {found}; set "
                f"KERAS_BACKEND before the import. Received: --backend={cfg.backend}"
            )
        with changed(**DEFAULTS):
            return command(cfg, console)

    return run
