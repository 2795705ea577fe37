"""What a run goes on from: whole, its own, and of the data it was begun with."""

import io
import json

import keras
import numpy as np
import pytest

from simsiam_keras import checkpoints, optimizers, runs
from simsiam_keras.checkpoints import Position
from simsiam_keras.errors import RunFailed
from simsiam_keras.methods.ablations import AblatedSimSiam
from simsiam_keras.targets import Snapshot
from tests import tiny
from tests.tiny import compiled_model

RUN = {"flags": {"seed": "0", "run_dir": "x"}, "data": {"the images of digits": "ab"}}
ROWS = [{"epoch": 0, "knn_accuracy": 0.5}, {"epoch": 1, "knn_accuracy": 0.7}]


def compiled(**arguments):
    return compiled_model(tiny.simsiam(**arguments), optimizers.SGD(0.1))


def fit_once(model):
    tiny.fit(model, tiny.two_views(tiny.images()))
    return model


def values(model):
    return [keras.ops.convert_to_numpy(v) for v in (*model.weights, *model.optimizer.variables)]


@pytest.fixture
def two(tmp_path):
    """A folder with the checkpoints of epochs 1 and 2, and the weights after each."""
    model, after = compiled(), {}
    for epoch in (1, 2):
        fit_once(model)
        checkpoints.save(tmp_path, model, epoch, ROWS[:epoch], RUN)
        after[epoch] = values(model)
    return tmp_path, after


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_weights_optimizer_and_metrics_come_back_exactly(tmp_path):
    model = fit_once(compiled())
    checkpoints.save(tmp_path, model, Position(1, 7), ROWS, RUN, seconds=3.5)
    metrics = [keras.ops.convert_to_numpy(v) for v in model.metrics_variables]
    assert any(metrics)
    fit_once(model)
    other = compiled()
    resumed = checkpoints.restore(tmp_path, other, RUN, steps=9, epochs=3)
    assert resumed.position == (1, 7) and resumed.rows == ROWS and resumed.seconds == 3.5
    assert same(resumed.metrics, metrics)
    assert same(values(fit_once(other)), values(model))


def test_the_row_of_an_epoch_that_goes_on_is_not_kept(tmp_path):
    checkpoints.save(tmp_path, fit_once(compiled()), Position(0, 9), ROWS, RUN)
    assert checkpoints.restore(tmp_path, compiled(), RUN).rows == ROWS[:1]


def test_only_the_last_two_are_kept_by_number(tmp_path):
    model, folder = compiled(), tmp_path / "checkpoints"
    for position in (8, 9, Position(9, 4), Position(9, 30), 99_999, 100_000):
        checkpoints.save(tmp_path, model, position)
    (folder / "epoch_best.npz").write_bytes(b"someone's")
    (folder / "epoch_00007 (copy).npz").write_bytes(b"someone's")
    assert checkpoints.restore(tmp_path, model).position == (100_000, 0)
    checkpoints.save(tmp_path, model, Position(100_000, 2))
    names = {path.name for path in folder.iterdir()}
    kept = {"epoch_100000.npz", "epoch_100000_step_00002.npz"}
    assert names == kept | {"epoch_best.npz", "epoch_00007 (copy).npz"}


