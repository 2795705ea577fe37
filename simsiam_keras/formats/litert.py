"""The file of LiteRT, once TensorFlow Lite."""

from simsiam_keras.formats import graphs, preprocessing


def refuse():
    """Raises `ImportError` where the file could not be checked."""
    try:
        from ai_edge_litert import interpreter  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "--format=litert is checked by ai-edge-litert: pip install -r requirements-tools.txt"
        ) from error


def write(job, form, path):
    """Writes and opens the file.

    Args:
        job: a `job.Job`.
        form: a `forms.Form`.
        path: the file.

    Returns:
        A function of uint8 images to features, by LiteRT's interpreter.
    """
    own = (None, *job.encoder.input_shape[1:])
    shape = (None, None, None, job.channels) if form.any_size else own
    before = preprocessing.tensorflow(job.size, job.eval_crop)
    before = before if form.any_size else _as_they_are
    calibration = job.calibration if form.int8 else None
    path.write_bytes(graphs.tflite(job.encoder, before, shape, calibration))
    return opened(path)


def opened(path):
    """A function of uint8 images to features.

    Args:
        path: a file that `write` wrote.
    """
    from ai_edge_litert.interpreter import Interpreter

    encode = Interpreter(str(path)).get_signature_runner()
    return lambda images: encode(images=images)["features"]


def _as_they_are(images):
    import keras

    return keras.ops.cast(images, "float32")
