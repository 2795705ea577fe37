import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import encoders
from tests import oracle


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


# torchvision prints 11,689,512, 21,797,672 and 25,557,032 parameters for its ResNets
# (pytorch.org/vision/stable/models.html, "num_params"); the classifier is width * 1000 + 1000 of
# them. A 3x3 stem has (49 - 9) * 3 * 64 fewer.
RESNET18 = 11_689_512 - (512 * 1000 + 1000)
RESNET34 = 21_797_672 - (512 * 1000 + 1000)
RESNET50 = 25_557_032 - (2048 * 1000 + 1000)
SMALLER_STEM = (7 * 7 - 3 * 3) * 3 * 64


@pytest.mark.parametrize(
    "make, stem, count, width",
    [
        (encoders.resnet18, "imagenet", RESNET18, 512),
        (encoders.resnet18, "cifar", RESNET18 - SMALLER_STEM, 512),
        (encoders.resnet34, "imagenet", RESNET34, 512),
        (encoders.resnet50, "imagenet", RESNET50, 2048),
        (encoders.resnet50, "stride2", RESNET50 - SMALLER_STEM, 2048),
    ],
)
def test_parameters_are_those_of_torchvision(make, stem, count, width):
    model = make(input_shape=(32, 32, 3), stem=stem)
    assert trainable(model) == count
    assert model.output_shape == (None, width)


def test_the_counts_of_the_paper_s_encoders():
    assert (RESNET18, RESNET34, RESNET50) == (11_176_512, 21_284_672, 23_508_032)
    assert RESNET18 - SMALLER_STEM == 11_168_832


def basic_block_parameters(inputs, width, stride):
    shortcut = inputs * width + 2 * width if stride > 1 or inputs != width else 0
    return 9 * inputs * width + 2 * width + 9 * width * width + 2 * width + shortcut


def test_parameters_of_the_small_net_by_hand():
    w, total = 8, 3 * 3 * 3 * 8 + 2 * 8
    for inputs, width, stride in [(w, w, 1), (w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 8 * w, 2)]:
        total += basic_block_parameters(inputs, width, stride)
    model = encoders.resnet10(width=8)
    assert trainable(model) == total
    assert model.output_shape == (None, 64)
    assert [w.path for w in model.trainable_variables if "bias" in w.path] == []


@pytest.mark.parametrize(
    "stem, size, resolutions",
    [
        # 7x7/2 and a 3x3/2 pool, then /2 at the start of stages 2, 3 and 4.
        ("imagenet", 224, [112, 56, 56, 28, 14, 7]),
        ("cifar", 32, [32, None, 32, 16, 8, 4]),
        ("stride2", 32, [16, None, 16, 8, 4, 2]),
        ("imagenet", 65, [33, 17, 17, 9, 5, 3]),  # odd sizes: floor((n - 1) / 2) + 1
    ],
)
def test_resolution_of_every_stage(stem, size, resolutions):
    model = encoders.resnet10(input_shape=(size, size, 3), stem=stem, width=2)
    names = ["stem_relu", "pool", *(f"stage_{i}_1_relu" for i in (1, 2, 3, 4))]
    for name, resolution in zip(names, resolutions, strict=True):
        if resolution is None:
            assert name not in {layer.name for layer in model.layers}
        else:
            assert model.get_layer(name).output.shape[1:3] == (resolution, resolution), name


def part(model, first, last):
    """The sub-model from the input of layer `first` to the output of layer `last`."""
    return keras.Model(model.get_layer(first).input, model.get_layer(last).output)


