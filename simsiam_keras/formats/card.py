"""The model card: README.md beside an exported encoder, as Hugging Face reads it."""

import dataclasses
import json
from pathlib import Path

from simsiam_keras import config, flagfile, runs
from simsiam_keras.errors import sentence
from simsiam_keras.version import __version__

LEFT_OUT = {"run_dir", "debug", "data_dir", "cache_dir", "job_addresses", "backend"}
IMAGES = 'images = np.zeros([2, {height}, {width}, {channels}], "uint8")'
# How to load each format, in four lines; `features` is `[2, width]` then.
LOAD = {
    "keras": """\
import keras, numpy as np
encoder = keras.saving.load_model("{name}")
{images}
features = encoder.predict(images, verbose=0)""",
    "saved_model": """\
import numpy as np, tensorflow as tf
encoder = tf.saved_model.load("{name}")
{images}
features = encoder.serve(images).numpy()""",
    "onnx": """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{name}")
{images}
features = session.run(["features"], {{"images": images}})[0]""",
    "litert": """\
import numpy as np; from ai_edge_litert.interpreter import Interpreter
encode = Interpreter("{name}").get_signature_runner()
{images}
features = encode(images=images)["features"]""",
    "openvino": """\
import numpy as np, openvino
encoder = openvino.compile_model("{name}/encoder.xml")
{images}
features = encoder({{"images": images}})["features"]""",
}
NEEDS = {
    "keras": "keras and a backend",
    "saved_model": "tensorflow",
    "onnx": "onnxruntime",
    "litert": "ai-edge-litert",
    "openvino": "openvino",
}


