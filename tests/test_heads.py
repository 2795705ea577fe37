import keras
import numpy as np
import pytest
from keras import ops

from simsiam_keras import heads
from tests import oracle


def signature(table, input_dim=2048):
    """What a table prescribes: (in, out, norm, affine, relu) of each linear layer."""
    rows, width = [], input_dim
    for row in table:
        units = input_dim if row.units is None else row.units
        rows.append((width, units, row.norm, row.norm and row.affine, row.relu))
        width = units
    return rows


def signature_of_model(model):
    """The same, read from the layers in order."""
    rows = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            assert keras.activations.serialize(layer.activation) == "linear"
            rows.append([layer.kernel.shape[0], layer.units, False, False, False])
        elif isinstance(layer, keras.layers.BatchNormalization):
            assert layer.center == layer.scale
            rows[-1][2:4] = True, layer.center
        elif isinstance(layer, keras.layers.ReLU):
            rows[-1][4] = True
    return [tuple(row) for row in rows]


# Section 3: "BN applied to each fully-connected layer, including its output fc. Its output fc has
# no ReLU. The hidden fc is 2048-d. This MLP has 3 layers."; two on CIFAR-10 (appendix D); the
# authors' code gives the output's BN no affine.
PROJECTOR_3 = [
    (512, 2048, True, True, True),
    (2048, 2048, True, True, True),
    (2048, 2048, True, False, False),
]
PROJECTOR_2 = [PROJECTOR_3[0], PROJECTOR_3[2]]
# "BN applied to its hidden fc layers. Its output fc does not have BN or ReLU. This MLP has 2
# layers. ... d = 2048, and h's hidden layer's dimension is 512".
PREDICTOR = [(2048, 512, True, True, True), (512, 2048, False, False, False)]


def test_tables_equal_the_paper():
    assert signature(heads.projector(), 512) == PROJECTOR_2
    assert signature(heads.projector(layers=3), 512) == PROJECTOR_3
    assert signature(heads.projector(2048, layers=1), 512) == [(512, 2048, True, False, False)]
    assert signature(heads.projector(output_affine=True), 512)[-1] == (
        2048,
        2048,
        True,
        True,
        False,
    )
    assert signature(heads.predictor()) == PREDICTOR


# Table 3: case, projector's hidden and output BN, predictor's hidden and output BN.
TABLE_3 = """
none     -  -  -  -
hidden   x  -  x  -
default  x  x  x  -
all      x  x  x  x
"""


def check_table_3(projector, predictor):
    """BN in exactly the layers that the table marks, and a bias in exactly the others."""
    for line in TABLE_3.split("\n")[1:-1]:
        case, *marks = line.split()
        wanted = [mark == "x" for mark in marks]
        models = build(projector(case), 8), build(predictor(case), 8)
        found = [row[2] for model in models for row in signature_of_model(model)]
        assert found == [wanted[0], *wanted], case  # the projector has two hidden layers
        dense = [x for m in models for x in m.layers if isinstance(x, keras.layers.Dense)]
        assert [not layer.use_bias for layer in dense] == found, case


def projector_3(case):
    return heads.projector(8, layers=3, batch_norm=case)


def predictor_4(case):
    return heads.predictor(4, batch_norm=case)


def test_batch_norm_is_where_table_3_says():
    check_table_3(projector_3, predictor_4)


@pytest.mark.parametrize(
    "wrong",
    [
        (lambda case: heads.projector(8, layers=3), predictor_4),
        (projector_3, lambda case: heads.predictor(4)),
        (lambda case: predictor_4(case)[:1] * 2 + predictor_4(case)[1:], predictor_4),
    ],
)
def test_other_tables_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_table_3(*wrong)


def test_batch_norm_on_the_predictors_output_is_affine_and_the_projectors_is_not():
    assert heads.predictor(4, batch_norm="all")[-1] == heads.Row(None, relu=False)
    assert not heads.projector(8, batch_norm="all")[-1].affine
    assert heads.projector(8, output_affine=True, batch_norm="all")[-1].affine


