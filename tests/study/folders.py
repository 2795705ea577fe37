"""Run folders of a study as training would leave them, with numbers that a test chooses."""

import json

import numpy as np

from simsiam_keras import config
from simsiam_keras.study import cells, grids, runner


def study(study_dir, behave, **flags):
    """Writes a study of digits; `behave(changes, seed)` gives what `run` takes, None, or a text.

    None leaves a run out, a text is the sentence that it failed with.
    """
    cfg = config.make("study", **{"epochs": 40, "knn_every": 5, **flags}, study_dir=str(study_dir))
    study_dir.mkdir()
    (study_dir / "flags.cfg").write_text(config.to_flagfile(cfg))
    grid = cells.grid(grids.chosen(cfg), runner.recipe(cfg), study_dir, runner.seeds(cfg))
    for cell, changes in grid.items():
        numbers = behave(changes, cell.seed)
        if isinstance(numbers, str):
            cell.settle(12.0, numbers, linear=True)
        elif numbers is not None:
            run(cell, cfg, **numbers)
    return cfg, grid


def run(cell, cfg, knn, linear, z_std=0.98, loss=-0.9, start=0.8):
    """Writes a finished run: accuracies in [0, 1] and curves that lead to them."""
    cell.folder.mkdir(parents=True)
    noise = np.random.default_rng(cell.seed).normal(0, 1, (cfg.epochs + 1, 2))
    progress = 1 - np.exp(-5 * np.arange(cfg.epochs + 1) / cfg.epochs)
    rows = [{"epoch": 0, "loss": None, "z_std": None, "knn_accuracy": start}]
    for epoch in range(1, cfg.epochs + 1):
        share, measured = progress[epoch] / progress[-1], epoch % cfg.knn_every == 0
        jitter = 0.01 * noise[epoch] * (epoch < cfg.epochs)
        rows.append(
            {
                "epoch": epoch,
                "loss": loss * share + jitter[0],
                "z_std": 0.9 + (z_std - 0.9) * share + jitter[1],
                "knn_accuracy": start + (knn - start) * share if measured else None,
            }
        )
    (cell.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = {"seed": cell.seed, "epochs": cfg.epochs, "loss": loss, "z_std": z_std}
    result |= {"knn_accuracy": knn, "knn_accuracy_random_init": start}
    result |= {"knn": {"k": 200, "temperature": 0.1, "bank": 1437, "queries": "test split"}}
    write(cell.folder / "result.json", result)
    environment = {"platform": "Linux", "processors": 2, "devices": ["CPU:0"], "backend": "jax"}
    environment |= {"data": {"name": "digits", "images": 1437}, "versions": {"keras": "3.15.1"}}
    write(cell.folder / "environment.json", environment)
    if linear is not None:
        probe = {"linear_accuracy": linear, "optimizer": "sgd", "learning_rates": [0.1, 1.0]}
        (cell.folder / "linear_probe_sgd").mkdir()
        write(cell.folder / "linear_probe_sgd" / "result.json", {**probe, "seed": 0, "epochs": 90})
    cell.settle(95.0, None, linear=linear is not None)


def write(path, value):
    path.write_text(json.dumps(value))
