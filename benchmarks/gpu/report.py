"""`OUT/report.md`: what the GPU script found, from the content of its results.json alone."""

import statistics

from benchmarks import common
from benchmarks.gpu import bench
from benchmarks.step import relative

KERNELS = ("kernel", "ms a step", "calls a step")
SUBJECTS = {"paper": "CIFAR-10", "tiny": "tiny, drawn pictures"}


def text(found):
    """The report of what there is yet, as Markdown."""
    subject = SUBJECTS[found["size"]]
    versions = found.get("bench", {}).get("versions", [])
    setting = common.setting("benchmarks.gpu.cifar10", found["machine"], versions)
    sections = [f"# {subject} on a GPU\n\n{setting}- seed: {found['seed']}\n"]
    sections += [f"{stage} failed: {why}\n" for stage, why in found["failed"].items()]
    if "bench" in found:
        sections.append(step_section(found["bench"], subject))
    if "train" in found:
        sections.append(training_section(found, subject))
    return "\n".join(sections)


def step_section(found, subject):
    """The step beside plain PyTorch's, and its share of the matrix rate."""
    seconds, batch = found["seconds"], found["batch_size"]
    product = found["product_flop"] / statistics.median(seconds[bench.MATRIX])
    rows = []
    for name in (bench.OURS, bench.PLAIN):
        if name in seconds:
            times, plain = seconds[name], seconds.get(bench.PLAIN)
            median = statistics.median(times)
            rows.append(
                (
                    f"{subject}: {name}",
                    f"{1000 * median:.2f}",
                    f"{1000 * min(times):.2f} - {1000 * max(times):.2f}",
                    f"{batch / median:,.0f}",
                    f"{100 * found['step_flop'] / median / product:.0f} %",
                    f"{relative(times, plain):.2f}" if plain else "",
                )
            )
    head = ("", "ms a step", "min - max", "images/s", "of the matrix rate", "of PyTorch's time")
    left_out = [f"\nLeft out: {name} ({why}).\n" for name, why in found["left_out"].items()]
    warm_up = "; ".join(f"{side} {times}" for side, times in found["warm_up"].items())
    kernels = [
        f"\nKernel by kernel, of `{side}`:\n\n"
        + common.table(
            KERNELS, [(name, f"{time:.3f}", f"{calls:.1f}") for name, time, calls in rows]
        )
        for side, rows in found["kernels"].items()
        if rows
    ]
    return (
        f"## The training step\n\nOn {found['device']}: {found['network']}, "
        f"{found['parameters']:,} parameters, batch {batch}, {found['precision']}, the "
        "augmentation inside the step, generated images; medians over "
        f"{len(seconds[bench.OURS])} rounds. Convolutions and dense layers are "
        f"{found['step_flop'] / batch / 1e9:.3g} GFLOP an image (two views, backward is twice "
        "forward). The bfloat16 product of two square matrices ran at "
        f"{product / 1e12:.3g} TFLOP/s in the same rounds.\n\n"
        + common.table(head, rows)
        + (f"\nThe run's step, {run_of(found)}.\n" if found["run"] else "")
        + f"\nSeconds before the first turn: {warm_up}.\n"
        + "".join(left_out + kernels)
    )


def run_of(found):
    """What a step of the run takes, in words."""
    run, seconds = found["run"], found["seconds"]
    early, late = (statistics.median(seconds[name]) for name in (bench.EARLY, bench.LATE))
    views = run["batch_size"] * run["views"]
    return (
        f"{run['method']} with {run['batch_size']} images of {run['views']} views: "
        f"{1000 * early:.2f} ms early ({views / early:,.0f} views/s), "
        f"{1000 * late:.2f} ms later ({views / late:,.0f} views/s)"
    )


def training_section(found, subject):
    """What was trained, and how good it is."""
    run, probes = found["train"], [found[n] for n in ("sgd", "lars") if n in found]
    head = ("", "epochs", "kNN at start", "kNN", "std·√d", "images/s", "with everything")
    head += tuple(f"linear, {probe['optimizer'].upper()}" for probe in probes)
    accuracies = [run["knn_accuracy_random_init"], run["knn_accuracy"]]
    accuracies += [probe["linear_accuracy"] for probe in probes]
    before, after, *linear = (f"{100 * accuracy:.1f} %" for accuracy in accuracies)
    speeds = (run["images_per_second"], run["with_everything"])
    speed = ("–" if rate is None else f"{rate:,.0f}" for rate in speeds)
    row = (f"{subject}, {run['method']}", str(run["epochs"]), before, after)
    row += (f"{run['z_std']:.3f}", *speed, *linear)
    protocol = "k = {k}, T = {temperature}, a bank of {bank:,}, queries: {queries}"
    edge = {True: " The rate is at the edge of those tried.", False: ""}
    return (
        f"## Training\n\n{common.table(head, [row])}\n"
        f"- planned: {run['plan']}\n"
        f"- kNN: {protocol.format(**run['knn'])}\n"
        "- images/s: median of the epochs; with everything: monitors and checkpoints included\n"
        + "".join(f"- linear: {p['protocol']}{edge[p['at_grid_edge']]}\n" for p in probes)
        + "\n![curves](curves.png)\n"
    )
