"""The commands on real images: what a run leaves behind, and what is read when it goes wrong."""

import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from simsiam_keras import (
    build,
    config,
    devices,
    diagnose,
    heads,
    monitors,
    views,
)
from simsiam_keras.__main__ import main
from simsiam_keras.data import sources
from simsiam_keras.methods.simsiam import SimSiam
from tests.conftest import ROOT
from tests.faults import small

SMALL = (
    "--recipe=digits --encoder=resnet10 --stem=stride2 --width=4 --output_dim=16 "
    "--predictor_hidden=4 --batch_size=256 --epochs=3 --knn_every=2 --jit=off"
).split()


def pretrain(run_dir, *flags):
    return main(["pretrain", *SMALL, f"--run_dir={run_dir}", *flags])


def read_json(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert pretrain(path) == 0
    return path


def test_run_folder_keeps_its_contract(run_dir):
    names = {p.name for p in run_dir.iterdir()} - {".lock"}
    assert names == small.FILES | {"encoder"}
    plots = {p.name for p in (run_dir / "plots").iterdir()}
    assert plots == {"views.png", "curves.png", "embedding.png"}
    environment = read_json(run_dir / "environment.json")
    assert environment["data"]["images"] == 1437 and environment["versions"]["keras"]


def test_metrics_hold_one_row_an_epoch(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["step"] for row in rows] == [0, 5, 10, 15]
    assert [row["knn_accuracy"] is not None for row in rows] == [True, False, True, True]
    for row in rows[1:]:
        assert -1 <= row["loss"] <= 1 and 0 < row["z_std"] <= 1 and row["seconds"] > 0
        # 200 images, 32 features, 16 outputs.
        assert 1 < row["feature_rank"] < 32 and 1 < row["output_rank"] < 16
        assert 0 < row["alignment"] < 4 and -4 * 200 / 199 < row["uniformity"] < 0
        assert 1 / 16 < row["eigenvalue_share"] < 1
    assert all(row.keys() == rows[1].keys() for row in rows[1:])
    beside = {"knn_queries", "knn_accuracy_pixels", "knn_accuracy_random_init"}
    assert rows[0].keys() - rows[1].keys() == beside
    assert all(rows[0][name] is None for name in diagnose.MEASURES)
    # The cosine's rate at the last step of each epoch; .06 is .03 x 256 / 256 doubled nowhere.
    rates = [0.03 * (1 + np.cos(np.pi * (step - 1) / 15)) / 2 for step in (5, 10, 15)]
    np.testing.assert_allclose([row["learning_rate"] for row in rows[1:]], rates, rtol=1e-5)


def test_result_states_what_was_measured_and_how(run_dir):
    result = read_json(run_dir / "result.json")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert result["method"] == "simsiam" and result["epochs"] == 3
    assert result["loss"] == rows[-1]["loss"] and result["z_std"] == rows[-1]["z_std"]
    assert result["knn_accuracy"] == rows[-1]["knn_accuracy"]
    assert {name: result[name] for name in diagnose.MEASURES} == {
        name: rows[-1][name] for name in diagnose.MEASURES
    }
    assert result["knn_accuracy_random_init"] == rows[0]["knn_accuracy"]
    expected = {"k": 37, "temperature": 0.1, "bank": 1437, "queries": "test split"}
    assert result["knn"] == expected


def test_tensorboard_holds_scalars_pairs_and_flags(run_dir):
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    groups = {tag.split("/")[1]: tag.split("/")[0] for tag in tags["scalars"]}
    assert groups["loss"] == groups["learning_rate"] == "training"
    assert groups["z_std"] == "collapse" and groups["knn_accuracy"] == "quality"
    assert {groups[name] for name in diagnose.MEASURES} == {"collapse"}
    assert tags["images"] == ["augmented_pairs"]
    assert len(events.Scalars("training/loss")) == 3
    text = events.Tensors("flags/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "--output_dim=16" in text


def test_tensorboard_compares_runs_by_their_flags(run_dir):
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    found = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(found)
    assert data.version == metadata.PLUGIN_DATA_VERSION
    flags = data.session_start_info.hparams
    assert flags["method"].string_value == "simsiam" and flags["output_dim"].number_value == 16
    assert "run_dir" not in flags and "temperature" not in flags
    found = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(found).experiment
    tags = {info.name.tag for info in experiment.metric_infos}
    assert tags == {"training/loss", "collapse/z_std", "quality/knn_accuracy"}
    assert tags <= set(events.Tags()["scalars"])


def test_saved_model_needs_tensorflow_alone(run_dir, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), dtype="uint8")
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys, numpy as np, tensorflow as tf\n"
        "x = np.load('images.npy')\n"
        "m = tf.saved_model.load(sys.argv[1])\n"
        "np.savez('out.npz', all=m.serve(x), one=m.serve(x[:1]), real=m.serve(x.astype('float32')),"
        " signature=m.signatures['serving_default'](tf.constant(x))['features'])\n"
        "assert not any(name.startswith('simsiam') for name in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, str(run_dir / "encoder")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = np.load(tmp_path / "out.npz")
    expected = keras.saving.load_model(run_dir / "encoder.keras").predict(images, verbose=0)
    assert expected.std() > 0
    for name in ("all", "real", "signature"):
        np.testing.assert_allclose(out[name], expected, atol=1e-5)
    np.testing.assert_allclose(out["one"], expected[:1], atol=1e-5)


@pytest.mark.slow
def test_linear_probe_in_a_new_process(run_dir, tmp_path):
    command = [sys.executable, "-m", "simsiam_keras", "linear-probe", "--dataset=digits"]
    command += [f"--encoder={run_dir / 'encoder'}", f"--run_dir={tmp_path / 'probe'}", "--epochs=5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = read_json(tmp_path / "probe" / "result.json")
    assert 0.5 < result["linear_accuracy"] <= 1
    assert result["epochs"] == 5 and result["classes"] == 10 and "held-out" in result["protocol"]
    assert "linear_accuracy" in done.stdout


def test_both_forms_of_the_encoder_give_the_same_embedding(run_dir, tmp_path):
    for name in ("encoder", "encoder.keras"):
        flags = [f"--encoder={run_dir / name}", f"--run_dir={tmp_path / name}", "--split=test"]
        assert main(["embed", *flags]) == 0
    a, b = (np.load(tmp_path / name / "features.npy") for name in ("encoder", "encoder.keras"))
    assert a.shape == (360, 32) and a.dtype == "float32"
    np.testing.assert_allclose(a, b, atol=1e-5)
    source = sources.load("digits", split="test")
    np.testing.assert_array_equal(np.load(tmp_path / "encoder" / "labels.npy"), source.labels)
    result = read_json(tmp_path / "encoder" / "result.json")
    assert result["features"] == [360, 32] and result["class_names"] == list("0123456789")
    names = {path.name for path in (tmp_path / "encoder").iterdir()} - {".lock"}
    files = {"features.npy", "labels.npy", "files.txt", "vectors.parquet"}
    lines = (tmp_path / "encoder" / "files.txt").read_text().splitlines()
    assert lines == [f"image {i}" for i in range(360)]
    assert names == files | {"result.json", "flags.cfg", "environment.json"}


def test_unlabelled_photographs_are_embedded_without_labels(run_dir, photos, tmp_path):
    flags = [f"--encoder={run_dir / 'encoder.keras'}", f"--dataset=folder:{photos}"]
    assert main(["embed", *flags, f"--run_dir={tmp_path / 'out'}"]) == 0
    assert np.load(tmp_path / "out" / "features.npy").shape == (24, 32)
    assert not (tmp_path / "out" / "labels.npy").exists()
    result = read_json(tmp_path / "out" / "result.json")
    assert result["labels"] is None and result["class_names"] is None


def test_knn_command_repeats_the_monitors_number(run_dir, tmp_path):
    flags = [f"--encoder={run_dir / 'encoder'}", f"--run_dir={tmp_path / 'knn'}"]
    assert main(["knn", *flags]) == 0
    measured = read_json(tmp_path / "knn" / "result.json")["knn_accuracy"]
    assert measured == pytest.approx(read_json(run_dir / "result.json")["knn_accuracy"], abs=0.003)


def test_export_writes_the_encoder_of_the_last_checkpoint(run_dir, tmp_path):
    assert main(["export", f"--run_dir={run_dir}", f"--output={tmp_path}"]) == 0
    a = keras.saving.load_model(run_dir / "encoder.keras").get_weights()
    b = keras.saving.load_model(tmp_path / "encoder.keras").get_weights()
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_preview_shows_two_different_views_of_each_image(tmp_path):
    assert main(["preview", "--recipe=digits", "--pairs=3", f"--output={tmp_path / 'v.png'}"]) == 0
    picture = np.asarray(Image.open(tmp_path / "v.png"))
    zoom = 6
    assert picture.shape == (zoom * 34, zoom * 52, 3)
    first, second = picture[: zoom * 16, : zoom * 16], picture[zoom * 16 : zoom * 32, : zoom * 16]
    assert (first != second).mean() > 0.2


@pytest.mark.slow
def test_measuring_collapse_leaves_the_training_as_it_was(tmp_path, monkeypatch):
    losses = []
    for name in ("measured", "not measured"):
        flags = ["--augment=device", "--knn_every=0", "--epochs=2"]  # whose layer has a state
        assert pretrain(tmp_path / name, *flags) == 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines[1:]])
        monkeypatch.setattr(monitors, "collapse_measures", lambda *_: dict)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.skipif(any("gpu" in d.lower() for d in devices.names()), reason="needs a CPU")
