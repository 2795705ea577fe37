"""How a folder of images is laid out: which folder is taken, its splits, and what is ignored."""

import collections
import dataclasses
import functools
import os
import re
import stat
from pathlib import PurePath

from simsiam_keras.data import images as codec

# Words of a split's name, and words that say nothing beside them: `training_set`, `test1`.
ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "validate", "dev"),
}
FILLERS = {"set", "sets", "image", "images", "imgs", "img", "data", "dataset", "split", "seg"}
SYSTEM = {  # folders of systems and of their thumbnails, lower case
    "__macosx",
    "@eadir",
    "@tmp",
    "#recycle",
    "$recycle.bin",
    "lost+found",
    "system volume information",
    "recycler",
    "__pycache__",
}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar")


@dataclasses.dataclass(frozen=True)
class Listing:
    """What is directly in a folder.

    Attributes:
        images: `(name, bytes)` of each image.
        folders: a `Folder` for each but those of systems.
        ignored: a `Counter` of what is no image, by ending or kind.
        skipped: `(name, why)` of what is not taken.
    """

    images: list
    folders: list
    ignored: collections.Counter
    skipped: list


class Folder:
    """A folder as it is read: each level once, when it is asked for.

    Args:
        path: of the folder.
        above: identities of the folders that lead to it.

    Attributes:
        name: its own name.
    """

    def __init__(self, path, above=()):
        self.path = os.fspath(path)
        self.name = PurePath(self.path).name
        status = os.stat(self.path)  # not a `DirEntry`'s, which on Windows has no number
        self._line = (*above, (status.st_dev, status.st_ino))

    @functools.cached_property
    def listing(self):
        """What is directly in it, a `Listing`."""
        listing = Listing([], [], collections.Counter(), [])
        try:
            with os.scandir(self.path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if len(self._line) == 1:
                raise ValueError(f"{self.path} cannot be read: {error.strerror}") from error
            listing.skipped.append(("", f"cannot be read: {error.strerror}"))
            return listing
        for entry in entries:
            self._sort(entry, listing)
        return listing

    def _sort(self, entry, listing):
        name, status = entry.name, _status(entry)
        folder = status is not None and stat.S_ISDIR(status.st_mode)
        if name.startswith(".") or name.lower() in (SYSTEM if folder else SYSTEM_FILES):
            kind = "hidden or system folders" if folder else "hidden or system files"
            listing.ignored[kind] += 1
        elif folder:
            deeper = Folder(entry.path, self._line)
            if deeper.is_above_itself:
                listing.skipped.append((name, "a link to a folder above it"))
            else:
                listing.folders.append(deeper)
        elif not name.lower().endswith(codec.ENDINGS):
            listing.ignored[os.path.splitext(name)[1].lower() or "without ending"] += 1
        elif status is not None and not stat.S_ISREG(status.st_mode):
            listing.skipped.append((name, "not a regular file"))
        else:  # A broken link has no size; it is counted with what cannot be decoded.
            listing.images.append((name, status.st_size if status else 0))

    @property
    def is_above_itself(self):
        """Whether a link led here from below."""
        return self._line[-1] in self._line[:-1]

    @property
    def images(self):
        """`(name, bytes)` of the images directly in it, sorted."""
        return self.listing.images

    @functools.cached_property
    def holds_images(self):
        """Whether an image is in it, however deep."""
        return bool(self.images) or any(folder.holds_images for folder in self.listing.folders)

    @functools.cached_property
    def filled(self):
        """The folders in it that hold images, sorted, but a copy of itself."""
        copies = set(self.copies)
        return [f for f in self.listing.folders if f.holds_images and f not in copies]

    @functools.cached_property
    def copies(self):
        """The folders in it that hold all others once more, as in some archives."""
        names = {folder.name for folder in self.listing.folders if folder.holds_images}
        return [folder for folder in self.listing.folders if folder.repeats(names)]

    def repeats(self, names):
        """Whether it holds folders of all of some names but its own, and of two or more."""
        if len(names) < 3 or len(self.listing.folders) < len(names) - 1:
            return False
        return names - {self.name} <= {f.name for f in self.listing.folders if f.holds_images}

    def walk(self):
        """Yields (path below the folder, with `/`, `Folder`) of it and all that it holds."""
        yield "", self
        copies = set(self.copies)
        for folder in self.listing.folders:
            if folder not in copies:
                for path, deeper in folder.walk():
                    yield f"{folder.name}/{path}" if path else folder.name, deeper


@dataclasses.dataclass
class Layout:
    """What a folder was understood to be.

    Attributes:
        root: the `Folder` that is taken, below wrappers.
        parts: the folder of each split by its name; empty where it is not divided.
        notes: sentences on what was decided.
        refusal: why an undivided folder cannot be taken as one, or "".
    """

    root: Folder
    parts: dict
    notes: list
    refusal: str = ""

    @property
    def splits(self):
        """Names of the parts."""
        if self.parts:
            return tuple(self.parts)
        inside = [f.name for f in self.root.filled if role(f.name) in ("test", "val")]
        return (*inside, "train", "all")

    def folder(self, part):
        """The `Folder` of a part, below wrappers, and what is to be said of them."""
        inside = {folder.name: folder for folder in self.root.filled}
        folder = self.parts.get(part) or (inside.get(part) if part not in WHOLE else None)
        if folder is None:
            return self.root, []
        others = {f.name for name, p in self.parts.items() if name != part for f in p.filled}
        return _unwrapped(folder, known=others, split=True)


WHOLE = ("train", "all")  # of an undivided folder


def understand(path):
    """Finds out how a folder is laid out.

    Args:
        path: of an existing folder.

    Returns:
        A `Layout`.
    """
    root, notes = _unwrapped(Folder(path))
    notes += [
        f"the folder `{copy.name}` holds the same folders again and is left out"
        for copy in root.copies
    ]
    inside = root.filled
    roles = roles_of([folder.name for folder in inside])
    if _is_divided(root, roles):
        if root.images:
            notes.append(f"{len(root.images)} images beside the splits are left out")
        return Layout(root, {folder.name: folder for folder in inside}, notes)
    notes += [
        f"`{name}` is taken as a class: no test or val stands beside it"
        for name, found in roles.items()
        if found == "train"
    ]
    return Layout(root, {}, notes + _same_inside(inside), _refusal(root, roles))


def _same_inside(folders):
    """Says of folders that hold folders of the same names that they are taken as classes."""
    names = {frozenset(folder.name for folder in each.filled) for each in folders}
    if len(folders) < 2 or len(names) != 1 or len(*names) < 2:
        return []
    listed = ", ".join(f"`{folder.name}`" for folder in folders[:3])
    return [
        f"{listed}{', ...' if len(folders) > 3 else ''} hold folders of the same names, and are "
        f"taken as classes; if these are the classes, give --dataset=folder:{folders[0].path}"
    ]


def role(name):
    """What a name says of a split: `train`, `test`, `val` or None.

    Example:
    >>> role("Training_Set"), role("test1"), role("validation"), role("test tube")
    ('train', 'test', 'val', None)
    """
    found, rest = _role_and_rest(name)
    return found if not rest else None


def resolve(split, names):
    """The part that a split asks for, by its role where it is spelled otherwise.

    Args:
        split: what is asked for.
        names: tuple of the parts there are.

    Returns:
        A name, or None where there is no such part or more than one, and for TFDS's slices, such as
        `train[:20%]`, which only TFDS cuts.

    Example:
    >>> resolve("val", ("Train", "valid")), resolve("test", ("test1", "test2"))
    ('valid', None)
    """
    if split in names:
        return split
    if re.search(r"[\[\]%+]", split):  # a part of a split, in TFDS's words: all of it is another
        return None
    asked, roles = role(split), roles_of(names)
    found = [name for name in names if asked and roles[name] == asked]
    return found[0] if len(found) == 1 else None


def roles_of(names):
    """The role of each name, also of `signs_train` where `signs_test` stands beside it."""
    parsed = {name: _role_and_rest(name) for name in names}
    beside = collections.defaultdict(set)
    for found, rest in parsed.values():
        beside[rest].add(found)
    return {
        name: found if not rest or len(beside[rest] - {None}) > 1 else None
        for name, (found, rest) in parsed.items()
    }


def _role_and_rest(name):
    """The one role that words of a name have, and the words that are left over."""
    words = [word for word in re.split(r"[\W_\d]+", name.lower()) if word]
    words = [re.sub(r"(?<=.)(set|data|images)$", "", word) for word in words]
    found = [(role, word) for word in words for role, all_ in ROLES.items() if word in all_]
    if len(found) != 1:
        return None, tuple(words)
    ((found, spelled),) = found
    return found, tuple(w for w in words if w != spelled and w not in FILLERS)


def _is_divided(root, roles):
    # `train` may also be a class, beside `bus` and `car`.
    if not roles:
        return False
    train = [folder for folder in root.filled if roles[folder.name] == "train"]
    others = [name for name, found in roles.items() if found != "train"]
    split = [name for name in others if roles[name]]
    if not train:
        return len(split) == len(others) and not root.images
    return not others or bool(split) or any(folder.filled for folder in train)


def _refusal(root, roles):
    split = [name for name, found in roles.items() if found in ("test", "val")]
    if split:
        beside = [f"`{name}`" for name in roles if name not in split][:3]
        if root.images:
            beside.append(f"{len(root.images)} images")
        return (
            f"{root.path} holds `{split[0]}`, the name of a split, beside {', '.join(beside)}, and "
            "would take it for a class; rename it if it is one, else put the others into a folder "
            f"`train`, or take it alone with --dataset=folder:{os.path.join(root.path, split[0])}"
        )
    inside = [roles_of([f.name for f in folder.filled]) for folder in root.filled]
    if len(inside) > 1 and all(found and all(found.values()) for found in inside):
        parts = sorted({name for found in inside for name in found})
        return (
            f"{root.path} has the splits {', '.join(parts)} inside of each of its folders; take "
            f"one with --dataset=folder:{root.filled[0].path}, or all images with --split=all"
        )
    return ""


def _unwrapped(folder, known=(), split=False):
    """The folder inside of folders that hold nothing but one folder of folders, and notes.

    Args:
        folder: a `Folder`.
        known: names of classes, which are not entered.
        split: whether the folder is a part; else a folder with the name of one is not entered.
    """
    notes = []
    while not folder.images and len(folder.filled) == 1:
        (only,) = folder.filled
        is_part = not split and role(only.name)
        if is_part and not all(roles_of([f.name for f in only.filled]).values()):
            break
        if not only.filled or only.name in known:
            break
        folder = only
        notes.append(f"the folder `{only.name}` inside is taken, it is the only one")
    return folder, notes


def _status(entry):
    try:
        return entry.stat()
    except OSError:  # a link that leads nowhere, or to itself
        return None
