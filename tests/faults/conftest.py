import pytest

from tests.faults import small


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The flag that names the images."""
    return small.images(tmp_path_factory.mktemp("data") / "noise.npz")


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory):
    """The outcomes of runs that were never stopped, by the place of their augmentation."""
    found = {}
    for augment in ("host", "device"):
        path = tmp_path_factory.mktemp("whole") / augment
        assert small.pretrain(path, data, f"--augment={augment}") == 0
        found[augment] = small.outcome(path)
    return found
