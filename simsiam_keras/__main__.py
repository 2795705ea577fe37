"""`python -m simsiam_keras COMMAND --flagfile=...`: choose the backend, parse, dispatch."""

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback

from absl import flags

from simsiam_keras import config, interrupts, streams
from simsiam_keras.errors import ProcessLost, RunFailed, sentence

USAGE = "usage: python -m simsiam_keras COMMAND [--flagfile=FILE] [--flag=value ...]"
REQUIREMENTS = {
    "tensorflow": "requirements.txt",
    "jax": "requirements-jax.txt",
    "torch": "requirements-torch.txt",
}

# Imported when it is called: no command waits for what another needs.
FUNCTIONS = {
    "pretrain": "commands:pretrain",
    "linear-probe": "probes:linear_probe",
    "knn": "probes:nearest_neighbours",
    "worth": "few.command:worth",
    "fine-tune": "classifier.command:fine_tune",
    "predict": "classifier.predict:predict",
    "embed": "gallery.embed:embed",
    "search": "gallery.search:search",
    "duplicates": "explore.command:duplicates",
    "explore": "explore.command:explore",
    "export": "formats.command:export_encoder",
    "preview": "commands:preview",
}


def main(argv=None):
    """Runs a command.

    Args:
        argv: arguments without the program's name; default `sys.argv[1:]`.

    Returns:
        The exit code: 0, 1 after a failure, 2 after a mistake in the call or its input, 128 and the
        signal's number after a signal; the process's is 141 where the reader of its results had
        gone.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0 if argv else 2
    command, rest = argv[0], argv[1:]
    if command not in config.COMMANDS:
        known = ", ".join(config.COMMANDS)
        print(f"simsiam_keras: no command {command!r}; there are: {known}", file=sys.stderr)
        return 2
    if "--help" in rest or "-h" in rest:
        rest = [argument for argument in rest if argument not in ("--help", "-h")]
        try:
            print(config.help_text(command, rest))
        except (flags.Error, ValueError, OSError) as error:
            return _complain(error, 2)
        return 0
    try:
        cfg = config.parse(command, rest)
    except (flags.Error, ValueError, OSError) as error:
        return _complain(error, 2)
    if command != "diagnose" and importlib.util.find_spec(cfg.backend) is None:
        return _complain(
            f"--backend={cfg.backend} is not installed; pip install -r {REQUIREMENTS[cfg.backend]}",
            2,
        )
    _quiet_libraries(cfg)
    try:
        with interrupts.heeded():
            result = _dispatch(command, cfg)
    except interrupts.Interrupted as stop:
        goes_on = "goes on" if command in ("study", "compare", "worth") else "starts again"
        _complain(f"interrupted; {stop.outlook or f'the same command {goes_on}'}", stop.code)
        return stop.code
    except ProcessLost as error:
        _fail(error, 1, cfg)
        sys.stderr.flush()
        os._exit(1)  # JAX would wait at the exit for the process that is gone, then abort
    except RunFailed as error:
        return _fail(error, 1, cfg)
    except (ValueError, FileNotFoundError, NotADirectoryError, ImportError) as error:
        return _fail(error, 2, cfg)
    except Exception as error:
        return _fail(error, 1, cfg)
    if result:  # only one of several processes has one
        _print_table(command, result)
    return 0


def run():
    """Entry point of the console script."""
    streams.prepare()
    sys.exit(streams.exit_code(main()))


def _dispatch(command, cfg):
    if command == "diagnose":  # needs no backend, and so does not wait for one
        from simsiam_keras import diagnose

        return diagnose.diagnose(cfg)
    if command in ("study", "compare"):  # train in other processes, and take no memory from them
        if cfg.plan:
            raise ValueError("--plan is of `pretrain`: leave it out, or plan the recipe alone")
        with _no_native_messages():
            from simsiam_keras.study import compare, runner

        return {"study": runner.run, "compare": compare.run}[command](cfg)
    module, _, name = FUNCTIONS[command].partition(":")
    with contextlib.nullcontext() if cfg.debug else _no_native_messages():
        function = getattr(importlib.import_module(f"simsiam_keras.{module}"), name)
    return function(cfg)


def _quiet_libraries(cfg):
    os.environ["KERAS_BACKEND"] = cfg.backend
    if not cfg.debug:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import warnings

        warnings.filterwarnings("ignore", module=r"(keras|tensorflow|tensorflow_datasets)\b")


@contextlib.contextmanager
def _no_native_messages():
    # TensorFlow's C++ writes to standard error while it is imported, before any log level holds.
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _overview():
    lines = [USAGE, ""]
    for name, cls in config.COMMANDS.items():
        lines.append(f"  {name:14}{cls.__doc__}")
    lines += [
        "",
        "`COMMAND --help` lists its flags, `pretrain --method=NAME --help` those of a method.",
        "flags/ holds recipes to start from.",
    ]
    return "\n".join(lines)


def _fail(error, code, cfg):
    if cfg.debug:
        traceback.print_exc()
    return _complain(error, code)


def _complain(error, code):
    print(f"simsiam_keras: {sentence(error)}", file=sys.stderr)
    return code


def _print_table(command, result):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=command, show_header=False, title_justify="left")
    for name, value in result.items():
        table.add_row(name, Text(_spell(value)))
    Console(file=sys.stdout).print(table)  # a file: of its encoding, so of lines it has


def _spell(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{len(value)} rows, in result.json"
    if isinstance(value, list):
        return ", ".join(map(_spell, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_spell(part)}" for name, part in value.items())
    return "-" if value is None else str(value)


if __name__ == "__main__":
    run()
