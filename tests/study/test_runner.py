"""The runner: what it runs, what it leaves alone, what it makes of failures."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from simsiam_keras import config, flagfile, runs
from simsiam_keras.__main__ import main
from simsiam_keras.errors import RunFailed
from simsiam_keras.study import cells, grids, measure, runner
from tests.conftest import ROOT
from tests.study import folders

TINY = (
    "--recipe=digits --encoder=resnet10 --stem=stride2 --width=4 --output_dim=16 "
    "--predictor_hidden=4 --batch_size=256 --knn_every=1 --jit=off"
).split()


def healthy(changes, seed):
    return {"knn": 0.9 + seed / 100, "linear": 0.95 + seed / 100}


def run(cfg):
    console = Console(file=io.StringIO(), width=200)
    summary = runner.run(cfg, console)
    return summary, console.file.getvalue().splitlines()


def mtimes(study_dir):
    files = [path for path in (study_dir / "runs").rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_finished_grid_is_only_reported(tmp_path):
    cfg, grid = folders.study(tmp_path / "s", healthy, study="stop_gradient")
    before = mtimes(tmp_path / "s")
    summary, lines = run(cfg)
    assert mtimes(tmp_path / "s") == before
    assert summary["runs"] == len(grid) == 6 and summary["failed"] == 0
    assert lines == [f"6 runs in {tmp_path / 's'}, 6 of them finished already"]
    assert (tmp_path / "s" / "report.html").exists()


def refused(cfg):
    """A study whose smaller batches are no multiples of the recipe's accumulation."""
    return {**cfg, "study": "batch_size", "batch_size": 512, "gradient_accumulation": 512}


def waiting_for_small_batches(changes, seed):
    return None if changes.get("batch_size", 512) < 512 else healthy(changes, seed)


def test_a_failure_is_a_row_and_the_grid_goes_on(tmp_path):
    cfg, _ = folders.study(
        tmp_path / "s", waiting_for_small_batches, **refused({"seeds": 1, "epochs": 40})
    )
    summary, lines = run(cfg)
    assert summary["runs"] == 7 and summary["failed"] == 3
    assert [line.split(":")[0] for line in lines[1:]] == [
        "[5/7] batch_size=64 seed 0",
        "[6/7] batch_size=128 seed 0",
        "[7/7] batch_size=256 seed 0",
    ]
    for line in lines[1:]:
        assert "failed: --batch_size must be a multiple of --gradient_accumulation" in line
    report = (tmp_path / "s" / "report.md").read_text()
    assert "batch 64, seed 0, failed: --batch\\_size must be a multiple" in report
    assert "| batch 64 | – | – | – | – | 0 of 1, 1 failed | 66.1 | batch 64 |" in report


def test_failures_are_tried_again_only_when_asked(tmp_path):
    flags = refused({"seeds": 1, "epochs": 40})
    cfg, grid = folders.study(tmp_path / "s", waiting_for_small_batches, **flags)
    run(cfg)
    (failed, *_) = [cell for cell in grid if cell.error()]
    failed.settle(1.0, "it rained", linear=True)
    assert run(cfg)[0]["failed"] == 3 and failed.error() == "it rained"
    again = config.make(
        "study", **{**flags, "knn_every": 5}, study_dir=cfg.study_dir, retry_failed=True
    )
    assert run(again)[0]["failed"] == 3 and "must be a multiple" in failed.error()


def test_only_failures_are_a_failure(tmp_path):
    cfg, _ = folders.study(tmp_path / "s", lambda *_: "no power", study="similarity", seeds=1)
    with pytest.raises(RunFailed, match="every run failed; .*report.md says why"):
        run(cfg)
    assert "failed: no power" in (tmp_path / "s" / "report.md").read_text()


def test_another_recipe_in_the_same_folder_is_refused_and_named(tmp_path):
    cfg, _ = folders.study(tmp_path / "s", healthy, study="stop_gradient", seeds=1)
    other = config.make("study", epochs=50, knn_every=5, study_dir=cfg.study_dir)
    with pytest.raises(ValueError, match="a study with other flags .--epochs: 40 there, 50 here"):
        run(other)


def test_more_experiments_and_seeds_join_a_study(tmp_path):
    folders.study(tmp_path / "s", healthy, study="stop_gradient", seeds=1)
    wider = config.make("study", study="all", seeds=2, epochs=40, study_dir=str(tmp_path / "s"))
    grid = cells.grid(grids.chosen(wider), runner.recipe(wider), tmp_path / "s", [0, 1])
    settled = [cell.name for cell in grid if cell.settled(linear=True)]
    assert settled == [cells.RECIPE, "stop_gradient=false"]


