"""What an error says of how an exchange ended."""

import inspect

import pytest

from shadowcat import errors
from shadowcat.proxy.outcomes import OUTCOMES, outcome_of
from shadowcat.record import Outcome

LEAVES = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, errors.ShadowcatError)]


@pytest.mark.parametrize("error", LEAVES)
def test_each_error_that_a_client_is_told_has_an_outcome_that_is_no_bug(error):
    """Those of the command line never reach a client."""
    never_told = error in (errors.ShadowcatError, errors.ConfigError, errors.WorkerFailed)
    found = outcome_of(error.__new__(error))
    assert (found is Outcome.FAILED) == never_told


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (KeyError("a"), Outcome.FAILED),
        (errors.InvalidRequest("a"), Outcome.REFUSED),
        (errors.RemoteProtocolError("a"), Outcome.BROKEN),
        (errors.UpstreamBusy("a"), Outcome.UNAVAILABLE),
        (errors.StoreUnavailable("a"), Outcome.STORE_ERROR),
        (errors.SessionLimitReached("a"), Outcome.LIMITED),
    ],
)
def test_nearest_ancestor_decides(error, outcome):
    assert outcome_of(error) is outcome


def test_what_is_no_error_is_no_errors_outcome():
    assert not {Outcome.OK, Outcome.ERROR, Outcome.REJECTED} & set(OUTCOMES.values())
