"""One run of a study in a process of its own: `pretrain`, then `linear-probe` on its encoder.

    python -m simsiam_keras.study.measure {linear,knn} PROCESSORS PRETRAIN_FLAGS

PROCESSORS are the numbers of those to compute on, separated by commas, or `all`. A process for each
run keeps its seeds, memory and crashes to itself. The last line that it prints says what went
wrong; the exit code is 2 where the flags or the data are the cause, else 1.
"""

import os
import shutil
import sys
import traceback

from simsiam_keras import config, interrupts, runs, streams
from simsiam_keras.errors import sentence

REFUSED = (ValueError, FileNotFoundError, NotADirectoryError, ImportError)


def command(cfg, linear, processors):
    """The command line of a run.

    Args:
        cfg: a `config.Pretrain`.
        linear: whether to train a linear classifier as well.
        processors: numbers of those to compute on; none are all.

    Returns:
        A list of words.
    """
    shared = ",".join(map(str, processors)) or "all"
    flags = config.to_arguments(cfg)
    return [sys.executable, "-m", __name__, "linear" if linear else "knn", shared, *flags]


def main(argv):
    """Runs what is left to run.

    Args:
        argv: `linear` or `knn`, processors, then the flags of `pretrain`.

    Returns:
        The exit code.
    """
    what, processors, *flags = argv
    if processors != "all":
        # Before a backend starts as many threads as there are processors.
        os.sched_setaffinity(0, map(int, processors.split(",")))
    try:
        with interrupts.heeded():
            _measure(config.parse("pretrain", flags), linear=what == "linear")
    except interrupts.Interrupted as stop:
        print(f"interrupted; {stop.outlook}", file=sys.stderr)
        return stop.code
    except Exception as error:
        traceback.print_exc()
        print(sentence(error), file=sys.stderr)
        return 2 if isinstance(error, REFUSED) else 1
    return 0


def _measure(cfg, linear):
    from simsiam_keras import commands, probes
    from simsiam_keras.data import sources

    run_dir, probe = config.run_dir(cfg), probe_config(cfg)
    result = runs.result(run_dir) or commands.pretrain(cfg)
    if linear and result["knn"] is not None and not runs.result(probe.run_dir):
        try:
            probes.linear_probe(probe)
        except sources.NoSuchSplit as error:
            print(f"no linear classifier: {error}", file=sys.stderr)
    # A finished run does not go on, and a grid of large models would fill the disk with them.
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)


def probe_config(cfg):
    """The linear classifier on the images that the run's kNN was measured on.

    Args:
        cfg: a `config.Pretrain`.

    Returns:
        The configuration of `linear-probe`.
    """
    run_dir = config.run_dir(cfg)
    return config.make(
        "linear-probe",
        encoder=str(run_dir / "encoder.keras"),
        run_dir=str(run_dir / "linear_probe_sgd"),
        dataset=cfg.probe_dataset or cfg.dataset,
        labels="" if cfg.probe_dataset else cfg.labels,
        labels_columns="" if cfg.probe_dataset else cfg.labels_columns,
        data_dir=cfg.data_dir,
        split=cfg.probe_split,
        test_split=cfg.probe_test_split,
        backend=cfg.backend,
        seed=cfg.seed,
    )


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
