"""The linear probe that fine-tuning begins with, and is compared to."""

import dataclasses

import numpy as np

from simsiam_keras.evaluation import logistic


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """A logistic regression of frozen features.

    Attributes:
        layer: kernel `[d, classes]` and bias `[classes]` on features as they come.
    """

    layer: tuple
    _scaled: logistic.Scaling
    _features: np.ndarray
    _numbers: np.ndarray
    _strength: float
    _seed: int

    def out_of_fold(self):
        """Logits of images by probes that were not trained on them, for calibration.

        The labels are held out in turn, a fifth of each class, at the probe's C.

        Returns:
            Logits `[m, classes]` and numbers `[m]`, of the images of classes with two or more, or
            of a fifth where there are more than 2,000.
        """
        logits, numbers = [], []
        for out in logistic.folds(self._numbers, self._seed):
            x, y = self._scaled(self._features[~out]), self._numbers[~out]
            fitted = logistic.fit(x, y, self._seed, self._strength)
            kernel, bias = fitted.layer(self._scaled, len(self.layer[1]))
            logits.append(self._features[out] @ kernel + bias)
            numbers.append(self._numbers[out])
        return np.concatenate(logits), np.concatenate(numbers)


def of(features, numbers, seed, rows=None):
    """Fits a probe.

    Args:
        features: frozen features of all training images `[n, d]`, by which they are standardized.
        numbers: of their classes `[n]`, each of which is there.
        seed: of the choice of C.
        rows: which labels are used; default None, all.

    Returns:
        A `Probe`.
    """
    scaled, classes = logistic.scaling(features), numbers.max() + 1
    rows = np.arange(len(numbers)) if rows is None else rows
    fitted = logistic.fit(scaled(features[rows]), numbers[rows], seed)
    layer = fitted.layer(scaled, classes)
    return Probe(layer, scaled, features[rows], numbers[rows], fitted.strength, seed)
