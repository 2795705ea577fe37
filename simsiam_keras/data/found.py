"""What was understood of a data set: lines to read before anything is trained, and JSON."""

import dataclasses

import numpy as np

NAMED = 5  # entries of a list on the screen
KEPT = 1000  # and in a file


@dataclasses.dataclass(frozen=True)
class Found:
    """What a data set was taken for, and what was left out of it.

    Attributes:
        place: folder, file or name.
        split: the part that was loaded.
        splits: the parts there are.
        images: how many can be used.
        classes: `(name, images)` of each class; empty without labels.
        unlabelled: why there are no labels; empty where nobody need know.
        sizes: `(height, width)` of all images, or least, median and largest; empty if unknown.
        modes: `(mode, images)`, Pillow's or of an array, of the images that were looked at.
        channels: of the images as they are used.
        ignored: `(ending or kind, files)` of what is no image.
        skipped: `(name, why)` of images and folders that are not damaged and not taken.
        damaged: `(name, why)` of images that cannot be decoded.
        notes: sentences on what was decided.
    """

    place: str = ""
    split: str = ""
    splits: tuple = ()
    images: int = 0
    classes: tuple = ()
    unlabelled: str = ""
    sizes: tuple = ()
    modes: tuple = ()
    channels: int = 3
    ignored: tuple = ()
    skipped: tuple = ()
    damaged: tuple = ()
    notes: tuple = ()

    def of(self, source):
        """The same with what a source itself says: its images, classes and one size."""
        sizes = self.sizes or ((source.image_shape[:2],) if source.image_shape else ())
        return dataclasses.replace(
            self,
            place=self.place or source.name,
            images=len(source),
            classes=_classes(source),
            sizes=tuple(sizes),
            channels=source.channels,
        )

    def noting(self, *notes):
        """The same with more notes."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))


def lines(found):
    """What a person reads of a `Found`: a handful of lines, long lists cut.

    Args:
        found: a `Found`.

    Returns:
        A list of str.

    Example:
    >>> lines(Found("photos", "train", ("train", "test"), 30, (("cat", 20), ("dog", 10))))
    ['data: photos, split train of train, test', '  30 images of 2 classes: cat: 20, dog: 10']
    """
    splits = [f"split {found.split}"] if found.split else []
    if len(found.splits) > 1:
        splits = [f"split {found.split} of {_cut(found.splits)}"]
    told = [", ".join([f"data: {found.place}", *splits])]
    labelled = f" of {len(found.classes)} classes: {_counts(found.classes)}"
    plain = f", no labels: {found.unlabelled}" if found.unlabelled else ", no labels"
    told.append(f"  {found.images:,} images{labelled if found.classes else plain}")
    taken = "" if found.channels == 3 else f"taken with {found.channels} channel(s)"
    told_of = [_sizes(found.sizes), _modes(found), taken]
    if any(told_of):
        told.append("  " + "; ".join(filter(None, told_of)))
    if found.ignored:
        told.append(f"  not images, ignored: {_counts(found.ignored)}")
    for what, entries in (("skipped", found.skipped), ("damaged, left out", found.damaged)):
        if entries:
            named = [f"{name} ({why})" for name, why in entries]
            told.append(f"  {what}: {len(entries)}: {_cut(named, '; ')}")
    return told + [f"  {note}" for note in found.notes]


def as_json(found):
    """A `Found` as environment.json holds it; of each list at most 1,000 entries, and how many.

    Args:
        found: a `Found`.

    Returns:
        A dict.
    """
    return {
        "place": found.place,
        "split": found.split,
        "splits": list(found.splits),
        "classes": dict(found.classes[:KEPT]) or None,
        "number_of_classes": len(found.classes),
        "unlabelled": found.unlabelled or None,
        "sizes": [list(size) for size in found.sizes],
        "modes": dict(found.modes),
        "channels": found.channels,
        "ignored": dict(found.ignored[:KEPT]),
        **{
            what: {"count": len(entries), "files": dict(entries[:KEPT])}
            for what, entries in (("skipped", found.skipped), ("damaged", found.damaged))
        },
        "notes": list(found.notes[:KEPT]),
    }


def spread(shapes):
    """The `sizes` of images: one, or the least, median and largest height and width.

    Args:
        shapes: iterable of `(height, width, ...)`, at least one.

    Returns:
        Tuple of one or three `(height, width)`.

    Example:
    >>> spread([(2, 9, 3), (4, 3, 3), (8, 6, 3)])
    ((2, 3), (4, 6), (8, 9))
    """
    sides = np.array([shape[:2] for shape in shapes])
    least, largest = sides.min(0), sides.max(0)
    if np.array_equal(least, largest):
        return (tuple(least.tolist()),)
    median = np.median(sides, axis=0).astype(int)
    return tuple(tuple(each.tolist()) for each in (least, median, largest))


def _classes(source):
    labels = source.labels
    if labels is None:
        return ()
    if np.ndim(labels) == 2:
        numbers, counts = range(labels.shape[1]), labels.sum(0)
    else:
        numbers, counts = np.unique(labels, return_counts=True)
    return tuple(
        (source.class_names[c] if source.class_names else str(c), int(count))
        for c, count in zip(numbers, counts, strict=True)
    )


def _sizes(sizes):
    spelled = [f"{height} x {width}" for height, width in sizes]
    if len(spelled) < 3:
        return "".join(f"height x width {size}" for size in spelled)
    least, median, largest = spelled
    return f"height x width {least} to {largest}, median {median}"


def _modes(found):
    looked_at = sum(count for _, count in found.modes)
    some = f" ({looked_at:,} looked at)" if looked_at < found.images else ""
    return _counts(found.modes) + some if found.modes else ""


def _counts(pairs):
    return _cut([f"{name}: {count:,}" for name, count in pairs])


def _cut(entries, separator=", "):
    """A list in words, cut after a few where it is long."""
    entries = [str(entry) for entry in entries]
    named = entries if len(entries) <= 2 * NAMED else entries[:NAMED]
    more = len(entries) - len(named)
    return separator.join(named) + (f" and {more:,} more" if more else "")