def test_the_step_is_compiled_as_asked_and_not_where_that_is_slower():
    asked = {jit: devices.jit_compile(jit) for jit in ("auto", "on", "off")}
    assert asked == {"auto": False, "on": True, "off": False}


@pytest.mark.parametrize("engine", ["host", "device"])
def test_early_epochs_have_smaller_views(tmp_path, engine):
    flags = ["--recipe=digits", f"--augment={engine}", "--early_size=6", "--early_epochs=2"]
    cfg = config.parse("pretrain", [*flags, "--epochs=3", "--output_dim=8", "--batch_size=64"])
    with build.place(cfg):
        parts = build.parts(cfg, lambda sentence: None)
        assert [parts.last(epoch) for epoch in range(3)] == [2, 2, 3]
        sizes = []
        for epoch in (0, 2):
            parts.enter(epoch)
            (x,) = [next(iter(parts.batches(epoch)))]
            views = x if engine == "host" else parts.model.augmenter(x[0])
            sizes.append({int(view.shape[1]) for view in views})
    assert sizes == [{6}, {parts.recipe.size}]
    assert parts.encoder().input_shape[1] == parts.recipe.size


@pytest.mark.parametrize("flags", [["--early_size=6"], ["--early_epochs=1"]])
def test_size_and_number_of_early_epochs_go_together(flags):
    with pytest.raises(ValueError, match="--early_size and --early_epochs go together"):
        config.parse("pretrain", flags)


