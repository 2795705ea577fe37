"""Photographs and features that `benchmarks.large_data` measures on."""

import os

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 375, 500  # the usual photograph of ImageNet
SMALL = 32
DIM = 512
QUERIES = 1000


def photograph(rng, height, width):
    """An image whose detail falls with its frequency, as that of photographs does."""
    total = rng.normal(0, 6, (height, width, 3)).astype("float32")
    for octave in range(2, 9):
        coarse = rng.standard_normal((3, 2**octave, 2**octave)).astype("float32")
        layers = (Image.fromarray(c).resize((width, height)) for c in coarse)
        total += 28 * 2.0 ** (0.6 * (2 - octave)) * np.stack([np.asarray(c) for c in layers], -1)
    return Image.fromarray(np.clip(128 + total, 0, 255).astype("uint8"))


def write_jpegs(folder, count, height, width, distinct):
    """Writes `count` JPEGs, of which `distinct` differ; returns their mean size in bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    made = []
    for i in range(min(count, distinct)):
        made.append(folder / f"{i:07}.jpg")
        photograph(rng, height, width).save(made[-1], quality=92)
    data = [path.read_bytes() for path in made]
    for i in range(len(made), count):
        (folder / f"{i:07}.jpg").write_bytes(data[i % len(data)])
    return sum(map(len, data)) / len(data)


def write_bank(folder, rows, dtype):
    """Random features and noisy copies of some, `bank.npy` and `queries.npy`; returns the paths."""
    rng = np.random.default_rng(0)
    bank = np.lib.format.open_memmap(folder / "bank.npy", "w+", dtype, (rows, DIM))
    for first in range(0, rows, 10_000):
        block = bank[first : first + 10_000]
        block[:] = rng.standard_normal(block.shape, "float32")
    bank.flush()  # or writing it would go on while others are measured
    chosen = bank[:: rows // QUERIES][:QUERIES]
    np.save(folder / "queries.npy", chosen + rng.normal(0, 0.1, chosen.shape).astype("float32"))
    return {name: str(folder / f"{name}.npy") for name in ("bank", "queries")}


def make_folders(root, photographs, small):
    """Folders of generated JPEGs, and the mean size of a file in each."""
    names = (f"{SMALL} x {SMALL}, decoded once", f"{WIDTH} x {HEIGHT}, decoded once")
    various = f"{WIDTH} x {HEIGHT} and upright, headers checked"
    folders = {name: root / f"folder{i}" for i, name in enumerate((*names, various))}
    sizes = {
        names[0]: write_jpegs(folders[names[0]], small, SMALL, SMALL, distinct=2000),
        names[1]: write_jpegs(folders[names[1]], photographs, HEIGHT, WIDTH, distinct=200),
    }
    upright = photographs // 4
    sizes[various] = write_jpegs(folders[various], upright, WIDTH, HEIGHT, distinct=50)
    for path in sorted(folders[names[1]].iterdir())[: photographs - upright]:
        os.link(path, folders[various] / f"{path.stem}_wide.jpg")
    return folders, sizes
