"""A saved model loads in a new process after `import simsiam_keras` alone, in any order with Keras.

Also on JAX and torch where `make backends` has made their environments.
"""

import ast
import copy
import importlib
import json
import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

import simsiam_keras
from simsiam_keras import registration
from tests.conftest import ROOT
from tests.test_backends import OTHERS, call


def sources():
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for path in sorted((ROOT / "simsiam_keras").rglob("*.py"))
    }


def registered(files):
    """{Keras's name: dotted path} of the classes and functions that the sources register."""
    found = {}
    for path, source in files.items():
        mentions = source.count("register_keras_serializable(")
        for node in ast.walk(ast.parse(source)):
            for decorator in getattr(node, "decorator_list", ()):
                text = ast.unparse(decorator)
                if "register_keras_serializable(" in text:
                    arguments = [ast.literal_eval(value) for value in decorator.args]
                    names = {k.arg: ast.literal_eval(k.value) for k in decorator.keywords}
                    names |= dict(zip(("package", "name"), arguments, strict=False))
                    name = names.get("name") or node.name
                    module = path.removesuffix(".py").replace("/", ".")
                    found[f"{names.get('package', 'Custom')}>{name}"] = f"{module}.{node.name}"
                    mentions -= 1
        assert not mentions, f"{path} registers something by other means than a decorator"
    return found


def loadable():
    return {f"simsiam_keras>{path.rsplit('.', 1)[1]}": path for path in registration.CLASSES}


def test_every_registered_class_is_loadable_after_the_one_import():
    assert loadable() == registered(sources())


BROKEN = [
    "@keras.saving.register_keras_serializable('simsiam_keras')\nclass New: 0",
    "@register_keras_serializable(package='simsiam_keras')\nclass New: 0",
    "@keras.saving.register_keras_serializable()\nclass SGD: 0",
    "@keras.saving.register_keras_serializable('simsiam_keras', 'Other')\nclass SGD: 0",
    "@keras.utils.register_keras_serializable('simsiam_keras')\ndef new(x): 0",
    "@keras.saving.register_keras_serializable('simsiam_keras')\nclass SGD: 0",  # of two modules
]


@pytest.mark.parametrize("source", BROKEN)
def test_a_class_that_is_not_is_seen(source):
    assert loadable() != registered(sources() | {"simsiam_keras/new.py": source})


def test_a_registration_that_the_test_cannot_read_is_seen():
    source = "New = keras.saving.register_keras_serializable('simsiam_keras')(New)"
    with pytest.raises(AssertionError, match="by other means"):
        registered({"simsiam_keras/new.py": source})


# Makes, trains for a step, and saves a model of each method; argv: folder.
SAVE = """
import importlib, inspect, sys
import keras, numpy as np
from simsiam_keras import augment, heads, optimizers, registration, schedules, targets
from simsiam_keras.methods.base import JointEmbedding

def new(cls):
    recipe = augment.RECIPES["digits"]
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 3, 2),
              keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
    parts = {
        "encoder": keras.Sequential([keras.Input((16, 16, 3)), *layers]),
        "projector": heads.projector(16),
        "predictor": heads.predictor(8),
        "augmenter": augment.device.Views(recipe, seed=3, views=full_views(cls)),
        "prototypes": 6,
        "targets": targets.Snapshot(2),
    }
    arguments = inspect.signature(cls).parameters
    return cls(**{name: part for name, part in parts.items() if name in arguments})

def full_views(cls):
    given = inspect.signature(cls).parameters.get("views")
    return 1 if labelled(cls) else given.default if given else 2

folder = sys.argv[1]
paths = (path.rsplit(".", 1) for path in registration.CLASSES)
classes = {name: getattr(importlib.import_module(module), name) for module, name in paths}
for cls in classes.values():
    if issubclass(cls, JointEmbedding):
        model = new(cls)
        rate = schedules.cosine(0.05, 10, 2)
        optimizer = {
            "SimSiam": lambda: optimizers.with_constant_rate(
                optimizers.SGD(rate, weight_decay=1e-3), model.predictor.trainable_variables, 0.05
            ),
            "SimCLR": lambda: classes["LARS"](rate, weight_decay=1e-3),
        }.get(cls.__name__, lambda: optimizers.SGD(rate, weight_decay=1e-3))()
        model.compile(optimizer=optimizer, run_eagerly=True, jit_compile=False)
        model.train_on_batch(batch(cls))
        model.save(f"{folder}/{cls.__name__}.keras")
        report(model)
"""