def check_convolution(conv_of, size, kernel, stride):
    """`conv_of(channels, filters, kernel, stride)` gives a model and its kernel variable."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, size, size, 3)).astype("float32")
    model, variable = conv_of(size, kernel, stride)
    expected = oracle.conv2d(images, ops.convert_to_numpy(variable), stride, padding=kernel // 2)
    actual = ops.convert_to_numpy(model(images))
    assert actual.shape == expected.shape
    # Sums of up to 147 products in float32.
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def ours(size, kernel, stride):
    inputs = keras.Input((size, size, 3))
    outputs = encoders._conv_norm(inputs, 2, kernel, stride, name="c")
    model = keras.Model(inputs, outputs)
    return keras.Model(inputs, model.get_layer("c_conv").output), model.get_layer("c_conv").kernel


def padded_same(size, kernel, stride):
    inputs = keras.Input((size, size, 3))
    layer = keras.layers.Conv2D(2, kernel, stride, padding="same", use_bias=False)
    return keras.Model(inputs, layer(inputs)), layer.kernel


def unpadded(size, kernel, stride):
    inputs = keras.Input((size, size, 3))
    layer = keras.layers.Conv2D(2, kernel, stride, use_bias=False)
    return keras.Model(inputs, layer(inputs)), layer.kernel


CONVOLUTIONS = [(8, 3, 2), (7, 3, 2), (8, 3, 1), (10, 7, 2), (8, 1, 2), (8, 1, 1)]


@pytest.mark.parametrize("size, kernel, stride", CONVOLUTIONS)
def test_convolutions_pad_as_pytorch_does(size, kernel, stride):
    check_convolution(ours, size, kernel, stride)


@pytest.mark.parametrize(
    "wrong, size, kernel, stride",
    [(padded_same, 8, 3, 2), (padded_same, 10, 7, 2), (unpadded, 8, 3, 2), (unpadded, 7, 3, 2)],
)
def test_other_paddings_are_rejected(wrong, size, kernel, stride):
    with pytest.raises(AssertionError):
        check_convolution(wrong, size, kernel, stride)


@pytest.mark.parametrize(
    "make, convolutions",
    [
        (encoders.resnet10, {"a": (3, 2), "b": (3, 1), "shortcut": (1, 2)}),
        (encoders.resnet50, {"a": (1, 1), "b": (3, 2), "c": (1, 1), "shortcut": (1, 2)}),
    ],
)
def test_the_block_downsamples_where_torchvision_does(make, convolutions):
    model = make(input_shape=(32, 32, 3), width=2)
    for name, (kernel, stride) in convolutions.items():
        layer = model.get_layer(f"stage_2_1_{name}_conv")
        assert (layer.kernel_size, layer.strides) == ((kernel, kernel), (stride, stride))


def randomized(model, seed=0):
    """Random statistics and offsets, so that no normalization is the identity by accident."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        if v.path.endswith(("beta", "moving_mean")):
            v.assign(rng.normal(size=v.shape))
        if v.path.endswith("moving_variance"):
            v.assign(rng.uniform(0.5, 2, size=v.shape))
    return model


def check_identity_blocks(make, zero_init_residual):
    model = make(
        input_shape=(16, 16, 3), stem="cifar", width=4, zero_init_residual=zero_init_residual
    )
    images = np.random.default_rng(0).uniform(0, 255, size=(2, 16, 16, 3)).astype("float32")
    names = [layer.name for layer in model.layers if layer.name.endswith("_add")]
    taps = [model.get_layer(n).output for n in names] + [model.get_layer(n).input for n in names]
    values = [
        ops.convert_to_numpy(v) for v in keras.tree.flatten(keras.Model(model.inputs, taps)(images))
    ]
    sums, terms = values[: len(names)], values[len(names) :]
    for i, name in enumerate(names):
        shortcut, branch = terms[2 * i], terms[2 * i + 1]
        np.testing.assert_array_equal(branch, 0, err_msg=name)
        np.testing.assert_array_equal(sums[i], shortcut, err_msg=name)


@pytest.mark.parametrize("make", [encoders.resnet10, encoders.resnet18, encoders.resnet50])
def test_zero_init_residual_starts_every_block_as_its_shortcut(make):
    check_identity_blocks(make, True)


def test_the_default_start_is_no_identity():
    with pytest.raises(AssertionError):
        check_identity_blocks(encoders.resnet18, False)


def test_an_inner_block_starts_as_the_identity():
    model = encoders.resnet18((16, 16, 3), "cifar", width=4, zero_init_residual=True)
    block = part(model, "stage_2_2_a_conv", "stage_2_2_relu")
    x = np.random.default_rng(0).uniform(0, 3, size=(2, 8, 8, 8)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(block(x)), x)


