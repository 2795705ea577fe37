"""Features of a data set."""

import numpy as np

from simsiam_keras.data.pipeline import evaluation_batches


def embed(encode, source, size, eval_crop=1.0, batch_size=256, on_batch=None):
    """Puts the un-augmented images of a source through an encoder, in order.

    Args:
        encode: function of uint8 images `[m, size, size, 3]` to features `[m, d]`.
        source: a `data.sources.Source` of n images.
        size: side of the images in pixels.
        eval_crop: share of the resized short side that the centre crop keeps.
        batch_size: images in a call of `encode`.
        on_batch: called with the number of images done after each batch.

    Returns:
        Features, a float32 NumPy array `[n, d]`.
    """
    features = []
    for images, _ in evaluation_batches(source, size, eval_crop, batch_size):
        features.append(np.asarray(encode(images), "float32"))
        if on_batch:
            on_batch(len(images))
    return np.concatenate(features)
