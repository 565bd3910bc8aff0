"""Which headers may be forwarded."""

import pytest

from shadowcat import EndpointConfig
from shadowcat.errors import ConfigError


def test_names_are_compared_in_lower_case():
    assert EndpointConfig(forward_headers=["Authorization", " X-Key "]).forward_headers == {b"authorization", b"x-key"}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("Authorization", "one header where several are meant"),
        (["a b"], "no header name"),
        (["Host"], "cannot be forwarded"),
        (["Mcp-Session-Id"], "cannot be forwarded"),
        (["last-event-id"], "cannot be forwarded"),
    ],
)
def test_what_cannot_be_forwarded_is_refused(names, sentence):
    with pytest.raises(ConfigError, match=sentence):
        EndpointConfig(forward_headers=names)
