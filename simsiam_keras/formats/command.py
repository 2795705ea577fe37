"""`export`: an encoder in the formats that were asked for, checked, with its card."""

import dataclasses
import functools
import os
from pathlib import Path

from rich.console import Console

from simsiam_keras import cards, export, runs, settings
from simsiam_keras.formats import (
    card,
    forms,
    graphs,
    litert,
    onnx,
    openvino,
    quantize,
    source,
)
from simsiam_keras.formats.job import Job, check, converting
from simsiam_keras.progress import saying


@settings.own
def export_encoder(cfg, console=None):
    """Writes the encoder of a run's last checkpoint, finished or not, or one with known weights.

    Args:
        cfg: a `config.Export`.
        console: a `rich.console.Console` for what is said, standard error by default.

    Returns:
        A dict that says what was written, and how far it is from the encoder.

    Raises:
        ValueError: if the folder is no run or has no checkpoint yet, the weights cannot be had, or
            a format cannot be written; nothing is left of those that could.
        ImportError: if a format needs a package that is not installed.
    """
    runs.refuse_unspellable(cfg.output, "output")
    console = console or Console(stderr=True)
    say = saying(console)
    asked = forms.asked(cfg)
    _refuse_missing(cfg, asked)
    exported = source.opened(cfg, say)
    names = [form.name for form in asked]
    # What lies there is looked at before anything long begins.
    cards.refuse_strangers(cfg.output, names)
    kept, kept_facts = _kept(exported, cfg.output, names)
    job = Job(exported.encoder, exported.eval_crop, cfg.opset)
    if any(form.int8 for form in asked):
        given = quantize.images(cfg, exported.loaded(), say, console)
        job = dataclasses.replace(job, calibration=given[0], loss=given[1])
    facts = {}
    write = {form.name: functools.partial(_write, cfg, job, form, facts, say) for form in asked}
    if _ours(cfg.output, cards.PAGE):
        same = source.of_run(exported)

        def page(path):
            every = {name: kept_facts.get(name) or _plain(cfg.output, name) for name in kept}
            every = {name: fact for name, fact in every.items() if fact} | facts
            runs.write_atomically(path, card.text(exported, job, every, cfg.license, same))

        write[cards.PAGE] = page
    else:
        say(f"{Path(cfg.output, cards.PAGE)} is not as `export` wrote it, and is left as it is.")
    crop, stored = exported.eval_crop, exported.stored_range
    written = export.save_encoder(exported.encoder, cfg.output, crop, stored, write, facts)
    epoch = {} if exported.epoch is None else {"epoch": exported.epoch}
    return {
        **epoch,
        "written": ", ".join(map(str, written)),
        **{name: _said(fact) for name, fact in facts.items() if _said(fact)},
        "run_dir": cfg.output,
    }


def _refuse_missing(cfg, asked):
    """Raises before anything is read where a format cannot be written here."""
    for form in asked:
        if form.format == "onnx":
            onnx.refuse(cfg.opset)
        elif form.format == "openvino":
            openvino.refuse(cfg.opset)
        elif form.format == "litert":
            litert.refuse()


def _kept(exported, folder, names):
    """What stays of the folder beside the new forms; refuses to leave another encoder's there."""
    folder, found = Path(folder), cards.read(folder)
    digests, facts = export.beside(exported.encoder, folder, names, exported.eval_crop)
    others = [
        name
        for name in (found.digest if found else ())
        if name not in (*names, *digests, cards.PAGE) and os.path.lexists(folder / name)
    ]
    if others:
        raise ValueError(
            f"{folder} has {', '.join(others)} of another encoder, which would be left without a "
            "card; give another --output, or name their formats in --format to replace them"
        )
    return [name for name in digests if name != cards.PAGE], facts


def _ours(folder, name):
    """Whether a file may be replaced: it is not there, or is as its card has it."""
    path = Path(folder, name)
    return not os.path.lexists(path) or cards.describes(cards.read(folder), path)


def _plain(folder, name):
    """What is known of a form that `pretrain` wrote, or None."""
    for format, pattern in forms.NAMES.items():
        if name == pattern.format("encoder") and Path(folder, name).exists():
            return _facts(forms.Form(format), Path(folder, name))
    return None


def _facts(form, path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {
        "format": form.format,
        "any_size": form.any_size,
        "int8": form.int8,
        "bytes": sum(file.stat().st_size for file in files),
    }


def _write(cfg, job, form, facts, say, path):
    """Writes one form, compares it with the encoder, and notes what came out."""
    say(f"Writes {form.name}.")
    with converting(form, cfg.debug):
        encode = WRITERS[form.format](job, form, path)
        fact = check(job, form, encode)
        if form.int8 and job.loss:
            fact |= job.loss.measure(encode, path.parent, form.any_size)
            fact["dataset"] = card.short(cfg.dataset)
    opset = {"opset": cfg.opset} if form.format == "onnx" else {}
    facts[form.name] = {**_facts(form, path), **opset, **fact}


def _said(fact):
    if "largest_difference" in fact:
        far = fact["largest_difference"]
        return f"features differ by {far:.2g} of the largest" if far else "the same features"
    if "loss_in_points" in fact:
        name = next(name for name in fact if f"{name}_float" in fact)
        found, own = (f"{100 * fact[key]:.1f}" for key in (name, f"{name}_float"))
        return f"kNN {found} % where the encoder has {own}; least cosine {fact['cosine']:.3f}"
    return f"least cosine {fact['cosine']:.3f}"


def _write_keras(job, form, path):
    job.encoder.save(path)
    return export.keras_model(path).predict_on_batch


WRITERS = {
    "keras": _write_keras,
    "saved_model": graphs.write_saved_model,
    "onnx": onnx.write,
    "litert": litert.write,
    "openvino": openvino.write,
}
