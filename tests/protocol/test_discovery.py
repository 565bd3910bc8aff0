"""What a server on a pipe is, by its answer."""

import json

import pytest

from shadowcat.protocol import (
    Era,
    Request,
    Response,
    discover_request,
    era_of_answer,
    http_status_of,
    legacy_only_body,
    peek,
)

DESCRIBED = b"""{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
"io.modelcontextprotocol/clientCapabilities":{}}}"""


def response(**members):
    message = peek(json.dumps({"jsonrpc": "2.0", "id": 1, **members}).encode())
    assert isinstance(message, Response)
    return message


def failure(code):
    return response(error={"code": code, "message": "x"})


@pytest.mark.parametrize(
    ("answer", "era"),
    [
        (response(result={"supportedVersions": ["2026-07-28"]}), Era.MODERN),
        (failure(-32022), Era.MODERN),
        (failure(-32021), Era.MODERN),
        (failure(-32020), Era.MODERN),
        (failure(-32601), Era.LEGACY),
        (failure(-32602), Era.LEGACY),
        (failure(0), Era.LEGACY),
        (failure(-32002), Era.LEGACY),
        (response(result={}), Era.LEGACY),
        (response(result=[]), Era.LEGACY),
        (response(error="no"), Era.LEGACY),
    ],
)
def test_era_follows_from_the_answer(answer, era):
    """Spec 2026-07-28, stdio: the fallback must not be keyed to one error code."""
    assert era is era_of_answer(answer)


def test_probe_names_a_modern_version():
    """And says who asks."""
    message = peek(discover_request(b'"x"'))
    assert isinstance(message, Request)
    assert (b'"x"', "server/discover") == (message.id, message.method)
    meta = json.loads(message.params)["_meta"]
    assert "2026-07-28" == meta["io.modelcontextprotocol/protocolVersion"]
    assert {} == meta["io.modelcontextprotocol/clientCapabilities"]


def test_modern_client_is_told_the_versions_of_a_legacy_server():
    """As the error of the specification."""
    body = json.loads(legacy_only_body(b'"a"', "2026-07-28"))
    assert "a" == body["id"]
    assert -32022 == body["error"]["code"]
    assert "2026-07-28" == body["error"]["data"]["requested"]
    assert "2025-11-25" in body["error"]["data"]["supported"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (response(result={}), 200),
        (failure(-32601), 404),
        (failure(-32022), 400),
        (failure(-32020), 400),
        (failure(-32603), 200),
        (response(error="no"), 200),
    ],
)
def test_status_of_modern_answers(answer, status):
    """Spec 2026-07-28, streamable HTTP."""
    assert status == http_status_of(answer, DESCRIBED)


def test_status_of_an_error_that_answers_a_request_without_its_metadata():
    """Spec 2026-07-28, streamable HTTP: 400, whatever the server calls it."""
    assert 400 == http_status_of(failure(-32602), b'{"name":"x"}')
    assert 200 == http_status_of(response(result={}), b"")