def test_collapse_is_measured_on_fixed_pairs_by_one_compiled_function(tmp_path):
    traced = []

    class Counted(keras.layers.Layer):
        def call(self, x):
            traced.append(1)
            return x

    cfg = config.make("pretrain", recipe="digits", output_dim=8, jit="off", run_dir=str(tmp_path))
    recipe, source = build.recipe(cfg), sources.load("digits")
    x = inputs = keras.Input((16, 16, 3))
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(Counted()(x)))
    model = SimSiam(encoder, projector=heads.projector(8))
    monitored = monitors.monitored(model, make_copy=None)
    pairs = x1, x2 = views.sample_pairs(cfg, recipe, source)
    measure = monitors.collapse_measures(monitored, pairs, jit_compile=False)
    first, before = measure(), len(traced)
    assert [measure() for _ in range(3)] == [first] * 3 and len(traced) == before
    again = views.sample_pairs(cfg, recipe, source)
    assert all(map(np.array_equal, again, pairs))  # a resumed run draws the same pairs
    assert x1.shape == x2.shape == (200, 16, 16, 3) and x1.dtype == "uint8"
    # Views of the same image: the brightness that the jitter leaves goes together.
    means = [x.mean(axis=(1, 2, 3)) for x in (x1, x2)]
    assert np.corrcoef(*means)[0, 1] > np.corrcoef(means[0], means[1][::-1])[0, 1] + 0.1
    several = views.sample_pairs(cfg, recipe, source, pairs=3)
    assert len(several) == 6 and all(map(np.array_equal, several, pairs))  # the first pair
    brightness = [x.mean(axis=(1, 2, 3)) for x in several]
    assert len({values.tobytes() for values in brightness}) == 6
    together = np.corrcoef(brightness)[np.triu_indices(6, k=1)].mean()
    assert together > 0.08  # of the same images; of others 0 +- .02
    more = monitors.collapse_measures(monitored, several, jit_compile=False)()
    assert {name for name in first if first[name] != more[name]} == {"lidar"}
    model.projector.set_weights([np.full_like(w, np.inf) for w in model.projector.get_weights()])
    assert measure() == {}  # no number, and no end of the run


