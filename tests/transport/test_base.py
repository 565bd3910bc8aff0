"""What the relay is told of an answer."""

from typing import Any, cast

import pytest

from shadowcat.abc import ResponseMode, UpstreamResponse


def response(*headers):
    async def close():
        """Nothing is open."""

    return UpstreamResponse(200, headers, cast(Any, iter(())), close)


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ([(b"content-type", b"application/json; charset=utf-8")], ResponseMode.JSON),
        ([(b"content-type", b"Text/Event-Stream")], ResponseMode.SSE_STREAM),
        ([(b"content-type", b"text/html")], ResponseMode.PASSTHROUGH),
        ([], ResponseMode.PASSTHROUGH),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], ResponseMode.PASSTHROUGH),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"identity")], ResponseMode.JSON),
    ],
)
def test_mode_follows_from_the_headers(headers, mode):
    """An encoded body cannot be looked into."""
    assert mode is response(*headers).mode


def test_first_of_repeated_headers_is_returned():
    """None if there is none."""
    answer = response((b"a", b"1"), (b"a", b"2"))
    assert answer.header(b"a") == b"1"
    assert answer.header(b"b") is None
