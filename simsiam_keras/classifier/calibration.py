"""How far probabilities may be believed: temperature, calibration error, and when to be sure."""

import dataclasses

import numpy as np

BINS = 15
COOLEST, HOTTEST = 1e-2, 1e2  # temperatures
PRECISION = 0.95  # of what is called sure, where nobody says


@dataclasses.dataclass(frozen=True)
class Sure:
    """From which probability on an image is called sure.

    Attributes:
        threshold: that probability.
        images: held-out images that have it.
        right: how many of these were right.
    """

    threshold: float
    images: int
    right: int


def probabilities(logits, temperature=1.0):
    """Softmax of `logits / temperature`, float64 `[n, classes]`."""
    return np.exp(_log_softmax(logits, temperature))


def likelihoods(logits, numbers, temperature=1.0):
    """Logarithm of the probability of each image's right class `[n]`.

    Args:
        logits: `[n, classes]`.
        numbers: of the right classes `[n]`.
        temperature: that logits are divided by; default 1.
    """
    return _log_softmax(logits, temperature)[np.arange(len(numbers)), numbers]


def gain(values, others, weights=None):
    """By how much values exceed others of the same images, and the standard error of that.

    Args:
        values: `[n]`, n >= 1.
        others: likewise.
        weights: of the images `[n]`; default None, all alike.

    Returns:
        The weighted mean of the difference, and its standard error: infinite of one image.
    """
    difference = np.asarray(values) - others
    share = np.ones(len(difference)) if weights is None else np.asarray(weights, "float64")
    share = share / share.sum()
    mean = float((share * difference).sum())
    if len(difference) < 2:
        return mean, np.inf
    squares = (share**2 * (difference - mean) ** 2).sum() * len(share) / (len(share) - 1)
    return mean, float(np.sqrt(squares))


def errors_by_chance(n, tries, level=0.05):
    """Standard errors that the best of several means exceeds 0 by with a probability of 5 %.

    Student's quantile with `n - 1` degrees of freedom at `1 - level / tries` (Bonferroni): 3.5 of
    12 images and 20 tries, 2.8 of 400. Means that go together, as those of epochs, do so less.

    Args:
        n: images of each mean, at least 1.
        tries: how many means, at least 1.
        level: the probability; default 0.05.

    Returns:
        A float; infinity of one image.
    """
    from scipy import stats

    return float(stats.t.ppf(1 - level / tries, n - 1)) if n > 1 else np.inf


def temperature(logits, numbers, prior=1.0):
    """The temperature T by which the probabilities of held-out images are the likeliest.

    It minimizes the cross-entropy of `softmax(logits / T)` with the labels, which is convex in
    1 / T. The labels are mixed with `prior` images' worth of uniform ones, `(1 - e) label + e /
    classes` with `e = prior / (n + prior)`: a handful of images that are all right would otherwise
    make certain of everything. With 0 it is the paper's; of many images there is no difference.

    Args:
        logits: `[n, classes]`, n >= 1.
        numbers: of the right classes `[n]`.
        prior: at least 0; default 1.

    Returns:
        A float within [0.01, 100].

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2,
        https://arxiv.org/abs/1706.04599
    """
    logits = _shifted(logits)
    n, classes = logits.shape
    smoothed = prior / (n + prior)
    target = (1 - smoothed) * logits[np.arange(n), numbers] + smoothed * logits.mean(-1)

    def slope(inverse):  # of the cross-entropy; it only rises
        return ((probabilities(logits, 1 / inverse) * logits).sum(-1) - target).mean()

    low, high = np.log(1 / HOTTEST), np.log(1 / COOLEST)
    for _ in range(60):
        middle = (low + high) / 2
        if slope(np.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return float(np.clip(np.exp(-(low + high) / 2), COOLEST, HOTTEST))


def reliability(confidence, right, bins=BINS):
    """What share of the images of like confidence is right.

    Args:
        confidence: probability of the class that is said `[n]`, in [0, 1].
        right: whether it is the right one `[n]`.
        bins: intervals `(i / bins, (i + 1) / bins]`.

    Returns:
        Images, mean confidence and share that is right of each bin, three arrays `[bins]`; 0 where
        there is no image.
    """
    place = np.clip(np.ceil(np.asarray(confidence) * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.maximum(count, 1)
    mean = np.bincount(place, confidence, minlength=bins) / some
    return count, mean, np.bincount(place, right, minlength=bins) / some


def calibration_error(confidence, right, bins=BINS):
    """The expected calibration error, `sum_b n_b / n |share right - mean confidence|`.

    Args:
        confidence: as in `reliability`.
        right: likewise.
        bins: likewise.

    Returns:
        A float in [0, 1].

    Reference:
        Guo et al. 2017, equation 3, https://arxiv.org/abs/1706.04599
    """
    count, mean, share = reliability(confidence, right, bins)
    return float((count * np.abs(share - mean)).sum() / count.sum())


def thresholds(confidence, right):
    """From which confidence on held-out images are right how often: what `sure` chooses from.

    Of the images with at least some confidence, `(right + 1) / (images + 2)` is taken for the share
    that is right (Laplace): it is below what was counted where most are right, the more so the
    fewer there are. Only those are listed that no lower confidence equals.

    Args:
        confidence: of held-out images `[n]`.
        right: whether they were `[n]`.

    Returns:
        A list of `[confidence, images, right]`, the lowest confidence first.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    confidence, right = np.asarray(confidence)[order], np.cumsum(np.asarray(right)[order])
    ends = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))  # equal ones together
    found, best = [], -1.0
    for end in ends[::-1].tolist():
        share = _share(end + 1, right[end])
        if share > best:
            found.append([float(confidence[end]), end + 1, int(right[end])])
            best = share
    return found


def sure(found, precision):
    """The lowest confidence from which on held-out images were right often enough.

    Args:
        found: what `thresholds` gives.
        precision: the share that must be right, in (0, 1).

    Returns:
        A `Sure`, or None where no confidence will do.
    """
    for confidence, images, right in found:
        if _share(images, right) >= precision:
            return Sure(confidence, images, right)
    return None


def fewest(precision):
    """How many held-out images, all of them right, would let any be called sure."""
    return int(np.ceil(round((2 * precision - 1) / (1 - precision), 6)))


def _share(images, right):
    return (right + 1) / (images + 2)


def _shifted(logits):
    logits = np.asarray(logits, "float64")
    return logits - logits.max(-1, keepdims=True)


def _log_softmax(logits, temperature):
    logits = _shifted(logits) / temperature
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
