import dataclasses
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags

from simsiam_keras import config, family, flagfile, options
from simsiam_keras.family import FAMILY
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
    "protocol": {"encoder": "e", "protocol": "paper"},
    "format": {"encoder": "e", "format": "parquet"},
    "quantize": {"weights": "e", "output": "o", "dataset": "digits", "quantize": "int8"},
    "threshold": {"encoder": "e", "threshold": "0.9"},
}
COMMANDS = {"methods": "compare", "protocol": "linear-probe", "format": "embed"}
COMMANDS |= {"quantize": "export", "threshold": "duplicates"}


@pytest.mark.parametrize("command", config.COMMANDS)
def test_flagfile_gives_the_configuration_back(command, tmp_path):
    cls = config.of(command)
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
    command = COMMANDS.get(name, "pretrain")
    cfg = config.make(command, **EXCLUSIVE[name])
    (tmp_path / "flags.cfg").write_text(config.to_flagfile(cfg))
    assert config.parse(command, [f"--flagfile={tmp_path / 'flags.cfg'}"]) == cfg


@pytest.mark.parametrize(
    ("method", "sizes"),
    [
        ("simsiam", (0, 2048, 512)),
        ("byol", (4096, 256, 4096)),  # section 3.3 of arXiv 2006.07733
        ("simclr", (2048, 128, None)),  # section 4.2 of arXiv 2002.05709
        ("swav", (2048, 128, None)),  # appendix A of arXiv 2006.09882
    ],
)
def test_a_method_has_its_papers_heads_unless_told(method, sizes, tmp_path):
    def parsed(*argv):
        cfg = config.parse("pretrain", [f"--method={method}", *argv])
        return cfg.projector_hidden, cfg.output_dim, getattr(cfg, "predictor_hidden", None)

    assert parsed() == sizes
    assert parsed("--output_dim=7")[1] == 7
    (tmp_path / "x.cfg").write_text("--projector_hidden=9\n")
    assert parsed(f"--flagfile={tmp_path / 'x.cfg'}") == (9, *sizes[1:])


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
    cfg = config.make("pretrain")
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
    files = [p for p in package.rglob("*.py") if p.name not in ("options.py", "family.py")]
    code = "\n".join(path.read_text() for path in files)
    every = [config.of(command, m) for command in config.COMMANDS for m in FAMILY]
    names = {field.name for cls in every for field in dataclasses.fields(cls)}
    read = {name for name in names if re.search(rf"\b(cfg|config|flags)\.{name}\b", code)}
    assert names - read == set()


# What a method owns.


def test_a_run_has_its_methods_flags_and_no_others(tmp_path):
    for method, member in FAMILY.items():
        cfg = config.make("pretrain", method=method)
        (tmp_path / "flags.cfg").write_text(config.to_flagfile(cfg))
        names = set(flagfile.values(tmp_path / "flags.cfg"))
        own = {field.name for field in dataclasses.fields(member.flags)}
        common = {field.name for field in dataclasses.fields(options.Pretrain)}
        assert names == own | common and not own & common


def test_help_shows_what_applies_in_groups():
    text = config.help_text("pretrain", ["--method=byol"])
    groups = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert groups == ["data", "views", "encoder", "method", "optimization", "run", "monitors"]
    assert "--ema_momentum" in text and "[0.996]" in text and "--output_dim=int" in text
    assert "--temperature" not in text and "--stop_gradient" not in text
    assert "--stop_gradient" in config.help_text("pretrain")
    method = text.split("\nmethod:")[1].split("\noptimization:")[0]
    assert "--ema_momentum" in method and "--epochs" not in method
    assert "Run folder to read" in config.help_text("diagnose")


def test_the_method_may_come_from_a_flagfile_within_a_flagfile(tmp_path):
    (tmp_path / "inner.cfg").write_text("--method=swav\n--prototypes=7\n")
    (tmp_path / "outer.cfg").write_text(f"--flagfile={tmp_path / 'inner.cfg'}\n--epochs=3\n")
    cfg = config.parse("pretrain", ["--flagfile", str(tmp_path / "outer.cfg"), "--queue", "4"])
    assert (cfg.method, cfg.prototypes, cfg.epochs, cfg.queue) == ("swav", 7, 3, 4)
    (tmp_path / "inner.cfg").write_text(f"--flagfile={tmp_path / 'outer.cfg'}\n")
    with pytest.raises(ValueError, match="names itself"):
        config.parse("pretrain", [f"--flagfile={tmp_path / 'outer.cfg'}"])


