"""The numbers of a classifier beside those of the linear probe, and what they say in words."""

import numpy as np

from simsiam_keras.classifier import calibration


def accuracy(logits, numbers):
    """Share of images whose highest logit is that of their class."""
    return float((logits.argmax(-1) == numbers).mean())


def confidence(logits, numbers, temperature):
    """Probability of the class that is said, and whether it is right, two arrays `[n]`."""
    found = calibration.probabilities(logits, temperature)
    return found.max(-1), found.argmax(-1) == numbers


def table(probe, tuned, numbers):
    """The closing table's rows: the linear probe, the fine-tuned network and the largest class.

    Args:
        probe: logits of the test images `[n, classes]` by the linear probe of all labels.
        tuned: by the best epoch.
        numbers: of their classes `[n]`.

    Returns:
        A dict.
    """
    return {
        "linear_accuracy": accuracy(probe, numbers),
        "fine_tuned_accuracy": accuracy(tuned, numbers),
        "majority_accuracy": float(np.bincount(numbers).max() / len(numbers)),
    }


def verdict(probe, tuned, numbers):
    """Whether the fine-tuned network is better than the probe by more than chance, a sentence.

    Args:
        probe: logits of the test images `[n, classes]`.
        tuned: likewise.
        numbers: of their classes `[n]`.
    """
    gain = (tuned.argmax(-1) == numbers).astype(float) - (probe.argmax(-1) == numbers)
    points, error = 100 * gain.mean(), 100 * gain.std(ddof=1) / np.sqrt(len(gain))
    if len(gain) < 2 or abs(points) <= 2 * error or points == 0:
        return (
            f"Fine-tuned and linear probe cannot be told apart: {points:+.1f} points on "
            f"{len(gain):,} test images, two standard errors are {2 * error:.1f}."
        )
    word = "better" if points > 0 else "worse"
    return (
        f"Fine-tuned is {word} than the linear probe by {abs(points):.1f} points on "
        f"{len(gain):,} test images, two standard errors are {2 * error:.1f}."
    )


def calibrated(held_out, test, temperature):
    """Temperature, calibration errors before and after it, and what is called sure.

    Args:
        held_out: logits `[n, classes]` and numbers `[n]` of the held-out images.
        test: likewise of the test images.
        temperature: that was found on the held-out images.

    Returns:
        A dict for result.json, and what `calibration.thresholds` gives.
    """
    found = {"temperature": temperature}
    for name, part in (("test", test), ("held_out", held_out)):
        for when, degree in (("before", 1.0), ("after", temperature)):
            error = calibration.calibration_error(*confidence(*part, degree))
            found[f"calibration_error_{name}_{when}"] = error
    thresholds = calibration.thresholds(*confidence(*held_out, temperature))
    sure = calibration.sure(thresholds, calibration.PRECISION)
    said, right = confidence(*test, temperature)
    is_sure = said >= (sure.threshold if sure else np.inf)
    found["sure"] = {
        "precision": calibration.PRECISION,
        "threshold": sure and sure.threshold,
        "held_out_images": sure and sure.images,
        "held_out_right": sure and sure.right,
        "test_share": float(is_sure.mean()),
        "test_precision": float(right[is_sure].mean()) if is_sure.any() else None,
    }
    return found, thresholds


def not_sure(thresholds, held_out, precision):
    """Why no image is called sure, a sentence, or "" where some may be."""
    if calibration.sure(thresholds, precision):
        return ""
    needed = calibration.fewest(precision)
    if held_out < needed:
        return (
            f"No image can be called sure: {held_out} held-out images are too few to show that "
            f"{precision:g} of those are right, {needed} that all are right would do; give "
            "more labels or a lower --precision."
        )
    return (
        f"No image can be called sure: at no probability were {precision:g} of the held-out images "
        "right; give more labels or a lower --precision."
    )


def classes(logits, numbers, names):
    """Accuracy of each class, by name, and the confusion matrix `[classes, classes]`.

    Args:
        logits: of the test images `[n, classes]`.
        numbers: of their classes `[n]`.
        names: of the classes.

    Returns:
        A dict, with None for a class without a test image, and an integer array whose rows are
        true classes.
    """
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (numbers, logits.argmax(-1)), 1)
    sums = counts.sum(1)
    return {
        name: float(counts[i, i] / sums[i]) if sums[i] else None for i, name in enumerate(names)
    }, counts
