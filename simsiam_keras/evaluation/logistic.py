"""A linear classifier of few frozen features, chosen by one rule whatever they are."""

import contextlib
import dataclasses
import warnings

import numpy as np

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse strengths of regularization, C
FIXED = 1.0  # where a class has a single label, and none can be held out
FOLDS = 5
LARGE = 2000  # labels, of which one fold tells enough
_SMALL = 2e7  # numbers of a problem for which several threads of BLAS wait for each other
_ITERATIONS = 200
_PART = 1024  # rows that are read at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """Features to what the classifier sees, `(x - mean) * factor`.

    Attributes:
        mean: `[d]`.
        factor: `[d]`; 0 for a feature that is the same of all images.
    """

    mean: np.ndarray
    factor: np.ndarray

    def __call__(self, features):
        """`[n, d]` float32 of features `[n, d]`."""
        return ((features - self.mean) * self.factor).astype("float32")


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A linear classifier, `classes[argmax(x @ weights + bias)]` of scaled features x.

    Attributes:
        classes: values of the labels, ascending.
        weights: `[d, classes]`.
        bias: `[classes]`.
        strength: the chosen C.
    """

    classes: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    strength: float

    def predict(self, features):
        """The labels of scaled features `[n, d]`."""
        return self.classes[np.argmax(features @ self.weights + self.bias, axis=-1)]

    def layer(self, scaled, count):
        """The same as weights of a layer on features as they come, where labels are numbers.

        Args:
            scaled: the `Scaling` of the features that it was fitted on.
            count: of the classes; one that it does not know has zeros.

        Returns:
            Kernel `[d, count]` and bias `[count]`, float32.
        """
        kernel, bias = np.zeros((len(scaled.mean), count)), np.zeros(count)
        kernel[:, self.classes] = scaled.factor[:, None] * self.weights
        bias[self.classes] = self.bias - (scaled.mean * scaled.factor) @ self.weights
        return kernel.astype("float32"), bias.astype("float32")


def scaling(features):
    """Standardizes each feature, and divides by the root of their number.

    The mean square of a scaled vector's length is 1 of whatever width, so that one grid of C serves
    pixels, HOG and encoders alike. The statistics need no labels and are those of all training
    images.

    Args:
        features: `[n, d]` of the training images.

    Returns:
        A `Scaling`.
    """
    mean = _mean(features, lambda part: part)
    std = np.sqrt(_mean(features, lambda part: (part - mean) ** 2))
    varies = std > 1e-6 * np.abs(mean)  # else it is rounding
    factor = np.where(varies, 1 / np.where(varies, std, 1), 0) / np.sqrt(max(1, varies.sum()))
    return Scaling(mean.astype("float32"), factor.astype("float32"))


def _mean(features, function):
    """The mean over rows of a function of them, in the memory of a few."""
    total = 0.0
    for first in range(0, len(features), _PART):
        total = total + function(features[first : first + _PART].astype("float64")).sum(0)
    return total / len(features)


def fit(features, labels, seed=0, strength=None):
    """Fits logistic regression, of which C is chosen without a test image.

    Minimizes `|W|^2 / 2 + C sum_i cross-entropy_i`. Of the labels of each class up to a fifth is
    held out in turn, five times, or once of more than 2,000; C is the one, of those from the
    smallest on until it no longer helps, with the highest likelihood of what was held out. Where no
    class has two labels C is 1.

    Args:
        features: scaled, `[n, d]`.
        labels: `[n]`, of at least two classes.
        seed: of what is held out; default 0.
        strength: C where it is known; default None, it is chosen.

    Returns:
        A `Classifier` of all n.

    Raises:
        ImportError: if scikit-learn is missing.
        ValueError: if there is one class.

    Reference:
        Logistic regression on frozen features as the measure of few labels: Tian et al.,
        Rethinking Few-Shot Image Classification, 2020, https://arxiv.org/abs/2003.11539; C by
        held-out data as in Radford et al. 2021, appendix A.3, https://arxiv.org/abs/2103.00020
    """
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"`labels` must hold two classes. Received: {classes.tolist()}")
    with _one_thread(len(labels) * min(features.shape)), warnings.catch_warnings():
        # Without penalty worth the name it stops early, which held-out labels judge as well.
        warnings.simplefilter("ignore")
        x, basis = _in_span(features)
        strength = _chosen(x, labels, seed) if strength is None else strength
        weights, bias = _solved(x, labels, classes, strength)
        weights = (weights if basis is None else basis @ weights).astype("float32")
        return Classifier(classes, weights, bias.astype("float32"), strength)


def folds(labels, seed):
    """What is held out in turn, a list of boolean `[n]`; empty where no class has two labels.

    An only image of its class always stays.

    Args:
        labels: `[n]`.
        seed: of the order.
    """
    part = np.full(len(labels), -1)
    for place, value in enumerate(np.unique(labels)):
        rows = np.random.default_rng([seed, place]).permutation(np.flatnonzero(labels == value))
        if len(rows) > 1:
            part[rows] = np.arange(len(rows)) % FOLDS
    found = [part == number for number in range(FOLDS) if (part == number).any()]
    return found[:1] if len(labels) > LARGE else found


def _in_span(features):
    """Coordinates of n images in the space that they span, and its basis `[d, n]` or None.

    The solution lies in that space, and has the same length there.
    """
    if features.shape[0] >= features.shape[1]:
        return features, None
    x = features.astype("float64")
    squares, u = np.linalg.eigh(x @ x.T)
    kept = squares > 1e-10 * max(squares.max(), 1e-30)
    lengths, u = np.sqrt(squares[kept]), u[:, kept]
    return u * lengths, x.T @ (u / lengths)


def _chosen(features, labels, seed):
    held = folds(labels, seed)
    if not held:
        return FIXED
    best, chosen = -np.inf, None
    for strength in STRENGTHS:
        likelihood = sum(_likelihood(features, labels, out, strength) for out in held)
        if likelihood <= best:
            break
        best, chosen = likelihood, strength
    return chosen


def _likelihood(features, labels, out, strength):
    classes = np.unique(labels[~out])
    weights, bias = _solved(features[~out], labels[~out], classes, strength)
    logits = (features[out] @ weights + bias).astype("float64")
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits[np.arange(out.sum()), np.searchsorted(classes, labels[out])].sum()


def _solved(features, labels, classes, strength):
    """Weights `[d, classes]` and bias of one C."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("A linear classifier needs scikit-learn: install it.") from error
    if len(classes) < 2:
        return np.zeros((features.shape[1], 1)), np.zeros(1)
    fitted = LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(features, labels)
    weights, bias = fitted.coef_.T, fitted.intercept_
    if len(classes) == 2:  # of which scikit-learn has one column, of the second against the first
        weights, bias = (
            np.concatenate([-weights, weights], 1) / 2,
            np.concatenate([-bias, bias]) / 2,
        )
    return weights, bias


@contextlib.contextmanager
def _one_thread(numbers):
    if numbers > _SMALL:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
