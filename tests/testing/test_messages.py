"""Messages, short to write."""

import json

import pytest

from shadowcat.protocol import ModernMessage, Notification, Request, Response, classify, decode
from shadowcat.testing import error, modern_headers, modern_request, notification, request, result


def read(message):
    return decode(json.dumps(message).encode())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (request(1, "m"), Request(b"1", "m", b"{}")),
        (request("a", "m", x=1), Request(b'"a"', "m", b'{"x": 1}')),
        (request(None, "m"), Request(b"null", "m", b"{}")),
        (notification("m", x=1), Notification("m", b'{"x": 1}')),
        (result(1, x=1), Response(b"1", b'{"x": 1}', b"")),
        (error("a", -32600, "no"), Response(b'"a"', b"", b'{"code": -32600, "message": "no"}')),
    ],
)
def test_message_is_what_its_name_says(message, expected):
    """JSON-RPC 2.0, as the proxy reads it."""
    assert expected == read(message)


MODERN = [
    modern_request(1, "server/discover"),
    modern_request("a", "tools/call", name="echo", arguments={"a": 1}),
    modern_request(1, "tools/call", name="", uri="ignored"),
    modern_request(1, "tools/call", name=" padded "),
    modern_request(1, "prompts/get", name="世界"),
    modern_request(1, "resources/read", uri="file:///é", name="ignored"),
    modern_request(1, "resources/read", uri="=?base64?literal?="),
    modern_request(1, "tools/call", name="a\nb"),
]


@pytest.mark.parametrize("message", MODERN)
def test_headers_mirror_the_message(message):
    """MCP 2026-07-28, Value Encoding: what cannot stand in a header as it is goes in base64."""
    headers = {name.encode(): value.encode("ascii") for name, value in modern_headers(message).items()}
    for value in headers.values():
        assert value == value.strip()

    assert classify(headers, read(message)) == ModernMessage(read(message))


def test_modern_request_describes_itself():
    """MCP 2026-07-28: version, client info and capabilities are in the _meta of every request."""
    message = modern_request(1, "m", x=1)

    assert message["params"]["x"] == 1
    assert {key.rpartition("/")[2] for key in message["params"]["_meta"]} == {
        "protocolVersion",
        "clientInfo",
        "clientCapabilities",
    }


def test_plain_name_is_not_encoded():
    """MCP 2026-07-28: Mcp-Name: get_weather."""
    assert modern_headers(modern_request(1, "tools/call", name="get_weather")) == {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "get_weather",
    }
