"""Which era a POST belongs to, and what it asks for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.errors import HeaderMismatch, InvalidRequest, ProtocolError
from shadowcat.protocol import Batch, Initialize, LegacyMessage, ModernMessage, classify, decode, is_modern

OLD, NEW = "2025-11-25", "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": NEW}

INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": OLD}}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "t"}}
NOTE = {"jsonrpc": "2.0", "method": "notifications/initialized"}
ANSWER = {"jsonrpc": "2.0", "id": "s", "result": {}}
DISCOVER = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}}
MODERN_CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "t", "_meta": META}}


def headers(version=None, method=None, name=None):
    fields = {b"mcp-protocol-version": version, b"mcp-method": method, b"mcp-name": name}
    return {field: value.encode("latin-1") for field, value in fields.items() if value is not None}


def read(body) -> Any:
    return decode(json.dumps(body).encode())


def route(fields, body) -> Any:
    return classify(fields, read(body))


LEGACY = [
    pytest.param(headers(), PING, None, id="no version header: 2025-03-26 or older"),
    pytest.param(headers(OLD), PING, OLD, id="version of the session"),
    pytest.param(headers(OLD), NOTE, OLD, id="notification"),
    pytest.param(headers(OLD), ANSWER, OLD, id="answer to a server's request"),
    pytest.param(headers(), [PING, NOTE], None, id="batch"),
    pytest.param(headers(" 2025-06-18 "), PING, "2025-06-18", id="white space around the version"),
    pytest.param(headers(OLD, "something/else"), PING, OLD, id="mirrored headers mean nothing in a session"),
    pytest.param(headers(None, "something/else"), PING, None, id="nor without a version"),
    pytest.param(headers("1999-01-01"), PING, "1999-01-01", id="unknown version, nothing modern about it"),
    pytest.param(headers("\xe9"), PING, "\xe9", id="malformed version"),
]


@pytest.mark.parametrize(("fields", "body", "version"), LEGACY)
def test_message_of_a_session_is_legacy(fields, body, version):
    """MCP 2025-06-18, streamable HTTP: the client MUST include MCP-Protocol-Version after initialization."""
    assert LegacyMessage(read(body), version) == route(fields, body)


@pytest.mark.parametrize(
    "fields", [headers(), headers(OLD), headers("2024-11-05"), headers("1999-01-01"), headers("x")]
)
def test_initialize_opens_a_session(fields):
    """MCP 2025-11-25, lifecycle: no version has been agreed upon yet, so the header does not matter."""
    assert Initialize(read(INITIALIZE)) == route(fields, INITIALIZE)


@pytest.mark.parametrize("batch", [[INITIALIZE], [PING, INITIALIZE]])
def test_initialize_stands_alone(batch):
    """MCP 2025-03-26, lifecycle: the initialize request MUST NOT be part of a JSON-RPC batch."""
    with pytest.raises(InvalidRequest, match="batch"):
        route({}, batch)


def test_batch_with_a_notification_called_initialize_is_no_opening():
    """Only a request opens a session."""
    assert isinstance(route({}, [PING, {"jsonrpc": "2.0", "method": "initialize"}]).message, Batch)


MODERN = [
    pytest.param(headers(NEW, "server/discover"), DISCOVER, id="request"),
    pytest.param(headers(NEW, "tools/call", "t"), MODERN_CALL, id="request with a name"),
    pytest.param(headers(NEW, "ping"), PING, id="no version in the body: the upstream refuses it"),
    pytest.param(headers(NEW, "initialize"), INITIALIZE, id="initialize does not exist there: the upstream refuses it"),
    pytest.param(headers("2027-01-01", "ping"), PING, id="later version: the upstream decides"),
    pytest.param(headers("1999-01-01", "ping"), PING, id="unknown version in modern form: the upstream decides"),
    pytest.param(headers(NEW), NOTE, id="headers of notifications are not defined"),
]


@pytest.mark.parametrize(("fields", "body"), MODERN)
def test_message_that_describes_itself_is_modern(fields, body):
    """MCP 2026-07-28, streamable HTTP: every POST MUST include an MCP-Protocol-Version header."""
    assert ModernMessage(read(body)) == route(fields, body)


MISMATCHES = [
    pytest.param(headers(NEW), PING, "Mcp-Method", id="no method"),
    pytest.param(headers(NEW, "tools/list"), PING, "Mcp-Method", id="another method"),
    pytest.param(headers(NEW, "tools/call"), CALL, "Mcp-Name", id="no name"),
    pytest.param(headers(NEW, "tools/call", "u"), CALL, "Mcp-Name", id="another name"),
    pytest.param(headers(None, "server/discover"), DISCOVER, "MCP-Protocol-Version", id="version in the body alone"),
    pytest.param(headers(OLD, "server/discover"), DISCOVER, "MCP-Protocol-Version", id="legacy header, modern body"),
    pytest.param(headers("2027-01-01", "server/discover"), DISCOVER, "MCP-Protocol-Version", id="two modern versions"),
    pytest.param(headers("1999-01-01", "tools/list"), PING, "Mcp-Method", id="unknown version in modern form"),
]


@pytest.mark.parametrize(("fields", "body", "header"), MISMATCHES)
def test_headers_must_mirror_a_modern_body(fields, body, header):
    """MCP 2026-07-28, Server Validation: MUST reject with HeaderMismatch, to the id of the request."""
    with pytest.raises(HeaderMismatch, match=header) as excinfo:
        route(fields, body)
    assert b"1" == excinfo.value.request_id


@pytest.mark.parametrize("body", [[PING], [NOTE, NOTE], ANSWER])
def test_modern_body_is_one_request_or_notification(body):
    """MCP 2026-07-28, Sending Messages: a single request or notification; the client MUST NOT send responses."""
    with pytest.raises(InvalidRequest):
        route(headers(NEW), body)


@pytest.mark.parametrize(
    ("version", "expected"),
    [(NEW, True), ("2030-01-01", True), (OLD, False), ("1999-01-01", False), ("", False), (None, False)],
)
def test_header_tells_the_era(version, expected):
    """MCP 2026-07-28, Backward Compatibility: GET and DELETE have no body that could tell."""
    assert expected is is_modern(headers(version))


@given(
    st.dictionaries(
        st.sampled_from([b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-param-x"]),
        st.binary(max_size=8) | st.sampled_from([NEW.encode(), OLD.encode(), b"ping", b"tools/call", b"t"]),
    ),
    st.sampled_from([INITIALIZE, PING, CALL, NOTE, ANSWER, DISCOVER, MODERN_CALL, [PING], [ANSWER, NOTE]]),
)
def test_no_headers_raise_anything_but_protocol_errors(fields, body):
    """Whatever the headers say, there is a route or a refusal."""
    try:
        route(fields, body)
    except ProtocolError:
        pass
