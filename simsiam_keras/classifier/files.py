"""The classifier's files: .keras, SavedModel and classifier.json, what each is of."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

from simsiam_keras import cards, devices, export, runs, saved_model
from simsiam_keras.errors import reading

CARD = "classifier.json"
FORMS = ("classifier", "classifier.keras")  # the SavedModel and the file for Keras
_PARTIAL = ".classifier.partial"


@dataclasses.dataclass(frozen=True)
class Card:
    """What classifier.json says, which stands within classifier.keras as well.

    Attributes:
        classes: names of the classes, in the order of the probabilities.
        image_shape: `[side, side, channels]` of the images that it takes.
        eval_crop: share of the short side that is looked at.
        stored_range: as in `cards.Card`.
        temperature: that its logits were divided by.
        thresholds: what `calibration.thresholds` found on held-out images.
        held_out: how many these were.
    """

    classes: list
    image_shape: list
    eval_crop: float
    stored_range: list | str | None
    temperature: float
    thresholds: list
    held_out: int


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier read from disk.

    Attributes:
        card: its `Card`.
        path: where it was read from.
    """

    card: Card
    path: str
    _model: object

    def __call__(self, images):
        """Probabilities `[n, classes]`, float32, of uint8 images `[n, side, side, channels]`."""
        return devices.in_pieces(self._model.predict_on_batch, images)


def save(folder, model, card):
    """Writes classifier.keras, where TensorFlow is the SavedModel classifier/, and classifier.json.

    The card comes last and says what the others are; what an earlier attempt left is replaced.

    Args:
        folder: a run folder that is held.
        model: what `network.finished` gives.
        card: its `Card`.

    Returns:
        The list of paths written.
    """
    folder = Path(folder)
    scratch = folder / _PARTIAL
    for name in (_PARTIAL, CARD, *FORMS):
        _remove(folder / name)
    scratch.mkdir()
    try:
        model.save(scratch / "classifier.keras")
        content = json.dumps(dataclasses.asdict(card), indent=2)
        with zipfile.ZipFile(scratch / "classifier.keras", "a") as archive:
            archive.writestr(CARD, content)
        if saved_model.available():
            names = {"output": "probabilities", "classes": card.classes}
            saved_model.write(model, scratch / "classifier", **names)
        names = [name for name in FORMS if (scratch / name).exists()]
        digests = {name: cards.digest(scratch / name) for name in names}
        for path in scratch.rglob("*"):
            runs.settle(path)
        for name in names:
            (scratch / name).rename(folder / name)
    finally:
        _remove(scratch)
    runs.write_json(folder / CARD, {**json.loads(content), "digest": digests})
    return [folder / name for name in (*names, CARD)]


def load(path):
    """Reads a classifier that `fine-tune` left; nothing of it is run that is not a stock layer.

    Args:
        path: a run folder or a classifier.keras.

    Returns:
        A `Classifier`.

    Raises:
        ValueError: if there is none, it is damaged, or not the one that the card beside it is of.
    """
    path = Path(path)
    file = path / "classifier.keras" if path.is_dir() else path
    if (path / "saved_model.pb").is_file():
        raise ValueError(
            f"{path} is a SavedModel, which is for servers; give the .keras file beside it or the "
            "run folder of `fine-tune`"
        )
    if file.suffix != ".keras" or not file.is_file():
        raise ValueError(
            f"{path} is no classifier: there is no {file.name if path.is_dir() else 'such .keras'} "
            "file; give the run folder of a finished `fine-tune`, or its classifier.keras"
        )
    _refuse_another(file)
    with reading(file, "give a classifier.keras as `fine-tune` wrote it"):
        with zipfile.ZipFile(file) as archive:
            if CARD not in archive.namelist():
                raise ValueError(f"it has no {CARD} inside and so is no classifier")
            card = _card(json.loads(archive.read(CARD).decode("utf-8")))
    with devices.on_host():
        model = export.keras_model(file)
    shapes = list(model.input_shape[1:]), model.output_shape[-1]
    if shapes != (card.image_shape, len(card.classes)):
        raise ValueError(
            f"{file} takes images {shapes[0]} and gives {shapes[1]} numbers, where its {CARD} says "
            f"{card.image_shape} and {len(card.classes)} classes; copy it again"
        )
    return Classifier(card, str(file), model)


def _refuse_another(file):
    """Refuses a file whose digest the card beside it has not."""
    beside = file.with_name(CARD)
    if not beside.is_file():
        return
    digests = runs.read_json(beside, "copy it again, or move it away").get("digest")
    known = digests.values() if isinstance(digests, dict) else ()
    if file.name in (digests or ()) and cards.digest(file) not in known:
        raise ValueError(
            f"{file} is not the file whose digest {CARD} beside it has; copy both again from one "
            f"place, or move {CARD} away if you changed the file yourself"
        )


def _card(found):
    """A `Card` of what a file holds."""
    if not isinstance(found, dict):
        raise ValueError(f"{CARD} is not an object")
    fields = [field.name for field in dataclasses.fields(Card)]
    missing = [name for name in fields if name not in found]
    if missing:
        raise ValueError(f"{CARD} has no `{missing[0]}`")
    card = Card(**{name: found[name] for name in fields})
    names = card.classes
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"`classes` of {CARD} must be names")
    if len(set(names)) != len(names) or len(names) < 2:
        raise ValueError(f"`classes` of {CARD} must be two different names or more")
    rows = card.thresholds
    whole = isinstance(rows, list) and all(isinstance(r, list) and len(r) == 3 for r in rows)
    numbers = [card.eval_crop, card.temperature, *(sum(rows, []) if whole else ["none"])]
    if not all(type(number) in (int, float) for number in numbers) or not 0 < card.eval_crop <= 1:
        raise ValueError(f"numbers of {CARD} are none")
    return card


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