def test_frozen_heads_keep_their_weights_and_go_on_with_batch_statistics():
    model, twin = (build(heads.predictor(4), 8) for _ in range(2))
    twin.set_weights(model.get_weights())
    heads.freeze(model)
    assert model.trainable_variables == [] and len(model.weights) == 7
    x = np.random.default_rng(0).normal(3, 2, size=(16, 8)).astype("float32")
    expected = ops.convert_to_numpy(twin(x, training=True))
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x, training=True)), expected)
    twin.trainable = False  # the other way, which is not the same
    assert np.abs(ops.convert_to_numpy(twin(x, training=True)) - expected).max() > 0.01


def check_layers(build, table, input_dim, expected):
    model = build(table, input_dim)
    assert signature_of_model(model) == expected
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            followed_by_norm = expected[int(layer.name.rsplit("_", 1)[1]) - 1][2]
            assert layer.use_bias != followed_by_norm
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


def build(table, input_dim):
    return heads.build(table, input_dim, name="head")


@pytest.mark.parametrize(
    "table, input_dim, expected",
    [
        (heads.projector(), 512, PROJECTOR_2),
        (heads.projector(layers=3), 512, PROJECTOR_3),
        (heads.predictor(), 2048, PREDICTOR),
    ],
)
def test_built_layers_are_those_of_the_table(table, input_dim, expected):
    check_layers(build, table, input_dim, expected)


def changed(**change):
    return lambda table, input_dim: build([row._replace(**change) for row in table], input_dim)


def keras_norm(table, input_dim):
    model = build(table, input_dim)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.99
    return model


@pytest.mark.parametrize(
    "wrong", [changed(relu=True), changed(norm=False), changed(affine=True), keras_norm]
)
def test_heads_that_are_not_the_papers_are_rejected(wrong):
    with pytest.raises(AssertionError):
        check_layers(wrong, heads.projector(), 512, PROJECTOR_2)


@pytest.mark.parametrize(
    "table, input_dim, trainable, statistics",
    [
        # Weights of each layer, then 2 per channel of an affine BN; no bias before BN.
        (heads.projector(), 512, 512 * 2048 + 2 * 2048 + 2048 * 2048, 2 * 2 * 2048),
        (
            heads.projector(layers=3),
            2048,
            2048**2 + 2 * 2048 + 2048**2 + 2 * 2048 + 2048**2,
            3 * 2 * 2048,
        ),
        (heads.projector(64, output_affine=True), 32, 32 * 64 + 128 + 64 * 64 + 128, 2 * 2 * 64),
        (heads.predictor(), 2048, 2048 * 512 + 2 * 512 + 512 * 2048 + 2048, 2 * 512),
        (heads.predictor(hidden=4), 16, 16 * 4 + 8 + 4 * 16 + 16, 8),
    ],
)
def test_parameter_counts(table, input_dim, trainable, statistics):
    model = build(table, input_dim)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == trainable
    assert sum(int(np.prod(v.shape)) for v in model.non_trainable_variables) == statistics


