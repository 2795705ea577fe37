import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from simsiam_keras.evaluation.linear import (
    LEARNING_RATES,
    held_out_split,
    linear_probe,
    train_heads,
)

FAST = dict(epochs=6, batch_size=128, learning_rates=(0.03, 0.3, 3.0))


def blobs(n=900, seed=0, spread=1.0, labels=(2, 5, 9)):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(9).normal(size=(len(labels), 8))
    y = rng.integers(0, len(labels), n)
    return (centers[y] + spread * rng.normal(size=(n, 8))).astype("float32"), np.array(labels)[y]


def probe(**options):
    x, y = blobs()
    test_x, test_y = blobs(600, seed=1)
    return linear_probe(x, y, test_x, test_y, **{**FAST, **options})


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_accuracy_is_that_of_logistic_regression(optimizer):
    x, y = blobs()
    test_x, test_y = blobs(600, seed=1)
    expected = LogisticRegression(C=1e4, max_iter=1000).fit(x, y).score(test_x, test_y)
    assert 0.75 < expected < 0.98
    result = probe(optimizer=optimizer, epochs=20, learning_rates=LEARNING_RATES)
    assert abs(result.linear_accuracy - expected) < 0.02


def test_the_result_is_the_classifier_that_was_measured():
    test_x, test_y = blobs(600, seed=1)
    result = probe()
    assert result.weights.shape == (8, 3) and result.bias.shape == (3,)
    predicted = result.classes[np.argmax(test_x @ result.weights + result.bias, -1)]
    assert result.linear_accuracy == np.mean(predicted == test_y)
    assert len(result.validation_accuracies) == len(result.learning_rates) == 3
    best = result.learning_rates.index(result.learning_rate)
    assert result.validation_accuracies[best] == max(result.validation_accuracies)


def test_the_protocol_says_what_was_done():
    result = probe()
    assert result.protocol == (
        "Softmax regression on frozen, cached features: SGD, momentum 0.9, no weight decay, "
        f"batch 128, 6 epochs, cosine decay; learning rate {result.learning_rate:g} x batch/256, "
        "the best of 3 on 91 held-out training vectors; retrained on all 900; test accuracy "
        "after the last epoch on 600 vectors; seed 0."
    )


def test_the_rate_is_chosen_without_the_test_part():
    x, y = blobs()
    test_x, test_y = blobs(600, seed=1)
    shuffled = np.random.default_rng(0).permutation(test_y)
    a = linear_probe(x, y, test_x, test_y, **FAST)
    b = linear_probe(x, y, test_x + 5, shuffled, **FAST)
    assert a.learning_rate == b.learning_rate
    assert a.validation_accuracies == b.validation_accuracies
    np.testing.assert_array_equal(a.weights, b.weights)
    assert b.linear_accuracy < a.linear_accuracy


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_a_head_of_the_sweep_is_a_head_trained_alone(optimizer):
    x, y = blobs(300, labels=(0, 1, 2))
    rates = (0.01, 0.3, 2.0)
    options = dict(optimizer=optimizer, batch_size=64, epochs=3, seed=4)
    together = train_heads(x, y, np.arange(300), rates, **options)
    for i, rate in enumerate(rates):
        alone = train_heads(x, y, np.arange(300), (rate,), **options)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a.take(i, -2), b.take(0, -2), rtol=1e-5, atol=1e-5)


