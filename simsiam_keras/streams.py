"""Standard output and error that no run depends on: where they cannot be written, it goes on."""

import io
import os
import sys
import warnings

from simsiam_keras.errors import Caution

BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended, as in `| head`


class Tolerant(io.TextIOWrapper):
    """A text stream that outlives its reader.

    After the first error of the system (a closed pipe, a full disk, a terminal that is gone) what
    is written goes nowhere, also what libraries write to the same descriptor.

    Attributes:
        error: the `OSError`, or None.
    """

    error = None

    def write(self, text):
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self):
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error):
        self.error = self.error or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # what is buffered still must be written somewhere
        os.close(nowhere)


def prepare():
    """Makes this process's standard output and error tolerant, whatever the locale.

    What their encoding does not have is replaced: by `?` in results, by an escape in messages.
    Descriptors that were closed (`2>&-`) lead nowhere, where else the next file opened, such as a
    checkpoint, would get what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    warnings.formatwarning = _in_one_line
    for name, errors in (("stdout", "replace"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # else there is none, or it is no file
            options = {"encoding": stream.encoding, "line_buffering": stream.line_buffering}
            options["write_through"] = stream.write_through
            tolerant = Tolerant(stream.detach(), errors=errors, **options)
            setattr(sys, name, tolerant)
            setattr(sys, f"__{name}__", tolerant)


def _in_one_line(message, category, *where, _usual=warnings.formatwarning, **line):
    if issubclass(category, Caution):
        return f"simsiam_keras: warning: {message}\n"
    return _usual(message, category, *where, **line)


def exit_code(code):
    """The exit code of a command after what became of its output.

    Args:
        code: that of the command itself.

    Returns:
        `code`; 141 where the reader of its results had gone, 1 where they could not be written.
    """
    if not isinstance(sys.stdout, Tolerant):
        return code
    sys.stdout.flush()
    error = sys.stdout.error
    if error is None or code:
        return code
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    print(f"simsiam_keras: standard output cannot be written: {error.strerror}", file=sys.stderr)
    return 1