def text(exported, job, facts, license, same):
    """The page.

    Args:
        exported: a `source.Exported`.
        job: a `job.Job`.
        facts: `cards.Card.forms` of all forms in the folder.
        license: of the weights, as Hugging Face abbreviates it.
        same: whether the numbers of the run are of this encoder.

    Returns:
        Markdown with a front matter in YAML.
    """
    run = _Run(exported.run)
    parts = (
        _front(run, facts, license),
        _what(exported, job, run),
        _data(exported, run),
        _recipe(exported, run),
        _results(exported, run, facts, same),
        _files(facts),
        _loading(job, facts),
        _licence(license),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


class _Run:
    """What a run folder says; all of it empty where there is none, or it is damaged."""

    def __init__(self, folder):
        self.folder = folder
        self.flags = flagfile.values(folder / "flags.cfg") if folder else {}
        self.environment = _json(folder, "environment.json")
        self.result = _json(folder, "result.json")
        self.data = self.environment.get("data") or {}
        self.method = self.flags.get("method", "")


def _json(folder, name):
    path = folder and Path(folder, name)
    return runs.read_json(path, "restore it, or move it away") if path and path.exists() else {}


def _front(run, facts, license):
    tags = ["self-supervised-learning", "image-embeddings", *filter(None, [run.method])]
    tags += sorted({fact["format"] for fact in facts.values()} & {"onnx", "openvino"})
    lines = ["---", f"license: {json.dumps(license)}", "library_name: keras"]
    lines += ["pipeline_tag: image-feature-extraction", "tags:"]
    lines += [f"- {tag}" for tag in dict.fromkeys(tags)]
    if "knn_accuracy" in run.result:
        lines += ["metrics:", "- accuracy"]
    return "\n".join([*lines, "---"])


def _what(exported, job, run):
    trained = f"trained by {run.method} without labels" if run.method else "with known weights"
    size, crop = job.size, f"{job.eval_crop:g}"
    return (
        f"# An encoder of images, {trained}\n\n"
        f"It takes images, `[n, {size}, {size}, {job.channels}]` with values 0..255, and gives "
        f"{job.dim} features of each; {job.encoder.count_params():,} parameters, normalization "
        f"inside. Images are made ready so: the short side is scaled to "
        f"{round(size / job.eval_crop)} pixels, bilinear with antialiasing, and the centre of "
        f"{size} x {size} is cut out (`eval_crop` {crop}). Files named `any_size` do this "
        f"themselves. Compare features by their cosine.\n\nFrom {sentence(exported.origin)}, "
        f"by simsiam_keras {__version__}; `encoder.json` has the digest of each file."
    )


def _data(exported, run):
    if not run.data:
        return "## Data\n\nNot known here: ask who trained the weights."
    named = {**run.data, "name": short(str(run.data.get("name", "")))}
    lines = [f"- {key}: {named.get(key)}" for key in ("name", "images", "fingerprint")]
    if classes := run.data.get("classes"):
        named = ", ".join(f"{name} ({count})" for name, count in classes.items())
        lines.append(f"- classes, which training did not see: {sentence(named)[:500]}")
    if exported.stored_range:
        lines.append(
            f"- what became 0 and 255 in files deeper than 8 bits: {exported.stored_range}"
        )
    return "## Data\n\n" + "\n".join(lines)


def _recipe(exported, run):
    if not run.flags:
        return ""
    usual = {
        field.name: flagfile.spell(field.default)
        for field in dataclasses.fields(config.of("pretrain", run.method))
    }
    given = [
        f"--{name}={short(value)}"
        for name, value in run.flags.items()
        if name == "method" or name not in LEFT_OUT and usual.get(name) != value
    ]
    epoch = "" if exported.epoch is None else f" What is here is that of epoch {exported.epoch}."
    backend = run.environment.get("backend", "")
    devices = ", ".join(map(str, run.environment.get("devices") or []))
    where = f" It ran on {backend} ({devices})." if backend else ""
    return (
        "## Recipe\n\n`python -m simsiam_keras pretrain` with these flags, the others at their "
        f"defaults.{epoch}{where}\n\n"
        "```text\n" + "\n".join(given) + "\n```"
    )


def short(text):
    """A flag's value with the last part of a path alone: a card is read elsewhere, by others."""
    kind, colon, rest = text.rpartition(":")
    return kind + colon + rest.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _results(exported, run, facts, same):
    rows = []
    result = run.result
    for key, what in (
        ("knn_accuracy", "kNN accuracy"),
        ("knn_accuracy_random_init", "the same of the encoder at random"),
        ("knn_accuracy_start", "the same of the weights that training started from"),
        ("knn_accuracy_pixels", "the same of the pixels"),
    ):
        if isinstance(result.get(key), float):
            rows.append((what, f"{100 * result[key]:.1f} %", _protocol(result.get("knn"))))
    for path in sorted(exported.run.glob("*/result.json")) if exported.run else ():
        found = _json(path.parent, "result.json")
        if isinstance(found.get("linear_accuracy"), float):
            said = sentence(found.get("protocol", ""))
            rows.append(("linear accuracy", f"{100 * found['linear_accuracy']:.1f} %", said))
    if not rows:
        return "## Results\n\nNone were recorded beside the encoder."
    note = (
        ""
        if same
        else (
            "These are of the encoder that the run left, not of this one, another state of it.\n\n"
        )
    )
    table = "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)
    return f"## Results\n\n{note}| measure | value | protocol |\n|---|---|---|\n{table}"


def _protocol(knn):
    if not isinstance(knn, dict):
        return ""
    return sentence(", ".join(f"{name} {value}" for name, value in knn.items())).replace("|", "/")


def _files(facts):
    rows = []
    for name, fact in sorted(facts.items()):
        if "largest_difference" in fact:
            far = fact["largest_difference"]
            checked = f"differ by {far:.1g} of the largest feature" if far else "the same"
        elif "cosine" in fact:
            checked = f"cosine of features at least {fact['cosine']:.3f}; {_lost(fact)}"
        else:
            checked = "-"
        opset = f", opset {fact['opset']}" if "opset" in fact else ""
        rows.append(f"| `{name}` | {fact['format']}{opset} | {_size(fact['bytes'])} | {checked} |")
    head = "| file | format | size | compared with the encoder in Keras |\n|---|---|---|---|\n"
    return "## Files\n\n" + head + "\n".join(rows)


def _lost(fact):
    for name, what in (("knn_accuracy", "kNN"), ("mean_average_precision", "kNN's mAP")):
        if name in fact:
            return (
                f"{what} {100 * fact[name]:.1f} % where the encoder has "
                f"{100 * fact[f'{name}_float']:.1f} % ({fact['queries']} images, "
                f"{fact['dataset']})"
            )
    return "loss in kNN not measured, for want of labels"


def _size(number):
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def _loading(job, facts):
    blocks = []
    for name, fact in sorted(facts.items()):
        blocks.append(
            f"`{name}`, with {NEEDS[fact['format']]}:\n\n```python\n{load(job, name, fact)}\n```"
        )
    return "## How to load\n\n" + "\n\n".join(blocks)


def load(job, name, fact):
    """Four lines of Python that load a form and call it.

    Args:
        job: a `job.Job`.
        name: of the form.
        fact: what the card says of it.

    Returns:
        Source text.
    """
    height, width = (480, 640) if fact["any_size"] else (job.size, job.size)
    images = IMAGES.format(height=height, width=width, channels=job.channels)
    return LOAD[fact["format"]].format(name=name, images=images)


def _licence(license):
    said = (
        "Not stated. Before you pass it on, see what the images and the weights it started from "
        "allow."
        if license == "unknown"
        else f"Weights: {sentence(license)}, by who exported them."
    )
    return f"## Licence\n\n{said} The code of simsiam_keras is under Apache-2.0."
