"""Evaluation's resize and crop as part of a graph: uint8 images of any size to an encoder's pixels.

It computes what `data.images.resize_and_crop` has Pillow compute: the short side becomes
`round(size / eval_crop)`, bilinear with antialiasing, and the centre is cropped. As Pillow does, it
weighs the pixels of a line by a triangle, in whole parts of 2^22, first across, then down, and
rounds after each. Only what the crop keeps is computed, by a matrix of weights for each direction.
In float64 all of these sums are exact, and so are ties: every pixel is Pillow's.
"""

import numpy as np

PARTS = 2.0**22  # that Pillow divides a weight into
# As ONNX writes a graph; 1, 7 and 11 are its numbers for float32, int64 and float64.
_ONNX = """
prepare (uint8[n, height, width, {channels}] images)
=> (float[n, {size}, {size}, {channels}] pixels)
{{
  shape = Shape (images)
  rows = Gather (shape, at_1)
  columns = Gather (shape, at_2)
  short = Min (rows, columns)
{sides}
  values = Cast <to = 11> (images)
  across = Transpose <perm = [0, 1, 3, 2]> (values)
  turned = Transpose <perm = [1, 0]> (columns_weights)
  narrow_parts = MatMul (across, turned)
  narrow_whole = Div (narrow_parts, parts)
  narrow_half = Add (narrow_whole, half_double)
  narrow = Floor (narrow_half)
  lines = Reshape (narrow, flat_shape)
  small_parts = MatMul (rows_weights, lines)
  small_whole = Div (small_parts, parts)
  small_half = Add (small_whole, half_double)
  small = Floor (small_half)
  small_float = Cast <to = 1> (small)
  planes = Reshape (small_float, plane_shape)
  pixels = Transpose <perm = [0, 1, 3, 2]> (planes)
}}
"""
# Of one direction: the length of the resized image, rounded half to even, and the weights.
_SIDE = """
  product_S = Mul (S, target)
  quotient_S = Div (product_S, short)
  rest_S = Mod (product_S, short)
  twice_S = Add (rest_S, rest_S)
  above_S = Greater (twice_S, short)
  tie_S = Equal (twice_S, short)
  parity_S = Mod (quotient_S, two)
  odd_S = Equal (parity_S, one)
  upwards_S = And (tie_S, odd_S)
  more_S = Or (above_S, upwards_S)
  plus_S = Cast <to = 7> (more_S)
  rounded_S = Add (quotient_S, plus_S)
  long_S = Max (rounded_S, target)
  margin_S = Sub (long_S, size)
  first_S = Div (margin_S, two)
  first_double_S = Cast <to = 11> (first_S)
  side_double_S = Cast <to = 11> (S)
  long_double_S = Cast <to = 11> (long_S)
  scale_S = Div (side_double_S, long_double_S)
  support_S = Max (scale_S, one_double)
  output_S = Add (first_double_S, centres)
  place_S = Mul (output_S, scale_S)
  S_scalar = Squeeze (S)
  numbers_S = Range (zero_scalar, S_scalar, one_scalar)
  numbers_double_S = Cast <to = 11> (numbers_S)
  input_S = Add (numbers_double_S, half_double)
  apart_S = Sub (input_S, place_S)
  distance_S = Abs (apart_S)
  share_S = Div (distance_S, support_S)
  triangle_S = Sub (one_double, share_S)
  positive_S = Max (triangle_S, zero_double)
  total_S = ReduceSum <keepdims = 1> (positive_S, axis_1)
  weight_S = Div (positive_S, total_S)
  parts_S = Mul (weight_S, parts)
  more_parts_S = Add (parts_S, half_double)
  S_weights = Floor (more_parts_S)
"""