def test_convolutions_start_as_torchvisions():
    # Kaiming normal, fan_out: deviation sqrt(2 / (filters * size^2)), not truncated.
    model = encoders.resnet18((32, 32, 3), "cifar")
    for name, fan_out in [
        ("stem_conv", 64 * 9),
        ("stage_2_1_a_conv", 128 * 9),
        ("stage_4_1_shortcut_conv", 512),
        ("stage_4_2_b_conv", 512 * 9),
    ]:
        w = ops.convert_to_numpy(model.get_layer(name).kernel).astype("float64").ravel()
        u = w / np.sqrt(2 / fan_out)
        # Within five deviations of the mean and of the mean square of normal values.
        assert abs(u.mean()) < 5 / np.sqrt(u.size), name
        assert abs((u**2).mean() - 1) < 5 * np.sqrt(2 / u.size), name
        if u.size > 1e5:
            assert np.abs(u).max() > 3, name  # a truncated normal ends before 2.3


def test_normalizations_have_pytorchs_constants():
    model = encoders.resnet50((32, 32, 3), "imagenet", width=4)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 1 + 3 * 16 + 4
    assert {(x.momentum, x.epsilon, x.center, x.scale) for x in norms} == {(0.9, 1e-5, True, True)}


# The channel means and deviations of ImageNet on [0, 1], as every torchvision recipe has them.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def check_input_normalization(mean, std):
    model = encoders.resnet10(width=2)
    images = np.random.default_rng(0).integers(0, 256, size=(3, 32, 32, 3)).astype("uint8")
    normalized = part(model, "normalization", "normalization")(images)
    np.testing.assert_allclose(
        ops.convert_to_numpy(normalized), (images / 255 - mean) / std, rtol=1e-5, atol=1e-5
    )


def test_input_is_normalized_by_imagenets_statistics():
    check_input_normalization(MEAN, STD)


@pytest.mark.parametrize("mean, std", [(0.5, 0.5), (MEAN[::-1], STD[::-1]), (0 * MEAN, 1)])
def test_other_input_normalizations_are_rejected(mean, std):
    with pytest.raises(AssertionError):
        check_input_normalization(mean, std)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts_are_centred(channels):
    model = encoders.resnet10((16, 16, channels), width=2)
    images = np.stack([np.full((16, 16, channels), v, "float32") for v in (0, 127.5, 255)])
    x = ops.convert_to_numpy(part(model, "normalization", "normalization")(images))
    np.testing.assert_allclose(x[1], 0, atol=1e-6)
    np.testing.assert_allclose(x[0], -x[2], rtol=1e-6)
    np.testing.assert_allclose(x[2], 127.5 / 64, rtol=1e-5)
    assert ops.convert_to_numpy(model(images)).shape == (3, 16)


def test_uint8_and_float_images_give_the_same_features():
    model = randomized(encoders.resnet10(width=4))
    images = np.random.default_rng(0).integers(0, 256, size=(4, 32, 32, 3)).astype("uint8")
    a = ops.convert_to_numpy(model(images))
    b = ops.convert_to_numpy(model(images.astype("float32")))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), model.predict(images.astype("float32"), verbose=0)
    )
    assert np.abs(a[0] - a[1]).max() > 1e-3  # and they are features of the images


def test_features_are_averages_over_space():
    model = randomized(encoders.resnet10(width=4))
    images = np.random.default_rng(0).uniform(0, 255, size=(2, 32, 32, 3)).astype("float32")
    maps = keras.Model(model.inputs, model.get_layer("stage_4_1_relu").output)(images)
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(images)),
        ops.convert_to_numpy(maps).mean((1, 2)),
        rtol=1e-5,
        atol=1e-6,
    )


# Other image sizes


def numpy(x):
    return ops.convert_to_numpy(x)


def noise(size, n=4, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (n, size, size, 3)).astype("float32")


def sequential(size):
    """A model of models: one on maps, and one on features, which has no image size."""
    maps = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    pool = keras.layers.GlobalAveragePooling2D()
    return keras.Sequential([keras.Input((size, size, 3)), maps, pool, head])


