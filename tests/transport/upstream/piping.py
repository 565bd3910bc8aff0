"""An upstream on scripted pipes, spoken to as the proxy speaks to it."""

import json
from contextlib import asynccontextmanager

import attrs
import trio

from shadowcat.abc import UpstreamRequest
from shadowcat.protocol import SSEDecoder
from shadowcat.testing import ScriptedConnector, modern_request, request
from shadowcat.transport.upstream import PipeConfig, PipeUpstream, open_pipe_upstream

HEADERS = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
MODERN = (b"mcp-protocol-version", b"2026-07-28")


class Answer:
    """An `UpstreamResponse`, read as messages."""

    def __init__(self, response):
        self.response = response
        self.status = response.status
        self.type = (response.header(b"content-type") or b"").decode()
        self._decoder = SSEDecoder()
        self._messages = []

    async def json(self):
        return json.loads(b"".join([chunk async for chunk in self.response.body]))

    async def next_message(self):
        while not self._messages:
            chunk = await anext(self.response.body)
            self._messages += [json.loads(event.data or b"") for event in self._decoder.feed(chunk)]
        return self._messages.pop(0)

    async def rest(self):
        """Return the messages up to the end of the stream."""
        found = []
        try:
            while True:
                found.append(await self.next_message())
        except StopAsyncIteration:
            return found

    async def aclose(self):
        await self.response.aclose()


@attrs.frozen
class Piped:
    connector: ScriptedConnector
    upstream: PipeUpstream
    nursery: trio.Nursery

    async def send(self, method, body=b"", session=None, headers=()):
        fields = [*HEADERS, *headers]
        if session is not None:
            fields.append((b"mcp-session-id", session))
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Answer(await self.upstream.send(UpstreamRequest(method, fields, text)))

    async def post(self, message, session=None, headers=()):
        return await self.send("POST", message, session, headers)

    async def post_modern(self, message, headers=()):
        return await self.send("POST", message, None, [MODERN, *headers])

    def soon(self, send, *args):
        """Begin *send*; return what waits for its answer, or raises its error."""
        return Pending(self.nursery, send, args)

    async def open_session(self, headers=()):
        """Return the server's end and the id of a new session."""
        call = self.soon(self.post, request(0, "initialize"), None, headers)
        server = await self.connector.next_stream()
        await server.answer_initialize()
        return server, (await call.answer()).response.header(b"mcp-session-id")

    async def open_modern(self):
        """Have the era found out; return the server's end, at which nothing is under way."""
        call = self.soon(self.post_modern, modern_request("first", "tools/list"))
        server = await self.connector.next_stream()
        await server.answer(supportedVersions=["2026-07-28"])
        await server.answer()
        assert 200 == (await call.answer()).status
        return server

    def statistics(self):
        return self.upstream.statistics()


class Pending:
    def __init__(self, nursery, send, args):
        self.scope = trio.CancelScope()
        self._done = trio.Event()
        self._outcome = None
        nursery.start_soon(self._run, send, args)

    async def _run(self, send, args):
        with self.scope:
            try:
                self._outcome = await send(*args)
            except Exception as error:  # it is the test's to judge
                self._outcome = error
            finally:
                self._done.set()

    @property
    def is_done(self):
        return self._done.is_set()

    async def answer(self):
        await self._done.wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@asynccontextmanager
async def open_piped(connector=None, **config):
    connector = connector or ScriptedConnector()
    with trio.fail_after(100_000):
        async with (
            open_pipe_upstream(connector, PipeConfig(**{"spares": 0, **config})) as upstream,
            trio.open_nursery() as nursery,
        ):
            yield Piped(connector, upstream, nursery)
            nursery.cancel_scope.cancel()
