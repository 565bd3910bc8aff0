"""The error boundary: one request fails, the others do not notice."""

import json

import pytest
import trio

from shadowcat.errors import ClientDisconnected, InvalidRequest, MethodNotAllowed, TooManyRequests
from shadowcat.proxy.answers import UNEXPECTED
from shadowcat.proxy.boundary import serve_safely
from shadowcat.transport import Exchange


class Answered:
    def __init__(self):
        self.events = []
        self.exchange = Exchange({"method": "POST", "path": "/", "headers": ()}, self.never, self.send)

    async def never(self):
        await trio.sleep_forever()

    async def send(self, event):
        await trio.lowlevel.checkpoint()
        self.events.append(event)

    async def serve(self, error, *, begins=False):
        async def serve():
            if begins:
                await self.exchange.open_stream(200, [])
            await trio.lowlevel.checkpoint()
            raise error

        await serve_safely(self.exchange, serve)
        return self.events


@pytest.mark.parametrize(
    ("error", "status", "code", "text"),
    [
        (InvalidRequest("no", b"7"), 400, -32600, "no"),
        (MethodNotAllowed("no", "GET"), 405, -32600, "no"),
        (KeyError("secret"), 500, -32603, UNEXPECTED),
        (ExceptionGroup("", [InvalidRequest("no"), KeyError("secret")]), 500, -32603, UNEXPECTED),
        (ExceptionGroup("", [ExceptionGroup("", [InvalidRequest("no")])]), 400, -32600, "no"),
    ],
)
async def test_error_becomes_the_answer(error, status, code, text):
    """A bug without its text, and rather a bug than what a user caused."""
    start, body = await Answered().serve(error)

    assert start["status"] == status
    said = json.loads(body["body"])["error"]
    assert (said["code"], said["message"]) == (code, text)


@pytest.mark.parametrize(
    ("error", "header", "data"),
    [
        (TooManyRequests("no", 0.0123, "per_client"), b"1", {"limit": "per_client", "retryAfter": 0.013}),
        (TooManyRequests("no", 61.5), b"62", {"retryAfter": 61.5}),
        (TooManyRequests("no"), b"5", None),
    ],
)
async def test_error_that_knows_when_to_try_again_says_so(error, header, data):
    start, body = await Answered().serve(error)

    assert [value for name, value in start["headers"] if name == b"retry-after"] == [header]
    assert json.loads(body["body"])["error"].get("data") == data


async def test_answer_that_has_begun_is_left_cut():
    """Nothing can be taken back."""
    (start,) = await Answered().serve(KeyError(), begins=True)

    assert start["status"] == 200


async def test_client_that_has_left_gets_nothing():
    """Nobody reads it."""
    assert [] == await Answered().serve(ClientDisconnected("left"))