def onnx_graph(size, eval_crop, channels, opset, ir_version):
    """The resize and crop as an ONNX model.

    Args:
        size: side of the encoder's images.
        eval_crop: share of the short side that is kept.
        channels: of the images.
        opset: operator set, at least 13.
        ir_version: of the format.

    Returns:
        An `onnx.ModelProto` from `images`, uint8 `[n, height, width, channels]`, to `pixels`, float
        `[n, size, size, channels]` of whole numbers.
    """
    from onnx import helper, numpy_helper, parser

    sides = "".join(_side(name) for name in ("rows", "columns"))
    graph = parser.parse_graph(_ONNX.format(size=size, channels=channels, sides=sides))
    constants = {
        "at_1": np.array([1]),
        "at_2": np.array([2]),
        "axis_1": np.array([1]),
        "target": np.array([round(size / eval_crop)]),
        "size": np.array([size]),
        "one": np.array([1]),
        "two": np.array([2]),
        "zero_scalar": np.array(0),
        "one_scalar": np.array(1),
        "flat_shape": np.array([0, 0, -1]),
        "plane_shape": np.array([0, 0, channels, size]),
        "centres": np.arange(size)[:, None] + 0.5,
        "half_double": np.array([0.5]),
        "one_double": np.array([1.0]),
        "zero_double": np.array([0.0]),
        "parts": np.array([PARTS]),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    return _model(helper, graph, opset, ir_version)


def onnx_cast(shape, opset, ir_version):
    """The beginning of a graph that takes images of the encoder's own size.

    Args:
        shape: `(height, width, channels)`.
        opset: as in `onnx_graph`.
        ir_version: likewise.

    Returns:
        An `onnx.ModelProto` from `images`, uint8, to `pixels`, float, both `[n, *shape]`.
    """
    from onnx import helper, parser

    dims = ", ".join(map(str, ("n", *shape)))
    head = f"cast (uint8[{dims}] images) => (float[{dims}] pixels)"
    graph = parser.parse_graph(f"{head} {{ pixels = Cast <to = 1> (images) }}")
    return _model(helper, graph, opset, ir_version)


def _side(name):
    words = _SIDE.replace("S_scalar", f"{name}_scalar").replace("S_weights", f"{name}_weights")
    for before, after in (("_S", f"_{name}"), ("(S)", f"({name})"), ("(S,", f"({name},")):
        words = words.replace(before, after)
    return words


def _model(helper, graph, opset, ir_version):
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )


def tensorflow(size, eval_crop, exact=True):
    """The same as a function of TensorFlow's tensors.

    Args:
        size: as in `onnx_graph`.
        eval_crop: likewise.
        exact: whether it computes in float64; LiteRT cannot, and in float32 some ties fall the
            other way, by 1 of 255.

    Returns:
        A function of uint8 `[n, height, width, c]` to float32 `[n, size, size, c]`.
    """
    import tensorflow as tf

    target, kind = round(size / eval_crop), tf.float64 if exact else tf.float32
    centres = tf.constant(np.arange(size)[:, None] + 0.5, kind)

    def weights(side, short):
        quotient, rest = side * target // short, side * target % short
        up = (2 * rest > short) | ((2 * rest == short) & (quotient % 2 == 1))
        long = tf.maximum(quotient + tf.cast(up, tf.int32), target)
        scale = tf.cast(side, kind) / tf.cast(long, kind)
        place = (tf.cast((long - size) // 2, kind) + centres) * scale
        apart = tf.abs(tf.cast(tf.range(side), kind) + 0.5 - place)
        triangle = tf.maximum(1.0 - apart / tf.maximum(scale, 1.0), 0.0)
        weights = triangle / tf.reduce_sum(triangle, axis=1, keepdims=True)
        return tf.floor(weights * PARTS + 0.5) if exact else weights

    def rounded(values):
        return tf.floor(values / PARTS + 0.5 if exact else values + 0.5)

    def prepare(images):
        shape, channels = tf.shape(images), images.shape[-1]
        n, rows, columns = shape[0], shape[1], shape[2]
        short = tf.minimum(rows, columns)
        across = tf.transpose(tf.cast(images, kind), [0, 1, 3, 2])
        across = tf.reshape(across, [n * rows * channels, columns])
        narrow = rounded(tf.matmul(across, weights(columns, short), transpose_b=True))
        lines = tf.reshape(narrow, [n, rows, channels * size])
        small = tf.cast(rounded(tf.matmul(weights(rows, short)[None], lines)), tf.float32)
        return tf.transpose(tf.reshape(small, [n, size, channels, size]), [0, 1, 3, 2])

    return prepare
