"""TensorFlow data sets, from a prepared folder and refused."""

import tarfile

import numpy as np
import pytest

from simsiam_keras.data import decoding, sources
from tests.conftest import ROOT

SHARED = ROOT.parent / "shared" / "data"


def archive(name):
    if not (SHARED / name).exists():
        pytest.skip(f"needs CIFAR-10 as {SHARED / name}")
    return tarfile.open(SHARED / name)


@pytest.fixture(scope="module")
def cifar_tfds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    with archive("cifar10_tfds.tar.xz") as tar:
        members = [m for m in tar if "train.tfrecord" not in m.name]
        tar.extractall(folder, members, filter="data")
    return folder


@pytest.fixture(scope="module")
def cifar_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    with archive("cifar10_folder.tar.gz") as tar:
        wanted = (m for m in tar if m.isfile() and "/test/" in m.name)
        tar.extractall(folder, (m for m in wanted if "/000" in m.name), filter="data")
    return folder / "cifar10_images"


def test_tfds_reads_a_prepared_folder_offline(cifar_tfds, cifar_folder):
    prepared = sources.load("cifar10", str(cifar_tfds), "test")
    assert len(prepared) == 10_000 and prepared.image_shape == (32, 32, 3)
    assert isinstance(prepared, sources.ArraySource)
    assert prepared.class_names[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(prepared.labels).tolist() == [1000] * 10
    assert sources.splits("cifar10", str(cifar_tfds)) == ("train", "test")
    # The same pictures as files: one decoder, so the same pixels.
    files = sources.load(f"folder:{cifar_folder}", split="test")
    assert len(files) >= 50 and files.class_names == prepared.class_names
    known = {i.tobytes(): c for i, c in zip(prepared.images, prepared.labels, strict=True)}
    assert [known[i.tobytes()] for i in files.images] == files.labels.tolist()


def test_tfds_split_syntax(cifar_tfds):
    part = sources.load("cifar10", str(cifar_tfds), "test[10:30]")
    assert len(part) == 20
    with pytest.raises(sources.NoSuchSplit, match="one of train, test for cifar10.*split=tset"):
        sources.load("cifar10", str(cifar_tfds), "tset")


def test_tfds_that_does_not_fit_stays_encoded_or_is_refused(cifar_tfds, monkeypatch):
    load = sources.load
    inside = load("cifar10", str(cifar_tfds), "test[:20]")
    monkeypatch.setattr(decoding, "DECODED_BYTES", 1000)
    outside = load("cifar10", str(cifar_tfds), "test[:20]")
    assert isinstance(outside, sources.EncodedSource)
    assert outside.fingerprint == inside.fingerprint
    assert outside.labels.tolist() == inside.labels.tolist()
    assert all(np.array_equal(outside.read(i), inside.read(i)) for i in range(20))
    monkeypatch.setattr("simsiam_keras.data.tfds.memory_bytes", lambda: 1000)
    with pytest.raises(ValueError, match="half of the memory.*use `folder:PATH`"):
        load("cifar10", str(cifar_tfds), "test[:20]")


def test_tfds_unknown_names(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="Received: dataset=cifar11; did you mean .*cifar10"):
        sources.load("cifar11", str(tmp_path))
    with pytest.raises(ValueError, match=f"did you mean folder:{tmp_path}"):
        sources.load(str(tmp_path))
    with pytest.raises(ValueError, match="did you mean npz:a.npz"):
        sources.load("a.npz")
    with pytest.raises(ValueError, match="Received: dataset=cifar10/none; TFDS says: .*none"):
        sources.load("cifar10/none", str(tmp_path))


def test_tfds_that_cannot_be_prepared(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def fail(self, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(ValueError, match="could not download and prepare mnist.*no network"):
        sources.load("mnist", str(tmp_path))


def test_tfds_without_images(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from simsiam_keras.data import tfds as ours

    _, tfds = ours._modules("iris")
    with pytest.raises(ValueError, match="must have an image feature.*features: features, label"):
        ours._features(tfds, "iris", tfds.builder("iris").info.features)
