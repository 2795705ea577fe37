"""TensorFlow's graphs of an encoder, with its weights as constants in them."""

import tempfile
from pathlib import Path

from simsiam_keras import saved_model
from simsiam_keras.formats import preprocessing


def constant(encoder, before, shape, dtype):
    """The graph of an encoder without variables.

    What layers hold beside their weights, such as the mean of a normalization, is captured by a
    traced function as further inputs, which converters take for the file's own. In the graph these
    are constants already, and here nothing but the images is an input.

    Args:
        encoder: a functional `keras.Model`, on TensorFlow.
        before: function of the images to the encoder's pixels.
        shape: of the images, None where any.
        dtype: of the images.

    Returns:
        A `GraphDef`, and the names of its input and its output.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    traced = tf.function(lambda images: encoder(before(images), training=False))
    concrete = traced.get_concrete_function(tf.TensorSpec(shape, dtype, name="images"))
    frozen = convert_to_constants.convert_variables_to_constants_v2(concrete)
    return frozen.graph.as_graph_def(), "images:0", frozen.outputs[0].name


def onnx_core(encoder, opset):
    """An encoder as ONNX by tf2onnx, from `pixels`, float, to `features`.

    Args:
        encoder: as in `constant`.
        opset: operator set.

    Returns:
        An `onnx.ModelProto`.
    """
    import tf2onnx

    shape = (None, *encoder.input_shape[1:])
    graph, taken, given = constant(encoder, lambda images: images, shape, "float32")
    renamed = {taken: "pixels", given: "features"}
    model, _ = tf2onnx.convert.from_graph_def(
        graph, input_names=[taken], output_names=[given], opset=opset, tensors_to_rename=renamed
    )
    return model


def tflite(encoder, before, shape, calibration=None):
    """An encoder as LiteRT's file.

    Args:
        encoder: as in `constant`.
        before: likewise.
        shape: likewise.
        calibration: uint8 images that 8-bit integers are fitted to; default None, floats.

    Returns:
        Bytes.
    """
    import tensorflow as tf

    graph, taken, given = constant(encoder, before, shape, "uint8")
    imported = tf.compat.v1.wrap_function(
        lambda: tf.compat.v1.import_graph_def(graph, name=""), signature=[]
    )
    find = imported.graph.get_tensor_by_name
    encode = imported.prune(find(taken), find(given))
    spec = tf.TensorSpec(shape, "uint8", name="images")
    module = tf.Module()
    module.serve = tf.function(lambda images: {"features": encode(images)}, input_signature=[spec])
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch, "encoder"))
        tf.saved_model.save(module, path, signatures={"serving_default": module.serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(path)
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        return converter.convert()


def write_saved_model(job, form, path):
    """Writes and opens a SavedModel.

    Args:
        job: a `job.Job`, on any backend that TensorFlow is installed beside.
        form: a `forms.Form`.
        path: the folder.

    Returns:
        A function of uint8 images to features, by the signature that TensorFlow Serving serves.
    """
    import tensorflow as tf

    before = preprocessing.tensorflow(job.size, job.eval_crop) if form.any_size else None
    saved_model.write(job.encoder, path, before)
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda images: served(images=tf.constant(images))["features"].numpy()
