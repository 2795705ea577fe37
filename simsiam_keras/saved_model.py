"""A model of images as a SavedModel, which TensorFlow alone loads and TensorFlow Serving serves."""

import functools

import keras


def write(encoder, path, before=None, output="features", classes=()):
    """Writes a model as a SavedModel: `serve`, and a signature from `images` to `features`.

    Args:
        encoder: a functional `keras.Model`, images to `[n, width]`.
        path: folder to write.
        before: what TensorFlow makes of uint8 images of any size for the encoder; default None, it
            takes images of its own.
        output: name of the output; default "features".
        classes: names that a signature `classes` gives as `names`; default none, and it is not
            there.
    """
    import tensorflow as tf

    shape = (None, *encoder.input_shape[1:])
    taken = (None, None, None, shape[-1]) if before else shape
    dtypes = [tf.uint8] if before else [tf.uint8, tf.float32]
    before = before or (lambda images: images)
    if keras.backend.backend() == "tensorflow":
        variables = [v.value for v in encoder.variables]
        encode = functools.partial(encoder, training=False)
    else:
        dtypes = dtypes[:1]
        archive = keras.export.ExportArchive()
        archive.track(encoder)
        spec = keras.InputSpec(shape=shape, dtype="float32" if taken != shape else "uint8")
        encode = archive.add_endpoint("serve", encoder, input_signature=[spec])
        variables = archive.variables
    call = tf.function(lambda images: encode(before(images)))
    specs = [tf.TensorSpec(taken, dtype, name="images") for dtype in dtypes]
    for spec in specs:
        call.get_concrete_function(spec)
    named = tf.function(lambda images: {output: call(images)}, input_signature=specs[:1])
    # Not a function but an object that is called: it holds its variables, a function does not, and
    # `tf.saved_model.load(path).serve(images)` keeps nothing else.
    served, module = tf.Module(), tf.Module()
    served.weights = variables
    served.__call__ = call
    module.serve = served
    signatures = {name: named for name in ("serving_default", "serve")}
    if classes:
        names = tf.constant([name.encode("utf-8", "surrogateescape") for name in classes])
        module.classes = tf.function(lambda: {"names": names}, input_signature=[])
        signatures["classes"] = module.classes.get_concrete_function()
    tf.saved_model.save(module, str(path), signatures=signatures)


def available():
    """Whether TensorFlow can be imported."""
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        return False
    return True
