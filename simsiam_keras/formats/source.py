"""What is exported: the encoder that the flags name, and the run that it comes from."""

import dataclasses
from pathlib import Path

from simsiam_keras import build, cards, checkpoints, config, export, runs, start
from simsiam_keras.errors import reading

SIDE = 224  # of images, where nothing else says it


@dataclasses.dataclass(frozen=True)
class Exported:
    """An encoder and what is known of it.

    Attributes:
        encoder: a functional `keras.Model` on the host, in float32.
        eval_crop: share of the short side that evaluation's centre crop keeps.
        stored_range: as in `cards.Card`.
        run: folder of the run that trained it, or None.
        epoch: the last one that it was trained in, or None where that is not known.
        origin: where it is from, the end of a sentence.
    """

    encoder: object
    eval_crop: float
    stored_range: list | str | None
    run: Path | None
    epoch: int | None
    origin: str

    def loaded(self):
        """The same as what evaluates takes it, an `export.LoadedEncoder`."""
        (size, _, channels), dim = self.encoder.input_shape[1:], self.encoder.output_shape[-1]
        encode, rest = self.encoder.predict_on_batch, (self.stored_range, channels, self.encoder)
        return export.LoadedEncoder(size, self.eval_crop, dim, self.origin, encode, *rest)


def opened(cfg, say):
    """The encoder that the flags name.

    Args:
        cfg: a `config.Export`.
        say: function of a sentence.

    Returns:
        An `Exported`.

    Raises:
        ValueError: if the folder is no run or has no checkpoint yet, or the weights cannot be had.
    """
    if cfg.run_dir:
        return _of_run(cfg, say)
    if not cfg.encoder and cfg.weights not in ("", "none", start.IMAGENET):
        path = Path(cfg.weights)
        if (path / "saved_model.pb").is_file():
            path = _beside(path)
        path = start.file_of(path)  # says what there may be
        if path.suffix == ".keras":
            return _of_file(cfg, path, say)
    encoder = start.architecture(cfg, cfg.image_size or SIDE)
    say(start.load(cfg, encoder))
    file = Path(cfg.weights).name  # no path: a card is read elsewhere
    named = " with ".join(filter(None, (cfg.encoder, file)))
    return Exported(encoder, cfg.eval_crop or 1.0, None, None, None, f"known weights, {named}")


def _of_run(cfg, say):
    folder = Path(cfg.run_dir)
    path = folder / "flags.cfg"
    if not path.exists():
        raise ValueError(f"{folder} is no run folder: it has no flags.cfg")
    with reading(path, "give the folder of a run with its own flags.cfg"):
        trained = config.parse("pretrain", [f"--flagfile={path}"])
        recipe = build.recipe(trained)
        encoder = build.plain_encoder(trained, recipe.size)
    position = checkpoints.restore_encoder(folder, encoder, say)
    if position is None:
        raise ValueError(f"{folder} has no checkpoint yet; train at least one epoch")
    stored, origin = (
        runs.value_range(folder),
        f"the last checkpoint of the run {folder.resolve().name}",
    )
    return Exported(encoder, recipe.eval_crop, stored, folder, position.epoch, origin)


def _beside(path):
    """The `.keras` file that lies beside a SavedModel."""
    other = path.with_name(f"{path.name}.keras")
    if not other.is_file():
        raise ValueError(
            f"{path} is a SavedModel, of which no other format is made, and there is no "
            f"{other.name} beside it; give the .keras file of the encoder"
        )
    return other


def _of_file(cfg, path, say):
    loaded = export.load_encoder(path, cfg.trust_encoder)
    encoder, crop = loaded.model, cfg.eval_crop or loaded.eval_crop
    if cfg.image_size not in (0, loaded.image_size):
        shape = (cfg.image_size, cfg.image_size, loaded.channels)
        encoder = start.reshaped(encoder, shape, path)
        encoder.set_weights(loaded.model.get_weights())
    say(f"Exports the encoder of {path}.")
    run = path.parent if path.name == "encoder.keras" else None
    run = run if run and (run / "flags.cfg").is_file() else None
    return Exported(encoder, crop, loaded.stored_range, run, None, f"the file {path.name}")


def of_run(exported):
    """Whether the numbers of the run are those of this encoder: its own file has these weights."""
    path = exported.run and exported.run / "encoder.keras"
    if not path or not path.is_file():
        return False
    own = cards.weights_digest(export.keras_model(path))
    return own == cards.weights_digest(exported.encoder)
