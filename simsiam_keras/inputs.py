"""The images that flags name, what is said of them, and what of them is classified."""

import functools
from pathlib import Path

from simsiam_keras import flagfile, monitors, runs
from simsiam_keras.data import found, ranges, sources, subsets
from simsiam_keras.errors import sentence

TEST = "test"  # the split that is classified where nobody says


def images_of(cfg, split, known=None, channels=3, lenient=False):
    """The images that the flags of any command name, of one of their splits.

    Args:
        cfg: a configuration with the flags of `options.Images`.
        split: name of the part.
        known: the range of values to take where `--value_range=auto`, see `ranges.chosen`.
        channels: of the images; default 3.
        lenient: as in `sources.load`; default False.

    Returns:
        A `data.Source`.
    """
    value_range = ranges.chosen(cfg.value_range, known)
    table = (cfg.labels, cfg.labels_columns)
    where = (cfg.dataset, cfg.data_dir or None, split)
    return sources.load(*where, *table, value_range, channels, lenient)


def tell(source, say):
    """Says what was understood of a data set, in a few lines."""
    for line in found.lines(source.found):
        say(sentence(line) if not line.startswith(" ") else f"  {sentence(line)}")
    if source.value_range:
        say(f"  {ranges.described(source.value_range)}")


def probe(cfg, images, say):
    """The labelled images of the kNN monitor, or None without labels."""
    if cfg.probe_dataset == "none":
        return None
    name = cfg.probe_dataset or cfg.dataset
    same = name == cfg.dataset and cfg.probe_split == cfg.split

    def load(split):
        known = images.value_range  # what the encoder is shown
        if name == cfg.dataset:
            return images_of(cfg, split, known, images.channels)
        options = {"value_range": ranges.chosen(cfg.value_range, known)}
        options["channels"] = images.channels
        return sources.load(name, cfg.data_dir or None, split, **options)

    bank = images if same else load(cfg.probe_split)
    if bank.labels is None and cfg.probe_dataset:
        raise ValueError(f"--probe_dataset must be labelled; {name} has no labels{why(bank)}")
    if bank.labels is None:
        say(
            f"No labels: kNN is skipped{why(bank)}. To watch it, give a labelled set with "
            "--probe_dataset."
        )
        return None
    if not same:
        tell(bank, say)
    queries = queries_of(bank, load, cfg.probe_test_split, say)
    cause = monitors.not_measurable(bank.labels, queries and queries.labels)
    if cause:
        say(
            f"kNN is skipped: {cause} ({name}). To watch it, give a labelled set with "
            "--probe_dataset."
        )
        return None
    return monitors.Probe(bank, queries, cfg.probe_test_split, cfg.knn_k, cfg.knn_temperature)


def queries_of(bank, load, split, say):
    """The images that are classified, or None, which is said, where a fifth is held out for them.

    Args:
        bank: a labelled `data.Source`.
        load: function of a split's name to a `data.Source`.
        split: the name.
        say: function of a sentence.

    Returns:
        A `data.Source` labelled as the bank is, or None.
    """
    fifth = f"a fifth of the {len(bank):,} images is held out"
    try:
        queries = load(split)
    except sources.NoSuchSplit:
        say(f"No {split} split in {bank.name}: {fifth} to be classified.")
        return None
    except ValueError as error:
        say(f"The {split} split of {bank.name} cannot be used: {fifth}. {sentence(error)}")
        return None
    if queries.labels is None or queries.labels.shape[1:] != bank.labels.shape[1:]:
        say(f"The {split} split of {bank.name} has no such labels{why(queries)}: {fifth}.")
        return None
    return queries


def why(images):
    """Why a data set has no labels, in brackets; "" where nobody need know."""
    return f" ({images.found.unlabelled})" if images.found.unlabelled else ""


def labelled(cfg, split, known=None, channels=3):
    """The images of a split, which a command needs labelled."""
    source = images_of(cfg, split, known, channels)
    if source.labels is None:
        raise ValueError(
            f"--dataset={cfg.dataset} has no labels{why(source)}, which this command needs; "
            "put the images of each class in a folder of its own, or give --labels"
        )
    return source


def train_and_test(cfg, say, encoder):
    """Labelled images for an encoder to learn from and to test on, and what the latter are."""
    known, channels = encoder.stored_range, encoder.channels
    train_set = labelled(cfg, cfg.split, known, channels)
    tell(train_set, say)
    known = known or train_set.value_range
    if cfg.test_split != TEST:  # typed, and so meant
        test_set = labelled(cfg, cfg.test_split, known, channels)
        return train_set, test_set, f"the {cfg.test_split} split"
    load = functools.partial(images_of, cfg, known=known, channels=channels)
    test_set = queries_of(train_set, load, TEST, say)
    if test_set is not None:
        return train_set, test_set, f"the {TEST} split"
    cause = monitors.not_measurable(train_set.labels, None)
    if cause:
        raise ValueError(
            f"--dataset={cfg.dataset} has no part to test on, and none can be held out: {cause}"
        )
    name, (kept, rest) = train_set.name, monitors.held_out(train_set.labels)
    fifth = subsets.subset(train_set, rest, f"{name}, {monitors.FIFTH}")
    return subsets.subset(train_set, kept, name), fifth, f"{monitors.FIFTH} of {cfg.split}"


def row_names(source):
    """What the images of the rows of features are called, each on one line."""
    for number in source.rows().tolist():
        name = source.name_of(number)
        yield "".join(repr(c)[1:-1] if c in "\n\r\\" else c for c in name)


def without_row(used, say):
    """The images that have no row of features, for result.json, and says which these are.

    Args:
        used: sources whose features were made.
        say: function of a sentence.

    Returns:
        A dict of their count and names.
    """
    lost, n = {}, 0
    for source in used:
        failed = {source.name_of(i): sentence(e) for i, e in source.missing.items()}
        for name, why in {**dict(source.found.damaged), **failed}.items():
            lost[f"{source.found.place}/{name}"] = why  # the same name may be in two splits
        n += len(source.rows())
    if lost:
        named = "; ".join(f"{name} ({why})" for name, why in list(lost.items())[: found.NAMED])
        more = f" and {len(lost) - found.NAMED:,} more" if len(lost) > found.NAMED else ""
        say(sentence(f"{len(lost)} of {len(lost) + n:,} images have no row: {named}{more}"))
    return {"count": len(lost), "files": list(lost)[: found.KEPT]}


def beside(encoder, name):
    """Where what is made with an encoder lies by default."""
    path = Path(encoder)
    return path.parent / (name if path.stem == "encoder" else f"{path.stem}_{name}")


def free(path, flags=None):
    """A folder for a command with its flags: the one named, or with a number where it is taken.

    Args:
        path: the folder that is named after the input.
        flags: the resolved flags, values by name; default None, of a command that is quickly
            repeated, when what it reads may have changed.

    Returns:
        `path`, or `path_2` and so on where the one before is finished. One that these flags have
        made is given as it is.
    """
    path, number = Path(path), 1
    while True:
        folder = path if number == 1 else path.with_name(f"{path.name}_{number}")
        if not (folder / "result.json").exists() or not (folder / "flags.cfg").exists():
            return folder
        if flags is not None:
            old = flagfile.values(folder / "flags.cfg")
            if not runs.differences(old, runs.spelled(flags)):
                return folder
        number += 1