def test_a_linear_classifier_asked_for_later_is_made(tmp_path):
    _, grid = folders.study(
        tmp_path / "s", lambda *_: {"knn": 0.9, "linear": None}, study="similarity", seeds=1
    )
    assert all(cell.settled(linear=False) and not cell.settled(linear=True) for cell in grid)


def test_a_run_in_the_folder_is_not_written_to(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "flags.cfg").write_text("--epochs=1\n")
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a finished run"):
        run(config.make("study", study_dir=str(tmp_path / "run")))
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"flags.cfg", "result.json"}


@pytest.mark.parametrize(
    ("argv", "folder"),
    [
        (["--flagfile={card}"], "saved_models/digits_study"),
        (["--flagfile={card}", "--run_dir=out"], "out"),
        (["--run_dir", "out", "--flagfile={card}"], "out"),
        (["--flagfile={card}", "--study_dir=out"], "out"),
        (["--dataset=folder:my/photos"], "saved_models/simsiam_photos_study"),
        (["--dataset=digits", "-run_dir=out"], "out"),
    ],
)
def test_a_study_goes_beside_the_run_of_its_recipe(argv, folder):
    card = ROOT / "flags" / "digits.cfg"
    cfg = config.parse("study", [argument.format(card=card) for argument in argv])
    assert str(config.study_dir(cfg)) == folder


def test_its_flagfile_goes_on_with_a_study(tmp_path):
    cfg = config.parse("study", [f"--flagfile={ROOT / 'flags' / 'digits.cfg'}", "--run_dir=out"])
    (tmp_path / "flags.cfg").write_text(config.to_flagfile(cfg))
    assert config.parse("study", [f"--flagfile={tmp_path / 'flags.cfg'}"]) == cfg


def test_a_collapse_does_not_end_a_run():
    assert not runner.recipe(config.make("study", stop_on_collapse=True)).stop_on_collapse


def cell(name, seed=0):
    return cells.Cell(name, seed, None)


@pytest.mark.parametrize(
    ("waiting", "seconds", "elapsed", "share", "left"),
    [
        (["a", "b"], {}, 0, 0, None),  # nothing to judge by
        (["a", "b"], {}, 10, 0.25, 70),  # 40 s each, 10 gone
        (["a", "b"], {"a": [100]}, 0, 0, 200),  # b as long as the others
        (["a", "b"], {"a": [100, 140], "b": [10]}, 30, 0.5, 100),  # each as its own seeds
        (["c", "c"], {"a": [100, 140], "b": [30]}, 0, 0, 180),  # the mean of all runs
        (["a"], {"a": [10]}, 50, 0.9, 0),  # longer than expected
        ([], {"a": [10]}, 0, 0, 0),
    ],
)
def test_time_left(waiting, seconds, elapsed, share, left):
    assert runner.time_left([cell(name) for name in waiting], seconds, elapsed, share) == left


def test_two_at_a_time_take_half_the_time():
    waiting, seconds = [cell("a"), cell("b"), cell("c")], {"a": [100], "b": [60], "c": [40]}
    assert runner.time_left(waiting, seconds, elapsed=20, jobs=2) == 90
    # Two runs half done after 30 s each, nothing finished: 60 s each.
    assert runner.time_left(waiting, {}, elapsed=60, share=1.0, jobs=2) == 60


@pytest.mark.parametrize("jobs", [1, 2, 3, 50])
def test_runs_at_a_time_share_the_processors(jobs):
    every = os.sched_getaffinity(0)
    shares = [runner.processors(slot, jobs) for slot in range(jobs)]
    if jobs == 1:
        assert shares == [[]]  # all
    else:
        assert set().union(*shares) == every and all(shares)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        if jobs <= len(every):
            assert sum(map(len, shares)) == len(every)


def test_failures_do_not_shorten_the_estimate(tmp_path):
    def behave(changes, seed):
        return "no power" if seed else healthy(changes, seed)

    _, grid = folders.study(tmp_path / "s", behave, study="similarity", seeds=2)
    expected = {"recipe": [95.0], "similarity=cross_entropy": [95.0]}
    assert runner.measured_seconds(grid) == expected


def test_last_words_of_a_process(tmp_path):
    log = tmp_path / "seed0.log"
    log.write_text("epoch 1\nTraceback ...\n  the loss is not a number\n\n")
    assert runner._last_words(log, 1) == "the loss is not a number"
    assert runner._last_words(log, -9).startswith("ended by SIGKILL (out of memory?) after: the")
    assert runner._last_words(log, -11).startswith("ended by SIGSEGV after: the")
    log.write_text("")
    assert runner._last_words(log, 1) == "it printed nothing"


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--dataset=folder:/nowhere"], 2, "/nowhere"),
        (["--batch_size=5000"], 2, "`batch_size` must be between 1 and the number of images, 1437"),
        (["--batch_size=1"], 1, "--batch_size=1: 1 is not integer >= 2"),
    ],
)
def test_a_process_says_last_what_was_wrong(flags, code, words, tmp_path, capfd):
    assert measure.main(["linear", "all", *TINY, f"--run_dir={tmp_path / 'run'}", *flags]) == code
    assert words in capfd.readouterr().err.strip().splitlines()[-1]


