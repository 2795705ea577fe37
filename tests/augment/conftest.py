import pytest

from tests.augment import engines

NEEDS_HOST = pytest.mark.skipif(not engines.HAS_HOST, reason="needs tensorflow and keras_cv")


@pytest.fixture(
    params=[engines.Device, pytest.param(engines.Host, marks=NEEDS_HOST)],
    ids=["device", "host"],
    scope="session",
)
def engine(request):
    return request.param()
