"""A trained encoder to a SavedModel and a .keras file, and back."""

import contextlib
import dataclasses
import functools
import json
import os
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np

from simsiam_keras import cards, devices, saved_model
from simsiam_keras.runs import make_folder, settle

SIDES = ("inputs", "outputs")  # of a Keras model


@dataclasses.dataclass(frozen=True)
class LoadedEncoder:
    """An encoder read from disk, called on NumPy images.

    Attributes:
        image_size: side of the square images it takes, in pixels.
        eval_crop: share of the short side that evaluation's centre crop keeps.
        dim: width of the features.
        path: where it was read from.
        stored_range: what became 0 and 255 in the files that it was trained on, see `cards.Card`.
        channels: of the images; default 3.
        model: the `keras.Model`, to be copied and trained on; None of a SavedModel.
    """

    image_size: int
    eval_crop: float
    dim: int
    path: str
    _features: object
    stored_range: list | str | None = None
    channels: int = 3
    model: object = None

    def __call__(self, images):
        """Features of a batch.

        Args:
            images: `[n, image_size, image_size, channels]`, uint8 or float, values 0..255.

        Returns:
            `[n, dim]`, float32 NumPy array.

        Raises:
            ValueError: if the encoder gives something else.
        """
        features = devices.in_pieces(self._features, images)
        if features.shape != (len(images), self.dim):
            raise ValueError(
                f"{self.path} must give {self.dim} features for each image. Received: "
                f"{list(features.shape)} for {len(images)} images"
            )
        return features


