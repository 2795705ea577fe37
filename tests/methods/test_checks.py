"""What a method is given is checked where it is given: models, values of images, batches of one."""

import importlib
import re
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import augment, encoders, heads, optimizers
from simsiam_keras.errors import Caution
from simsiam_keras.family import FAMILY, split
from simsiam_keras.methods.simsiam import SimSiam
from tests.methods.items import Items, generated
from tests.test_backends import OTHERS, call
from tests.tiny import noise

L = keras.layers
SHAPE = (8, 8, 3)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.pool = L.GlobalAveragePooling2D()

    def call(self, x):
        return self.pool(x)


class OneView(L.Layer):
    def call(self, x):
        return x


def functional(*outputs):
    x = keras.Input(SHAPE)
    return keras.Model(x, [make(x) for make in outputs] if outputs[1:] else outputs[0](x))


def of_any_size():
    x = keras.Input((None, None, 3))
    return keras.Model(x, ops.reshape(x, (ops.shape(x)[0], -1)))


ENCODERS = {
    "not pooled": (lambda: functional(L.Conv2D(4, 3)), "give features .* pool or flatten"),
    "subclassed": (Subclassed, r"knows its shapes.*keras.Model\(inputs, yours\(inputs\)\)"),
    "without Input": (lambda: keras.Sequential([L.Flatten()]), "knows its shapes"),
    "two outputs": (lambda: functional(L.Flatten(), L.Conv2D(4, 3)), "have one output"),
    "any size, flat": (of_any_size, "give features of a known width"),
    "a function": (lambda: lambda x: x, "knows its shapes"),
}


CASES = [(method, "not pooled") for method in FAMILY] + [("simsiam", name) for name in ENCODERS]


@pytest.mark.parametrize(("method", "name"), CASES[1:])
def test_an_encoder_that_does_not_fit_is_refused_by_the_constructor(method, name):
    make, sentence = ENCODERS[name]
    module, cls = split(FAMILY[method].path)
    with pytest.raises(ValueError, match=f"^`encoder` must .*{sentence}"):
        getattr(importlib.import_module(module), cls)(make())


def of_width(n, *layers):
    return keras.Sequential([keras.Input((n,)), *layers])


