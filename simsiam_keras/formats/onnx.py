"""The ONNX file: one input `images`, uint8 of any number, one output `features`."""

import keras

from simsiam_keras import devices
from simsiam_keras.formats import graphs, preprocessing, quantize

# Operator sets from which each converter's files were run here, and up to which it goes.
OPSETS = {"tensorflow": (13, 18), "jax": (18, 23), "torch": (13, 20)}
CONVERTERS = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "torch.onnx"}


def refuse(opset):
    """Raises where the file cannot be written here.

    Raises:
        ValueError: if the backend's converter does not know the operator set.
        ImportError: if a package is missing.
    """
    backend = keras.backend.backend()
    low, high = OPSETS[backend]
    if not low <= opset <= high:
        raise ValueError(
            f"--opset must be within {low} and {high}, which {CONVERTERS[backend]} writes on "
            f"--backend={backend}. Received: {opset}"
        )
    try:
        import onnx
        import onnxruntime  # noqa: F401

        if backend == "tensorflow":
            import tf2onnx  # noqa: F401
        elif backend == "jax":
            import jax2onnx  # noqa: F401
    except ImportError as error:
        file = "tools" if backend == "tensorflow" else f"onnx-{backend}"
        raise ImportError(
            f"ONNX needs {error.name}: pip install -r requirements-{file}.txt"
        ) from error
    return onnx


def model(job, form):
    """The file's content.

    Args:
        job: a `job.Job`.
        form: a `forms.Form`.

    Returns:
        An `onnx.ModelProto`.
    """
    from onnx import compose, helper

    core = CORES[keras.backend.backend()](job.encoder, job.opset)
    if form.int8:
        core = quantize.onnx_core(core, job.calibration)
    opset = next(entry.version for entry in core.opset_import if entry.domain == "")
    if form.any_size:
        arguments = (job.size, job.eval_crop, job.channels)
        front = preprocessing.onnx_graph(*arguments, opset, core.ir_version)
    else:
        front = preprocessing.onnx_cast(job.encoder.input_shape[1:], opset, core.ir_version)
    # Names of the front must not meet those of the encoder.
    front = compose.add_prefix(front, "prepare/", rename_inputs=False, rename_outputs=False)
    for other in core.opset_import:  # 8 bits have a domain of their own
        if other.domain:
            front.opset_import.append(helper.make_opsetid(other.domain, other.version))
    whole = compose.merge_models(front, core, io_map=[("pixels", "pixels")])
    (features,) = whole.graph.output
    features.type.tensor_type.shape.dim[0].dim_param = "n"
    features.type.tensor_type.shape.dim[1].dim_value = job.dim
    whole.doc_string = "images, uint8 [n, height, width, channels], to features"
    return whole


def write(job, form, path):
    """Writes and opens the file.

    Args:
        job: a `job.Job`.
        form: a `forms.Form`.
        path: the file.

    Returns:
        A function of uint8 images to features, by onnxruntime.
    """
    path.write_bytes(model(job, form).SerializeToString())
    return opened(path)


def opened(path):
    """A function of uint8 images to features.

    Args:
        path: an ONNX file that `write` wrote.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = [x.name for x in session.get_inputs()]
    if taken != ["images"]:
        raise RuntimeError(f"it asks for {taken} where `images` alone is meant")
    return lambda images: session.run(["features"], {"images": images})[0]


def _from_jax(encoder, opset):
    import jax2onnx

    return jax2onnx.to_onnx(
        lambda images: encoder(images, training=False),
        inputs=[("n", *encoder.input_shape[1:])],
        input_names=["pixels"],
        output_names=["features"],
        opset=opset,
    )


def _from_torch(encoder, opset):
    import io

    import onnx
    import torch

    class Encode(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, pixels):
            return self.encoder(pixels, training=False)

    file = io.BytesIO()
    with torch.no_grad(), devices.on_host():
        # By tracing: the newer exporter takes five times as long and onnxscript besides.
        torch.onnx.export(
            Encode().eval(),
            (keras.ops.zeros((2, *encoder.input_shape[1:])),),
            file,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes={"pixels": {0: "n"}, "features": {0: "n"}},
            opset_version=opset,
            dynamo=False,
        )
    return onnx.load_from_string(file.getvalue())


CORES = {"tensorflow": graphs.onnx_core, "jax": _from_jax, "torch": _from_torch}
