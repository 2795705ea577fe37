"""A trained encoder to a SavedModel and a .keras file, and back."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np

from simsiam_keras.runs import write_json


@dataclasses.dataclass(frozen=True)
class LoadedEncoder:
    """An encoder read from disk, called on NumPy images.

    Attributes:
        image_size: side of the square images it takes, in pixels.
        eval_crop: share of the short side that evaluation's centre crop keeps.
        dim: width of the features.
        path: where it was read from.
    """

    image_size: int
    eval_crop: float
    dim: int
    path: str
    _features: object

    def __call__(self, images):
        """Features of a batch.

        Args:
            images: `[n, image_size, image_size, 3]`, uint8 or float, values 0..255.

        Returns:
            `[n, dim]`, float32 NumPy array.
        """
        return np.asarray(self._features(images), "float32")


def save_encoder(encoder, folder, eval_crop=1.0):
    """Writes `encoder.keras`, the SavedModel `encoder/` and the card `encoder.json` to a folder.

    The SavedModel's endpoint `serve` takes `[n, height, width, 3]` images with values 0..255, uint8
    or float32, of any batch size, and contains the normalization; it needs neither this package nor
    Keras to be loaded. Written on JAX it takes uint8 only; without TensorFlow it is left out.

    Args:
        encoder: a functional `keras.Model` of stock layers.
        folder: where to write; what stands there under these names is replaced.
        eval_crop: share of the short side that evaluation's centre crop keeps.

    Returns:
        The list of paths written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _, height, width, channels = encoder.input_shape
    card = {
        "image_shape": [height, width, channels],
        "value_range": [0, 255],
        "features": encoder.output_shape[-1],
        "eval_crop": eval_crop,
        "parameters": encoder.count_params(),
    }
    write_json(folder / "encoder.json", card)
    encoder.save(folder / ".encoder.keras")
    (folder / ".encoder.keras").replace(folder / "encoder.keras")
    written = [folder / "encoder.keras"]
    if _has_tensorflow():
        _write_saved_model(encoder, folder / "encoder")
        written.insert(0, folder / "encoder")
    return written


def load_encoder(path):
    """Reads an encoder that `save_encoder` wrote.

    Args:
        path: a SavedModel folder or a `.keras` file.

    Returns:
        A `LoadedEncoder`.

    Raises:
        ValueError: if there is no encoder at `path`.
        ImportError: for a SavedModel, if TensorFlow is not installed.
    """
    path = Path(path)
    if path.suffix == ".keras" and path.is_file():
        model = keras.saving.load_model(path, compile=False)
        shape, dim, features = model.input_shape, model.output_shape[-1], model.predict_on_batch
    elif (path / "saved_model.pb").is_file():
        if not _has_tensorflow():
            raise ImportError(
                f"{path} is a SavedModel; install tensorflow to read it, or use {path}.keras"
            )
        import tensorflow as tf

        module = tf.saved_model.load(str(path))
        signature = module.signatures["serving_default"]
        (images,) = signature.structured_input_signature[1].values()
        (output,) = signature.structured_outputs.values()
        shape, dim = images.shape, output.shape[-1]

        def features(batch, module=module):  # holds the module: its functions do not
            return module.serve(tf.convert_to_tensor(batch))

    else:
        raise ValueError(
            f"{path} is no encoder; give a SavedModel folder (RUN_DIR/encoder) or a .keras file"
        )
    card = path.parent / "encoder.json"
    eval_crop = json.loads(card.read_text())["eval_crop"] if card.exists() else 1.0
    return LoadedEncoder(shape[1], eval_crop, dim, str(path), features)


def _write_saved_model(encoder, path):
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(encoder)
    if keras.backend.backend() == "tensorflow":
        serve = tf.function(lambda images: encoder(images, training=False))
        for dtype in (tf.uint8, tf.float32):  # one endpoint, one trace for each dtype
            spec = tf.TensorSpec((None, *encoder.input_shape[1:]), dtype, name="images")
            serve.get_concrete_function(spec)
        archive.add_endpoint("serve", serve)
    else:
        spec = keras.InputSpec(shape=(None, *encoder.input_shape[1:]), dtype="uint8")
        archive.add_endpoint("serve", encoder, input_signature=[spec])
    temporary = path.with_name(f".{path.name}")
    archive.write_out(str(temporary), verbose=False)
    if path.exists():
        shutil.rmtree(path)
    temporary.rename(path)


def _has_tensorflow():
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        return False
    return True
