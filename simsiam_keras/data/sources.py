"""`load`: a data set by its name, whatever holds it."""

from pathlib import Path

from simsiam_keras.data import arrays, folders, npz, ranges, tfds
from simsiam_keras.data.base import ArraySource, EncodedSource, NoSuchSplit, Source
from simsiam_keras.data.subsets import few_labels, subset

__all__ = [
    "ArraySource",
    "EncodedSource",
    "NoSuchSplit",
    "Source",
    "few_labels",
    "load",
    "splits",
    "subset",
]


def load(
    spec,
    data_dir=None,
    split="train",
    labels="",
    columns="",
    value_range="auto",
    channels=3,
    lenient=False,
):
    """Opens a data set.

    - `digits`: scikit-learn's 1,797 digits of 8x8, in grey. `train` (1,437) and `test` (360) are
      one fixed stratified division; `all` is both.
    - `npz:PATH`: the arrays `<split>_images` and `<split>_labels`; for `train` and `all` also plain
      `images` and `labels`. Images are `[n, h, w]` or `[n, h, w, 1 | 3 | 4]`, or of the `channels`
      asked for, uint8 or floats in [0, 1]; labels are optional: integers or texts `[n]` or
      `[n, 1]`, or 0 and 1 `[n, classes]`. An array `class_names` names the classes. Keras's
      `x_train` and `y_train` are known as well.
    - `folder:PATH`: images in `PATH/<split>`, or in PATH itself for `train` and `all` when it is
      not divided; below folders that hold nothing but one folder of folders. It is divided when it
      has a folder `train` that is alone, stands beside `test`, `val` or `validation`, or has
      folders of its own; case, `training_set` and the like make no difference. Images directly in
      the folder mean no labels; otherwise its subfolders, sorted, are the classes, and deeper
      folders belong to the class above them. A single subfolder is no class, a folder for each
      image are none. Hidden names, folders of systems and links to a folder above are left out.
    - anything else: a TensorFlow data set, e.g. `cifar10`, with TFDS's own split syntax; it is
      downloaded when `data_dir` does not hold it. Its image is the feature `image`, or the only
      image feature; labels are the feature `label`, if it has one.

    What files hold that is deeper than 8 bits is scaled to 0..255. With `auto`, LOW and HIGH are
    those of the set: of the ranges of up to 64 of its files, evenly spaced, the smallest LOW and
    the largest HIGH. With `file` each has its own: the window that a DICOM file names, otherwise
    the 0.1th and the 99.9th percentile of its values. Other files stay as they are.

    Images get 3 channels: grey is repeated, transparency is over white. With `channels=1` all
    become grey, by the luma of ITU-R 601. With any other number images must have that many, which
    are taken as they are; others are left out and named, or refused where they are one array.

    Images of one size are decoded once, into memory, when they take no more than 4 GiB, or 512 MiB
    where they have more than 512 x 512 pixels, and have no more than two megapixels each. Otherwise
    they are decoded whenever they are read; a TensorFlow data set then keeps its encoded images in
    memory. Images that cannot be decoded are named, counted and left out.

    Args:
        spec: one of the above.
        data_dir: where TensorFlow data sets are prepared; default None, TFDS's own place.
        split: name of the part; default `"train"`.
        labels: of a folder, a csv, tsv or json file that has them; default none.
        columns: its columns of the file, the label and, maybe, the split, separated by commas;
            default "", found by their usual names.
        value_range: `auto`, `file` or `LOW,HIGH`, or a pair; default `auto`.
        channels: of the images, at least 1; default 3.
        lenient: whether a single image will do, and any number of a folder's may be damaged;
            default False.

    Returns:
        A `Source`; its `found` says what was understood.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        NoSuchSplit: a `ValueError`, if the data set has no such split.
        ValueError: if the data set does not exist, if more than 1 % of the images cannot be
            decoded, and more than one, if fewer than 2 images remain, if they do not fit into
            memory, or if the name of a split would become a class.
        ImportError: if scikit-learn or TensorFlow data sets are needed and missing.
    """
    kind, _, path = spec.partition(":")
    value_range = ranges.parse(value_range)
    if labels and kind != "folder":
        raise ValueError(f"--labels goes with --dataset=folder:PATH. Received: dataset={spec}")
    if columns and not labels:
        raise ValueError(f"--labels_columns goes with --labels. Received: {columns}")
    if spec == "digits":
        source = arrays.load_digits(split, channels)
    elif kind == "npz":
        source = npz.load(spec, _path(spec, path), split, channels)
    elif kind == "folder":
        table = (labels, columns)
        source = folders.load(
            spec, _path(spec, path), split, *table, value_range, channels, lenient
        )
    else:
        source = tfds.load(spec, data_dir, split, value_range, channels)
    if len(source) < 2 - lenient:
        raise ValueError(
            f"`dataset` must have at least 2 images. Received: dataset={spec}, split={split}, "
            f"{len(source)} image(s)" + _left_out(source.found)
        )
    return source


def _left_out(found):
    left = [f"{name}: {why}" for name, why in (*found.damaged, *found.skipped)]
    return f", without {len(left)} ({'; '.join(left[:3])})" if left else ""


def splits(spec, data_dir=None):
    """Names of the parts that `load` finds in a data set.

    Args:
        spec: as in `load`.
        data_dir: as in `load`.

    Returns:
        Tuple of str.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if there is no such data set.
    """
    kind, _, path = spec.partition(":")
    if spec == "digits":
        return arrays.DIGITS_SPLITS
    if kind == "npz":
        return npz.splits(_path(spec, path))
    if kind == "folder":
        return folders.splits(_path(spec, path))
    return tfds.splits(spec, data_dir)


def _path(spec, path):
    if not path:
        raise ValueError(f"`dataset` must have a path after the colon. Received: dataset={spec}")
    try:
        path = Path(path).expanduser()
        path.exists()  # raises where no file can have that name
    except (OSError, ValueError, RuntimeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise ValueError(f"`dataset` must name a file. Received: {spec}: {cause}") from error
    return path