def test_the_same_command_refuses_a_finished_run(run_dir, capfd):
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.is_file()}
    assert pretrain(run_dir) == 2
    error = capfd.readouterr().err
    assert "holds a finished run; give another --run_dir" in error
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_unlabelled_photographs(photos, tmp_path, capfd):
    flags = [f"--dataset=folder:{photos}", "--recipe=cifar", "--batch_size=8", "--epochs=1"]
    assert pretrain(tmp_path / "run", *flags) == 0
    assert "No labels: kNN is skipped" in capfd.readouterr().err
    result = read_json(tmp_path / "run" / "result.json")
    assert result["knn_accuracy"] is None and result["knn"] is None


@pytest.mark.slow
def test_photographs_with_a_separate_labelled_set(photos, tmp_path):
    flags = [f"--dataset=folder:{photos}", "--batch_size=8", "--epochs=1"]
    assert pretrain(tmp_path / "run", *flags, "--probe_dataset=digits") == 0
    assert read_json(tmp_path / "run" / "result.json")["knn"]["bank"] == 1437


@pytest.mark.slow
def test_labelled_folder_without_a_test_split_holds_a_fifth_out(photos, tmp_path):
    for i, path in enumerate(sorted(photos.iterdir())):
        (photos / "ab"[i % 2]).mkdir(exist_ok=True)
        shutil.move(path, photos / "ab"[i % 2] / path.name)
    flags = [f"--dataset=folder:{photos}", "--batch_size=8", "--epochs=1"]
    assert pretrain(tmp_path / "run", *flags) == 0
    knn = read_json(tmp_path / "run" / "result.json")["knn"]
    assert 18 <= knn["bank"] <= 20 and knn["k"] == 4  # the root
    assert knn["queries"] == "a fifth held out"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_exports_float32(precision, tmp_path):
    flags = ["--epochs=1", f"--precision={precision}", "--predictor_lr=constant"]
    assert pretrain(tmp_path / "run", *flags) == 0
    assert np.isfinite(read_json(tmp_path / "run" / "result.json")["loss"])
    encoder = keras.saving.load_model(tmp_path / "run" / "encoder.keras")
    assert {layer.compute_dtype for layer in encoder.layers} == {"float32"}


@pytest.mark.slow
def test_gradient_accumulation_takes_a_step_for_each_batch(tmp_path):
    assert pretrain(tmp_path / "run", "--epochs=1", "--gradient_accumulation=4") == 0
    saved = np.load(tmp_path / "run" / "checkpoints" / "epoch_00001.npz")
    assert saved["optimizer/0"] == 22  # parts of 64 in 1,437 images