def oracle(x, y, rate, optimizer, batch, epochs, seed, rate_inside=False, scale=True):
    """Softmax regression in loops over the samples, with the authors' update."""
    w = np.random.default_rng(seed).normal(0, 0.01, (x.shape[1], y.max() + 1))
    parameters = [w, np.zeros(y.max() + 1)]
    buffers = [0.0, 0.0]
    steps = -(-len(x) // batch)
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            gradients = [np.zeros_like(p) for p in parameters]
            for i in rows:
                logits = x[i].astype("float64") @ parameters[0] + parameters[1]
                error = np.exp(logits - logits.max())
                error /= error.sum()
                error[y[i]] -= 1
                gradients[0] += np.outer(x[i], error) / len(rows)
                gradients[1] += error / len(rows)
            progress = (epoch * steps + step) / (epochs * steps)
            lr = rate * (batch / 256 if scale else 1) * (1 + np.cos(np.pi * progress)) / 2
            for j, g in enumerate(gradients):
                norm = np.linalg.norm(parameters[j])
                if optimizer == "lars" and norm > 0:
                    g = 0.001 * norm / np.linalg.norm(g) * g
                buffers[j] = 0.9 * buffers[j] + (lr * g if rate_inside else g)
                parameters[j] = parameters[j] - (1 if rate_inside else lr) * buffers[j]
    return parameters


@pytest.mark.parametrize("optimizer, rate", [("sgd", 0.7), ("lars", 400.0)])
def test_training_is_the_authors_update(optimizer, rate):
    x, y = blobs(150, labels=(0, 1, 2))
    options = dict(optimizer=optimizer, epochs=3, seed=1)
    kernel, bias = train_heads(x, y, np.arange(150), (rate,), batch_size=40, **options)
    weights, offsets = oracle(x, y, rate, batch=40, **options)
    np.testing.assert_allclose(kernel[:, 0], weights, atol=1e-4)
    np.testing.assert_allclose(bias[0], offsets, atol=1e-4)
    for wrong in ({"rate_inside": True}, {"scale": False}):
        other = oracle(x, y, rate, batch=40, **options, **wrong)[0]
        assert np.abs(kernel[:, 0] - other).max() > 1e-3


def test_a_seed_repeats_and_another_differs():
    a, b, c = probe(), probe(), probe(seed=1)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert a.validation_accuracies == b.validation_accuracies
    assert np.abs(a.weights - c.weights).max() > 1e-6


def test_the_grids_edge_is_told():
    assert probe(learning_rates=(1e-6, 1e-5, 0.1)).at_grid_edge
    assert not probe(learning_rates=(0.1,)).at_grid_edge


def test_a_rate_that_diverges_is_not_chosen():
    with np.errstate(all="raise"):
        result = probe(optimizer="lars", epochs=20, learning_rates=(30.0, 1e6))
    assert result.learning_rate == 30.0 and result.linear_accuracy > 0.9
    assert result.validation_accuracies[1] < 0.6


def test_equal_rates_are_chosen_from_the_middle():
    x, y = blobs(spread=0.01)
    result = linear_probe(x, y, x, y, **FAST)
    assert set(result.validation_accuracies) == {1.0}
    assert result.learning_rate == 0.3 and not result.at_grid_edge


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_may_be_memory_maps(tmp_path, dtype):
    x, y = blobs()
    x = x.astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    a, b = linear_probe(mapped, y, mapped, y, **FAST), linear_probe(x, y, x, y, **FAST)
    np.testing.assert_array_equal(a.weights, b.weights)


def test_labels_may_be_names():
    x, y = blobs()
    names = np.char.add("class ", y.astype(str))
    named, numbered = linear_probe(x, names, x, names, **FAST), linear_probe(x, y, x, y, **FAST)
    assert named.linear_accuracy == numbered.linear_accuracy
    assert named.classes.tolist() == ["class 2", "class 5", "class 9"]


def test_the_batch_is_capped_to_the_data():
    result = probe(optimizer="lars", batch_size=None, epochs=2)
    assert result.batch_size == 900


def test_the_held_out_part_is_stratified():
    classes = np.repeat([0, 1, 2, 3], [100, 50, 3, 1])
    fit, held_out = held_out_split(classes, 0.1, seed=0)
    assert np.bincount(classes[held_out], minlength=4).tolist() == [10, 5, 1, 0]
    np.testing.assert_array_equal(np.sort(np.concatenate([fit, held_out])), np.arange(154))
    again, other = (held_out_split(classes, 0.1, seed=s)[1] for s in (0, 1))
    assert (again == held_out).all() and (other != held_out).any()
    assert np.unique(classes[held_out_split(classes, 0.99, 0)[0]]).tolist() == [0, 1, 2, 3]


def test_the_bar_goes_to_standard_error(capfd):
    probe(epochs=1, progress=True)
    captured = capfd.readouterr()
    assert not captured.out and "sweep" in captured.err and "final" in captured.err
    probe(epochs=1)
    assert "sweep" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        ({"optimizer": "adam"}, "`optimizer` must be 'sgd' or 'lars'. Received: optimizer='adam'"),
        ({"learning_rates": ()}, "`learning_rates` must hold at least one rate"),
        ({"learning_rates": (0.1, 0)}, "`learning_rates` must hold at least one rate, each > 0"),
        ({"batch_size": 0}, "`batch_size` and `epochs` must be >= 1. Received: batch_size=0"),
        ({"epochs": 0}, "`batch_size` and `epochs` must be >= 1"),
        ({"validation_fraction": 1}, r"`validation_fraction` must be in \(0, 1\)"),
        ({"train_labels": [0, 0, 0, 0]}, "at least 2 classes: fewer classes than expected"),
        ({"train_labels": [0, 1]}, "`train_labels` must hold one label for each of the 4"),
        ({"train_labels": [0, 1, 2, 3]}, "`train_labels` must hold a class twice"),
        ({"test_labels": [0, 5]}, r"fewer classes than expected. Received: .* without \[5\]"),
        ({"test_labels": np.eye(2)}, "`test_labels` must hold one label for each of the 2"),
        ({"test_features": np.ones((2, 3))}, "`test_features` must be as wide"),
        ({"train_features": np.ones(4)}, r"`train_features` must be a non-empty \[n, d\] array"),
        ({"train_features": np.full((4, 2), np.nan)}, "`train_features` must be finite"),
        ({"test_features": np.full((2, 2), np.inf)}, "`test_features` must be finite"),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = dict(
        train_features=np.eye(4, 2),
        train_labels=[0, 1, 0, 1],
        test_features=np.eye(2),
        test_labels=[0, 1],
    )
    with pytest.raises(ValueError, match=message):
        linear_probe(**{**arguments, **change})