@pytest.mark.parametrize(
    ("part", "head", "sentence"),
    [
        ("projector", lambda: L.Dense(8), r"`projector` must .*keras.Input\(\(16,\)\)"),
        ("projector", lambda: of_width(12, L.Dense(8)), "`projector` must take the 16 values"),
        ("projector", lambda: of_width(16, L.Reshape((4, 4))), r"must give outputs \[n, width\]"),
        ("predictor", lambda: of_width(12, L.Dense(8)), "`predictor` must take the 8 values"),
        ("predictor", lambda: of_width(8, L.Dense(9)), "`predictor` must be as wide"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_by_the_constructor(part, head, sentence):
    parts = {"projector": heads.projector(8), "predictor": heads.predictor(4), part: head()}
    with pytest.raises(ValueError, match=sentence):
        SimSiam(encoders.resnet10(SHAPE, width=2), **parts)


def made(encoder=None, augmenter=None):
    encoder = encoder or encoders.resnet10(SHAPE, width=2)
    model = SimSiam(encoder, heads.projector(8), heads.predictor(4), augmenter)
    model.compile(optimizers.SGD(0.1))
    return model


@pytest.mark.parametrize(
    "make", [OneView, lambda: keras.Sequential([L.RandomFlip()])], ids=["layer", "Sequential"]
)
def test_an_augmenter_of_one_view_is_refused_in_the_first_batch(make):
    with pytest.raises(ValueError, match="`augmenter` must give a tuple of views"):
        made(augmenter=make()).fit(noise(8), verbose=0)


class Whole(L.Layer):
    """Two views, all of each image, by an augmenter that is given no extent, or any arguments."""

    def call(self, images, training=False):
        return images, images


class Anything(Whole):
    def call(self, images, training=False, **others):
        return images * ops.cast(list(others) == ["extent"], images.dtype), images


def test_images_on_a_canvas_need_an_augmenter_that_asks_where_they_lie():
    images, extent = noise(8), np.full((len(noise(8)), 2), 8, "int32")
    with pytest.raises(ValueError, match="must have an argument `extent`.*Received: Whole"):
        made(augmenter=Whole()).train_on_batch({"images": images, "extent": extent})
    loss = made(augmenter=Whole()).train_on_batch({"images": images})[0]
    assert np.isfinite(loss)
    model = made(augmenter=Anything())
    seen = [model({"images": images, **more})["z1"] for more in ({}, {"extent": extent})]
    alone = model({"views": (images, images)})["z1"]
    np.testing.assert_allclose(seen[1], alone)
    assert np.abs(np.subtract(seen[0], alone)).max() > 1e-3


def test_an_augmenter_that_is_no_layer_is_refused_by_the_constructor():
    with pytest.raises(ValueError, match="`augmenter` must be a keras.layers.Layer"):
        made(augmenter=augment.host.Views("digits", size=8))


@pytest.mark.parametrize("shape", [(4, 8, 8, 1), (4, 8, 7, 3)])
def test_views_that_the_encoder_does_not_take_are_refused_in_the_first_batch(shape):
    x = np.zeros(shape, "float32")
    with pytest.raises(ValueError, match=r"`encoder` must take the views .* \(None, 8, 8, 3\)"):
        made()((x, x))


def cautions(function):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        function()
    return [str(w.message) for w in found if issubclass(w.category, Caution)]


def pairs(scale, offset=0.0):
    x = (noise(8, n=8) * scale + offset).astype("float32")
    return x, x[:, :, ::-1]


def dataset(x, size):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(x).batch(size)


class Lazy(L.Layer):
    """A layer for an encoder with its own normalization, of images that lie in 0..1."""

    def call(self, x):
        return 2 * x - 1


def own(*first):
    return keras.Sequential([keras.Input(SHAPE), *first, L.Conv2D(4, 3), L.GlobalMaxPooling2D()])


def fits(model, data, **more):
    return cautions(lambda: model.fit(data, epochs=2, verbose=0, **more))


@pytest.mark.parametrize("give", [tuple, Items, generated, dataset])
def test_images_from_0_to_1_are_warned_of_once(give):
    model, more = made(), {"steps_per_epoch": 1} if give is generated else {}
    x = pairs(1 / 255)
    data = x if give is tuple else give(x, 4)
    (said,) = fits(model, data, **more)
    assert said.startswith("Views must have values 0..255") and "multiply them by 255" in said
    if give is tuple:
        assert fits(model, data) == []  # once


@pytest.mark.parametrize("give", [tuple, Items, generated, dataset])
def test_images_from_0_to_255_are_not_warned_of(give):
    x = pairs(1)
    assert fits(made(), x if give is tuple else give(x, 4), steps_per_epoch=1) == []


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (pairs(1 / 64, -2), "scale them to 0..255. Received: -2..1.98"),  # standardized
        (pairs(257), "Received: .*6.5.*04"),  # 16 bits
        (tuple(x.astype("uint8") // 255 for x in pairs(1)), None),  # integers are taken as they are
    ],
)
def test_other_values_are_warned_of_as_well(x, told):
    found = cautions(lambda: made().train_on_batch(x))
    assert len(found) == (told is not None)
    if told:
        assert re.search(told, found[0])


@pytest.mark.parametrize(
    ("encoder", "warned"),
    [
        (lambda: own(), False),  # nothing is known of it
        (lambda: own(Lazy()), False),
        (lambda: own(L.Rescaling(2.0, offset=-1.0)), False),
        (lambda: own(L.Normalization(mean=0.5, variance=0.1)), False),
        (lambda: own(L.Rescaling(1 / 127.5, offset=-1.0)), True),
        (lambda: own(L.Normalization(mean=127.5, variance=64.0)), True),
        (lambda: encoders.application("MobileNetV3Small", (32, 32, 3)), True),
    ],
)
def test_an_encoder_for_0_to_1_is_not_warned_of(encoder, warned):
    model = made(encoder())
    assert model.looked is not warned


def test_images_for_our_augmenter_are_0_to_255_whatever_the_encoder():
    model = made(own(), augment.Views("digits", size=8))
    (said,) = fits(model, pairs(1 / 255)[0])
    assert said.startswith("Images must have values 0..255")


def test_weights_in_half_precision_are_warned_of():
    keras.config.set_dtype_policy("float16")
    (said,) = cautions(lambda: made())
    assert "weights are float16" in said and "mixed_float16" in said
    keras.config.set_dtype_policy("mixed_float16")
    assert cautions(lambda: made()) == []


def test_arrays_that_leave_one_image_are_refused_before_training():
    model = made()
    before = model.get_weights()
    x = tuple(np.concatenate([x, x[:1]]) for x in pairs(1))
    with pytest.raises(ValueError, match="Received: 9 images, batch_size=4"):
        model.fit(x, batch_size=4, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.fit(x, batch_size=3, verbose=0)


@pytest.mark.parametrize("give", [Items, generated, dataset])
def test_a_last_batch_of_one_image_is_refused(give):
    x = tuple(np.concatenate([x, x[:1]]) for x in pairs(1))
    with pytest.raises(ValueError, match="^A training batch must have at least 2 images.*1 image"):
        made().fit(give(x, 4), verbose=0)
    assert np.isfinite(made().fit(give(x, 3), verbose=0).history["loss"]).all()


def test_a_data_set_without_its_last_batch_is_taken_as_it_is():
    x = tuple(np.concatenate([x, x[:1]]) for x in pairs(1))
    data = dataset(x, 4).unbatch().batch(4, drop_remainder=True)
    losses = []
    for _ in range(2):  # in order, whether watched or not
        keras.utils.set_random_seed(0)
        losses.append(made().fit(data, epochs=2, verbose=0).history["loss"])
    assert losses[0] == losses[1]


ELSEWHERE = """
import warnings
import numpy as np, keras
from simsiam_keras import encoders, heads, optimizers
from simsiam_keras.errors import Caution
from simsiam_keras.methods.simsiam import SimSiam
from tests.methods.items import Items, generated

kinds = {"items": Items, "generated": generated}
if keras.backend.backend() == "torch":
    import torch
    def loaded(x, size):
        data = torch.utils.data.TensorDataset(*map(torch.from_numpy, x))
        return torch.utils.data.DataLoader(data, batch_size=size)
    kinds["loaded"] = loaded

def made():
    encoder = encoders.resnet10((8, 8, 3), width=2)
    model = SimSiam(encoder, heads.projector(8), heads.predictor(4))
    model.compile(optimizers.SGD(0.1))
    return model

def pairs(scale, n):
    x = np.random.default_rng(0).uniform(0, 255 * scale, (n, 8, 8, 3)).astype("float32")
    return x, x[:, :, ::-1].copy()

def refused(data, **more):
    try:
        made().fit(data, verbose=0, **more)
    except ValueError as error:
        return str(error)

def told(data, **more):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        made().fit(data, verbose=0, **more)
    return sum(issubclass(w.category, Caution) for w in found)

said = refused(pairs(1, 9), batch_size=4)
if "Received: 9 images, batch_size=4" not in said:
    raise SystemExit(said)
if told(pairs(1 / 255, 8)) != 1 or told(pairs(1, 8)) != 0:
    raise SystemExit("arrays")
for name, make in kinds.items():
    said = refused(make(pairs(1, 9), 4))
    if not (said or "").startswith("A training batch must have at least 2 images"):
        raise SystemExit(f"{name}: {said}")
    if told(make(pairs(1 / 255, 8), 4)) != 1 or told(make(pairs(1, 8), 4)) != 0:
        raise SystemExit(name)
"""


@pytest.mark.parametrize("backend", OTHERS)
def test_the_other_backends_say_the_same(backend):
    call(backend, "-c", ELSEWHERE)


def trainable(**compiled):
    encoder = functional(L.GlobalAveragePooling2D())
    model = SimSiam(encoder, heads.projector(4), heads.predictor(2), augment.Views("cifar", size=8))
    model.compile(**compiled)
    return model


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("name", ["metrics", "loss", "weighted_metrics", "loss_weights"])
def test_what_compares_with_targets_is_refused(method, name):
    module, cls = split(FAMILY[method].path)
    cls = getattr(importlib.import_module(module), cls)
    with pytest.raises(ValueError, match=f"`{name}` must be left out of `compile`: {cls.__name__}"):
        cls.compile(cls.__new__(cls), "sgd", **{name: ["accuracy"]})


SETTERS = [
    keras.callbacks.LearningRateScheduler(lambda epoch: 0.25),
    keras.callbacks.ReduceLROnPlateau("loss"),
]


@pytest.mark.parametrize("setter", SETTERS, ids=lambda c: type(c).__name__)
def test_a_rate_has_one_master(setter):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model = trainable(optimizer=optimizers.SGD(schedule))
    for callbacks in ([setter], setter, keras.callbacks.CallbackList([setter])):
        with pytest.raises(ValueError, match=f"{type(setter).__name__} sets the learning rate"):
            model.fit(noise(8), batch_size=4, callbacks=callbacks, verbose=0)
    model.fit(noise(8), batch_size=4, callbacks=[keras.callbacks.Callback()], verbose=0)


def test_a_number_may_be_set():
    model = trainable(optimizer=optimizers.SGD(0.1))
    model.fit(noise(8), batch_size=4, callbacks=[SETTERS[0]], verbose=0)
    assert float(model.optimizer.learning_rate) == 0.25


@pytest.mark.slow
def test_inference_catches_up_with_training():
    model = trainable(optimizer=optimizers.SGD(0.0))
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype="uint8")
    first = model.fit(images, batch_size=32, verbose=0).history["z_std"][0]
    early = model.evaluate(images, batch_size=32, verbose=0, return_dict=True)["z_std"]
    model.fit(images, batch_size=32, epochs=60, verbose=0)
    late = model.evaluate(images, batch_size=32, verbose=0, return_dict=True)["z_std"]
    assert abs(late - first) < 0.05 < abs(early - first)