def listed(size):
    """As `keras.Model([x], [y])`, whose inputs are a list."""
    x = keras.Input((size, size, 3))
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    return keras.Model([x], [y])


def within(size):
    x = keras.Input((size, size, 3))
    backbone = encoders.resnet10((size, size, 3), width=2)
    return keras.Model(x, backbone(keras.layers.Rescaling(0.5)(x)))


# Makers of an encoder for a size, and two sizes.
RESIZED = {
    "resnet10": (lambda size: encoders.resnet10((size, size, 3), width=2), 16, 9),
    "imagenet stem": (lambda size: encoders.resnet18((size, size, 3), width=2), 65, 40),
    "bottleneck": (lambda size: encoders.resnet50((size, size, 3), "cifar", width=2), 8, 12),
    "a model within": (within, 16, 9),
    "sequential": (sequential, 8, 5),
    "listed": (listed, 8, 5),
}


@pytest.mark.parametrize("make, size, other", RESIZED.values(), ids=RESIZED)
def test_at_size_is_an_encoder_made_at_that_size(make, size, other):
    encoder = randomized(make(size))
    reference, fresh, images = make(other), randomized(make(other)), noise(other)
    reference.set_weights(encoder.get_weights())
    small = encoders.at_size(encoder, other)
    assert small.input_shape == (None, other, other, 3)
    assert small.output_shape == encoder.output_shape
    assert {id(v) for v in small.variables} == {id(v) for v in encoder.variables}
    for training in (False, True):
        features, expected = (
            numpy(keras.tree.flatten(model(images, training=training))[0])
            for model in (small, reference)
        )
        scale = np.abs(expected).max()
        np.testing.assert_allclose(features, expected, atol=1e-4 * scale)
        # Weights of its own, or images scaled to the size of `encoder`, are something else.
        scaled = keras.tree.flatten(encoder(ops.image.resize(images, (size, size))))[0]
        for wrong in (keras.tree.flatten(fresh(images, training=training))[0], scaled):
            assert np.abs(features - numpy(wrong)).max() > 1e-2 * scale
    # Batch normalization in training has moved the running statistics of `encoder` alike.
    for v, expected in zip(encoder.variables, reference.variables, strict=True):
        np.testing.assert_allclose(numpy(v), numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("other, alike", [(64, True), (71, False)])
def test_an_application_takes_another_size(other, alike):
    encoder, reference = (
        encoders.application("MobileNetV3Small", (size, size, 3)) for size in (96, other)
    )
    reference.set_weights(encoder.get_weights())
    images = noise(other)
    features, expected = (numpy(f(images)) for f in (encoders.at_size(encoder, other), reference))
    # It pads an odd side by one pixel more than an even one, as those of 96 and of 64 are.
    assert (np.abs(features - expected).max() < 1e-3 * np.abs(expected).max()) == alike
    assert np.abs(features[0] - features[1]).max() > 1e-2 * np.abs(expected).max()


def test_its_own_size_is_the_encoder_itself():
    encoder = encoders.resnet10((16, 16, 3), width=2)
    assert encoders.at_size(encoder, 16) is encoder
    assert encoders.at_size(encoders.at_size(encoder, 8), 8) is not encoder


def test_at_size_leaves_the_encoder_as_it_was(tmp_path):
    encoder = randomized(encoders.application("MobileNetV3Small", (32, 32, 3)))
    config, images = encoder.get_config(), noise(32)
    expected = numpy(encoder(images))
    for size in (48, 64):
        encoders.at_size(encoder, size)
    assert encoder.get_config() == config
    assert encoder.input_shape == (None, 32, 32, 3)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(numpy(loaded(images)), expected)


@keras.saving.register_keras_serializable("tests")
class TwoSizes(keras.Model):
    """Trains its encoder on images of two sizes; `held` is how it keeps the encoder for the other.

    The loss is the mean of all features, of the images whose `weights` are 1.
    """

    def __init__(self, encoder, size, weights=(1, 1), held="function", **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.size, self.weighted, self.held = encoder, size, tuple(weights), held
        small = encoders.at_size(encoder, size)
        if held == "function":
            self.at_other = lambda x, training: small(x, training=training)
        else:
            self.at_other = small
        self.built = True

    def call(self, inputs, training=False):
        parts = zip(inputs, (self.encoder, self.at_other), self.weighted, strict=True)
        return [f(x, training=training) for x, f, weight in parts if weight]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return sum(ops.mean(ops.square(features)) for features in y_pred)

    def get_config(self):
        own = {"encoder": self.encoder, "size": self.size, "weights": self.weighted}
        return {**super().get_config(), **own, "held": self.held}

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)


def after_a_step(weights, held="function"):
    """The weights before and after one step of plain SGD from a fixed start."""
    keras.utils.set_random_seed(1)
    encoder = randomized(encoders.resnet10((16, 16, 3), width=2))
    model = TwoSizes(encoder, 8, weights, held)
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    before = {v.path: numpy(v) for v in encoder.variables}
    views = [noise(16, seed=2), noise(8, seed=3)]
    model.fit(views, batch_size=4, verbose=0)
    return before, {v.path: numpy(v) for v in encoder.variables}


def test_both_sizes_train_the_same_weights():
    before, both = after_a_step((1, 1))
    (_, first), (_, second) = after_a_step((1, 0)), after_a_step((0, 1))
    moved = 0
    for path, start in before.items():
        if "moving" in path:
            # (1 - m) m comes with the second of two averages, m = 0.9: 0.9 first + 0.1 batch.
            expected = 0.9 * first[path] + second[path] - 0.9 * start
        else:
            # Batch statistics are those of each size, so that gradients add.
            expected = first[path] + second[path] - start
        np.testing.assert_allclose(both[path], expected, rtol=1e-4, atol=1e-5, err_msg=path)
        # Had only one size trained the weights, this would have failed.
        moved += np.abs(both[path] - first[path]).max() > 1e-4
        moved += np.abs(both[path] - second[path]).max() > 1e-4
    assert moved > len(before)


def check_that_variables_count_once(held, path):
    import h5py

    encoder = randomized(encoders.resnet10((16, 16, 3), width=2))
    model = TwoSizes(encoder, 8, held=held)
    model.save(path / "model.keras")
    loaded = keras.saving.load_model(path / "model.keras")
    images = (noise(16), noise(8))
    for x, y in zip(loaded(images), model(images), strict=True):
        np.testing.assert_array_equal(numpy(x), numpy(y))
    for each in (model, loaded):
        assert len(each.variables) == len(each.encoder.variables)
        assert each.count_params() == each.encoder.count_params()
        assert each.layers == [each.encoder]
        assert len(each._flatten_layers()) == 1 + len(each.encoder._flatten_layers())
    model.save_weights(path / "model.weights.h5")
    found = []
    with h5py.File(path / "model.weights.h5") as file:
        file.visititems(lambda name, x: found.append(name) if hasattr(x, "dtype") else None)
    assert len(found) == len(encoder.variables)
    assert all(name.startswith("encoder/") for name in found)


def test_inside_a_function_it_is_tracked_and_saved_once(tmp_path):
    check_that_variables_count_once("function", tmp_path)


def test_as_an_attribute_it_is_not(tmp_path):
    with pytest.raises(AssertionError):
        check_that_variables_count_once("attribute", tmp_path)


def flattened(size):
    x = keras.Input((size, size, 3))
    return keras.Model(x, keras.layers.Dense(4)(keras.layers.Flatten()(x)))


def unpooled(size):
    x = keras.Input((size, size, 3))
    return keras.Model(x, keras.layers.Flatten()(keras.layers.Conv2D(3, 3)(x)))


def of_two(size):
    x = [keras.Input((size, size, 3)), keras.Input((size, size, 3))]
    return keras.Model(x, keras.layers.GlobalAveragePooling2D()(keras.layers.Add()(x)))


def of_vectors(size):
    return keras.Sequential([keras.Input((size,)), keras.layers.Dense(3)])


class Subclassed(keras.Model):
    def __init__(self, size):
        super().__init__()

    def call(self, images):
        return ops.mean(images, axis=(1, 2))


@pytest.mark.parametrize(
    "make, match",
    [
        (flattened, "`encoder` must take images of any size, .* at size=4: .*dense"),
        (unpooled, r"`encoder` must take images .* size=4: features \(None, 12\), not"),
        (of_two, "`encoder` must be a built .* of one input .* with inputs"),
        (of_vectors, "`encoder` must be a built .* of one input .* with inputs"),
        (Subclassed, "`encoder` must be a built .* of one input .* with inputs"),
    ],
)
def test_an_encoder_of_one_size_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        encoders.at_size(make(8), 4)


@pytest.mark.parametrize("size", [0, 8.0])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="`size` must be an integer >= 1. Received: size="):
        encoders.at_size(encoders.resnet10((16, 16, 3), width=2), size)


