"""Which number says what an epoch's features are worth: kNN, or what stands in for it."""

from simsiam_keras.verdicts import KNN, is_number

# What a run without labels goes by, and its direction: 1 where higher is better, -1 where lower is.
# Of ten measures the only one that went with accuracy in each set of runs, and never far; see
# benchmarks/results/label_free.md: it tells bad runs from good ones, and epochs hardly at all.
LABEL_FREE, DIRECTION = "z_std", 1
CHOICE = "knn_of_the_bank"  # kNN of fifths of the bank by its rest


def quality(row):
    """What the label-free measure says of an epoch; higher is better.

    Args:
        row: a row of metrics.jsonl.

    Returns:
        A float, or None where it was not measured.

    Example:
    >>> quality({"epoch": 3, LABEL_FREE: 0.97}), quality({"epoch": 0})
    (0.97, None)
    """
    value = row.get(LABEL_FREE)
    return DIRECTION * value if is_number(value) else None


def choice(row):
    """What an epoch's encoder is chosen by; higher is better.

    That is kNN within the bank, so that no query has chosen what is measured by it; where a fifth
    of the bank are the queries, there is nothing else than these. Without labels nothing is chosen,
    as within a run no measure tells which epoch is best: benchmarks/results/label_free.md.

    Args:
        row: a row of metrics.jsonl.

    Returns:
        A float, or None where kNN was not measured.
    """
    found = [row[name] for name in (CHOICE, *KNN) if is_number(row.get(name))]
    return found[0] if found else None


def points(rows):
    """The quality over the trained epochs of a run: by kNN where it has been measured.

    Args:
        rows: the rows of metrics.jsonl.

    Returns:
        `(name, [(epoch, value)])`: the metric that it is by, and the values, higher is better.

    Example:
    >>> points([{"epoch": 1, LABEL_FREE: 0.8}, {"epoch": 2, LABEL_FREE: 0.9, "knn_accuracy": 0.5}])
    ('knn_accuracy', [(2, 0.5)])
    """
    trained = [row for row in rows if row["epoch"] > 0]
    for name in KNN:
        found = [(row["epoch"], row[name]) for row in trained if is_number(row.get(name))]
        if found:
            return name, found
    found = [(row["epoch"], quality(row)) for row in trained if quality(row) is not None]
    return LABEL_FREE, found
