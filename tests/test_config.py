import dataclasses
import subprocess
import sys
import time

import pytest
from absl import flags

from simsiam_keras import config
from tests.conftest import ROOT

# Flags whose other values contradict each other; changed one by one below.
EXCLUSIVE = {
    "predictor": {"predictor": "moving_average"},
    "alternate_steps": {"alternate_steps": "epoch"},
    "method": {"method": "siamese_triplet"},
    "small_views": {"small_views": 2},
    "queue": {"method": "swav", "queue": 8},
    "labels_per_class": {"method": "siamese_triplet", "labels_per_class": 5},
    "methods": {"methods": "byol,swav"},
}


@pytest.mark.parametrize("command", config.COMMANDS)
def test_flagfile_gives_the_configuration_back(command, tmp_path):
    cls = config.COMMANDS[command]
    changed = {}
    for field in dataclasses.fields(cls):
        choices = field.metadata["choices"]
        if field.name in EXCLUSIVE:
            continue
        if choices:
            changed[field.name] = choices[-1]
        elif field.type is bool:
            changed[field.name] = not field.default
        elif field.type is str:
            changed[field.name] = "some text = x"
        elif field.name not in ("batch_size", "gradient_accumulation", "warmup_epochs"):
            changed[field.name] = field.default + 1
    cfg = cls(**changed)
    (tmp_path / "flags.cfg").write_text(config.to_flagfile(cfg))
    assert config.parse(command, [f"--flagfile={tmp_path / 'flags.cfg'}"]) == cfg


@pytest.mark.parametrize("name", EXCLUSIVE)
def test_flagfile_gives_an_exclusive_flag_back(name, tmp_path):
    command = "compare" if name == "methods" else "pretrain"
    cfg = config.COMMANDS[command](**EXCLUSIVE[name])
    (tmp_path / "flags.cfg").write_text(config.to_flagfile(cfg))
    assert config.parse(command, [f"--flagfile={tmp_path / 'flags.cfg'}"]) == cfg


@pytest.mark.parametrize(
    ("method", "sizes"),
    [
        ("simsiam", (0, 2048, 512)),
        ("byol", (4096, 256, 4096)),  # section 3.3 of arXiv 2006.07733
        ("simclr", (2048, 128, 512)),  # section 4.2 of arXiv 2002.05709
        ("swav", (2048, 128, 512)),  # appendix A of arXiv 2006.09882
    ],
)
def test_a_method_has_its_papers_heads_unless_told(method, sizes, tmp_path):
    def parsed(*argv):
        cfg = config.parse("pretrain", [f"--method={method}", *argv])
        return cfg.projector_hidden, cfg.output_dim, cfg.predictor_hidden

    assert parsed() == sizes
    assert parsed("--output_dim=7")[1] == 7
    (tmp_path / "x.cfg").write_text("--projector_hidden=9\n--predictor_hidden=3\n")
    assert parsed(f"--flagfile={tmp_path / 'x.cfg'}") == (9, sizes[1], 3)


def test_constants_of_the_losses_are_the_papers():
    def parsed(method, *names):
        cfg = config.parse("pretrain", [f"--method={method}"])
        return tuple(getattr(cfg, name) for name in names)

    assert parsed("simclr", "temperature") == (0.5,)
    assert parsed("byol", "ema_momentum") == (0.996,)
    names = ("temperature", "prototypes", "sinkhorn_epsilon", "sinkhorn_iterations", "queue")
    assert parsed("swav", *names) == (0.1, 3000, 0.05, 3, 0)
    assert parsed("siamese_triplet", "margin") == (0.2,)


def test_defaults_are_the_papers_cifar_recipe():
    cfg = config.Pretrain()
    assert (cfg.epochs, cfg.batch_size, cfg.base_lr, cfg.momentum) == (800, 512, 0.03, 0.9)
    assert (cfg.weight_decay, cfg.output_dim, cfg.predictor_hidden) == (5e-4, 2048, 512)
    assert (cfg.encoder, cfg.stem, cfg.projector_layers) == ("resnet18", "cifar", 2)


