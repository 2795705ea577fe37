"""OpenVINO's pair of files, made from the ONNX file."""

import tempfile
from pathlib import Path

from simsiam_keras.formats import onnx

FILE = "encoder.xml"  # and encoder.bin, in the form's folder


def refuse(opset):
    """Raises where they cannot be written here, as `onnx.refuse`."""
    onnx.refuse(opset)
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "--format=openvino needs openvino: pip install -r requirements-tools.txt"
        ) from error


def write(job, form, path):
    """Writes and opens them.

    Args:
        job: a `job.Job`.
        form: a `forms.Form`.
        path: the folder.

    Returns:
        A function of uint8 images to features.
    """
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        onnx.write(job, form, file := Path(scratch, "encoder.onnx"))
        converted = openvino.convert_model(str(file))
        # The weights as they are: its default is to round them to 16 bits.
        openvino.save_model(converted, str(path / FILE), compress_to_fp16=False)
    return opened(path)


def opened(path):
    """A function of uint8 images to features.

    Args:
        path: a folder that `write` wrote.
    """
    import openvino

    # The CPU's default is 16 bits where it has them.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(str(Path(path, FILE)), "CPU", exact)
    return lambda images: compiled({"images": images})["features"].copy()
