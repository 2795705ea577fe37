"""The card of an encoder, encoder.json: what it takes and gives, and the digests of its files."""

import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np

from simsiam_keras.errors import sentence
from simsiam_keras.runs import write_json

NAME = "encoder.json"
PLAIN = ("encoder", "encoder.keras")  # the SavedModel and the file for Keras
PAGE = "README.md"  # what people read of an exported encoder


@dataclasses.dataclass(frozen=True)
class Card:
    """What `encoder.json` says.

    Attributes:
        image_shape: `[height, width, channels]` of the images that the encoder takes.
        features: width of the features.
        eval_crop: share of the short side that evaluation's centre crop keeps.
        stored_range: `[low, high]`, the values that became 0 and 255 in files deeper than 8 bits;
            `"file"` where each file had its own, None where there were none.
        digest: digests of the encoder's forms by name, such as `{"encoder": "sha256:..."}`, and of
            the page about them; empty in a card of an earlier version.
        weights: digest of the weights themselves, whatever the form, see `weights_digest`; None in
            a card of an earlier version.
        forms: what was measured of a form when it was written, by its name.
    """

    image_shape: list
    features: int
    eval_crop: float
    stored_range: list | str | None
    digest: dict
    weights: str | None = None
    forms: dict = dataclasses.field(default_factory=dict)


_FIELDS = [field.name for field in dataclasses.fields(Card)]
OPTIONAL = {
    "digest": {},
    "stored_range": None,
    "weights": None,
    "forms": {},
}  # which earlier versions did not write


def digest(path):
    """The SHA-256 of a file, or of a folder's names and bytes.

    A folder's is that of the list which `sha256sum` prints of its files, in the order of their
    names, so that it can be repeated without this package.

    Args:
        path: a file or a folder.

    Returns:
        `"sha256:"` and 64 hexadecimal digits.
    """
    path = Path(path)
    if path.is_dir():
        files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
        lines = "".join(f"{_sha256(files[name])}  {name}\n" for name in sorted(files))
        return f"sha256:{hashlib.sha256(os.fsencode(lines)).hexdigest()}"
    return f"sha256:{_sha256(path)}"


def weights_digest(encoder):
    """The SHA-256 of a model's weights: names, shapes and values, in Keras's order.

    Args:
        encoder: a `keras.Model`.

    Returns:
        `"sha256:"` and 64 hexadecimal digits, the same on each backend and for each form.
    """
    from keras import ops

    found = hashlib.sha256()
    for variable in encoder.variables:
        value = np.ascontiguousarray(ops.convert_to_numpy(variable))
        found.update(f"{variable.name} {value.dtype} {value.shape}\n".encode())
        found.update(value.data)
    return f"sha256:{found.hexdigest()}"


def write(folder, encoder, eval_crop, digests, stored_range=None, forms=None):
    """Writes `encoder.json`.

    Args:
        folder: where to write it.
        encoder: a `keras.Model`, images to features.
        eval_crop: share of the short side that evaluation's centre crop keeps.
        digests: `{name: digest}` of the forms beside it.
        stored_range: as in `Card`; default None.
        forms: as in `Card`; default None, nothing.
    """
    card = {
        "image_shape": list(encoder.input_shape[1:]),
        "value_range": [0, 255],
        "features": encoder.output_shape[-1],
        "eval_crop": eval_crop,
        "stored_range": stored_range,
        "parameters": encoder.count_params(),
        "weights": weights_digest(encoder),
        "digest": digests,
        **({"forms": forms} if forms else {}),
    }
    write_json(Path(folder) / NAME, card)


def read(folder):
    """Reads the card of a folder.

    Args:
        folder: where `encoder.json` may be.

    Returns:
        A `Card`, or None where there is none.

    Raises:
        ValueError: if the file is damaged.
    """
    path = Path(folder) / NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        wrong = _wrong(found)
    except (OSError, ValueError, RecursionError) as error:
        wrong = sentence(error)
    if wrong:
        raise ValueError(
            f"{path} is damaged or no encoder's card ({wrong}); copy it again from where the "
            "encoder was trained, or move it away and write the encoder again with `export`"
        )
    values = OPTIONAL | {name: found[name] for name in _FIELDS if name in found}
    return Card(**values)


def describes(card, path):
    """Whether a card has the digest of an encoder, under whatever name that now stands.

    Args:
        card: a `Card` or None.
        path: a SavedModel folder or a `.keras` file.
    """
    return bool(card and card.digest) and digest(path) in card.digest.values()


def beside(card, names, weights, eval_crop):
    """What stays in a folder, and is of the same encoder as what is about to be written there.

    Args:
        card: that of the folder, or None.
        names: forms that are about to be written.
        weights: their `weights_digest`.
        eval_crop: as in `Card`, of what is written.

    Returns:
        Digests and `Card.forms` of what stays, two dicts; empty where it is of another encoder.
    """
    if card is None or (card.weights, card.eval_crop) != (weights, eval_crop):
        return {}, {}
    digests = {name: value for name, value in card.digest.items() if name not in names}
    return digests, {name: card.forms[name] for name in digests if name in card.forms}


def refuse_strangers(folder, names=PLAIN):
    """Raises where what an encoder would replace is not an encoder that this package wrote.

    Args:
        folder: where to write.
        names: what is about to be written; default `encoder` and `encoder.keras`.

    Raises:
        ValueError: if one of them is there and is not what the card beside it says.
    """
    card = read(folder)
    for name in names:
        path = Path(folder) / name
        if os.path.lexists(path) and not (path.exists() and describes(card, path)):
            raise ValueError(
                f"{path} would be replaced, but {NAME} beside it does not say that this package "
                "wrote it; move it away, or give another folder"
            )


def _wrong(card):
    """What is wrong with the content of an encoder.json; empty if nothing is."""
    if not isinstance(card, dict):
        return f"not an object but {type(card).__name__}"
    for name, is_right, rule in (
        ("image_shape", _is_shape, "three whole numbers"),
        ("features", _is_count, "a whole number"),
        ("eval_crop", _is_share, "a number within (0, 1]"),
        ("stored_range", _is_range, 'null, "file" or two numbers, the smaller one first'),
        ("digest", _is_digests, "an object of names and digests"),
        ("weights", _is_text, "null or a digest"),
        ("forms", _is_facts, "an object of names and objects"),
    ):
        if name in card and not is_right(card[name]):
            return f"`{name}` must be {rule}, it is {json.dumps(card[name])[:60]}"
        if name not in card and name not in OPTIONAL:
            return f"it has no `{name}`"
    return ""


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_shape(value):  # null: any height or width
    whole = isinstance(value, list) and len(value) == 3
    return whole and all(side is None or _is_count(side) for side in value)


def _is_share(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def _is_range(value):
    if isinstance(value, list):
        return len(value) == 2 and all(map(_is_finite, value)) and value[0] < value[1]
    return value in (None, "file")


def _is_finite(value):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) < math.inf


def _is_digests(value):
    return isinstance(value, dict) and all(isinstance(part, str) for part in value.values())


def _is_facts(value):
    return isinstance(value, dict) and all(isinstance(part, dict) for part in value.values())


def _is_text(value):
    return value is None or isinstance(value, str)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