def truncated(content):
    return content[: len(content) // 2]


def flipped(content, at=0.5):
    content = bytearray(content)
    content[int(at * len(content))] ^= 16
    return bytes(content)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def held_by(content):
    with np.load(io.BytesIO(content)) as saved:
        return {name: saved[name] for name in saved.files}


def with_another_weight(content):
    held = held_by(content)
    return npz(**held | {"encoder/0": held["encoder/0"] + 1})


def with_nan(content):
    # Whole by its checksum, as a program that trained on would have written it.
    held = held_by(content)
    del held["checksum"]
    held["encoder/0"] = np.full_like(held["encoder/0"], np.nan)
    return npz(**held, checksum=np.frombuffer(checkpoints._checksum(held), "uint8"))


DAMAGES = {
    "truncated": truncated,
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"a stub of some version control\n",
    "another archive": lambda content: npz(x=np.zeros(3)),
    "another weight": with_another_weight,
    "NaN": with_nan,
    **{f"bit at {at}": lambda content, at=at: flipped(content, at) for at in (0.1, 0.3, 0.6, 0.95)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_is_passed_over_and_said(damage, two):
    folder, after = two
    path = checkpoints.path_of(folder, Position(2))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    encoder, said = tiny.tiny_encoder(), []
    assert checkpoints.restore_encoder(folder, encoder, said.append) == (1, 0)
    model = compiled()
    assert checkpoints.restore(folder, model, RUN, say=said.append).position == (1, 0)
    assert same(values(model), after[1]) and not same(values(model), after[2])
    assert len(said) == 2 and all("epoch_00002.npz is damaged (" in words for words in said)
    assert "epoch_00001.npz is used in its place" in said[0]
    # Nothing is lost that was written, and nothing promised that is not there.
    assert path.with_name("epoch_00002.npz.damaged").exists()
    assert checkpoints.outlook(folder) == "the same command goes on after epoch 1"


def test_every_single_bit_counts(two):
    folder, _ = two
    path = checkpoints.path_of(folder, Position(2))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    whole = dict(zip(("card", "arrays"), checkpoints.read(path), strict=True))
    for at in rng.uniform(size=150):
        path.write_bytes(flipped(content, at))
        try:
            card, arrays = checkpoints.read(path)
        except checkpoints.Damaged:
            continue
        # What a bit of the archive's padding or dates changes is nothing.
        assert card == whole["card"] and arrays.keys() == whole["arrays"].keys()
        assert same(arrays.values(), whole["arrays"].values())


def test_where_all_are_damaged_nothing_is_trained_anew(two):
    folder, _ = two
    for path in checkpoints.positions(folder).values():
        path.write_bytes(b"")
    with pytest.raises(RunFailed, match="no checkpoint is left to go on from. Restore one from a"):
        checkpoints.restore(folder, compiled(), RUN)
    assert len(checkpoints.positions(folder)) == 2


def test_another_seeds_checkpoint_is_refused(two):
    folder, _ = two
    other = {**RUN, "flags": {"seed": "1", "run_dir": "elsewhere"}}
    with pytest.raises(ValueError, match="of a run with other flags .--seed: 0 there, 1 here.; re"):
        checkpoints.restore(folder, compiled(), other)
    moved = {**RUN, "flags": {"seed": "0", "run_dir": "elsewhere"}}
    assert checkpoints.restore(folder, compiled(), moved).position == (2, 0)


def test_other_data_are_refused(two):
    folder, _ = two
    with pytest.raises(ValueError, match="the images of digits changed since .* put the data back"):
        checkpoints.restore(folder, compiled(), {**RUN, "data": {"the images of digits": "cd"}})


def test_a_checkpoint_beyond_the_end_or_under_another_name_is_refused(two):
    folder, _ = two
    with pytest.raises(ValueError, match="beyond the end of this run, 1 epochs of 9 steps; remove"):
        checkpoints.restore(folder, compiled(), RUN, steps=9, epochs=1)
    path = checkpoints.path_of(folder, Position(2))
    path.rename(checkpoints.path_of(folder, Position(7)))
    with pytest.raises(ValueError, match="named for another epoch than it holds, epoch_00002.npz"):
        checkpoints.restore(folder, compiled(), RUN)


def test_weights_that_are_not_finite_are_not_written(two):
    folder, _ = two
    model = compiled()
    model.encoder.set_weights([np.full_like(w, np.inf) for w in model.encoder.get_weights()])
    with pytest.raises(RunFailed, match="weights are not finite at epoch 3, so no checkpoint was"):
        checkpoints.save(folder, model, 3)
    assert list(checkpoints.positions(folder)) == [(2, 0), (1, 0)]


def test_another_models_checkpoint_is_refused(tmp_path):
    checkpoints.save(tmp_path, compiled(), 1)
    deeper = compiled(cls=AblatedSimSiam, targets=Snapshot(2))
    with pytest.raises(RunFailed, match="belongs to another model"):
        checkpoints.restore(tmp_path, deeper)


def test_the_encoder_alone_is_restored(tmp_path):
    model = fit_once(compiled())
    path = checkpoints.save(tmp_path, model, 4)
    with np.load(path) as saved:
        kinds = {name.split("/")[0] for name in saved.files}
        count = sum(name.startswith("encoder/") for name in saved.files)
        card = json.loads(saved["card"].tobytes())
    assert kinds == {"encoder", "model", "optimizer", "metric", "card", "checksum"}
    assert count == len(model.encoder.variables) and card["epoch"] == 4
    encoder = tiny.tiny_encoder()
    assert checkpoints.restore_encoder(tmp_path, encoder) == (4, 0)
    assert same(model.encoder.get_weights(), encoder.get_weights())
    with pytest.raises(RunFailed, match="belongs to another model"):
        checkpoints.restore_encoder(tmp_path, tiny.tiny_encoder(width=7))


def test_a_checkpoint_of_an_earlier_version_is_told(tmp_path):
    model = fit_once(compiled())
    (tmp_path / "checkpoints").mkdir()
    arrays = {f"encoder/{i}": v for i, v in enumerate(values(model))}
    runs.write_npz(tmp_path / "checkpoints" / "epoch_00001.npz", arrays)
    for restore in (checkpoints.restore, lambda d, m: checkpoints.restore_encoder(d, m.encoder)):
        with pytest.raises(RunFailed, match="of an earlier version, which wrote no checksum; go"):
            restore(tmp_path, model)


def test_without_a_checkpoint_nothing_is_promised(tmp_path):
    assert checkpoints.restore(tmp_path, compiled()) is None
    words = "nothing was trained yet, the same command starts again"
    assert checkpoints.outlook(tmp_path) == words
    checkpoints.save(tmp_path, compiled(), Position(2, 5))
    assert checkpoints.outlook(tmp_path) == "the same command goes on after step 5 of epoch 3"
