import pytest

from tests.data.numbered import OnTheFly, numbered


@pytest.fixture(params=[numbered, OnTheFly], ids=["in memory", "on the fly"])
def source(request):
    return request.param()