def test_later_flags_win_over_the_flagfile(tmp_path):
    (tmp_path / "x.cfg").write_text("# a comment\n--epochs=7\n--seed=3\n")
    cfg = config.parse("pretrain", [f"--flagfile={tmp_path / 'x.cfg'}", "--epochs=9"])
    assert (cfg.epochs, cfg.seed) == (9, 3)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--epoch=3"], "Did you mean"),
        (["--epochs=many"], "epochs"),
        (["--epochs=0"], "epochs"),
        (["--jit=maybe"], "<auto|on|off>"),
        (["--flagfile=/nowhere.cfg"], "/nowhere.cfg"),
    ],
)
def test_wrong_flags_are_named(argv, sentence):
    with pytest.raises(flags.Error) as error:
        config.parse("pretrain", argv)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["epochs=3"], "flags only"),
        (["--batch_size=10", "--gradient_accumulation=3"], "must be a multiple"),
        (["--epochs=2", "--warmup_epochs=2"], "must be below --epochs"),
        *((["--alternate_steps=" + n], f"at least 1, or .* {n}$") for n in ("0", "-3", "1.5", "x")),
        *(
            (["--predictor_lr=constant", f"--predictor={h}"], f"predictor that learns, not {h}")
            for h in ("none", "fixed", "moving_average")
        ),
        (["--batch_norm=all", "--predictor=none"], "predictor to normalize, not none"),
        (["--batch_norm=all", "--predictor=moving_average"], "predictor to normalize, not moving"),
        (["--output_affine", "--batch_norm=hidden"], "BN on the output, not --batch_norm=hidden"),
        (["--output_affine", "--batch_norm=none"], "BN on the output, not --batch_norm=none"),
        (["--predictor=moving_average", "--alternate_steps=10"], "both make the targets"),
        (["--predictor=moving_average", "--similarity=cross_entropy"], "--similarity=cosine"),
        (["--predictor=moving_average", "--stop_gradient=false"], "has no effect"),
        (["--alternate_steps=epoch", "--stop_gradient=false"], "has no effect"),
        (["--method=byol", "--stop_gradient=false"], "--stop_gradient belongs to --method=simsiam"),
        (["--method=simclr", "--small_views=2"], "belongs to --method=simsiam|swav, not to simclr"),
        (["--method=simclr", "--predictor_lr=constant"], "--method=simsiam|byol, not to simclr"),
        (["--small_views=2", "--symmetrization=asym"], "--small_views needs --symmetrization=sym"),
        (
            ["--method=simclr", "--batch_size=4", "--gradient_accumulation=4"],
            "--batch_size must be at least twice --gradient_accumulation",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(argv, sentence):
    with pytest.raises(ValueError, match=sentence):
        config.parse("pretrain", argv)


@pytest.mark.parametrize("path", sorted((ROOT / "flags").glob("*.cfg")), ids=lambda p: p.stem)
def test_every_recipe_card_parses_and_says_how_to_run_it(path):
    cfg = config.parse("pretrain", [f"--flagfile={path}"])
    assert cfg.run_dir
    header = path.read_text().split("\n--")[0]
    assert f"python -m simsiam_keras pretrain --flagfile=flags/{path.name}" in header


def test_every_flag_is_read():
    """A flag that nothing reads is a promise that nothing keeps."""
    package = ROOT / "simsiam_keras"
    code = "\n".join(p.read_text() for p in package.rglob("*.py") if p.name != "config.py")
    code += (package / "config.py").read_text().split("def run_dir")[1]
    names = {f.name for cls in config.COMMANDS.values() for f in dataclasses.fields(cls)}
    assert {n for n in names if f"cfg.{n}" not in code and f"config.{n}" not in code} == set()


@pytest.mark.parametrize("argv", [["--help"], ["pretrain", "--help"]])
def test_help_answers_without_keras_in_a_second(argv):
    times = []
    for _ in range(3):
        began = time.perf_counter()
        command = [sys.executable, "-X", "importtime", "-m", "simsiam_keras", *argv]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 1
    assert "usage:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"keras", "tensorflow", "numpy"} & imported
