"""At what similarity copies of photographs are told from other photographs.

    python -m benchmarks.duplicates --encoder=ENCODER --dataset=folder:PATH

Of each photograph of a sample copies are made as people make them: smaller, saved again, cropped,
brighter, mirrored. A pair is true if both come from one photograph. Printed for each threshold are
precision and recall over all pairs of an original with any file, and what of each kind is found.
Photographs that are nearly the same in the data set count as false here: the originals' own pairs
are counted beside. Then a folder of all originals and of milder copies of 200 of them is given to
`duplicates`, and the pairs within its groups are compared with those that were made.
"""

import argparse
import collections
import csv
import io
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from simsiam_keras import config, export
from simsiam_keras.data import images as codec
from simsiam_keras.data import sources
from simsiam_keras.evaluation.knn import unit
from simsiam_keras.explore import command
from simsiam_keras.gallery import embed

THRESHOLDS = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)


def saved_again(image, quality):
    """The image after a JPEG of a quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def smaller(image, share):
    """The image with both sides at a share."""
    return image.resize([max(1, round(side * share)) for side in image.size], Image.LANCZOS)


def cropped(image, share):
    """The middle of the image, with both sides at a share."""
    width, height = image.size
    left, top = round(width * (1 - share) / 2), round(height * (1 - share) / 2)
    return image.crop((left, top, width - left, height - top))


KINDS = {
    "half the size": lambda x: smaller(x, 0.5),
    "a quarter of the size": lambda x: smaller(x, 0.25),
    "JPEG 60": lambda x: saved_again(x, 60),
    "JPEG 20": lambda x: saved_again(x, 20),
    "half the size, JPEG 50": lambda x: saved_again(smaller(x, 0.5), 50),
    "cropped to 95 %": lambda x: cropped(x, 0.95),
    "cropped to 90 %": lambda x: cropped(x, 0.9),
    "cropped to 80 %": lambda x: cropped(x, 0.8),
    "20 % brighter": lambda x: ImageEnhance.Brightness(x).enhance(1.2),
    "mirrored": ImageOps.mirror,
}


MILD = {  # other than those by which `--threshold=auto` is chosen
    "70 % of the size": lambda x: smaller(x, 0.7),
    "JPEG 40": lambda x: saved_again(x, 40),
    "cropped to 92 %": lambda x: cropped(x, 0.92),
    "10 % brighter": lambda x: ImageEnhance.Brightness(x).enhance(1.1),
}
COPIED = 200  # photographs


def encoded(encoder, images, batch=64):
    """Features of images, l2-normalized."""
    found = []
    for first in range(0, len(images), batch):
        pixels = [
            codec.resize_and_crop(np.asarray(x.convert("RGB")), encoder.image_size)
            for x in images[first : first + batch]
        ]
        found.append(np.asarray(encoder(np.stack(pixels)), "float32"))
    return unit(np.concatenate(found))


def in_a_folder(folder, originals, encoder):
    """Prints what `duplicates` finds among originals and copies."""
    photographs = folder / "photographs"
    photographs.mkdir()
    chosen = np.random.default_rng(0).permutation(len(originals))[:COPIED]
    for i, image in enumerate(originals):
        image.convert("RGB").save(photographs / f"{i}.jpg", quality=95)
        for number, make in enumerate(MILD.values() if i in chosen else ()):
            make(image.convert("RGB")).save(photographs / f"{i}_{number}.jpg", quality=90)
    known = {"encoder": encoder, "dataset": f"folder:{photographs}"}
    embed.embed(config.make("embed", **known, format="parquet", run_dir=str(folder / "vectors")))
    made = len(chosen) * len(MILD) * (len(MILD) + 1) // 2
    for threshold in ("auto", "0.95"):
        options = {"vectors": str(folder / "vectors"), "threshold": threshold, "encoder": encoder}
        run_dir = folder / threshold
        result = command.duplicates(config.make("duplicates", **options, run_dir=str(run_dir)))
        with open(run_dir / "groups.csv", newline="", encoding="utf-8") as file:
            rows = [
                (r["group"], r["file"].split("_")[0].split(".")[0]) for r in csv.DictReader(file)
            ]
        found = pairs(group for group, _ in rows)
        right = pairs(rows)
        print(
            f"{len(originals)} photographs and {len(chosen) * len(MILD)} copies of {len(chosen)}, "
            f"--threshold={threshold} ({result['threshold']}): {result['groups']} groups, of the "
            f"pairs in them {100 * right / max(1, found):.1f} % are right, "
            f"{100 * right / made:.1f} % of those made are found"
        )


def pairs(keys):
    """How many pairs have equal keys."""
    return sum(n * (n - 1) // 2 for n in collections.Counter(keys).values())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, default=400)
    options = parser.parse_args()
    encoder = export.load_encoder(options.encoder)
    source = sources.load(options.dataset, split=options.split)
    rows = np.unique(np.linspace(0, len(source) - 1, options.images).astype(int))
    originals = [Image.fromarray(np.array(source.decode(i))) for i in rows.tolist()]
    base = encoded(encoder, originals)
    # The copies' own similarity, and of every original to every copy of another.
    own, others = {}, []
    same = np.eye(len(base), dtype=bool)
    for kind, make in KINDS.items():
        similarity = base @ encoded(encoder, [make(x) for x in originals]).T
        own[kind] = similarity[same]
        others.append(similarity[~same])
        print(f"{kind}: {np.percentile(own[kind], [1, 5, 50]).round(4)}", flush=True)
    between = (base @ base.T)[np.triu_indices(len(base), 1)]
    wanted = {kind: values for kind, values in own.items() if kind != "mirrored"}
    true, false = np.concatenate(list(wanted.values())), np.concatenate(others[:-1])
    print(f"\n{len(base)} photographs of {options.dataset}, {options.encoder}\n")
    heads = ["threshold", "precision %", "recall %", "pairs of originals", *KINDS]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for threshold in THRESHOLDS:
        right, wrong = (true >= threshold).sum(), (false >= threshold).sum()
        cells = [
            f"{100 * right / max(1, right + wrong):.1f}",
            f"{100 * right / len(true):.1f}",
            f"{(between >= threshold).sum()}",
            *(f"{100 * (values >= threshold).mean():.0f}" for values in own.values()),
        ]
        print(f"| {threshold:.2f} | " + " | ".join(cells) + " |")
    with tempfile.TemporaryDirectory() as folder:
        in_a_folder(Path(folder), originals, options.encoder)


if __name__ == "__main__":
    main()
