"""From grids to runs: which runs a study needs, where each is kept, and how it ended."""

import dataclasses
from pathlib import Path

from simsiam_keras import runs
from simsiam_keras.study import grids

RECIPE = "recipe"  # name of the setting that changes nothing


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study: a setting and a seed.

    Attributes:
        name: the setting as `flag=value`, joined by `+`; `RECIPE` where nothing is changed.
        seed: the seed.
        folder: the run folder.
    """

    name: str
    seed: int
    folder: Path

    @property
    def log(self):
        """What the run printed."""
        return self.folder.with_suffix(".log")

    def outcome(self):
        """How the run ended: `seconds`, `error` (None or a sentence) and `linear`; None before."""
        path = self.folder.with_suffix(".json")
        return runs.read_json(path, "delete it to run that again") if path.exists() else None

    def error(self):
        """Why the run failed, a sentence, or None."""
        return (self.outcome() or {}).get("error")

    def settle(self, seconds, error, linear):
        """Records how the run ended.

        Args:
            seconds: how long it took.
            error: None, or a sentence that says why it failed.
            linear: whether a linear classifier was asked for.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        outcome = {"seconds": round(seconds, 1), "error": error, "linear": linear}
        runs.write_json(self.folder.with_suffix(".json"), outcome)

    def settled(self, linear, retry_failed=False):
        """Whether there is nothing left to run, a failure included."""
        outcome = self.outcome()
        if outcome is None or (linear and not outcome["linear"]):
            return False
        return outcome["error"] is None or not retry_failed

    def result(self):
        """The numbers of the run and of its linear classifier; empty before it has finished."""
        numbers = {}
        for path in (self.folder, self.folder / "linear_probe_sgd"):
            found = runs.result(path) or {}
            numbers = {**found, **numbers}  # what both have, `seed` or `epochs`, is the run's
        return numbers


def changes(row, recipe):
    """What a row changes in a recipe.

    Args:
        row: a `grids.Row`.
        recipe: a `config.Pretrain`.

    Returns:
        Values by flag, without those that the recipe has already.

    Example:
        >>> from fractions import Fraction
        >>> from simsiam_keras import config
        >>> row = grids.Row("", {"stop_gradient": True,
        ...                      "batch_size": grids.Scaled("batch_size", Fraction(1, 8))}, None)
        >>> changes(row, config.make("pretrain", batch_size=512))
        {'batch_size': 64}
    """
    known = {field.name for field in dataclasses.fields(recipe)}
    values = {flag: _value(value, recipe) for flag, value in row.flags.items() if flag in known}
    return {flag: value for flag, value in values.items() if value != getattr(recipe, flag)}


def _value(value, recipe):
    if isinstance(value, grids.Scaled):
        return int(getattr(recipe, value.flag) * value.factor)
    return value


def label(row, recipe):
    """The row's label, with the values that its flags have."""
    return row.label.format(**{**dataclasses.asdict(recipe), **changes(row, recipe)})


def name(changed):
    """The name of a setting, which is also its folder's.

    Example:
        >>> name({}), name({"predictor": "none"}), name({"stop_gradient": False})
        ('recipe', 'predictor=none', 'stop_gradient=false')
    """
    parts = [f"{flag}={str(value).lower()}" for flag, value in sorted(changed.items())]
    return "+".join(parts) or RECIPE


def of_row(row, recipe, study_dir, seeds):
    """The runs of a row, one for each seed."""
    setting = name(changes(row, recipe))
    return [
        Cell(setting, seed, Path(study_dir) / "runs" / setting / f"seed{seed}") for seed in seeds
    ]


def grid(studies, recipe, study_dir, seeds):
    """The runs of several studies, each once, with the changes that they are trained with.

    Settings that studies share are run once. The first seed of everything comes before the second
    of anything, so that a grid that is stopped has compared something; the recipe comes first.

    Args:
        studies: a sequence of `grids.Study`.
        recipe: a `config.Pretrain`.
        study_dir: the study's folder.
        seeds: a sequence of seeds.

    Returns:
        An ordered dict of `Cell` to changes, see `changes`.
    """
    found = {}
    for study in studies:
        for row in study.rows:
            for cell in of_row(row, recipe, study_dir, seeds):
                found[cell] = changes(row, recipe)
    order = sorted(found, key=lambda cell: (cell.seed, cell.name != RECIPE))
    return {cell: found[cell] for cell in order}