# What a model is and does next, to a file; argv: folder, suffix of the file.
DESCRIBE = """
import json, sys
import numpy as np

def labelled(cls):
    return cls.__name__.startswith("Siamese")

def batch(cls):
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3)).astype("float32")
    labels = {"labels": np.arange(8) % 2} if labelled(cls) else {}
    return {"images": images, **labels}

def report(model):
    x = batch(type(model))
    optimizer = model.optimizer
    facts = {
        "class": f"{type(model).__module__}.{type(model).__name__}",
        "optimizer": type(optimizer).__name__,
        "configuration": json.dumps(optimizer.get_config(), default=repr, sort_keys=True),
        "iterations": int(optimizer.iterations),
        "augmenter": type(model.augmenter).__name__,
        "views": json.dumps(model.augmenter.get_config(), default=repr, sort_keys=True),
        "step": int(model.augmenter.step),
        "features": np.asarray(model.predict_on_batch(x["images"])).tolist(),
    }
    losses = [float(model.train_on_batch(x, return_dict=True)["loss"]) for _ in range(2)]
    facts["losses"] = losses
    path = f"{sys.argv[1]}/{type(model).__name__}{sys.argv[2]}.json"
    open(path, "w").write(json.dumps(facts))
"""

LOAD = """
import glob, sys
{imports}
assert "simsiam_keras>SimSiam" in keras.saving.get_custom_objects()
assert not any(name.startswith("simsiam_keras.methods") for name in sys.modules)
paths = glob.glob(f"{{sys.argv[1]}}/*.keras")
for model in {models}:
    report(model)
"""
ORDERS = {
    "keras_first": LOAD.format(
        imports="import keras, simsiam_keras",
        models="map(keras.saving.load_model, paths)",
    ),
    "keras_last_and_in_threads": LOAD.format(
        imports="import concurrent.futures, simsiam_keras, keras",
        models="list(concurrent.futures.ThreadPoolExecutor(4).map(keras.saving.load_model, paths))",
    ),
}


@pytest.fixture(scope="module", params=["tensorflow", *OTHERS])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    call(request.param, "-c", DESCRIBE + SAVE, folder, ".saved")
    return request.param, folder


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_a_model_of_every_method_goes_on_in_a_new_process(saved, order):
    backend, folder = saved
    call(backend, "-c", DESCRIBE + ORDERS[order], folder, f".{order}")
    paths = sorted(folder.glob("*.saved.json"))
    assert len(paths) >= 6
    for path in paths:
        before = json.loads(path.read_text())
        after = json.loads((folder / path.name.replace(".saved.", f".{order}.")).read_text())
        for name in ("features", "losses"):
            np.testing.assert_allclose(after.pop(name), before.pop(name), rtol=1e-4, atol=1e-5)
        assert after == before and before["iterations"] == before["step"] == 1


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
    )


def test_an_error_of_keras_shows_nothing_of_it():
    done = python("import simsiam_keras, keras", KERAS_BACKEND="none")
    assert "ValueError" in done.stderr and "none" in done.stderr
    assert "simsiam_keras/" not in done.stderr


def test_a_second_time_changes_nothing():
    before = list(sys.meta_path)
    objects = dict(keras.saving.get_custom_objects())
    registration.install()
    importlib.reload(simsiam_keras)
    importlib.reload(registration).install()
    assert sys.meta_path == before
    assert keras.saving.get_custom_objects() == objects


def test_a_stand_in_behaves_as_the_class():
    from simsiam_keras.optimizers import SGD

    stand_in = registration.StandIn("simsiam_keras.optimizers.SGD")
    assert stand_in.from_config == SGD.from_config and repr(stand_in) == repr(SGD)
    assert stand_in(0.5).learning_rate == 0.5
    for other in (copy.deepcopy(stand_in), pickle.loads(pickle.dumps(stand_in))):
        assert other.from_config == SGD.from_config
    assert not hasattr(stand_in, "nonsense")
