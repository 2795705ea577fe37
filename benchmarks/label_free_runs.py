"""Small runs that differ in what they are worth: the rows that `label_free` compares.

    python -m benchmarks.label_free_runs --dataset=folder:cifar10_images --output=runs

Good ones and bad ones: methods, rates, batches, crops, heads, and some that collapse by a switch.
Each trains a narrow ResNet-10 for about a minute on one core, measures kNN every second epoch,
and a linear classifier at its end. A run that is there is not repeated.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

SHARED = "--encoder=resnet10 --width=16 --knn_every=2 --knn_k=20 --stop_on_collapse=false"
SIMCLR = "--method=simclr --projector_hidden=256 --output_dim=128"
VICREG = "--method=vicreg --projector_layers=3 --sim_coeff=25 --std_coeff=25"
NARROW = "--output_dim=64 --predictor_hidden=32 --batch_size=64 --base_lr=0.2"
SWAV = (
    "--method=swav --projector_hidden=256 --output_dim=64 --prototypes=30 --temperature=0.1 "
    "--freeze_prototypes_epochs=1"
)
BYOL = "--method=byol --projector_hidden=256 --output_dim=64 --predictor_hidden=256"
# Epochs and images so that a run takes about a minute; the flags of all, and those of each.
SETS = {
    "cifar10": (
        "--recipe=cifar --stem=stride2 --epochs=8 --batch_size=128 --base_lr=0.1",
        {
            "simsiam": "--output_dim=512 --predictor_hidden=128",
            "simsiam, narrow": NARROW,
            "simsiam, narrow, crops of 0.6": f"{NARROW} --min_crop=0.6",
            "simsiam, no stop-gradient": f"{NARROW} --stop_gradient=false",
            "simsiam, rate x 50": f"{NARROW} --base_lr=10",
            "fastsiam": f"--method=fastsiam --views=4 {NARROW} --epochs=4",
            "byol": f"{BYOL} --ema_momentum=0.98",
            "simclr": f"{SIMCLR} --temperature=0.2 --batch_size=64 --base_lr=0.2",
            "simclr, temperature 2": f"{SIMCLR} --temperature=2",
            "simclr, crops of 0.9": f"{SIMCLR} --temperature=0.2 --min_crop=0.9",
            "simclr, batch 512": f"{SIMCLR} --temperature=0.2 --batch_size=512",
            "vicreg": f"{VICREG} --output_dim=256 --cov_coeff=1",
        },
    ),
    "digits": (
        "--recipe=digits --min_crop=0.4 --stem=stride2 --epochs=12 --batch_size=64 --base_lr=0.2",
        {
            "simsiam": "--output_dim=512 --predictor_hidden=128",
            "simsiam, narrow": "--output_dim=64 --predictor_hidden=32",
            "simsiam, no stop-gradient": "--output_dim=64 --stop_gradient=false",
            "simsiam, rate x 50": "--output_dim=64 --predictor_hidden=32 --base_lr=10",
            "byol": f"{BYOL} --ema_momentum=0.98",
            "simclr": f"{SIMCLR} --temperature=0.5",
            "simclr, crops of 0.08": f"{SIMCLR} --temperature=0.5 --min_crop=0.08",
            "vicreg": f"{VICREG} --output_dim=256 --cov_coeff=1",
            "swav": f"{SWAV} --sinkhorn_epsilon=0.03",
        },
    ),
}


def folder(output, kind, name):
    """Where a run is written."""
    return Path(output) / kind / name.replace(" ", "_").replace(",", "").replace("/", "over")


def write_images(spec, counts, path):
    """Random images of both splits of a data set as one .npz, `{split: count}`."""
    from simsiam_keras.data import load

    arrays = {}
    for split, count in counts.items():
        source = load(spec, split=split)
        chosen = np.random.default_rng(0).permutation(len(source))[:count]
        arrays[f"{split}_images"] = np.stack([source.read(int(i)) for i in chosen])
        arrays[f"{split}_labels"] = source.labels[chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def run(name, flags, dataset, run_dir):
    """Trains and probes a run, unless it is there; returns what it is called where it failed."""
    from simsiam_keras.__main__ import main as command  # once its variables are set

    pretrain = ["pretrain", f"--dataset={dataset}", *flags, f"--run_dir={run_dir}"]
    probe = ["linear-probe", f"--dataset={dataset}", f"--encoder={run_dir / 'encoder.keras'}"]
    probe.append(f"--run_dir={run_dir / 'linear'}")
    for words, result in ((pretrain, run_dir), (probe, run_dir / "linear")):
        if (result / "result.json").exists():
            continue
        began = time.perf_counter()
        if command(words):
            return [name]
        print(f"{name}, {words[0]}: {time.perf_counter() - began:.0f} s", flush=True)
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10", help="CIFAR-10, as --dataset takes it")
    parser.add_argument("--images", type=int, default=2000, help="of its training images")
    parser.add_argument("--output", default="saved_models/label_free", help="folder of the runs")
    arguments = parser.parse_args()
    images = Path(arguments.output).resolve() / "cifar10.npz"
    if not images.exists():
        counts = {"train": arguments.images, "test": 1000}
        write_images(arguments.dataset, counts, images)
    # Threads that wait for each other make a busy machine slow: t-SNE took two minutes.
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    failed = []
    for kind, (shared, each) in SETS.items():
        dataset = "digits" if kind == "digits" else f"npz:{images}"
        for name, flags in each.items():
            run_dir = folder(Path(arguments.output).resolve(), kind, name)
            words = [*SHARED.split(), *shared.split(), *flags.split()]
            failed += run(f"{kind}, {name}", words, dataset, run_dir)
    print(f"failed: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
