"""The SavedModel as TensorFlow Serving calls it: by the names in its signature, in JSON."""

import json

import numpy as np
import pytest

from simsiam_keras import export
from simsiam_keras.formats.forms import Form
from simsiam_keras.formats.graphs import write_saved_model
from simsiam_keras.formats.job import Job
from tests.formats.conftest import CROP, SIZE
from tests.tiny import pixels


@pytest.fixture(scope="module")
def signatures(tiny, tmp_path_factory):
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("served")
    job = Job(export.load_encoder(tiny / "encoder.keras").model, CROP)
    write_saved_model(job, Form("saved_model", any_size=True), folder / "any_size")
    modules = [tf.saved_model.load(str(path)) for path in (tiny / "encoder", folder / "any_size")]
    return job, modules


def answered(signature, request):
    """What the server's REST interface makes of a request, by its documentation."""
    import tensorflow as tf

    ((name, spec),) = signature.structured_input_signature[1].items()
    body = json.loads(request)
    if "instances" in body:
        rows = [row[name] if isinstance(row, dict) else row for row in body["instances"]]
    else:
        rows = body["inputs"][name] if isinstance(body["inputs"], dict) else body["inputs"]
    images = np.array(rows)
    assert images.min() >= 0 and images.max() <= 255
    given = signature(**{name: tf.constant(images.astype(spec.dtype.as_numpy_dtype))})
    ((_, features),) = given.items()  # the only one, which the answer does not name
    key = "predictions" if "instances" in body else "outputs"
    return json.loads(json.dumps({key: features.numpy().tolist()}))[key]


def test_the_signatures_name_what_they_take_and_give(signatures):
    import tensorflow as tf

    for module, sides in zip(signatures[1], ([SIZE, SIZE], [None, None]), strict=True):
        assert set(module.signatures) == {"serving_default", "serve"}
        for signature in module.signatures.values():
            taken = signature.structured_input_signature[1]
            assert {k: (v.shape.as_list(), v.dtype) for k, v in taken.items()} == {
                "images": ([None, *sides, 3], tf.uint8)
            }
            given = signature.structured_outputs
            assert {k: (v.shape.as_list(), v.dtype) for k, v in given.items()} == {
                "features": ([None, 32], tf.float32)
            }


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    "request_of",
    [
        lambda x: {"instances": x},
        lambda x: {"instances": [{"images": image} for image in x]},
        lambda x: {"inputs": x},
        lambda x: {"inputs": {"images": x}, "signature_name": "serving_default"},
    ],
)
def test_both_formats_of_a_request_are_answered(request_of, n, signatures):
    job, modules = signatures
    for module, (height, width) in zip(modules, ((SIZE, SIZE), (41, 23)), strict=True):
        images = pixels(n, height, width, 3)
        request = json.dumps(request_of(images.tolist()))
        answer = answered(module.signatures["serving_default"], request)
        expected = job.features(images if height == SIZE else job.prepared(images))
        np.testing.assert_allclose(answer, expected, atol=1e-4 * np.abs(expected).max())