def test_the_table_of_encoders_holds_the_functions_of_those_names():
    for name, make in encoders.ENCODERS.items():
        assert getattr(encoders, name) is make


def test_an_application_by_name():
    model = encoders.application("MobileNetV3Small", (32, 32, 3))
    assert model.output_shape == (None, 576)  # its last convolution (arXiv 1905.02244, table 2)
    images = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3)).astype("uint8")
    features = ops.convert_to_numpy(model(images))
    assert features.shape == (2, 576) and np.isfinite(features).all()
    assert np.abs(features[0] - features[1]).max() > 0


def test_applications_without_preprocessing_are_normalized():
    model = encoders.application("MobileNetV2", (32, 32, 3))
    assert model.layers[1].name == "normalization"
    assert "normalization" not in {
        x.name for x in encoders.application("MobileNetV3Small", (32, 32, 3)).layers
    }


@pytest.mark.parametrize("name", ["ResNet9000", "resnet50", "Model", "__doc__"])
def test_an_unknown_application_names_the_known_ones(name):
    with pytest.raises(ValueError, match=rf"'{name}'.*EfficientNetV2B0.*MobileNetV3Small"):
        encoders.application(name)


@pytest.mark.parametrize(
    "arguments, match",
    [({"stem": "mnist"}, "`stem`.*stem='mnist'"), ({"width": 0}, "`width`.*width=0")],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        encoders.resnet10(**arguments)


def twin_in_loops(images, kernel, bias):
    """Normalization, mean over the channels, 3x3 convolution, ReLU, 2x2 maximum, flattened."""
    grey = np.zeros(images.shape[:3] + (1,))
    for i, y, x in np.ndindex(images.shape[:3]):
        for c in range(3):
            grey[i, y, x, 0] += (images[i, y, x, c] / 255 - MEAN[c]) / STD[c] / 3
    maps = oracle.conv2d(grey, kernel, stride=1, padding=1)
    n, height, width, filters = maps.shape
    features = np.zeros((n, height // 2, width // 2, filters))
    for i, y, x, o in np.ndindex(features.shape):
        window = [maps[i, 2 * y + r, 2 * x + s, o] + bias[o] for r in (0, 1) for s in (0, 1)]
        features[i, y, x, o] = max(0.0, *window)
    return features.reshape(n, -1)


def check_twin(make, height=6, width=7):
    model = make((height, width, 3), 3)
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 3, 1, 3)), rng.normal(-1, 1, size=3)
    model.set_weights([*model.get_weights()[:-2], kernel, bias])
    images = rng.integers(0, 256, size=(2, height, width, 3)).astype("uint8")
    expected = twin_in_loops(images, kernel, bias)
    assert 0.1 < (expected == 0).mean() < 0.9  # the ReLU is seen on either side
    actual = ops.convert_to_numpy(model(images))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("height, width", [(6, 7), (2, 2), (5, 4)])
def test_the_twin_is_convolution_relu_and_maximum(height, width):
    check_twin(encoders.twin, height, width)


def other_twin(padding="same", pool=keras.layers.MaxPooling2D, luma=False, relu="relu"):
    def make(input_shape, width):
        images = keras.Input(input_shape)
        x = encoders._normalization(3)(images)
        weights = np.array([0.299, 0.587, 0.114] if luma else [1 / 3] * 3, "float32")
        x = ops.sum(x * weights, axis=-1, keepdims=True)
        x = keras.layers.Conv2D(width, 3, padding=padding)(x)
        x = pool(2)(keras.layers.Activation(relu)(x))
        return keras.Model(images, keras.layers.Flatten()(x))

    return make


def channels_first(input_shape, width):
    model = other_twin()(input_shape, width)
    maps = keras.layers.Permute((3, 1, 2))(model.layers[-2].output)
    return keras.Model(model.input, keras.layers.Flatten()(maps))


def test_the_stand_in_of_the_wrong_twins_is_right_itself():
    check_twin(other_twin())


@pytest.mark.parametrize(
    "wrong",
    [
        other_twin(padding="valid"),
        other_twin(pool=keras.layers.AveragePooling2D),
        other_twin(luma=True),
        other_twin(relu="leaky_relu"),
        channels_first,
    ],
    ids=["unpadded", "average pooling", "luma", "leaky", "channels first"],
)
def test_wrong_twins_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_twin(wrong)


def test_the_default_twin_is_the_seeds():
    model = encoders.twin()
    assert model.output_shape == (None, 8 * 8 * 64) and model.name == "encoder"
    assert trainable(model) == 9 * 64 + 64
    kernel, bias = (ops.convert_to_numpy(v) for v in model.trainable_variables)
    # U(-1/3, 1/3), as torch.nn.Conv2d of nine inputs.
    for w in (kernel, bias):
        assert 0.3 < np.abs(w).max() <= 1 / 3
        assert abs(w.std() - 1 / 3 / np.sqrt(3)) < 5 * 0.19 / np.sqrt(2 * w.size)


def test_the_twin_of_one_channel():
    model = encoders.twin((6, 6, 1), width=2)
    images = np.random.default_rng(0).uniform(0, 255, size=(2, 6, 6, 1)).astype("float32")
    kernel = ops.convert_to_numpy(model.get_layer("conv").kernel)
    x = oracle.conv2d((images - 127.5) / 64, kernel, stride=1, padding=1)
    x = np.maximum(0, x + ops.convert_to_numpy(model.get_layer("conv").bias))
    expected = x.reshape(2, 3, 2, 3, 2, 2).max((2, 4)).reshape(2, -1)
    np.testing.assert_allclose(ops.convert_to_numpy(model(images)), expected, rtol=1e-4, atol=1e-5)


def test_the_twin_is_saved_whole(tmp_path):
    model = encoders.twin((8, 8, 3), width=4)
    images = np.random.default_rng(0).integers(0, 256, size=(2, 8, 8, 3)).astype("uint8")
    model.save(tmp_path / "twin.keras")
    loaded = keras.saving.load_model(tmp_path / "twin.keras")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_the_twin_in_half_precision():
    images = np.random.default_rng(0).integers(0, 256, size=(2, 8, 8, 3)).astype("uint8")
    whole = encoders.twin((8, 8, 3), width=4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = encoders.twin((8, 8, 3), width=4)
    half.set_weights(whole.get_weights())
    a, b = (ops.convert_to_numpy(ops.cast(m(images), "float32")) for m in (whole, half))
    # Eight bits of mantissa, sums of nine products of values up to 3.
    np.testing.assert_allclose(b, a, atol=0.05)
    assert np.abs(a).max() > 0.5 and np.abs(a - b).max() > 0


def test_the_twin_refuses_a_width_of_0():
    with pytest.raises(ValueError, match="`width` must be at least 1. Received: width=0"):
        encoders.twin(width=0)


@pytest.mark.parametrize(
    "flags, features",
    [({"encoder": "twin", "width": 3}, 12), ({"encoder": "resnet10", "width": 3}, 24)],
)
def test_flags_build_the_encoder_they_name(flags, features):
    from simsiam_keras import config, train

    cfg = config.Pretrain(stem="cifar", zero_init_residual=True, **flags)
    model = train.build_encoder(cfg, 4)
    assert model.output_shape == (None, features)
    gammas = [w for w in model.trainable_variables if w.path.endswith("b_norm/gamma")]
    assert all(np.all(ops.convert_to_numpy(w) == 0) for w in gammas)
    assert len(gammas) == (0 if flags["encoder"] == "twin" else 4)