def check_initializer(model):
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Dense):
            continue
        fan_in = layer.kernel.shape[0]
        bound = 1 / np.sqrt(fan_in)
        for variable in layer.trainable_variables:
            w = ops.convert_to_numpy(variable).astype("float64").ravel()
            assert np.abs(w).max() <= bound * (1 + 1e-6)
            # n uniform values miss each end by more than 20/n of the range with probability e^-20;
            # their mean and mean square are normal around 0 and 1/3, here within five deviations.
            n, u = w.size, w / bound
            assert u.max() > 1 - 40 / n and u.min() < -1 + 40 / n
            assert abs(u.mean()) < 5 * np.sqrt(1 / 3 / n)
            assert abs((u**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / n)


def test_initializer_is_uniform_within_the_root_of_fan_in():
    check_initializer(build(heads.projector(256), 512))
    check_initializer(build(heads.predictor(128), 512))  # kernels, and the bias of the output


@pytest.mark.parametrize(
    "wrong",
    [
        "glorot_uniform",
        "he_uniform",
        "zeros",
        keras.initializers.RandomNormal(stddev=1 / np.sqrt(3 * 512)),
        # U(+-1/fan_in)
        keras.initializers.RandomUniform(-1 / 512, 1 / 512),
    ],
)
def test_other_initializers_are_rejected(wrong):
    inputs = keras.Input((512,))
    model = keras.Model(inputs, keras.layers.Dense(256, kernel_initializer=wrong)(inputs))
    with pytest.raises(AssertionError):
        check_initializer(model)


def forward(table, x, variables):
    """The head as written in the paper, over the built model's own weights."""
    variables, h = list(variables), x
    for i in range(len(table)):
        _, _, norm, affine, relu = table[i]
        h = oracle.linear(h, variables.pop(0), None if norm else variables.pop(0))
        if norm:
            gamma, beta = (variables.pop(0), variables.pop(0)) if affine else (None, None)
            h = oracle.batch_norm(h, gamma, beta)
        if relu:
            h = np.maximum(h, 0)
    assert not variables
    return h


def check_forward(table, expected_rows):
    rng = np.random.default_rng(0)
    model = build(table, 6)
    for v in model.trainable_variables:  # so that gamma and beta are not at one and zero
        v.assign(rng.normal(size=v.shape))
    x = rng.normal(size=(9, 6)).astype("float32")
    weights = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    expected = forward(expected_rows, x, weights)
    actual = ops.convert_to_numpy(model(x, training=True))
    # float32 sums of a dozen terms of order 1, divided by deviations above .1.
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


PROJECTOR_ROWS = [(6, 8, True, True, True), (8, 8, True, False, False)]
PREDICTOR_ROWS = [(6, 3, True, True, True), (3, 6, False, False, False)]


def test_heads_compute_what_the_paper_says():
    check_forward(heads.projector(8), PROJECTOR_ROWS)
    check_forward(heads.predictor(3), PREDICTOR_ROWS)


def test_the_forward_oracle_tells_heads_apart():
    relu_at_the_output = [PROJECTOR_ROWS[0], (8, 8, True, False, True)]
    no_relu = [(6, 8, True, True, False), PROJECTOR_ROWS[1]]
    for wrong in (relu_at_the_output, no_relu):
        with pytest.raises(AssertionError):
            check_forward(heads.projector(8), wrong)
    with pytest.raises(AssertionError):
        check_forward(heads.predictor(3), [(6, 3, True, True, False), PREDICTOR_ROWS[1]])


def test_running_statistics_move_by_a_tenth():
    model = build((heads.Row(4, affine=False, relu=False),), 4)
    x = np.random.default_rng(0).normal(3, 2, size=(64, 4)).astype("float32")
    h = x @ ops.convert_to_numpy(model.trainable_variables[0])
    model(x, training=True)
    norm = model.get_layer("head_norm_1")
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_mean), 0.1 * h.mean(0), rtol=1e-4, atol=1e-5
    )
    # Keras keeps the biased variance, PyTorch n / (n - 1) of it: 1.6 % at 64 samples.
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_variance), 0.9 + 0.1 * h.var(0), rtol=1e-2
    )
    y = ops.convert_to_numpy(model(x, training=False))
    mean, variance = (ops.convert_to_numpy(v) for v in (norm.moving_mean, norm.moving_variance))
    np.testing.assert_allclose(y, (h - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-4)


def test_a_layer_is_taken_as_it_is():
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    assert heads.build(head, 4, name="projector") is head


@pytest.mark.parametrize("arguments", [{"layers": 0}, {"dim": 0}, {"layers": -1}])
def test_projector_errors_name_the_value(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"`layers` and `dim`.*{name}={value}"):
        heads.projector(**arguments)


def test_no_rows_are_the_identity():
    model, x = build((), 6), np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    assert model.output_shape == (None, 6) and model.weights == []
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x, training=True)), x)


@pytest.mark.parametrize("case", ["none", "hidden"])
def test_an_affine_output_needs_normalization(case):
    with pytest.raises(ValueError, match=f"`output_affine` must be False .*batch_norm='{case}'"):
        heads.projector(8, output_affine=True, batch_norm=case)


@pytest.mark.parametrize("head", [heads.projector, heads.predictor])
def test_an_unknown_batch_norm_is_named(head):
    with pytest.raises(ValueError, match="`batch_norm` must be one of .* batch_norm='both'"):
        head(batch_norm="both")


def test_predictor_error_names_the_value():
    with pytest.raises(ValueError, match="`hidden`.*hidden=0"):
        heads.predictor(0)
