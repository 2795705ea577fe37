"""What `export` may write: the files' names, and which of them a backend can."""

import dataclasses

import keras

from simsiam_keras import saved_model

DEFAULT = ("saved_model", "keras")
# Which formats can hold 8-bit integers, and which the resize and crop.
INT8 = ("onnx", "litert", "openvino")
ANY_SIZE = ("saved_model", "onnx", "litert", "openvino")
NAMES = {
    "saved_model": "{}",
    "keras": "{}.keras",
    "onnx": "{}.onnx",
    "litert": "{}.tflite",
    "openvino": "{}_openvino",
}
INSTEAD = (
    "encoder.keras is the same on every backend: write it with --format=keras, then "
    "`export --backend=tensorflow --weights=PATH/encoder.keras`"
)


@dataclasses.dataclass(frozen=True)
class Form:
    """One thing to write.

    Attributes:
        format: a value of --format.
        any_size: whether resize and crop are inside.
        int8: whether it computes in 8-bit integers.
    """

    format: str
    any_size: bool = False
    int8: bool = False

    @property
    def name(self):
        """The name of its file or folder."""
        stem = "encoder" + "_any_size" * self.any_size + "_int8" * self.int8
        return NAMES[self.format].format(stem)


def asked(cfg):
    """The forms that the flags ask for.

    Args:
        cfg: a `config.Export`.

    Returns:
        A list of `Form`.

    Raises:
        ValueError: if a format cannot have what is asked of it, or not on this backend.
        ImportError: if TensorFlow is not installed, for a format that is TensorFlow's.
    """
    backend, int8 = keras.backend.backend(), cfg.quantize == "int8"
    formats = cfg.formats or [
        name for name in DEFAULT if name != "saved_model" or saved_model.available()
    ]
    for flag, given, able in (
        ("quantize=int8", int8, INT8),
        ("with_preprocessing", cfg.with_preprocessing, ANY_SIZE),
    ):
        if given and not set(formats) & set(able):
            raise ValueError(
                f"--{flag} is for --format={', '.join(able)}; the others cannot hold it. "
                f"Received: --format={','.join(formats)}"
            )
    if int8 and cfg.with_preprocessing and "litert" in formats:
        raise ValueError(
            "--format=litert takes either --quantize=int8 or --with_preprocessing: LiteRT's tool "
            "would round the resize to 8 bits as well; leave one out, or take --format=onnx"
        )
    if "saved_model" in formats and not saved_model.available():
        raise ImportError(
            f"--format=saved_model needs TensorFlow: pip install -r requirements.txt. {INSTEAD}"
        )
    if "litert" in formats and backend != "tensorflow":
        raise ValueError(
            f"--format=litert is written on TensorFlow. Received: --backend={backend}. {INSTEAD}"
        )
    return [
        Form(name, cfg.with_preprocessing and name in ANY_SIZE, int8 and name in INT8)
        for name in formats
    ]