def save_encoder(encoder, folder, eval_crop=1.0, stored_range=None, write=None, forms=None):
    """Writes `encoder.keras`, the SavedModel `encoder/` and the card `encoder.json` to a folder.

    All or nothing appears. Other forms that lie there stay; the card goes on to describe them if
    they are of the same weights.

    The SavedModel's `serve` takes `[n, height, width, c]` images with values 0..255, uint8 or
    float32, of any batch size, and contains the normalization; it needs neither this package nor
    Keras to be loaded. Written on JAX it takes uint8 only; without TensorFlow it is left out.

    Args:
        encoder: a functional `keras.Model` of stock layers.
        folder: where to write; an encoder that this function wrote there is replaced.
        eval_crop: share of the short side that evaluation's centre crop keeps.
        stored_range: a source's `value_range`; default None.
        write: what to write in the place of these two, `{name: function of a path}`.
        forms: what the card says of each of these, a dict that they may fill; default None.

    Returns:
        The list of paths written.

    Raises:
        ValueError: if `folder` is a file, or holds something else under one of these names; nothing
            has been written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"an encoder is written to a folder. Received: {folder}, which is a file")
    write, replaced = write or forms_of(encoder), tuple(write or cards.PLAIN)
    cards.refuse_strangers(folder, replaced)
    made = not folder.exists()
    make_folder(folder)
    try:
        _replace(encoder, folder, eval_crop, stored_range, write, replaced, forms)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # of a kill's successor it may not be empty
                folder.rmdir()
        raise
    return [folder / name for name in write]


def _replace(encoder, folder, eval_crop, stored_range, write, replaced, forms):
    with tempfile.TemporaryDirectory(prefix=".encoder-", dir=folder) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        old.mkdir()
        for name, make in write.items():
            make(new / name)
        digests = {name: cards.digest(new / name) for name in write}
        kept, facts = beside(encoder, folder, replaced, eval_crop)
        for path in new.rglob("*"):  # before a result.json says that they are there
            settle(path)
        # The old first, all of it: however this ends, nothing stands beside another's card.
        for name in replaced:
            if os.path.lexists(folder / name):
                (folder / name).rename(old / name)
        facts = {**facts, **(forms or {})}
        cards.write(folder, encoder, eval_crop, {**kept, **digests}, stored_range, facts)
        for name in write:
            (new / name).rename(folder / name)
        settle(folder)


def forms_of(encoder):
    """What writes the SavedModel and the `.keras` file, `{name: function of a path}`."""
    found = {"encoder.keras": encoder.save}
    if saved_model.available():
        found = {"encoder": functools.partial(saved_model.write, encoder), **found}
    return found


def beside(encoder, folder, names, eval_crop):
    """What of a folder stays beside new forms of the same encoder, see `cards.beside`."""
    card = cards.read(folder)
    if card and card.weights is None and cards.describes(card, Path(folder, "encoder.keras")):
        # A card of an earlier version; its file tells.
        weights = cards.weights_digest(keras_model(Path(folder, "encoder.keras")))
        card = dataclasses.replace(card, weights=weights)
    digests, forms = cards.beside(card, names, cards.weights_digest(encoder), eval_crop)
    there = {n: value for n, value in digests.items() if os.path.lexists(Path(folder, n))}
    if cards.PAGE in there and cards.digest(Path(folder, cards.PAGE)) != there[cards.PAGE]:
        del there[cards.PAGE]  # it has been changed by hand since
    return there, {n: fact for n, fact in forms.items() if n in there}


def load_encoder(path, trust=False):
    """Reads an encoder that `save_encoder` wrote.

    A SavedModel is a program: it may read and write files while it is loaded and called. One is
    taken whose digest `encoder.json` beside it has; that shows that it is whole and the one that
    the card was written for, not who wrote the two. A `.keras` file holds no code: Keras's safe
    mode refuses the layers that would.

    Args:
        path: a SavedModel folder or a `.keras` file.
        trust: take it whatever the card says, and without the safe mode.

    Returns:
        A `LoadedEncoder`.

    Raises:
        ValueError: if there is no encoder at `path`, it is damaged or not to be trusted, it is not
            from square images to features, or its weights are not finite.
        ImportError: for a SavedModel, if TensorFlow is not installed.
    """
    path = Path(path)
    is_file = path.suffix == ".keras" and path.is_file()
    if not is_file and not (path / "saved_model.pb").is_file():
        raise ValueError(
            f"{path} is no encoder; give a .keras file or a SavedModel folder (RUN_DIR/encoder)"
        )
    card = cards.read(os.path.dirname(os.path.abspath(path)))
    described = cards.describes(card, path)
    if not (described or trust):
        _refuse_unknown(path, card)
    read = _read_keras if is_file else _read_saved_model
    (size, channels), dim, features, model = read(path, trust)
    # A card of another encoder, which only lies beside this one, says nothing of it.
    of_this = card and (described or path.name in card.digest or not card.digest)
    crop, stored_range = (card.eval_crop, card.stored_range) if of_this else (1.0, None)
    return LoadedEncoder(size, crop, dim, str(path), features, stored_range, channels, model)


def _refuse_unknown(path, card):
    if path.is_dir():
        where = f"{cards.NAME} beside it"
        if card is None:
            why = f"there is no {where}"
        elif not card.digest:
            why = f"{where}, of an earlier version, has no digest of it"
        else:
            why = f"{where} has another digest"
        raise ValueError(
            f"{path} is a SavedModel, a program that can do whatever its author wrote, and {why}; "
            "use the .keras file of the encoder, or --trust_encoder if you trust who wrote this"
        )
    if card and path.name in card.digest:
        raise ValueError(
            f"{path} is not the file whose digest {cards.NAME} beside it has; copy both again from "
            "one place, or take --trust_encoder if you changed it yourself"
        )


def keras_model(path, trust=False):
    """Reads the model of a `.keras` file of an encoder, as `load_encoder` does.

    Args:
        path: the file.
        trust: read it without the safe mode.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: as `load_encoder`.
    """
    path = Path(path)
    with _readable(path):
        _refuse_wider_than_its_weights(path)
        with devices.on_host():
            model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    _fitting(path, *(_shapes(getattr(model, side, None)) for side in SIDES))
    values = ((v.path, keras.ops.convert_to_numpy(v)) for v in model.variables)
    _refuse_not_finite(path, values)
    return model


def _read_keras(path, trust):
    model = keras_model(path, trust)
    taken, dim = _fitting(path, *(_shapes(getattr(model, side)) for side in SIDES))
    return taken, dim, model.predict_on_batch, model


def _read_saved_model(path, trust):
    del trust  # nothing of it can be held back
    if not saved_model.available():
        raise ImportError(
            f"{path} is a SavedModel; install tensorflow to read it, or use {path}.keras"
        )
    import tensorflow as tf

    with _readable(path):
        module = tf.saved_model.load(str(path))
    signature = getattr(module, "signatures", {}).get("serving_default")
    if signature is None or not hasattr(module, "serve"):
        raise ValueError(f"{path} has no endpoint `serve`; write an encoder there with `export`")
    images = signature.structured_input_signature[1]
    taken, dim = _fitting(path, _shapes(images), _shapes(signature.structured_outputs))
    _refuse_not_finite(path, ((v.name, v.numpy()) for v in signature.variables))
    (dtype,) = (x.dtype for x in images.values())

    def features(batch, module=module):  # holds the module, which not every `serve` does
        batch = tf.convert_to_tensor(batch)
        return module.serve(tf.cast(batch, dtype) if dtype.is_floating else batch)

    return taken, dim, features, None


@contextlib.contextmanager
def _readable(path):
    """Gives what a library says about a file as one sentence; they have no error in common."""
    try:
        yield
    except Exception as error:
        if "safe_mode" in str(error):
            raise ValueError(
                f"{path} has a layer that holds Python code (such as Lambda), which would run when "
                "it is loaded; save it with stock layers, or take --trust_encoder if you trust "
                "who wrote it"
            ) from error
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} cannot be read: it is damaged, half-written, or has layers of another package "
            f"({type(error).__name__}: {said}); copy it again, or write it again with `export`"
        ) from error


def _refuse_wider_than_its_weights(path):
    # Keras makes a layer's weights before it reads them: a small file could ask for gigabytes. Each
    # unit of a layer has at least one weight of a byte.
    with zipfile.ZipFile(path) as archive:
        size = sum(info.file_size for info in archive.infolist() if info.filename.endswith(".h5"))
        widest = max(_widths(json.loads(archive.read("config.json"))), default=0)
    if widest > size:
        raise ValueError(f"a layer of {widest:.3g} units, weights of {size} bytes")


def _widths(config):
    """The numbers in a model's configuration that make its layers' weights."""
    if isinstance(config, list):
        for part in config:
            yield from _widths(part)
    elif isinstance(config, dict):
        for name, part in config.items():
            if name in ("filters", "units") and type(part) is int:
                yield min(part, 2**63)
            yield from _widths(part)


def _shapes(tensors):
    """The shapes of a structure of tensors as lists; empty where unknown."""
    return [list(x.shape) if getattr(x, "shape", None) else [] for x in keras.tree.flatten(tensors)]


def _fitting(path, inputs, outputs):
    """Side and channels of the images, and width of the features, from an encoder's shapes."""
    if len(inputs) == len(outputs) == 1 and len(inputs[0]) == 4 and len(outputs[0]) == 2:
        (_, size, wide, channels), (_, dim) = inputs[0], outputs[0]
        if size and dim and channels and wide == size:
            return (size, channels), dim
    raise ValueError(
        f"{path} must take one input [n, side, side, channels], images of one size, and give one "
        f"output [n, width]. Received: inputs {inputs}, outputs {outputs}"
    )


def _refuse_not_finite(path, values):
    for name, value in values:
        if not np.isfinite(value).all():
            raise ValueError(
                f"{path} has weights that are NaN or infinite ({name}): its training diverged or "
                "the file is damaged; use the encoder of another run"
            )
