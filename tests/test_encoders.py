import keras
import numpy as np
import pytest

from simsiam_keras import encoders, start
from tests import oracle
from tests.tiny import noise, numpy, pixels, randomized


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
    expected = oracle.conv2d(images, numpy(variable), stride, padding=kernel // 2)
    actual = numpy(model(images))
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
    model = make(input_shape=(32, 32, 3), width=16)  # narrower ones: tests/test_onednn.py
    for name, (kernel, stride) in convolutions.items():
        layer = model.get_layer(f"stage_2_1_{name}_conv")
        assert (layer.kernel_size, layer.strides) == ((kernel, kernel), (stride, stride))


def check_identity_blocks(make, zero_init_residual):
    model = make(
        input_shape=(16, 16, 3), stem="cifar", width=4, zero_init_residual=zero_init_residual
    )
    images = noise(16, n=2)
    names = [layer.name for layer in model.layers if layer.name.endswith("_add")]
    taps = [model.get_layer(n).output for n in names] + [model.get_layer(n).input for n in names]
    values = [numpy(v) for v in keras.tree.flatten(keras.Model(model.inputs, taps)(images))]
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
    np.testing.assert_array_equal(numpy(block(x)), x)


def test_convolutions_start_as_torchvisions():
    # Kaiming normal, fan_out: deviation sqrt(2 / (filters * size^2)), not truncated.
    model = encoders.resnet18((32, 32, 3), "cifar")
    for name, fan_out in [
        ("stem_conv", 64 * 9),
        ("stage_2_1_a_conv", 128 * 9),
        ("stage_4_1_shortcut_conv", 512),
        ("stage_4_2_b_conv", 512 * 9),
    ]:
        w = numpy(model.get_layer(name).kernel).astype("float64").ravel()
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
    images = pixels(3, 32, 32, 3)
    normalized = part(model, "normalization", "normalization")(images)
    np.testing.assert_allclose(numpy(normalized), (images / 255 - mean) / std, rtol=1e-5, atol=1e-5)


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
    x = numpy(part(model, "normalization", "normalization")(images))
    np.testing.assert_allclose(x[1], 0, atol=1e-6)
    np.testing.assert_allclose(x[0], -x[2], rtol=1e-6)
    np.testing.assert_allclose(x[2], 127.5 / 64, rtol=1e-5)
    assert numpy(model(images)).shape == (3, 16)


def test_uint8_and_float_images_give_the_same_features():
    model = randomized(encoders.resnet10(width=4))
    images = pixels(4, 32, 32, 3)
    a = numpy(model(images))
    b = numpy(model(images.astype("float32")))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), model.predict(images.astype("float32"), verbose=0)
    )
    assert np.abs(a[0] - a[1]).max() > 1e-3  # and they are features of the images


def test_features_are_averages_over_space():
    model = randomized(encoders.resnet10(width=4))
    images = noise(32, n=2)
    maps = keras.Model(model.inputs, model.get_layer("stage_4_1_relu").output)(images)
    np.testing.assert_allclose(
        numpy(model(images)),
        numpy(maps).mean((1, 2)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_table_of_encoders_holds_the_functions_of_those_names():
    for name, make in encoders.ENCODERS.items():
        assert getattr(encoders, name) is make


def test_an_application_by_name():
    model = encoders.application("MobileNetV3Small", (32, 32, 3))
    assert model.output_shape == (None, 576)  # its last convolution (arXiv 1905.02244, table 2)
    images = pixels(2, 32, 32, 3)
    features = numpy(model(images))
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


@pytest.mark.parametrize(
    "flags, features",
    [({"encoder": "twin", "width": 3}, 12), ({"encoder": "resnet10", "width": 3}, 24)],
)
def test_flags_build_the_encoder_they_name(flags, features):
    from simsiam_keras import config

    cfg = config.make("pretrain", stem="cifar", zero_init_residual=True, **flags)
    model = start.architecture(cfg, 4)
    assert model.output_shape == (None, features)
    gammas = [w for w in model.trainable_variables if w.path.endswith("b_norm/gamma")]
    assert all(np.all(numpy(w) == 0) for w in gammas)
    assert len(gammas) == (0 if flags["encoder"] == "twin" else 4)
