"""Evaluation's resize and crop as part of a graph: uint8 images of any size to an encoder's pixels.

It computes what `data.images.resize_and_crop` has Pillow compute: the short side becomes
`round(size / eval_crop)`, bilinear with antialiasing, and the centre is cropped. As Pillow does, it
weighs the pixels of a line by a triangle, first across, then down, and rounds after each. Only what
the crop keeps is computed, by a matrix of weights for each direction.

Pillow's weights are whole parts of 2^22. Here they are quotients of whole numbers, in two digits of
11 bits, high and low: sums of a digit times a pixel are exact in float32, and so ties fall as they
fall in Pillow.
"""

import numpy as np

DIGIT = 2**11
HALF = 2**21  # of 2^22 parts

# As ONNX writes a graph; 1 and 7 are its numbers for float32 and int64.
_ONNX = """
prepare (uint8[n, height, width, {channels}] images)
=> (float[n, {size}, {size}, {channels}] pixels)
{{
  shape = Shape (images)
  rows = Gather (shape, at_1)
  columns = Gather (shape, at_2)
  short = Min (rows, columns)
{sides}
  values = Cast <to = 1> (images)
  across = Transpose <perm = [0, 1, 3, 2]> (values)
  high_turned = Transpose <perm = [1, 0]> (high_columns)
  low_turned = Transpose <perm = [1, 0]> (low_columns)
  high_across = MatMul (across, high_turned)
  low_across = MatMul (across, low_turned)
{across}
  lines = Reshape (whole_across, flat_shape)
  high_down = MatMul (high_rows, lines)
  low_down = MatMul (low_rows, lines)
{down}
  planes = Reshape (whole_down, plane_shape)
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
  scalar_S = Squeeze (S)
  numbers_S = Range (zero_scalar, scalar_S, one_scalar)
  twice_in_S = Mul (numbers_S, two)
  odd_in_S = Add (twice_in_S, one)
  place_in_S = Mul (odd_in_S, long_S)
  output_S = Add (first_S, outputs)
  twice_out_S = Mul (output_S, two)
  odd_out_S = Add (twice_out_S, one)
  place_out_S = Mul (odd_out_S, S)
  apart_S = Sub (place_in_S, place_out_S)
  distance_S = Abs (apart_S)
  longest_S = Max (long_S, S)
  reach_S = Mul (longest_S, two)
  room_S = Sub (reach_S, distance_S)
  triangle_S = Max (room_S, zero)
  total_S = ReduceSum <keepdims = 1> (triangle_S, axis_1)
  scaled_S = Mul (triangle_S, digit)
  high_whole_S = Div (scaled_S, total_S)
  left_S = Mod (scaled_S, total_S)
  scaled_left_S = Mul (left_S, digit)
  low_whole_S = Div (scaled_left_S, total_S)
  last_S = Mod (scaled_left_S, total_S)
  twice_last_S = Add (last_S, last_S)
  less_S = Less (twice_last_S, total_S)
  up_S = Not (less_S)
  carry_S = Cast <to = 7> (up_S)
  low_rounded_S = Add (low_whole_S, carry_S)
  high_S = Cast <to = 1> (high_whole_S)
  low_S = Cast <to = 1> (low_rounded_S)
"""
# The sum of both digits as a whole pixel, halves rounded up.
_WHOLE = """
  with_half_S = Add (low_S, half)
  shifted_S = Div (with_half_S, digit_float)
  carried_S = Floor (shifted_S)
  both_S = Add (high_S, carried_S)
  divided_S = Div (both_S, digit_float)
  whole_S = Floor (divided_S)
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
    from onnx import numpy_helper, parser

    sides = _of(_SIDE, "rows") + _of(_SIDE, "columns")
    parts = {"sides": sides, "across": _of(_WHOLE, "across"), "down": _of(_WHOLE, "down")}
    graph = parser.parse_graph(_ONNX.format(size=size, channels=channels, **parts))
    constants = {
        "at_1": [1],
        "at_2": [2],
        "axis_1": [1],
        "target": [round(size / eval_crop)],
        "size": [size],
        "zero": [0],
        "one": [1],
        "two": [2],
        "digit": [DIGIT],
        "zero_scalar": 0,
        "one_scalar": 1,
        "flat_shape": [0, 0, -1],
        "plane_shape": [0, 0, channels, size],
        "outputs": np.arange(size)[:, None],
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, "int64"), name))
    for name, value in (("half", HALF), ("digit_float", DIGIT)):
        graph.initializer.append(numpy_helper.from_array(np.array([value], "float32"), name))
    return _model(graph, opset, ir_version)


def onnx_cast(shape, opset, ir_version):
    """The beginning of a graph that takes images of the encoder's own size.

    Args:
        shape: `(height, width, channels)`.
        opset: as in `onnx_graph`.
        ir_version: likewise.

    Returns:
        An `onnx.ModelProto` from `images`, uint8, to `pixels`, float, both `[n, *shape]`.
    """
    from onnx import parser

    dims = ", ".join(map(str, ("n", *shape)))
    head = f"cast (uint8[{dims}] images) => (float[{dims}] pixels)"
    graph = parser.parse_graph(f"{head} {{ pixels = Cast <to = 1> (images) }}")
    return _model(graph, opset, ir_version)


def _of(lines, name):
    """The lines of a template with a name in the place of `S`."""
    for before, after in (("_S ", f"_{name} "), ("_S)", f"_{name})"), ("_S,", f"_{name},")):
        lines = lines.replace(before, after)
    return lines.replace("(S,", f"({name},").replace(" S)", f" {name})").replace("(S)", f"({name})")


def _model(graph, opset, ir_version):
    from onnx import helper

    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def tensorflow(size, eval_crop):
    """The same as a function of TensorFlow's tensors.

    Args:
        size: as in `onnx_graph`.
        eval_crop: likewise.

    Returns:
        A function of uint8 `[n, height, width, c]` to float32 `[n, size, size, c]`.
    """
    import tensorflow as tf

    target = round(size / eval_crop)
    outputs = tf.range(size)[:, None]

    def weights(side, short):
        quotient, rest = side * target // short, side * target % short
        up = (2 * rest > short) | ((2 * rest == short) & (quotient % 2 == 1))
        long = tf.maximum(quotient + tf.cast(up, tf.int32), target)
        place_in = (2 * tf.range(side) + 1) * long
        place_out = (2 * ((long - size) // 2 + outputs) + 1) * side
        triangle = tf.maximum(2 * tf.maximum(side, long) - tf.abs(place_in - place_out), 0)
        total = tf.reduce_sum(triangle, axis=1, keepdims=True)
        high, left = triangle * DIGIT // total, triangle * DIGIT % total
        low, last = left * DIGIT // total, left * DIGIT % total
        low += tf.cast(2 * last >= total, tf.int32)
        return tf.cast(high, tf.float32), tf.cast(low, tf.float32)

    def whole(high, low):
        return tf.floor((high + tf.floor((low + HALF) / DIGIT)) / DIGIT)

    def prepare(images):
        shape, channels = tf.shape(images), images.shape[-1]
        n, rows, columns = shape[0], shape[1], shape[2]
        short = tf.minimum(rows, columns)
        across = tf.transpose(tf.cast(images, tf.float32), [0, 1, 3, 2])
        across = tf.reshape(across, [n * rows * channels, columns])
        digits = weights(columns, short)
        narrow = whole(*(tf.matmul(across, digit, transpose_b=True) for digit in digits))
        lines = tf.reshape(narrow, [n, rows, channels * size])
        small = whole(*(tf.matmul(digit[None], lines) for digit in weights(rows, short)))
        return tf.transpose(tf.reshape(small, [n, size, channels, size]), [0, 1, 3, 2])

    return prepare
