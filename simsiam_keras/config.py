"""Flags to configurations and back: a command's dataclass with that of its method.

Only absl is imported here, so that `--help` answers at once. Nothing below `__main__` reads a flag:
the commands' functions take these dataclasses, which a script makes by `make`.
"""

import dataclasses
import functools
import os
import re
from pathlib import Path

from absl import flags

from simsiam_keras import family, flagfile
from simsiam_keras.family import redefine
from simsiam_keras.options import COMMANDS, Compare, Grid, Pretrain

# Headings of `--help`, in this order.
LONGEST_NAME = 100  # absl looks for similar names, one call in another for each letter
GROUPS = ("data", "views", "encoder", "method", "optimization", "run", "monitors")


def of(command, method="simsiam"):
    """The dataclass of a command; of one that trains, with the flags of a method."""
    return _combined(command, method)


@functools.cache
def _combined(command, method):  # without defaults: one class for one pair
    cls = COMMANDS[command]
    if not issubclass(cls, Pretrain):
        return cls
    chosen = ("method", str, redefine(cls, "method", default=method))
    bases = (family.FAMILY[method].flags, cls)
    namespace = {"__doc__": cls.__doc__, "group": "method"}
    return dataclasses.make_dataclass(
        cls.__name__, (chosen,), bases=bases, namespace=namespace, frozen=True
    )


def make(command, **values):
    """The configuration of a command, for a script.

    Args:
        command: a key of `COMMANDS`.
        **values: flags by name; the others have their defaults.

    Returns:
        The command's dataclass.

    Raises:
        ValueError: on values that do not go together.
        TypeError: on a flag that the command or the method does not have.

    Example:
    >>> make("pretrain", method="simclr", epochs=10).temperature
    0.5
    """
    return of(command, values.get("method", "simsiam"))(**values)


def parse(command, argv):
    """Reads the flags of a command.

    Args:
        command: a key of `COMMANDS`.
        argv: the arguments after the command.

    Returns:
        The command's dataclass.

    Raises:
        absl.flags.Error: on an unknown flag, a wrong value or a missing flagfile.
        ValueError: on values that do not go together, on another method's flag, or on an argument
            that is no flag.
    """
    cls, argv = _class_and_arguments(command, argv)
    for name in (argument.partition("=")[0] for argument in argv):
        if name.startswith("-") and len(name) > LONGEST_NAME:
            raise ValueError(f"{command} has no flag of {len(name)} letters, {name[:20]}...")
    _refuse_flags_of_others(cls, argv)
    values = flags.FlagValues()
    for field in dataclasses.fields(cls):
        _define(field, values)
    rest = values([command, *argv])[1:]
    if rest:
        raise ValueError(f"{command} takes flags only. Received: {' '.join(rest)}")
    return cls(**{field.name: values[field.name].value for field in dataclasses.fields(cls)})


def _class_and_arguments(command, argv):
    """The dataclass that the arguments are for, and the arguments with flagfiles read."""
    if issubclass(COMMANDS[command], Grid):
        # A flagfile names the folder of the recipe's own run, which a grid must not write to.
        argv = [re.sub("^--?run_dir(?==|$)", "--study_dir", argument) for argument in argv]
    typed, argv = argv, flagfile.expand(argv)
    if COMMANDS[command] is Compare:
        argv = [f"--recipes={_beside_flagfile(typed)}", *argv]  # one that is given comes later
    method = flagfile.last(argv, "method")
    return of(command, method if method in family.FAMILY else "simsiam"), argv


def _beside_flagfile(argv):
    """The template of the methods' flagfiles that belongs to the last `--flagfile=NAME`."""
    name = flagfile.last(argv, "flagfile")
    path = Path(name or "")
    return str(path.with_name("{method}_" + path.name)) if name else ""


def _refuse_flags_of_others(cls, argv):
    known = {field.name for field in dataclasses.fields(cls)}
    found = [name for name in flagfile.names(argv) if name not in known and family.owners(name)]
    if not found or not issubclass(cls, Pretrain):
        return
    owners = "|".join(family.owners(found[0]))
    sentence = f"--{found[0]} belongs to --method={owners}, not to {cls.method}; leave it out"
    if len(found) > 1:
        sentence += f", with {flagfile.listed(found[1:])}, of other methods too"
    if len(found) > 9:
        sentence += " (version 0.1 wrote the flags of every method into flags.cfg)"
    raise ValueError(sentence)


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


def help_text(command, argv=()):
    """The flags of a command with their defaults, in groups; of `--method`'s flags in `argv`."""
    cls, _ = _class_and_arguments(command, list(argv))
    lines = [
        cls.__doc__,
        "",
        f"usage: python -m simsiam_keras {command} [--flagfile=FILE] [--flag=value ...]",
    ]
    for group in GROUPS:
        fields = [field for field in dataclasses.fields(cls) if _group(cls, field.name) == group]
        lines += ["", f"{group}:"] if fields else []
        for field in fields:
            choices = field.metadata["choices"]
            kind = "|".join(choices) if choices else field.type.__name__
            lines.append(f"  --{field.name}={kind}")
            lines.append(f"      {field.metadata['help']} [{flagfile.spell(field.default)}]")
    return "\n".join(lines)


def _group(cls, name):
    """The heading of the class that a flag was first written in."""
    origin = next(
        base for base in reversed(cls.__mro__) if name in vars(base).get("__annotations__", ())
    )
    return origin.group


def to_flagfile(config):
    """The configuration as the text of a flagfile that gives it back."""
    return flagfile.write(dataclasses.asdict(config))


def to_arguments(config):
    """The configuration as arguments of its command, a list of `--name=value`."""
    values = dataclasses.asdict(config).items()
    return [f"--{name}={flagfile.spell(value)}" for name, value in values]


def run_dir(config):
    """The folder that a pretraining run writes to, as a `pathlib.Path`."""
    if config.run_dir:
        return Path(config.run_dir)
    name = config.dataset.replace(os.sep, "/").rstrip("/").split(":")[-1].split("/")[-1]
    name = re.sub("[\ud800-\udfff]", "_", name)  # bytes of a folder's name that are no UTF-8
    return Path("saved_models") / f"{config.method}_{name}"


def study_dir(config):
    """The folder that a `Grid` writes to, as a `pathlib.Path`."""
    return Path(config.study_dir or f"{run_dir(config)}_{type(config).__name__.lower()}")
