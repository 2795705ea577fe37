"""A warning that our own modules raise, or that others raise because of them, fails a test."""

import warnings

import pytest


def warn_from(module):
    exec("import warnings; warnings.warn('old', DeprecationWarning)", {"__name__": module})


@pytest.mark.parametrize("module", ["simsiam_keras", "simsiam_keras.data.base", "tests.test_any"])
def test_our_warnings_are_errors(module):
    with pytest.raises(DeprecationWarning, match="old"):
        warn_from(module)


def test_a_warning_here_is_an_error():
    with pytest.raises(UserWarning):
        warnings.warn("here", stacklevel=1)


@pytest.mark.filterwarnings("ignore:old")  # added later, so it comes first for all that match
def test_a_test_may_expect_one():
    warn_from("simsiam_keras.locks")


@pytest.mark.parametrize("module", ["keras.src.ops", "simsiam_keras_of_others", "numpy"])
def test_warnings_of_others_are_not(module):
    with warnings.catch_warnings(record=True) as found:
        warn_from(module)
    assert [str(w.message) for w in found] == ["old"]
