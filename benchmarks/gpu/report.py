"""`OUT/report/`: what a GPU run found, as Markdown, pictures of its curves and one JSON file.

Written from the result files alone, whatever of them there is yet.
"""

import json
import shutil
import statistics
from pathlib import Path

from benchmarks import common
from benchmarks.gpu import bench, sizes, training
from benchmarks.step import relative
from simsiam_keras import plots, runs

JPEG = "CIFAR-10 (JPEG)"
DRAWN = "tiny, drawn pictures"
# What others measured with ResNet-18 on CIFAR-10 itself: (who, epochs, kNN, linear), in percent.
PUBLISHED = (
    ("lightly, batch 512", "200", "76.4", ""),
    ("ahmdtaha, at epoch 200 of 800", "200", "81.1", ""),
    ("lightly, batch 128", "200", "81.9", ""),
    ("the paper, batch 512", "800", "", "91.8"),
    ("Reza-Safdari", "", "", "91.94"),
    ("PatrickHua", "", "90.3", "90.83"),
    ("ahmdtaha", "800", "89.2", ""),
    ("solo-learn, online linear", "1000", "", "90.51"),
)


def write(out, size_name, data, seed, machine):
    """Writes `h200.md`, `results.json` and the curves to `OUT/report/`.

    Args:
        out: folder of the result files.
        size_name: a key of `sizes.SIZES`.
        data: folder of the images, which commands are shown without.
        seed: of the runs.
        machine: a sentence.
    """
    folder = Path(out) / "report"
    folder.mkdir(exist_ok=True)
    found = collect(out, size_name)
    runs.write_json(folder / "results.json", found)
    for stage, run in found["training"].items():
        title = f"{subject(size_name)}, {stage}, seed {seed}"
        plots.curves(run["metrics"], folder / f"curves_{stage}.png", title)
        shutil.copy(Path(out) / f"{stage}.log", folder / f"{stage}.log")
    typed = {
        stage: shown(training.commands(stage, sizes.SIZES[size_name], data, out, seed), data, out)
        for stage in found["training"]
    }
    runs.write_atomically(folder / "h200.md", text(found, typed, seed, machine))


def collect(out, size_name):
    """Every result that there is yet, a JSON-serializable dict."""
    out = Path(out)
    training_runs = {}
    for stage in sizes.SIZES[size_name].epochs:
        metrics = runs.read_metrics(out / stage)
        if metrics:
            probes = {o: _json(out / f"{stage}_{o}" / "result.json") for o in ("sgd", "lars")}
            training_runs[stage] = {
                "epochs": sizes.SIZES[size_name].epochs[stage],
                "metrics": metrics,
                "result": _json(out / stage / "result.json"),
                "environment": _json(out / stage / "environment.json"),
                "linear": probes,
                "images_per_second": training.speed(out, stage),
            }
    return {
        "size": size_name,
        "bench": _json(out / "bench.json"),
        "profile": _json(out / "profile.json"),
        "training": training_runs,
    }


def text(found, typed, seed, machine):
    """The report of what `collect` gave, as Markdown."""
    size = sizes.SIZES[found["size"]]
    versions = set((found["bench"] or {}).get("versions", ()))
    for run in found["training"].values():
        versions.add(", ".join(map(" ".join, run["environment"]["versions"].items())))
    sections = [
        f"# {subject(found['size'])}: {size.title}\n\n"
        + common.setting("benchmarks.gpu.cifar10", machine, versions)
        + f"- seed: {seed}\n",
        *([bench_section(found["bench"])] if found["bench"] else []),
        *([profile_section(found)] if found["profile"] else []),
        *([training_section(found, typed)] if found["training"] else []),
    ]
    return "\n".join(sections)


def bench_section(found):
    """The step beside plain PyTorch's, and its share of the matrix rate."""
    seconds, batch = found["seconds"], found["batch_size"]
    product = found["product_flop"] / statistics.median(seconds[bench.MATRIX])
    rows = []
    for name in (bench.OURS, bench.FIT, bench.PLAIN):
        if name in seconds:
            median = statistics.median(seconds[name])
            rows.append(
                (
                    mark(found["size"]) + name,
                    f"{1000 * median:.2f}",
                    f"{1000 * min(seconds[name]):.2f} - {1000 * max(seconds[name]):.2f}",
                    f"{batch / median:,.0f}",
                    f"{100 * found['step_flop'] / median / product:.0f} %",
                    ratio(seconds, name),
                )
            )
    head = ("", "ms a step", "min - max", "images/s", "of the matrix rate", "of PyTorch's time")
    left_out = [f"\nLeft out: {name} ({why}).\n" for name, why in found["left_out"].items()]
    return (
        "## The training step\n\n"
        f"On {found['device']}: {found['network']}, {found['parameters']:,} parameters, batch "
        f"{batch}, {found['precision']}, the augmentation inside the step, generated images. "
        f"{len(seconds[bench.OURS])} rounds of turns of {found['turn_seconds']:g} s, medians. "
        f"Convolutions and dense layers are {found['step_flop'] / batch / 1e9:.3g} GFLOP an image "
        "(two views, backward is twice forward). The bfloat16 product of two square matrices ran "
        f"at {product / 1e12:.3g} TFLOP/s in the same rounds.\n\n"
        + common.table(head, rows)
        + "".join(left_out)
    )


