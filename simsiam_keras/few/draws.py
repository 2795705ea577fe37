"""Which images have a label: the same number of every class, drawn several times."""

import dataclasses

import numpy as np

ALL = "all"


@dataclasses.dataclass(frozen=True)
class Draw:
    """Some labelled images.

    Attributes:
        per_class: images of each class, or `ALL`.
        number: which of the draws, from 0.
        rows: numbers of the images, int64, ascending.
    """

    per_class: int | str
    number: int
    rows: np.ndarray


def parsed(text):
    """The numbers of labels per class that a flag names.

    Args:
        text: such as `"1,5,10,all"`.

    Returns:
        A list of integers >= 1, ascending, with `ALL` at the end where it is named.

    Raises:
        ValueError: if a part is neither.

    Example:
    >>> parsed("10,1,all,1")
    [1, 10, 'all']
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = {int(part) for part in parts if part.isdecimal() and part.isascii()}
    wrong = [part for part in parts if part != ALL and not (part.isdecimal() and part.isascii())]
    if wrong or 0 in numbers:
        raise ValueError(
            "--labels_per_class must be numbers >= 1 or `all`, separated by commas. "
            f"Received: {text}"
        )
    return sorted(numbers) + [ALL] * (ALL in parts)


def draw(labels, per_class, number, seed):
    """Draws labelled images at random, `per_class` of every class, of a smaller class all.

    Draws of one number grow with `per_class`: those of a smaller one are among those of a larger.

    Args:
        labels: `[n]`.
        per_class: images of each class, or `ALL`.
        number: which draw, from 0.
        seed: of all draws.

    Returns:
        A `Draw`.
    """
    if per_class == ALL:
        return Draw(ALL, number, np.arange(len(labels)))
    rows = [
        np.random.default_rng([seed, number, place]).permutation(np.flatnonzero(labels == value))
        for place, value in enumerate(np.unique(labels))
    ]
    return Draw(per_class, number, np.sort(np.concatenate([each[:per_class] for each in rows])))


def draws(labels, numbers, count, seed):
    """All draws of a table, those of the fewest labels first.

    Args:
        labels: `[n]`.
        numbers: as `parsed` gives them.
        count: draws of each number; `ALL` is one.
        seed: of the draws.

    Returns:
        A list of `Draw`.
    """
    return [
        draw(labels, per_class, number, seed)
        for per_class in numbers
        for number in range(1 if per_class == ALL else count)
    ]


def beyond(labels, numbers):
    """The numbers of labels that no class has more images than: each would be `ALL` again."""
    largest = np.unique(labels, return_counts=True)[1].max()
    return [number for number in numbers if number != ALL and number >= largest]


def smaller(labels, numbers):
    """`{number: classes with fewer images}` of the numbers that some class does not have."""
    counts = np.unique(labels, return_counts=True)[1]
    found = {n: int((counts < n).sum()) for n in numbers if n != ALL}
    return {n: classes for n, classes in found.items() if classes}


def heading(number):
    """What a number of labels is called above its column."""
    return ALL if number == ALL else f"{number} per class"
