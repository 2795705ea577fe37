"""oneDNN's weight gradient of a strided 1x1 convolution leaves its memory, in plain TensorFlow.

    python tests/faults/onednn.py strided 1 8 32    # 1 image of 32x32 pixels and 8 channels
    python tests/faults/onednn.py picked 1 8 32     # the same by average pooling of one pixel

The first ends with a signal ("malloc(): corrupted top size", "double free", a segmentation fault)
with TensorFlow 2.21, which has oneDNN 3.7.3, on a CPU with AVX-512; the second prints an error of
1e-7. Without memory being hit that matters, the first prints its error as well.

For strides oneDNN copies the pixels that are taken into a buffer, `[positions, channels]` for each
thread, but counts `position * 16` for where a thread begins. So it goes wrong where

- channels < 16 with AVX-512 (`jit_1x1:avx512_core`), < 8 with AVX2 (`jit_1x1:avx2`), and the stride
  divides height and width, and
- with AVX-512, a thread begins within an image: when the threads do not divide the images (two
  threads, an odd batch; from 8x8 outputs on), or when the image is large (32x32 outputs of 16
  channels: any batch). With AVX2 it does at any batch, and at 7 channels the process lives and the
  gradient is wrong by more than its size.

`TF_ENABLE_ONEDNN_OPTS=0` is without it, and `ONEDNN_MAX_CPU_ISA=AVX2` shows the other half.
PyTorch 2.13 has the same fault. Known as https://github.com/uxlfoundation/oneDNN/issues/6035.
"""

import sys

import numpy as np
import tensorflow as tf


def gradient(way, x, dy):
    channels, filters = x.shape[-1], dy.shape[-1]
    strides = [1, 2, 2, 1]
    if way == "picked":
        x, strides = tf.nn.avg_pool2d(x, 1, 2, "VALID"), [1, 1, 1, 1]
    return tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=[1, 1, channels, filters],
        out_backprop=dy,
        strides=strides,
        padding="VALID",
    )


def error(way, images, channels, size):
    """Largest error of five gradients against float64, relative to the largest value."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, size, size, channels))
    dy = rng.normal(size=(images, size // 2, size // 2, 16))
    expected = np.einsum("nhwi,nhwo->io", x[:, ::2, ::2], dy)
    x, dy = tf.constant(x, "float32"), tf.constant(dy, "float32")
    errors = [np.abs(gradient(way, x, dy).numpy()[0, 0] - expected).max() for _ in range(5)]
    return max(errors) / np.abs(expected).max()


if __name__ == "__main__":
    print(error(sys.argv[1], *map(int, sys.argv[2:])))
