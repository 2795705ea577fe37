"""The grids say what the paper says, and nothing that the command line would not take."""

import dataclasses
import itertools
from fractions import Fraction

import pytest

from simsiam_keras import config, family
from simsiam_keras.study import cells, grids
from tests.conftest import ROOT

ROWS = [pytest.param(s, r, id=f"{s.name}-{r.label}") for s in grids.STUDIES for r in s.rows]
RECIPES = [
    path for path in sorted((ROOT / "flags").glob("*.cfg")) if "--method=" not in path.read_text()
]
PAPER = {
    "stop_gradient": [67.7, 0.1],
    "predictor": [67.7, 68.1, 0.1, 1.5, 55.0],
    "batch_size": [66.1, 67.3, 68.1, 68.1, 68.0, 67.9, 64.0],
    "batch_norm": [34.6, 67.4, 68.1, None],
    "symmetrization": [68.1, 64.8, 67.3],
    "similarity": [68.1, 63.2],
    "output_dim": [65.3, 67.2, 67.5, 68.1],
    "alternation": [68.1, 68.7, 68.9, 67.0],
}


def study(name):
    return next(study for study in grids.STUDIES if study.name == name)


def test_numbers_are_the_papers():
    assert {s.name: [row.paper for row in s.rows] for s in grids.STUDIES} == PAPER


def test_the_flag_offers_every_study():
    (field,) = [f for f in dataclasses.fields(config.of("study")) if f.name == "study"]
    assert field.metadata["choices"] == (*PAPER, "all")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize(("study", "row"), ROWS)
def test_every_row_is_a_configuration_of_every_recipe(study, row, path):
    recipe = config.parse("pretrain", [f"--flagfile={path}"])
    cfg = dataclasses.replace(recipe, **cells.changes(row, recipe))
    # Through the command line, which also checks choices and lower bounds.
    assert config.parse("pretrain", config.to_arguments(cfg)) == cfg
    assert "{" not in cells.label(row, recipe)


@pytest.mark.parametrize("name", PAPER)
def test_rows_of_a_study_differ_and_one_is_simsiam(name):
    recipe = config.make("pretrain")
    names = [cells.name(cells.changes(row, recipe)) for row in study(name).rows]
    assert len(set(names)) == len(names)
    assert cells.RECIPE in names


def test_rows_mean_the_same_on_another_recipe():
    # ImageNet's recipe keeps the predictor's rate constant, so there the other row is a change.
    recipe = config.parse("pretrain", [f"--flagfile={ROOT / 'flags' / 'imagenet.cfg'}"])
    names = [cells.name(cells.changes(row, recipe)) for row in study("predictor").rows]
    assert names[:3] == ["predictor_lr=decayed", "recipe", "predictor=none+predictor_lr=decayed"]


def test_sizes_are_shares_of_the_recipe():
    recipe = config.make(
        "pretrain", batch_size=64, output_dim=512, predictor_hidden=128, epochs=120
    )
    values = [{**cells.changes(row, recipe)} for row in study("batch_size").rows]
    assert [v.get("batch_size", 64) for v in values] == [8, 16, 32, 64, 128, 256, 512]
    assert [v.get("warmup_epochs", 0) for v in values] == [0, 0, 0, 0, 12, 12, 12]
    values = [{**cells.changes(row, recipe)} for row in study("output_dim").rows]
    assert [v.get("output_dim", 512) for v in values] == [64, 128, 256, 512]
    assert [v.get("predictor_hidden", 128) for v in values] == [16, 32, 64, 128]  # d / 4


def test_shares_are_rounded_down():
    row = grids.Row("", {"batch_size": grids.Scaled("batch_size", Fraction(1, 8))}, None)
    assert cells.changes(row, config.make("pretrain", batch_size=15)) == {"batch_size": 1}


def test_shared_settings_are_run_once(tmp_path):
    grid = cells.grid(grids.STUDIES, config.make("pretrain"), tmp_path, range(3))
    rows = sum(len(study.rows) for study in grids.STUDIES)
    # Every study has the recipe among its rows: one run instead of eight.
    assert len(grid) == 3 * (rows - len(grids.STUDIES) + 1)
    assert len({cell.folder for cell in grid}) == len(grid)


def test_first_seed_of_everything_comes_first(tmp_path):
    order = list(cells.grid(grids.STUDIES, config.make("pretrain"), tmp_path, range(4, 7)))
    assert [cell.seed for cell in order] == sorted(cell.seed for cell in order)
    assert [cell.seed for cell in order if cell.name == cells.RECIPE] == [4, 5, 6]
    assert order[0].name == cells.RECIPE
    names = [[c.name for c in group] for _, group in itertools.groupby(order, lambda c: c.seed)]
    assert names[0] == names[1] == names[2]


@pytest.mark.parametrize("name", [*PAPER, "all"])
def test_a_study_is_chosen_by_name(name):
    expected = list(PAPER) if name == "all" else [name]
    assert [study.name for study in grids.chosen(config.make("study", study=name))] == expected


@pytest.mark.parametrize("method", family.FAMILY)
def test_another_method_has_the_experiments_on_what_it_has(method):
    chosen = [study.name for study in grids.chosen(config.make("study", method=method))]
    expected = {
        "simsiam": [study.name for study in grids.STUDIES],
        "siamese_contrastive": ["batch_size"],
        "siamese_triplet": ["batch_size"],
    }
    assert chosen == expected.get(method, ["batch_size", "output_dim"])
    # What a method does not have is not changed.
    recipe = config.make("pretrain", method=method)
    for study in grids.chosen(config.make("study", method=method)):
        for row in study.rows:
            dataclasses.replace(recipe, **cells.changes(row, recipe))


def test_an_experiment_on_another_methods_part_is_refused():
    card = ROOT / "flags" / "byol_digits.cfg"
    cfg = config.parse("study", [f"--flagfile={card}", "--study=predictor"])
    sentence = "--method=byol does not have; it may be batch_size, output_dim or all"
    with pytest.raises(ValueError, match=sentence):
        grids.chosen(cfg)
