"""Whole pictures on a canvas, for a model that crops them inside its training step."""

import numpy as np
import pytest
from PIL import Image

from simsiam_keras import config, feeds, plots, resident, views
from simsiam_keras.augment import RECIPES
from simsiam_keras.augment.device import Views
from simsiam_keras.data import images as codec
from simsiam_keras.data import pipeline, rows, sources
from simsiam_keras.methods.base import inputs_of
from tests.augment.oracles import photos
from tests.data.numbered import OnTheFly, numbered

CANVAS = (72, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve photographs: upright, wide, thin both ways, square, and small ones."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(90, 60), (60, 90), (160, 40), (40, 160), (80, 80), (20, 30)] * 2
    for i, (height, width) in enumerate(sizes):
        Image.fromarray(photos(1, height, width, seed=i)[0]).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def source(folder):
    return sources.load(f"folder:{folder}")


@pytest.mark.parametrize(
    "size, extent",
    [
        ((144, 96), (72, 48)),
        ((96, 144), (48, 72)),
        ((100, 100), (48, 48)),
        ((400, 100), (72, 18)),
        ((100, 400), (18, 72)),
        ((300, 290), (50, 48)),
        ((20, 30), (20, 30)),
        ((72, 48), (72, 48)),
        ((48, 72), (48, 72)),
        ((1000, 1), (72, 1)),
        ((1, 1000), (1, 72)),
        ((1001, 1000), (48, 48)),
        ((1000, 1001), (48, 48)),
    ],
)
def test_a_picture_keeps_its_aspect_on_the_canvas(size, extent):
    image = photos(1, *size)[0]
    placed, found = codec.on_canvas(image, CANVAS)
    assert placed.shape == (*CANVAS, 3) and placed.dtype == "uint8"
    assert tuple(found) == extent and found.dtype == "int32"
    height, width = extent
    lies = placed[:width, :height].swapaxes(0, 1) if width > height else placed[:height, :width]
    expected = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    assert np.array_equal(lies, expected)
    assert size != extent or np.array_equal(lies, image)
    placed[: max(extent), : min(extent)] = 0
    assert not placed.any()


def test_a_batch_names_the_places_of_its_pictures(source):
    arguments = (source, 6, CANVAS, 1)
    batches = [batch for (batch,) in pipeline.training_images(*arguments, epochs=2)]
    order = np.concatenate([pipeline.epoch_order(12, 1, epoch) for epoch in (0, 1)])
    assert len(batches) == 4
    for batch, numbers in zip(batches, order.reshape(4, 6), strict=True):
        assert list(batch) == ["images", "extent"]
        assert (batch["images"].shape, batch["extent"].shape) == ((6, *CANVAS, 3), (6, 2))
        for image, extent, number in zip(*batch.values(), numbers, strict=True):
            placed, size = codec.on_canvas(source.read(number), CANVAS)
            assert np.array_equal(image, placed) and np.array_equal(extent, size)
    sides = {tuple(size) for size in np.concatenate([b["extent"] for b in batches]).tolist()}
    assert sides == {(72, 48), (48, 72), (72, 18), (18, 72), (48, 48), (20, 30)}


def test_parts_index_labels_and_a_resumed_run_go_with_them():
    options = {"seed": 1, "with_index": True, "with_labels": True, "epochs": 2}

    def made(source, batch_size=4, **more):
        found = pipeline.training_images(source, batch_size, (9, 6), **options, **more)
        return [batch for (batch,) in found]

    whole = made(OnTheFly())
    assert set(whole[0]) == {"images", "extent", "index", "labels"}
    for batch in whole:
        assert np.array_equal(batch["images"][:, 0, 0, 0], batch["index"])
        expected = [[6 + i % 3, 8] for i in batch["index"]]
        scale = np.minimum(1, 6 / np.array([e[0] for e in expected]))[:, None]
        assert np.array_equal(batch["extent"], np.round(expected * scale))
    for first_step in (1, 3):
        later = made(OnTheFly(), first_step=first_step)
        assert same(later, whole[first_step:]) and not same(later, whole[: len(later)])
    halves = zip(*(made(OnTheFly(), part=(i, 2)) for i in (0, 1)), strict=True)
    assert same([{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in halves], whole)
    source = OnTheFly()
    made(source)
    assert source.asked == {6}  # what a cache keeps
    assert same(made(numbered(), first_step=1), made(numbered())[1:])


def same(batches, others):
    return len(batches) == len(others) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(batches, others, strict=True)
    )


def test_rows_of_what_stays_on_the_device_take_their_extent(source):
    kept = rows.all_images(source, CANVAS)
    assert kept["images"].shape == (12, *CANVAS, 3) and kept["extent"].shape == (12, 2)
    sent = pipeline.training_images(source, 6, CANVAS, seed=1, with_index=True)
    chosen = rows.training_rows(source, 6, seed=1, with_index=True)
    for (batch,), (found,) in zip(sent, resident.batches(kept, chosen), strict=True):
        one = {name: x if name in rows.KEPT else x[0] for name, x in found.items()}
        taken = inputs_of(type("Model", (), {"augmenter": 1}), (one,))
        assert taken.keys() == batch.keys()
        assert all(np.array_equal(taken[name], batch[name]) for name in batch)
    assert list(rows.all_images(numbered())) == ["images"]
    assert resident.nbytes(source, CANVAS) == kept["images"].nbytes


def test_training_and_its_measures_use_the_canvas(source):
    recipe = RECIPES["cifar"]
    cfg = config.make("pretrain", augment="device", recipe="cifar", dataset="folder:x")
    canvas = views.canvas(source, recipe)
    assert canvas == CANVAS and views.min_side(cfg, source, recipe) == CANVAS[1]
    assert views.canvas(numbered(), recipe) is views.min_side(cfg, numbered(), recipe) is None
    (batch,) = next(feeds.batches(cfg, recipe, source, 6, None, None))
    assert batch["images"].shape == (6, *CANVAS, 3) and batch["extent"].shape == (6, 2)
    (batch,) = next(pipeline.training_images(source, 12, canvas))
    expected = Views(recipe, seed=cfg.seed)(**batch)
    wrong = Views(recipe, seed=cfg.seed)(batch["images"])
    for x, y, z in zip(views.sample_pairs(cfg, recipe, source), expected, wrong, strict=True):
        assert np.abs(x - np.asarray(y, "float32")).max() <= 0.6
        assert np.abs(x - np.asarray(z, "float32")).max() > 50
    engine = Views(recipe, seed=cfg.seed)
    steps = [x for _ in range(2) for x in engine(**batch, training=True)]
    for x, y in zip(views.sample_pairs(cfg, recipe, source, pairs=2), steps, strict=True):
        assert np.abs(x - np.asarray(y, "float32")).max() <= 0.6


def test_the_preview_shows_what_training_would_see(source):
    recipe, options = RECIPES["cifar"], {"dataset": "folder:x", "augment": "device"}
    made = views.preview(config.make("preview", **options), recipe, source, 12)
    x1, x2 = views.sample_pairs(config.make("pretrain", **options), recipe, source)
    assert np.array_equal(made, plots.pair_grid(x1, x2, [], zoom=3))
    assert not np.array_equal(made, plots.pair_grid(x2, x1, [], zoom=3))
