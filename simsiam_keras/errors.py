"""The errors and the warning of our own; bad input raises `ValueError`, as in Keras."""

import contextlib

LONGEST = 1000  # letters of a sentence


class Caution(UserWarning):
    """Something goes on that is probably not meant."""


class RunFailed(Exception):
    """A run that was asked for correctly and could not go on; exit code 1."""


class ProcessLost(RunFailed):
    """Another process of the same run has ended."""


def sentence(error):
    r"""What an error says, as one line for a terminal.

    What it repeats of an input may hold anything: control characters are written as escapes, and
    the middle of more than 1,000 letters is left out.

    Args:
        error: an exception, or a text.

    Example:
    >>> sentence("no file\n\x1b[2J")
    'no file \\x1b[2J'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2 - 3
    return f"{text[:half]} ... {text[-half:]}"


@contextlib.contextmanager
def reading(path, advice):
    """The border where a file is read: what is raised within becomes a sentence about the file.

    Args:
        path: the file.
        advice: what to do, the end of the sentence.

    Raises:
        ValueError: in the place of any other error.
    """
    try:
        yield
    except RunFailed:
        raise
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({sentence(error)}); {advice}") from error


@contextlib.contextmanager
def writing(path):
    """The border where a file is written: a full or read-only disk becomes a sentence.

    Raises:
        RunFailed: in the place of any error but a program's own `ValueError`.
    """
    try:
        yield
    except (RunFailed, ValueError):
        raise
    except Exception as error:
        cause = getattr(error, "strerror", None) or sentence(error)
        raise RunFailed(
            f"{path} cannot be written ({cause}); what was written before is kept. Make room or "
            "give the rights, then repeat the command"
        ) from error
