"""The session of a client on a pipe: what its requests have to say."""

import pytest

from shadowcat.protocol import Response
from shadowcat.proxy.pipe_session import PipeSession

BASE = {b"accept": b"x"}


@pytest.mark.parametrize("version", ["2024-11-05", "2025-11-25"])
def test_version_that_was_agreed_on_is_sent(version):
    """As a client over HTTP does."""
    response = Response(b"1", b'{"protocolVersion":"%s"}' % version.encode(), b"")
    session = PipeSession.opened_by(BASE, b"id", response)

    assert session.headers == {**BASE, b"mcp-session-id": b"id", b"mcp-protocol-version": version.encode()}


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"protocolVersion":7}',
        b'{"protocolVersion":"2026-07-28"}',
        b'{"protocolVersion":"a\\r\\nb: c"}',
    ],
)
def test_version_that_no_session_has_is_not(result):
    """It would make every request a modern one, or none at all."""
    assert PipeSession.opened_by(BASE, b"id", Response(b"1", result, b"")).headers == {**BASE, b"mcp-session-id": b"id"}


def test_session_without_an_answer_can_still_be_ended():
    """The server has opened it."""
    assert PipeSession.opened_by(BASE, b"id", None).headers == {**BASE, b"mcp-session-id": b"id"}
