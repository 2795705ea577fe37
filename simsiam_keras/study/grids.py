"""The paper's experiments as tables: what is changed, and what the paper measured.

The numbers are ImageNet top-1 accuracies in percent of a linear classifier on ResNet-50, after 100
epochs. Every row names all of the flags that it is about, so that it means the same whatever the
recipe it is applied to.

Reference:
    Chen & He 2020, https://arxiv.org/abs/2011.10566
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Scaled:
    """A share of one of the recipe's own numbers, rounded down.

    Attributes:
        flag: the flag that the number is read from.
        factor: what it is multiplied by.
    """

    flag: str
    factor: Fraction


@dataclass(frozen=True)
class Row:
    """One setting of an experiment.

    Attributes:
        label: its name in tables; `{flag}` stands for the value of a flag.
        flags: values by flag, first what the experiment is about; a `Scaled` is resolved with the
            recipe, and a flag that its method does not have is left out.
        paper: the paper's accuracy in percent, or None where it gives none.
        remark: what the paper says of this setting, or what its number belongs to.
    """

    label: str
    flags: Mapping[str, object]
    paper: float | None
    remark: str = ""


@dataclass(frozen=True)
class Study:
    """One experiment of the paper.

    Attributes:
        name: value of `--study`.
        title: heading in the report.
        reference: where the paper has it.
        rows: tuple of `Row`; the paper's own method is among them.
    """

    name: str
    title: str
    reference: str
    rows: tuple[Row, ...]


def _learned(predictor_lr):
    return {"predictor": "mlp", "predictor_lr": predictor_lr}


def _without(predictor):
    return {"predictor": predictor, "predictor_lr": "decayed"}  # nothing has a rate


def _batch(paper_batch, paper):
    factor = Fraction(paper_batch, 512)  # "The batch size is 512 by default" (section 3)
    flags = {"batch_size": Scaled("batch_size", factor)}
    remark = f"batch {paper_batch}"
    if paper_batch >= 1024:  # "10 epochs of warm-up", of 100
        flags["warmup_epochs"] = Scaled("epochs", Fraction(1, 10))
        remark += ", warm-up for a tenth of the epochs"
    return Row("batch {batch_size}", flags, paper, remark)


def _output_dim(paper_dim, paper):
    factor = Fraction(paper_dim, 2048)
    # "the prediction MLP's hidden layer dimension is always 1/4 of the output dimension"
    scaled = {flag: Scaled(flag, factor) for flag in ("output_dim", "predictor_hidden")}
    return Row("d = {output_dim}", scaled, paper, f"d = {paper_dim}")


STUDIES = (
    Study(
        "stop_gradient",
        "Stop-gradient",
        "section 4.1, figure 2",
        (
            Row("with stop-gradient", {"stop_gradient": True}, 67.7),
            Row(
                "without stop-gradient",
                {"stop_gradient": False},
                0.1,
                "collapses: loss −1, std 0, accuracy of chance",
            ),
        ),
    ),
    Study(
        "predictor",
        "Predictor",
        "section 4.2, table 1; the moving average in section 5.2",
        (
            Row("learned (decayed rate)", _learned("decayed"), 67.7),
            Row("learned (constant rate)", _learned("constant"), 68.1),
            Row("no predictor", _without("none"), 0.1, "collapses"),
            Row(
                "fixed at random", _without("fixed"), 1.5, "does not converge, the loss stays high"
            ),
            Row(
                "moving averages as targets",
                _without("moving_average"),
                55.0,
                "no predictor either: an expectation over augmentations in its place",
            ),
        ),
    ),
    Study(
        "batch_size",
        "Batch size",
        "section 4.3, table 2",
        tuple(
            _batch(batch, paper)
            for batch, paper in (
                (64, 66.1),
                (128, 67.3),
                (256, 68.1),
                (512, 68.1),
                (1024, 68.0),
                (2048, 67.9),
                (4096, 64.0),
            )
        ),
    ),
    Study(
        "batch_norm",
        "Batch normalization in the heads",
        "section 4.4, table 3",
        (
            Row(
                "no normalization",
                {
                    "batch_norm": "none",
                    "output_affine": False,
                    "warmup_epochs": Scaled("epochs", Fraction(1, 10)),
                },
                34.6,
                "no collapse, hard to optimize; warm-up for a tenth of the epochs",
            ),
            Row("hidden layers only", {"batch_norm": "hidden", "output_affine": False}, 67.4),
            Row("hidden + projector's output", {"batch_norm": "default"}, 68.1, "SimSiam"),
            Row(
                "hidden + both outputs",
                {"batch_norm": "all"},
                None,
                "unstable, the loss oscillates; no number given",
            ),
        ),
    ),
    Study(
        "symmetrization",
        "Symmetrization",
        "section 4.6",
        (
            Row("symmetric", {"symmetrization": "sym"}, 68.1),
            Row("asymmetric", {"symmetrization": "asym"}, 64.8),
            Row("asymmetric with two pairs", {"symmetrization": "asym2x"}, 67.3),
        ),
    ),
    Study(
        "similarity",
        "Similarity function",
        "section 4.5",
        (
            Row("cosine", {"similarity": "cosine"}, 68.1),
            Row(
                "cross-entropy",
                {"similarity": "cross_entropy"},
                63.2,
                "its loss is on another scale",
            ),
        ),
    ),
    Study(
        "output_dim",
        "Output dimension d",
        "appendix B",
        tuple(
            _output_dim(dim, paper)
            for dim, paper in ((256, 65.3), (512, 67.2), (1024, 67.5), (2048, 68.1))
        ),
    ),
    Study(
        "alternation",
        "Multi-step alternation: targets from the same weights for k steps",
        "section 5.2",
        (
            Row("k = 1 (SimSiam)", {"alternate_steps": "1"}, 68.1),
            Row("k = 10", {"alternate_steps": "10"}, 68.7),
            Row("k = 100", {"alternate_steps": "100"}, 68.9),
            Row("k = one epoch", {"alternate_steps": "epoch"}, 67.0),
        ),
    ),
)


def possible(cfg):
    """The experiments on what the recipe's method has, a list of `Study`."""
    known = {field.name for field in dataclasses.fields(cfg)}
    return [study for study in STUDIES if next(iter(study.rows[0].flags)) in known]


def chosen(cfg):
    """The experiments that `--study` names.

    Args:
        cfg: a `config.Study`.

    Returns:
        A list of `Study`.

    Raises:
        ValueError: if it is about a flag that the method does not have.
    """
    found = [study for study in possible(cfg) if cfg.study in ("all", study.name)]
    if not found:
        names = ", ".join(study.name for study in possible(cfg))
        raise ValueError(
            f"--study={cfg.study} changes a part that --method={cfg.method} does not have; "
            f"it may be {names} or all"
        )
    return found