def ratio(seconds, name):
    """Median over the rounds of the time over plain PyTorch's."""
    return f"{relative(seconds[name], seconds[bench.PLAIN]):.2f}" if bench.PLAIN in seconds else ""


def profile_section(found):
    """Where the time of a step goes."""
    seconds = found["profile"]["seconds"]
    whole = seconds["whole step"]
    rows = [
        (mark(found["size"]) + name, f"{1000 * value:.2f}", f"{100 * value / whole:.0f} %")
        for name, value in {**seconds, **parts(seconds)}.items()
    ]
    return (
        f"## Where the time of a step goes\n\nOn {found['profile']['device']}. Each line was "
        "compiled and timed alone; those with a minus are differences of two. Two parts may take "
        "longer apart than together.\n\n" + common.table(("", "ms", "of the whole step"), rows)
    )


def parts(seconds):
    """What the lines of `breakdown` make of a step, `{name: seconds}`, of those that there are."""
    differences = {
        "whole step − on ready views: augmentation": ("whole step", "step on ready views"),
        "forward and backward − forward: backward": (
            "forward and backward, on ready views",
            "forward and loss, on ready views",
        ),
        "step on ready views − forward and backward: optimizer": (
            "step on ready views",
            "forward and backward, on ready views",
        ),
    }
    return {
        name: seconds[whole] - seconds[part]
        for name, (whole, part) in differences.items()
        if whole in seconds and part in seconds
    }


def training_section(found, typed):
    """What was trained, beside what others published."""
    rows = [training_row(found["size"], *item) for item in found["training"].items()]
    head = ("", "epochs", "kNN at start", "kNN", "linear, SGD", "linear, LARS", "std·√d")
    head += ("images/s with everything",)
    published = [tuple(cell or "–" for cell in row) for row in PUBLISHED]
    curves = [f"\n![curves of {s}](curves_{s}.png)\n" for s in found["training"]]
    return (
        "## Training\n\n"
        + common.table(head, rows)
        + "\nLast epoch. kNN: k = 200, T = 0.1, bank un-augmented train set, queries test set. "
        "Linear: frozen features of un-augmented images. images/s counts everything between the "
        "first and the last epoch of a call.\n\n"
        + protocols(found["training"])
        + f"Published, ResNet-18, on CIFAR-10's own PNG pixels; {JPEG} is a re-encoding:\n\n"
        + common.table(("who", "epochs", "kNN %", "linear %"), published)
        + "".join(curves)
        + "\n```sh\n"
        + "\n".join(line for lines in typed.values() for line in lines)
        + "\n```\n"
    )


def training_row(size_name, stage, run):
    """A line of the table; what has not been measured is a dash."""
    last = run["metrics"][-1]
    done = last["epoch"]
    knn = [row["knn_accuracy"] for row in run["metrics"] if row["knn_accuracy"] is not None]
    linear = [(run["linear"][o] or {}).get("linear_accuracy") for o in ("sgd", "lars")]
    epochs = f"{done}" if run["result"] else f"{done} of {run['epochs']}, not finished"
    speed = run["images_per_second"]
    return (
        f"{subject(size_name)}, {stage}",
        epochs,
        *(percent(value) for value in (knn[0], knn[-1] if len(knn) > 1 else None, *linear)),
        "–" if last["z_std"] is None else f"{last['z_std']:.3f}",
        f"{speed:,.0f}" if speed else "–",
    )


def protocols(training_runs):
    """The sentences that the linear probes left."""
    return "".join(
        f"- {stage}, {optimizer.upper()}: {probe['protocol']}"
        f"{' The rate is at the edge of those tried.' if probe['at_grid_edge'] else ''}\n"
        for stage, run in training_runs.items()
        for optimizer, probe in run["linear"].items()
        if probe
    ) + ("\n" if any(p for r in training_runs.values() for p in r["linear"].values()) else "")


def shown(commands, data, out):
    """Commands as they are typed at the root, without the folders of this machine."""
    places = {str(data): "DATA", str(out): "OUT", f"{common.ROOT}/": ""}
    lines = []
    for command in commands.values():
        line = " ".join(("python -m simsiam_keras", *command))
        for place, name in places.items():
            line = line.replace(place, name)
        lines.append(line)
    return lines


def subject(size_name):
    """What a number is of."""
    return DRAWN if size_name == "tiny" else JPEG


def mark(size_name):
    return "tiny: " if size_name == "tiny" else ""


def percent(value):
    return "–" if value is None else f"{100 * value:.1f} %"


def _json(path):
    return json.loads(path.read_text()) if path.exists() else None
