"""One run of a study in a process of its own: `pretrain`, then `linear-probe` on its encoder.

    python -m simsiam_keras.study.measure {linear,knn} PRETRAIN_FLAGS

A process for each run keeps its seeds, memory and crashes to itself. The last line that it prints
says what went wrong; the exit code is 2 where the flags or the data are the cause, else 1.
"""

import json
import shutil
import sys
import traceback
from pathlib import Path

from simsiam_keras import config

REFUSED = (ValueError, FileNotFoundError, NotADirectoryError, ImportError)


def main(argv):
    """Runs what is left to run.

    Args:
        argv: `linear` or `knn`, then the flags of `pretrain`.

    Returns:
        The exit code.
    """
    try:
        _measure(config.parse("pretrain", argv[1:]), linear=argv[0] == "linear")
    except Exception as error:
        traceback.print_exc()
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 2 if isinstance(error, REFUSED) else 1
    return 0


def _measure(cfg, linear):
    from simsiam_keras import evaluate, train
    from simsiam_keras.data import sources

    run_dir, probe = config.run_dir(cfg), probe_config(cfg)
    if not (run_dir / "result.json").exists():
        train.pretrain(cfg)
    labelled = json.loads((run_dir / "result.json").read_text())["knn"] is not None
    if linear and labelled and not (Path(probe.run_dir) / "result.json").exists():
        try:
            evaluate.linear_probe(probe)
        except sources.NoSuchSplit as error:
            print(f"no linear classifier: {error}", file=sys.stderr)
    # A finished run does not go on, and a grid of large models would fill the disk with them.
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)


def probe_config(cfg):
    """The linear classifier on the images that the run's kNN was measured on.

    Args:
        cfg: a `config.Pretrain`.

    Returns:
        A `config.LinearProbe`.
    """
    run_dir = config.run_dir(cfg)
    return config.LinearProbe(
        encoder=str(run_dir / "encoder.keras"),
        run_dir=str(run_dir / "linear_probe_sgd"),
        dataset=cfg.probe_dataset or cfg.dataset,
        data_dir=cfg.data_dir,
        split=cfg.probe_split,
        test_split=cfg.probe_test_split,
        backend=cfg.backend,
        seed=cfg.seed,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
