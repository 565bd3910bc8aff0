"""What a client is told when something goes wrong."""

import json

import httpx
import pytest
import trio

from shadowcat import HttpUpstream, HttpUpstreamConfig, ReverseProxyConfig, errors, open_reverse_proxy_app
from shadowcat.proxy.answers import UNEXPECTED, answer_to
from shadowcat.testing import ProxyClient, modern_headers, modern_request, request

EXPECTED = {
    errors.ConfigError: (500, -32603),
    errors.WorkerFailed: (500, -32603),
    errors.ParseError: (400, -32700),
    errors.InvalidRequest: (400, -32600),
    errors.HeaderMismatch: (400, -32020),
    errors.MessageTooLong: (502, -32603),
    errors.StreamBroken: (502, -32603),
    errors.PathNotFound: (404, -32600),
    errors.MethodNotAllowed: (405, -32600),
    errors.NotAcceptable: (406, -32600),
    errors.UnsupportedMediaType: (415, -32600),
    errors.ForbiddenOrigin: (403, -32600),
    errors.MisdirectedHost: (421, -32600),
    errors.UpgradeRequired: (426, -32600),
    errors.PayloadTooLarge: (413, -32600),
    errors.HeadersTooLarge: (431, -32600),
    errors.RequestTimeout: (408, -32600),
    errors.TooManyRequests: (429, -32603),
    errors.ClientDisconnected: (400, -32600),
    errors.SessionRequired: (400, -32600),
    errors.SessionNotFound: (404, -32600),
    errors.EventsLost: (410, -32600),
    errors.StreamTaken: (409, -32600),
    errors.SessionExists: (400, -32600),
    errors.SessionLimitReached: (503, -32603),
    errors.SessionConflict: (503, -32603),
    errors.SessionBusy: (503, -32603),
    errors.StoreUnavailable: (503, -32603),
    errors.StoreCorrupt: (503, -32603),
    errors.Draining: (503, -32603),
    errors.UpstreamBusy: (503, -32603),
    errors.UpstreamDisconnected: (502, -32603),
    errors.UpstreamTimeout: (504, -32603),
    errors.UpstreamAbandoned: (504, -32603),
    errors.UpstreamRedirected: (502, -32603),
    errors.MessageRefused: (502, -32603),
}


def leaves(kind=errors.ShadowcatError):
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [leaf for child in children for leaf in leaves(child)] if children else [kind]


def make(kind):
    return kind("x", "GET") if kind is errors.MethodNotAllowed else kind("x")


def test_every_leaf_of_the_error_tree_has_an_answer_of_its_own_choice():
    """A new error is given a status and a code here, or this fails."""
    found = {kind: answer_to(make(kind)) for kind in leaves()}

    assert {kind: (answer.status, answer.code) for kind, answer in found.items()} == EXPECTED


@pytest.mark.parametrize("error", [KeyError("x"), OSError(), RuntimeError("http://secret")])
def test_bug_is_an_internal_error(error):
    """JSON-RPC 2.0, 5.1: -32603."""
    assert (answer_to(error).status, answer_to(error).code) == (500, -32603)


@pytest.mark.parametrize("kind", [kind for kind, (status, _) in EXPECTED.items() if status == 503])
def test_503_says_when_to_come_back(kind):
    """RFC 9110, 15.6.4: the server MAY send a Retry-After header field."""
    assert int(dict(answer_to(make(kind)).headers)[b"retry-after"]) > 0


@pytest.mark.parametrize("kind", [errors.SessionConflict, errors.StoreUnavailable, errors.StoreCorrupt])
def test_client_whose_session_is_not_to_be_had_now_keeps_it(kind):
    """MCP 2025-11-25, Session Management: 404 would have it start anew; its connection is good, too."""
    answer = answer_to(make(kind))
    assert answer.status == 503
    assert b"connection" not in dict(answer.headers)


@pytest.mark.parametrize(
    "kind",
    [errors.PayloadTooLarge, errors.HeadersTooLarge, errors.RequestTimeout, errors.Draining, errors.UpstreamAbandoned],
)
def test_connection_is_not_used_again_when_its_request_was_not_read(kind):
    """RFC 9110, 15.5.14: the server MAY terminate the connection to prevent the client from continuing."""
    assert (b"connection", b"close") in answer_to(make(kind)).headers


URL = "http://secret-host.internal:8123/mcp?key=hidden"
SECRETS = ("secret-host", "8123", "hidden", "127.0.0.1", "Traceback", "httpx")


class Failing(httpx.AsyncBaseTransport):
    """Raises what it is given, or answers with it, or not at all."""

    def __init__(self, answer):
        self.answer = answer

    async def handle_async_request(self, request):
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await trio.sleep_forever()
        return self.answer


FAILURES = [
    pytest.param(httpx.ConnectError("secret-host.internal:8123 refused"), 502, id="refused"),
    pytest.param(httpx.ConnectTimeout("secret-host.internal:8123"), 502, id="connect timeout"),
    pytest.param(httpx.ReadError("[Errno 104] 127.0.0.1:8123"), 502, id="reset"),
    pytest.param(httpx.RemoteProtocolError("secret-host sent nonsense"), 502, id="nonsense"),
    pytest.param(httpx.LocalProtocolError("hidden"), 400, id="unsendable"),
    pytest.param(httpx.Response(307, headers={"location": URL}), 502, id="redirect"),
    pytest.param(None, 504, id="silence"),
    pytest.param(OSError("127.0.0.1:8123"), 500, id="bug"),
]


@pytest.mark.parametrize(("failure", "status"), FAILURES)
async def test_no_answer_names_the_upstream(autojump_clock, failure, status):
    """The text goes to the client as it stands: neither address nor credential is in it."""
    config = HttpUpstreamConfig(url=URL, headers=[("Authorization", "Bearer hidden")])
    upstream = HttpUpstream(config, Failing(failure))
    message = modern_request("me", "ping")
    async with (
        open_reverse_proxy_app(ReverseProxyConfig(upstream=config), upstream=upstream) as app,
        trio.open_nursery() as nursery,
    ):
        client = ProxyClient(app, nursery)
        for posted, headers in ((message, modern_headers(message)), (request("me", "initialize"), {})):
            response = await client.post(posted, headers)
            text = json.dumps([await response.json(), response.headers])

            assert response.status == status
            assert '"id": "me"' in text
            assert [] == [secret for secret in SECRETS if secret in text]


async def test_bug_is_told_in_one_sentence(autojump_clock):
    """... which says where to look."""
    assert "log" in UNEXPECTED


@pytest.mark.parametrize(("seconds", "header"), [(0.2, b"1"), (17.1, b"18"), (30, b"30")])
def test_an_error_that_knows_when_to_come_again_says_so(seconds, header):
    """In whole seconds, and never too few."""
    answer = answer_to(errors.UpstreamBusy("full", seconds))
    assert answer.headers == ((b"retry-after", header),)
    assert answer_to(errors.UpstreamBusy("full")).headers == ((b"retry-after", b"5"),)
