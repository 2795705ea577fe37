import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

# Five steps of the same data on one device and on two replicas; a process each, because the CPU can
# be split only before TensorFlow uses it.
STEPS = """
import json, sys
import keras, numpy as np, tensorflow as tf
from simsiam_keras import distribute, optimizers
from tests import tiny

strategy, devices, wrong = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with distribute.scope(strategy, devices):
    model = tiny.simsiam(seed=1)
    distribute.synchronize(model)
    if wrong == "local_statistics":
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = False
    if wrong == "plain_mean":
        model.mean = lambda values: keras.ops.mean(values)
    model.compile(optimizer=optimizers.SGD(0.1, weight_decay=5e-4), jit_compile=False)
    random = np.random.default_rng(0)
    x = random.integers(0, 255, (2, 5 * 32, 8, 8, 3), dtype="uint8")
    views = tf.data.Dataset.from_tensor_slices((x[0], x[1])).batch(32)
    losses = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
    for _ in range(5):
        model.fit(views.skip(_).take(1), verbose=0, callbacks=[keep])
    weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
print(json.dumps({"replicas": distribute.replicas(), "losses": losses,
                  "weights": weights.tolist()}))
"""


def run_steps(strategy, devices, wrong=""):
    command = [sys.executable, "-c", STEPS, strategy, str(devices), wrong]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    return np.array(result["losses"]), np.array(result["weights"])


@pytest.fixture(scope="module")
def one_replica():
    return run_steps("none", 0)


def assert_same(a, b):
    np.testing.assert_allclose(a[0], b[0], atol=1e-4)
    np.testing.assert_allclose(a[1], b[1], atol=1e-4)


@pytest.mark.slow
def test_two_replicas_equal_one(one_replica):
    assert_same(run_steps("mirrored", 2), one_replica)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["local_statistics", "plain_mean"])
def test_two_replicas_with_a_known_mistake_do_not(one_replica, wrong):
    with pytest.raises(AssertionError):
        assert_same(run_steps("mirrored", 2, wrong), one_replica)


@pytest.mark.slow
def test_the_command_trains_on_two_replicas(tmp_path):
    command = [sys.executable, "-m", "simsiam_keras", "pretrain", f"--run_dir={tmp_path / 'run'}"]
    command += "--strategy=mirrored --virtual_devices=2 --epochs=1 --batch_size=256".split()
    command += "--recipe=digits --encoder=resnet10 --stem=stride2 --width=4 --output_dim=16".split()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 replica(s)" in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["knn_accuracy_random_init"] > 0.3  # features and labels in the same order
    assert 1 < result["feature_rank"] <= 32 and 0 < result["alignment"] < 4
    loaded = keras.saving.load_model(tmp_path / "run" / "encoder.keras")
    norms = [x for x in loaded.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert norms and not any(layer.synchronized for layer in norms)


# Two views of three batches, made on the device by two replicas and by one; argv: mistake.
VIEWS = """
import sys
import numpy as np, tensorflow as tf
from simsiam_keras import distribute
from simsiam_keras.augment import DIGITS
from simsiam_keras.augment.device import Views

if sys.argv[1] == "same_rows":
    distribute.replica = lambda: 0
images = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), dtype="uint8")
plain = Views(DIGITS, seed=3)
expected = [plain(images[i : i + 8], training=True) for i in (0, 8, 16)]
with distribute.scope("mirrored", 2):
    layer = Views(DIGITS, seed=3)
    strategy = tf.distribute.get_strategy()
    batches = tf.data.Dataset.from_tensor_slices(images).batch(8, drop_remainder=True)
    step = tf.function(lambda x: strategy.run(lambda x: layer(x, training=True), (x,)))
    for pair, batch in zip(expected, strategy.experimental_distribute_dataset(batches)):
        for one, two in zip(pair, step(batch)):
            two = np.concatenate(strategy.experimental_local_results(two))
            np.testing.assert_array_equal(two, one)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["", "same_rows"])
def test_replicas_make_the_views_of_one_device(mistake):
    # The CPU must be split before TensorFlow uses it.
    script = "from simsiam_keras import distribute\ndistribute.scope('none', 2)" + VIEWS
    command = [sys.executable, "-c", script, mistake]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode == 0) == (mistake == ""), done.stderr[-2000:]
    assert mistake == "" or "AssertionError" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "folder"])
def test_device_views_train_on_two_replicas(data, tmp_path):
    if data == "folder":  # of various sizes, which lie on canvases
        (tmp_path / "pictures").mkdir()
        data = f"folder:{tmp_path / 'pictures'}"
        for i in range(256):
            image = np.random.default_rng(i).integers(0, 255, (20 + i % 9, 24, 3), "uint8")
            Image.fromarray(image).save(tmp_path / "pictures" / f"{i:03}.png")
    losses = []
    for flags in ([], ["--strategy=mirrored", "--virtual_devices=2"]):
        run_dir = tmp_path / str(len(flags))
        command = [sys.executable, "-m", "simsiam_keras", "pretrain", f"--run_dir={run_dir}"]
        command += "--augment=device --epochs=2 --batch_size=256 --recipe=digits --jit=off".split()
        command += ["--encoder=resnet10", f"--dataset={data}"]
        command += "--stem=stride2 --width=4 --output_dim=16".split()
        done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
        losses.append([row["loss"] for row in rows if row["epoch"]])
    # A batch that is lost or doubled moves the loss by 1e-2, rounding by 1e-4.
    np.testing.assert_allclose(*losses, atol=1e-3)
