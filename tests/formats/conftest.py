import keras
import pytest

from simsiam_keras import encoders, export
from tests.tiny import randomized

SIZE, CROP = 16, 0.875


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with a small encoder that `export` could have left; not to be changed."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    encoder = randomized(encoders.resnet10((SIZE, SIZE, 3), width=4))
    export.save_encoder(encoder, folder, eval_crop=CROP)
    return folder
