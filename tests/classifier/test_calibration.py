"""Temperature, calibration error and thresholds: closed forms, loops, and wrong formulas."""

import numpy as np
import pytest

from simsiam_keras.classifier import calibration


def some(n=200, classes=4, seed=0, scale=3.0):
    random = np.random.default_rng(seed)
    logits = random.normal(0, scale, (n, classes))
    numbers = np.where(random.random(n) < 0.6, logits.argmax(-1), random.integers(0, classes, n))
    return logits, numbers


def cross_entropy(logits, numbers, temperature, prior):
    """By loops: the mean cross-entropy with smoothed labels."""
    n, classes = logits.shape
    share, total = prior / (n + prior), 0.0
    for row, number in zip(logits / temperature, numbers, strict=True):
        log = row - np.log(np.exp(row).sum())
        for c in range(classes):
            total -= ((1 - share) * (c == number) + share / classes) * log[c]
    return total / n


@pytest.mark.parametrize("prior", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_temperature_minimizes_the_cross_entropy(prior, scale):
    logits, numbers = some(scale=scale)
    found = calibration.temperature(logits, numbers, prior)
    least = cross_entropy(logits, numbers, found, prior)
    for other in found * np.array([0.8, 0.95, 0.99, 1.01, 1.05, 1.3]):
        assert cross_entropy(logits, numbers, other, prior) > least
    inverted = 1 / found  # the wrong way round
    assert cross_entropy(logits, numbers, inverted, prior) > least + 1e-3


@pytest.mark.parametrize("right", [7, 9, 10])
def test_the_temperature_of_two_classes_has_a_closed_form(right):
    """Logits a and 0, `right` of ten right: sigmoid(a / T) is the smoothed share."""
    logits, numbers = np.tile([2.0, 0.0], (10, 1)), np.arange(10) >= right
    share = (10 / 11) * right / 10 + (1 / 11) / 2
    expected = 2.0 / np.log(share / (1 - share))
    found = calibration.temperature(logits, numbers.astype(int))
    assert found == pytest.approx(expected, rel=1e-6)


def test_few_images_that_are_all_right_make_nothing_certain():
    logits, numbers = np.eye(3)[np.arange(12) % 3] * 2.0, np.arange(12) % 3
    found = calibration.temperature(logits, numbers)
    assert calibration.probabilities(logits, found).max() < 0.97
    without = calibration.temperature(logits, numbers, prior=0.0)
    assert without == pytest.approx(calibration.COOLEST)
    assert calibration.probabilities(logits, without).max() > 0.9999
    many = np.tile(logits, (1000, 1))  # where it counts for nothing
    assert calibration.temperature(many, np.arange(12000) % 3) < 0.3


def test_logits_that_tell_nothing_become_uniform():
    logits, numbers = some(seed=1)
    wrong = (logits.argmax(-1) + 1) % 4
    assert calibration.temperature(logits, wrong) == pytest.approx(calibration.HOTTEST)


def test_a_temperature_is_found_again():
    """Of labels that are drawn from the probabilities at 2.5."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (20000, 3))
    drawn = calibration.probabilities(logits, 2.5).cumsum(-1) < random.random((20000, 1))
    assert calibration.temperature(logits, drawn.sum(-1)) == pytest.approx(2.5, rel=0.05)


def test_likelihoods_are_logarithms_of_probabilities():
    logits, numbers = some(20)
    each = [-cross_entropy(logits[i : i + 1], numbers[i : i + 1], 2.0, 0.0) for i in range(20)]
    found = calibration.likelihoods(logits, numbers, 2.0)
    np.testing.assert_allclose(found, each)
    assert np.abs(found - calibration.likelihoods(logits, numbers, 0.5)).max() > 0.1
    assert np.isfinite(calibration.likelihoods(1e4 * logits, numbers)).all()


def test_a_gain_has_the_standard_error_of_a_mean():
    random = np.random.default_rng(0)
    a, b = random.normal(0.3, 1, 50), random.normal(0, 2, 50)
    mean, error = calibration.gain(a, b)
    assert mean == pytest.approx((a - b).mean())
    assert error == pytest.approx((a - b).std(ddof=1) / np.sqrt(50))
    apart = np.sqrt(a.var(ddof=1) / 50 + b.var(ddof=1) / 50)  # of other images
    assert abs(error - apart) > 0.001
    same = calibration.gain(a, b, np.full(50, 7.0))
    assert same == pytest.approx((mean, error))
    # Two groups that count alike: the error of the mean of two means, but for 1 / (n - 1).
    weights = np.r_[np.full(40, 1 / 40), np.full(10, 1 / 10)]
    mean, error = calibration.gain(a, b, weights)
    d = a - b
    assert mean == pytest.approx((d[:40].mean() + d[40:].mean()) / 2)
    squares = ((d[:40] - mean) ** 2).mean() / 40 + ((d[40:] - mean) ** 2).mean() / 10
    assert error == pytest.approx(np.sqrt(squares / 4), rel=0.02)
    assert calibration.gain([1.0], [0.0]) == (1.0, np.inf)


def test_the_best_of_many_by_chance_exceeds_that_in_five_percent():
    random = np.random.default_rng(0)
    for n, tries in ((12, 20), (60, 5), (2, 1)):
        values = random.normal(size=(4000, tries, n))
        means, errors = values.mean(-1), values.std(-1, ddof=1) / np.sqrt(n)
        beyond = ((means / errors).max(-1) > calibration.errors_by_chance(n, tries)).mean()
        assert 0.04 < beyond < 0.06
        if tries > 1:  # two standard errors are far too few
            assert ((means / errors).max(-1) > 2).mean() > 0.1
    assert calibration.errors_by_chance(1, 3) == np.inf


def error_by_loops(confidence, right, bins=15, middle=False):
    total = 0.0
    for b in range(bins):
        within = [i for i, c in enumerate(confidence) if b / bins < c <= (b + 1) / bins]
        if within:
            share = sum(right[i] for i in within) / len(within)
            mean = sum(confidence[i] for i in within) / len(within)
            mean = (b + 0.5) / bins if middle else mean
            total += len(within) / len(confidence) * abs(share - mean)
    return total


def test_the_calibration_error_is_that_of_loops():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.01, 1, 500)
    right = random.random(500) < confidence**2
    expected = error_by_loops(confidence, right)
    assert calibration.calibration_error(confidence, right) == pytest.approx(expected)
    assert abs(error_by_loops(confidence, right, middle=True) - expected) > 1e-4
    squares = np.mean(np.abs(confidence - right))  # without bins
    assert abs(squares - expected) > 0.05


def test_the_calibration_error_has_its_extremes():
    assert calibration.calibration_error(np.ones(5), np.ones(5)) == 0
    assert calibration.calibration_error(np.ones(5), np.zeros(5)) == 1
    assert calibration.calibration_error([0.8] * 10, [True] * 8 + [False] * 2) < 1e-12
    count, mean, share = calibration.reliability([1 / 15, 1 / 15 + 1e-9, 1.0], [1, 0, 1])
    assert count.tolist() == [1, 1, *[0] * 12, 1] and share[0] == 1 and share[1] == 0
    assert mean[-1] == 1


def lowest_by_loops(confidence, right, precision, counted=False):
    found = []
    for threshold in sorted(set(confidence)):
        above = [r for c, r in zip(confidence, right, strict=True) if c >= threshold]
        share = np.mean(above) if counted else (sum(above) + 1) / (len(above) + 2)
        if share >= precision:
            found.append((threshold, len(above), sum(above)))
    return min(found, default=None)


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_threshold_is_the_lowest_that_will_do(precision):
    for seed in range(5):
        random = np.random.default_rng(seed)
        confidence = random.uniform(0.2, 1, 300).round(2)  # with equal ones
        right = random.random(300) < confidence
        found = calibration.sure(calibration.thresholds(confidence, right), precision)
        expected = lowest_by_loops(confidence, right, precision)
        assert (found and (found.threshold, found.images, found.right)) == expected
        if found:
            above = confidence >= found.threshold
            assert right[above].mean() >= precision  # what was asked for, as counted


def test_few_images_are_not_taken_for_a_proof():
    confidence, right = np.linspace(0.5, 1, 12), np.ones(12, bool)
    assert lowest_by_loops(confidence, right, 0.95, counted=True) is not None
    assert calibration.sure(calibration.thresholds(confidence, right), 0.95) is None
    assert calibration.fewest(0.95) == 18 and calibration.fewest(0.9) == 8
    for precision in (0.75, 0.9, 0.95, 0.99):
        n = calibration.fewest(precision)
        for images, enough in ((n, True), (n - 1, False)):
            found = calibration.thresholds(np.full(images, 0.9), np.ones(images, bool))
            assert bool(calibration.sure(found, precision)) == enough
