"""What to try: a table of advice, each for some verdicts of `verdicts` and some runs."""

from collections.abc import Callable
from typing import NamedTuple

from simsiam_keras.verdicts import COLLAPSES, USELESS, WORSE

FAR = 10  # times the paper's rate, or below it
SMALL_BATCH = 64  # the smallest of the paper's table 2
FEW_STEPS = 1000
# Optimizer steps up to which losses that compare the images of a batch were ahead of the others,
# wherever they were tried (benchmarks/results/compare).
SHORT = 10_000


class Advice(NamedTuple):
    """What to try: for which verdicts, in which runs, in words.

    Attributes:
        verdicts: names of verdicts.
        applies: function of a `Run`.
        sentence: a template of `Run.facts`.
        cause: whether it explains the verdict alone, so that no other advice is needed.
    """

    verdicts: tuple
    applies: Callable
    sentence: str
    cause: bool = False


def _times_the_papers_rate(run):
    """The learning rate as a multiple of the method's paper's; 1 where that says nothing."""
    rate = run.member.rate
    return run.flag("base_lr", rate) / rate if rate else 1.0


def _far_above_the_paper(run):
    return _times_the_papers_rate(run) > FAR


def images_at_a_time(run):
    """Images that batch normalization sees."""
    return run.flag("batch_size", SMALL_BATCH) // run.flag("gradient_accumulation", 1)


ADVICE = (
    Advice(
        USELESS,
        lambda run: run.flag("stop_gradient", "true") == "false",
        "--stop_gradient=false is the cause: without the stop-gradient a constant output is the "
        "best solution (section 4.1 of the paper). Set it to true.",
        cause=True,
    ),
    Advice(
        USELESS,
        lambda run: run.flag("predictor", "mlp") == "none",
        "--predictor=none is the cause: without a predictor the gradient is that of the loss "
        "without stop-gradient, halved (section 4.2 of the paper). Set it to mlp.",
        cause=True,
    ),
    Advice(
        ("not learning",),
        lambda run: run.flag("predictor", "mlp") == "fixed",
        "--predictor=fixed is the cause: with a predictor that stays random the loss remains high "
        "(section 4.2 of the paper). Set it to mlp.",
        cause=True,
    ),
    Advice(
        COLLAPSES,
        lambda run: run.flag("mining", "") == "hard",
        "--mining=hard is the cause: from random weights the hardest triplets draw all outputs "
        "together, until every distance is the same and the loss is the margin. Set it to all.",
        cause=True,
    ),
    Advice(
        ("diverged", *USELESS),
        _far_above_the_paper,
        "Lower --base_lr: it is {base_lr:g}, the paper's is {rate}.",
    ),
    Advice(
        ("not learning", "no gain yet", "worse than the pixels"),
        lambda run: _times_the_papers_rate(run) < 1 / FAR,
        "Raise --base_lr: it is {base_lr:g}, the paper's is {rate}.",
    ),
    Advice(
        ("diverged", *COLLAPSES),
        lambda run: not _far_above_the_paper(run),
        "Halve --base_lr (now {base_lr:g}).",
    ),
    Advice(
        ("not learning", "no gain yet", *WORSE),
        lambda run: run.last("step") < FEW_STEPS,
        "Train longer: {step:.0f} optimizer steps are few. Raise --epochs, or lower --batch_size "
        "for more steps in each.",
    ),
    Advice(
        COLLAPSES,
        lambda run: images_at_a_time(run) < SMALL_BATCH,
        "Raise --batch_size: batch normalization sees {batch} images at a time, the paper's "
        "smallest is 64.",
    ),
    Advice(
        ("diverged",),
        lambda run: run.flag("precision", "float32") == "mixed_float16",
        "Use --precision=mixed_bfloat16 or float32: float16 overflows at 65504.",
    ),
    Advice(
        ("diverged",),
        lambda run: run.flag("warmup_epochs", 0) == 0,
        "Add --warmup_epochs, so that the rate begins low.",
    ),
    Advice(
        ("not learning", "views too different", "no gain yet", *WORSE),
        lambda run: True,
        "Raise --min_crop (now {min_crop}), so that both crops keep the subject; look at the pairs "
        "with `python -m simsiam_keras preview`.",
    ),
    Advice(
        ("no gain yet", *WORSE),
        lambda run: not run.member.compares and run.last("step") < SHORT,
        "Try --method=simclr or vicreg: in {step:.0f} steps they come further than {method}.",
    ),
    Advice(
        WORSE,
        lambda run: not run.flag("weights", ""),
        "Start from known weights (--weights), which need far fewer images.",
    ),
    Advice(
        ("views too different", *WORSE),
        lambda run: run.best()[0] > 0 and run.best()[1] > run.knn()[-1][1],
        "The encoder of epoch {best_epoch} was better, with {best_knn}: --keep=best keeps it.",
    ),
    Advice(
        (*COLLAPSES, "no gain yet"),
        lambda run: run.flag("predictor_lr", "") == "decayed",
        "Try --predictor_lr=constant: the predictor then keeps up with the outputs (section 4.2 of "
        "the paper).",
    ),
    Advice(
        ("views too different", "no gain yet", *WORSE),
        lambda run: not run.finished,
        "Or wait: kNN often falls before it rises.",
    ),
    Advice(
        ("healthy, kNN unknown",),
        lambda run: not run.knn(),
        "Give a small labelled set with --probe_dataset, and kNN will say.",
    ),
    Advice(
        ("healthy, kNN unknown",),
        lambda run: run.knn(),
        "Wait for the next kNN: it is measured every {knn_every} epochs (--knn_every).",
    ),
    Advice(
        ("not trained yet", "too early to tell"),
        lambda run: not run.finished,
        "Ask again after {patience} epochs, better after {early}.",
    ),
    Advice(
        ("too early to tell",),
        lambda run: run.finished,
        "Train longer: raise --epochs (now {planned}).",
    ),
)