@pytest.mark.slow
def test_collapse_is_said_in_plain_words(tmp_path, capfd):
    flags = ["--stop_gradient=false", "--epochs=25", "--batch_size=64", "--base_lr=0.4"]
    assert pretrain(tmp_path / "run", *flags, "--stop_on_collapse", "--probe_dataset=none") == 1
    error = " ".join(capfd.readouterr().err.split())
    assert "outputs are collapsing" in error or "outputs have collapsed" in error
    assert "stopped after epoch" in error and "Try: --stop_gradient=false is the cause" in error
    assert (tmp_path / "run" / "checkpoints").exists()


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_checkpoints(tmp_path, capfd):
    assert pretrain(tmp_path / "run", "--base_lr=1e20", "--probe_dataset=none") == 1
    error = capfd.readouterr().err
    assert re.search(r"not a number any more at step \d, in epoch 1 \(.*weights are not fin", error)
    assert "Traceback" not in error
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    diverged = json.loads(text.splitlines()[-1])["diverged"]
    assert diverged["not_finite"] > 0 and len(diverged["first"]) == 3
    assert main(["diagnose", f"--run_dir={tmp_path / 'run'}"]) == 0
    found = " ".join(capfd.readouterr().out.split())
    assert "The loss was not a number in epoch 1" in found
    assert "Lower --base_lr: it is 1e+20" in found


BAD = [
    (["--dataset=cifar11", "--data_dir=/nowhere"], 2, "cifar10"),
    (["--dataset=folder:/nowhere"], 2, "/nowhere"),
    (["--dataset=folder:{empty}"], 2, "no image"),
    (["--dataset=folder:{one}"], 2, "at least 2"),
    (["--dataset=folder:{broken}"], 2, "cannot be decoded"),
    (["--dataset=npz:/nowhere.npz"], 2, "/nowhere.npz"),
    (["--batch_size=5000"], 2, "batch_size"),
    (["--encoder=resnet19"], 2, "resnet18"),
    (["--encoder=keras.applications:ResNet1"], 2, "ResNet50"),
    (["--probe_dataset=folder:{photos}"], 2, "has no labels"),
    (["--run_dir={photos}"], 2, "not a run folder"),
    (["--precision=float8"], 2, "precision"),
    (["--no_such_flag=1"], 2, "no_such_flag"),
]


@pytest.mark.parametrize(("flags", "code", "word"), BAD, ids=[b[0][0].strip("-") for b in BAD])
def test_bad_input_gets_one_sentence(flags, code, word, photos, tmp_path, capfd):
    folders = {name: tmp_path / name for name in ("empty", "one", "broken")}
    for folder in folders.values():
        folder.mkdir()
    shutil.copy(photos / "0.jpg", folders["one"])
    for i in range(20):
        shutil.copy(photos / "1.jpg", folders["broken"] / f"{i}.jpg")
    for name in ("bad.jpg", "worse.jpg"):  # one of so few would be left out
        (folders["broken"] / name).write_text("no picture")
    flags = [flag.format(photos=photos, **folders) for flag in flags]
    assert pretrain(tmp_path / "run", *flags) == code
    error = capfd.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("simsiam_keras: ") and word in last
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["no-such-command"], "pretrain"),
        (["linear-probe"], "--encoder is required"),
        (["linear-probe", "--encoder=/nowhere"], "no encoder"),
        (["linear-probe", "--encoder={encoder}", "--learning_rates=fast"], "--learning_rates"),
        (["linear-probe", "--encoder={encoder}", "--classes=12"], "has 10"),
        (["linear-probe", "--encoder={encoder}", "--dataset=folder:{photos}"], "labels"),
        (["export", "--run_dir=/nowhere", "--output=/tmp/x"], "no run folder"),
        (["pretrain", "--backend=theano"], "backend"),
    ],
)
def test_bad_calls_of_other_commands(argv, word, run_dir, photos, capfd):
    argv = [a.format(encoder=run_dir / "encoder", photos=photos) for a in argv]
    assert main(argv) == 2
    error = capfd.readouterr().err
    assert word in error and "Traceback" not in error


def test_debug_shows_the_traceback(tmp_path, capfd):
    assert pretrain(tmp_path / "run", "--dataset=folder:/nowhere", "--debug") == 2
    assert "Traceback" in capfd.readouterr().err
