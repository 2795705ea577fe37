"""A small encoder and small pictures of three classes, in a file."""

import keras
import numpy as np

from simsiam_keras import encoders, export

SIDE, CLASSES = 12, 3
CENTRES = np.array([[150, 90, 90], [90, 150, 90], [90, 90, 150]])


def pictures(per_class, seed):
    """Noise about the colour of each class, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(CLASSES), per_class))
    noise = random.normal(0, 60, (len(labels), SIDE, SIDE, 3))
    images = CENTRES[labels][:, None, None] + noise
    return images.clip(0, 255).astype("uint8"), labels


def encoder(seed=0):
    """A network of which nothing is the identity."""
    keras.utils.set_random_seed(seed)
    return encoders.resnet10((SIDE, SIDE, 3), stem="stride2", width=4)


def run_folder(folder, seed=0, start=None):
    """A folder with an encoder, as a run leaves one."""
    export.save_encoder(encoder(seed), folder)
    if start is not None:
        encoder(start).save(folder / "start.keras")
    return folder


def data_set(path, per_class=8, test_per_class=10, **changed):
    """A .npz file; returns what `--dataset` names it."""
    train, test = pictures(per_class, 0), pictures(test_per_class, 1)
    arrays = {
        "train_images": train[0],
        "train_labels": train[1],
        "test_images": test[0],
        "test_labels": test[1],
    }
    np.savez(path, **{k: v for k, v in {**arrays, **changed}.items() if v is not None})
    return f"npz:{path}"