def test_flags_of_a_run_of_the_first_version_are_told_where_they_went(tmp_path):
    old = "--method=byol\n--output_dim=8\n--temperature=0.5\n--stop_gradient=true\n"
    (tmp_path / "flags.cfg").write_text(old)
    with pytest.raises(ValueError) as error:
        config.parse("pretrain", [f"--flagfile={tmp_path / 'flags.cfg'}"])
    assert str(error.value) == (
        "--temperature belongs to --method=simclr|swav, not to byol; leave it out, with "
        "--stop_gradient, of other methods too"
    )
    every = "".join(f"--{name}=1\n" for m in FAMILY for name in family.own_flags(m))
    (tmp_path / "flags.cfg").write_text("--method=byol\n" + every)
    with pytest.raises(ValueError, match="more, .*version 0.1 wrote .* every method") as error:
        config.parse("pretrain", [f"--flagfile={tmp_path / 'flags.cfg'}"])
    assert len(str(error.value)) < 300


# Values that a line cannot hold.

HARD = (
    " leading",
    "trailing ",
    "two\nlines",
    "a\ttab\r",
    "\x1c\x85\u2028",
    "not utf-8: \udcff\udc80",
    '"quoted"',
    '"',
    "\\",
    "# no comment",
    "//",
    "--flagfile=x",
    "",
    "æøå 日本",
)


@pytest.mark.parametrize("value", HARD)
def test_any_value_survives_the_flagfile_and_the_command_line(value, tmp_path):
    cfg = config.make("pretrain", dataset=value, method="simclr")
    path = tmp_path / "flags.cfg"
    path.write_text(config.to_flagfile(cfg), "utf-8")
    assert config.parse("pretrain", [f"--flagfile={path}"]) == cfg
    assert config.parse("pretrain", config.to_arguments(cfg)) == cfg
    assert flagfile.values(path)["dataset"] == value


def test_random_values_survive(tmp_path):
    random = np.random.default_rng(0)
    alphabet = [chr(c) for c in (*range(1, 256), 0x2028, 0xFEFF, 0xDC80, 0xDCFF, 0x1F600)]
    path = tmp_path / "flags.cfg"
    for _ in range(300):
        value = "".join(random.choice(alphabet, random.integers(0, 9)))
        cfg = config.make("pretrain", run_dir=value, base_lr=float(random.uniform(1e-9, 1e9)))
        path.write_bytes(config.to_flagfile(cfg).encode())
        assert config.parse("pretrain", [f"--flagfile={path}"]) == cfg


def test_a_plain_line_and_bytes_of_an_old_encoding_are_read_as_they_are(tmp_path):
    path = tmp_path / "x.cfg"
    path.write_bytes(b"  --dataset=folder:caf\xe9 bar  \n\n// no\n--seed=3")
    cfg = config.parse("pretrain", [f"--flagfile={path}"])
    assert os.fsencode(cfg.dataset) == b"folder:caf\xe9 bar" and cfg.seed == 3
    path.write_text('--dataset="folder:x\n')
    with pytest.raises(ValueError, match=f"{path}: --dataset begins with a quote"):
        config.parse("pretrain", [f"--flagfile={path}"])


@pytest.mark.parametrize("command", ["pretrain", "preview", "linear-probe", "knn"])
def test_no_number_may_be_infinite_or_none(command):
    for method in FAMILY if command == "pretrain" else ["simsiam"]:
        cls = config.of(command, method)
        for field in dataclasses.fields(cls):
            for value in ("nan", "inf", "-inf") if field.type is float else ():
                argv = [f"--{field.name}={value}"]
                argv += [f"--method={method}"] if command == "pretrain" else []
                with pytest.raises((flags.Error, ValueError), match=field.name):
                    config.parse(command, argv)


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