def study_command(study_dir, *flags):
    flags = ["study", "--study=stop_gradient", "--seeds=1", *TINY, *flags]
    return [sys.executable, "-m", "simsiam_keras", *flags, f"--run_dir={study_dir}"]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("what", ["study", "compare"])
def test_a_mistake_in_the_recipe_is_told_once(what, jobs, tmp_path, capfd):
    command = study_command(tmp_path / "s", "--dataset=folder:/nowhere", f"--jobs={jobs}")[3:]
    if what == "compare":
        command = [what, *(flag for flag in command[1:] if not flag.startswith("--study="))]
    assert main(command) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("simsiam_keras: ") and "/nowhere" in error
    assert not list((tmp_path / "s").glob("runs/*/*.json"))


@pytest.mark.slow
def test_another_methods_output_dimension(tmp_path):
    command = study_command(tmp_path / "s", "--predictor_hidden=8", "--epochs=1", "--nolinear")[3:]
    assert main([*command, "--method=byol", "--study=output_dim", "--jobs=2"]) == 0
    found = {}
    for path in tmp_path.glob("s/runs/*/seed0/result.json"):
        result = json.loads(path.read_text())
        assert result["method"] == "byol"
        found[result["parameters"]] = path.parent.parent.name.partition("+")[0]
    dims = ["output_dim=2", "output_dim=4", "output_dim=8", cells.RECIPE]
    assert [found[size] for size in sorted(found)] == dims


@pytest.mark.slow
def test_two_runs_at_a_time_are_the_runs_of_one_at_a_time(tmp_path):
    losses, together = [], []
    for jobs in ("1", "2"):
        command = study_command(tmp_path / jobs, "--epochs=3", "--nolinear", f"--jobs={jobs}")
        with open(tmp_path / f"said{jobs}", "w") as said:
            process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        most = 0
        while process.poll() is None:
            begun = list((tmp_path / jobs).glob("runs/*/seed0.log"))
            ended = list((tmp_path / jobs).glob("runs/*/seed0/result.json"))
            most = max(most, len(begun) - len(ended))
            time.sleep(0.05)
        assert process.returncode == 0, (tmp_path / f"said{jobs}").read_text()
        folders = sorted((tmp_path / jobs / "runs").glob("*/seed0"))
        losses.append([row["loss"] for folder in folders for row in runs.read_metrics(folder)])
        assert len(folders) == 2
        together.append(most)
    assert together == [1, 2]
    # One processor sums in another order than two, which moved the first epoch's loss by 2e-5.
    one, two = ([x for x in found if x] for found in losses)
    assert one == pytest.approx(two, abs=1e-3)
    with pytest.raises(AssertionError):  # the settings the other way round
        assert one == pytest.approx(two[2:] + two[:2], abs=1e-3)


@pytest.mark.slow
def test_an_interrupted_study_goes_on_and_reports_what_it_measured(tmp_path):
    study_dir = tmp_path / "s"
    command = study_command(study_dir, "--epochs=3")
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    first = study_dir / "runs" / "recipe" / "seed0"
    deadline = time.monotonic() + 300
    while not list(first.glob("checkpoints/epoch_*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # to this process alone, not to the one that trains
    assert process.wait(60) == 130
    assert "the same command goes on" in process.stderr.read()
    assert "0 of 2 runs have finished" in (study_dir / "report.md").read_text()
    assert not (first / "result.json").exists()
    with runs.locked(first, flagfile.values(first / "flags.cfg")):
        pass  # nobody is training in it any more

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resumes after " in first.with_suffix(".log").read_text()
    lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert [line.split(":")[0] for line in lines] == [
        "[1/2] recipe seed 0",
        "[2/2] stop_gradient=false seed 0",
    ]
    for name in ("recipe", "stop_gradient=false"):
        folder = study_dir / "runs" / name / "seed0"
        flags = config.parse("pretrain", [f"--flagfile={folder / 'flags.cfg'}"])
        assert flags.stop_gradient == (name == "recipe") and flags.epochs == 3
        assert [row["epoch"] for row in runs.read_metrics(folder)] == list(range(4))
        probe = json.loads((folder / "linear_probe_sgd" / "result.json").read_text())
        assert f"{100 * probe['linear_accuracy']:.1f}" in (study_dir / "report.md").read_text()
        assert not (folder / "checkpoints").exists()
    before = mtimes(study_dir)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and "2 of them finished already" in again.stderr
    assert mtimes(study_dir) == before
    assert os.path.getsize(study_dir / "plots" / "figure_2.png") > 10_000
