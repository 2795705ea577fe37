"""The text of flagfiles, read and written here alone.

A line is `--name=value`, as absl reads it; blank lines and those that begin with `#` or `//` are
left out. A value that a line cannot hold as it is, with blanks at an end, line breaks or what is no
text, is written as a JSON string: `--dataset="folder:photos "`.
"""

import codecs
import json
import re
import sys
from pathlib import Path

from absl import flags


def read(path, within=()):
    """The arguments of a flagfile, those of flagfiles that it names included.

    Args:
        path: the file.
        within: the files that have led to it.

    Returns:
        A list of `--name=value`.

    Raises:
        absl.flags.Error: if it cannot be read.
        ValueError: if a value is not written as it must be, or flagfiles name each other.
    """
    try:
        path = Path(path).expanduser()
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except (OSError, ValueError, RuntimeError) as error:  # NUL in a name; nobody's home
        cause = getattr(error, "strerror", None) or error
        raise flags.CantOpenFlagFileError(f"--flagfile={path} cannot be read: {cause}") from error
    if path in within:
        raise ValueError(f"--flagfile={path} names itself, by way of {within[-1]}")
    try:
        arguments = parse(text)
    except ValueError as error:
        raise ValueError(f"--flagfile={path}: {error}") from None
    return expand(arguments, (*within, path))


def expand(argv, within=()):
    """Arguments with those of flagfiles in the place of `--flagfile=NAME`, as in `read`."""
    found, argv = [], list(argv)
    while argv:
        argument = argv.pop(0)
        match = re.fullmatch("--?flagfile(=(.*))?", argument, re.DOTALL)
        if not match:
            found.append(argument)
        elif match[1] is None and not argv:
            raise flags.IllegalFlagValueError("--flagfile needs the name of a file")
        else:
            found += read(argv.pop(0) if match[1] is None else match[2], within)
    return found


def parse(text):
    r"""The arguments that the lines of a text hold.

    Example:
    >>> parse('# a comment\n--epochs=7\n--dataset="folder:a\\nb "\n')
    ['--epochs=7', '--dataset=folder:a\nb ']
    """
    lines = [line.strip() for line in text.split("\n")]
    found = [_decode(line) for line in lines if line and not line.startswith(("#", "//"))]
    return [_respelt(argument, "utf-8", sys.getfilesystemencoding()) for argument in found]


def values(path):
    """`{name: value}` of a file with what `write` returns, both strings."""
    text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    pairs = (argument.split("=", 1) for argument in parse(text) if "=" in argument)
    return {name.lstrip("-"): value for name, value in pairs}


def write(values):
    """The text of a flagfile that holds some values by name."""
    return "".join(f"--{name}={_encode(spell(value))}\n" for name, value in values.items())


def spell(value):
    """A value as it is written in a flag."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def names(argv):
    """The names of the flags among arguments, `no` before those of switches left out."""
    found = (re.match(r"--?(?:no)?(\w+)", argument) for argument in argv)
    return [match[1] for match in found if match]


def listed(names, most=3):
    """Names of flags for a sentence, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"--{name}" for name in names[:most]) + more


def last(argv, name):
    """The value that a flag has at the last of its places, or None."""
    value = None
    for argument, following in zip(argv, [*argv, None][1:], strict=True):
        match = re.fullmatch(f"--?{name}(=(.*))?", argument, re.DOTALL)
        if match:
            value = following if match[1] is None else match[2]
    return value


def _respelt(text, written, read):
    # A flagfile is UTF-8 wherever it is written. A process of another locale spells the name of the
    # same file, the same bytes, otherwise.
    if codecs.lookup(written) == codecs.lookup(read):
        return text
    try:
        return text.encode(written, "surrogateescape").decode(read, "surrogateescape")
    except UnicodeError:  # it has what the other encoding lacks
        return text


def _encode(text):
    text = _respelt(text, sys.getfilesystemencoding(), "utf-8")
    plain = text == text.strip() and text.isprintable() and not text.startswith('"')
    return text if plain else json.dumps(text)


def _decode(line):
    name, equals, value = line.partition("=")
    if not value.startswith('"'):
        return line
    try:
        return name + equals + json.loads(value)
    except ValueError:
        raise ValueError(
            f"{name} begins with a quote and so must be a JSON string: {line}"
        ) from None
