"""An MCP server of the legacy era that counts, as fast as it can be read.

``tools/call`` of ``count`` with ``{"total": n, "rate": r}`` answers with n progress
notifications, r a second, and then a result.  A GET listens to log messages.  Either can
be resumed after any event.  The orchestrating test speaks to ``/control``.
"""

import argparse
import contextlib
import json
import secrets
import signal
from collections.abc import Callable

import attrs
import trio

from tests.e2e.rawhttp import RawConnection, RawMessage, serve_raw
from tests.e2e.soak.streams import CallStream, Session, Stream

BATCH = 64
"""Events in one write."""

GONE = (trio.BrokenResourceError, trio.ClosedResourceError, AssertionError)
"""What comes of a connection that ends, `AssertionError` if it does within a request."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@attrs.frozen(kw_only=True)
class Manners:
    """How a server of this kind goes about its streams."""

    polling: int | None = None
    """Events after which it closes a connection, to be asked again."""
    has_ids: bool = True
    """Whether events have ids; without them nothing can be resumed."""
    off_by: int = 0
    """Events by which it resumes too late, or too early if negative: to see that this is noticed."""
    rate: float = 5.0
    """Events per second for each listener."""


class Upstream:
    """The sessions, and what was done in them."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._sessions: dict[str, Session] = {}
        self._opened: list[Session] = []
        self._connections: set[trio.CancelScope] = set()
        self._is_finishing = False
        self._forgets = 0
        self.written = 0
        """Events that were written to some connection; each counts once."""
        self.rewritten = 0
        self.cancelled = 0

    def forget(self) -> None:
        """Lose all sessions and connections, as a redeployed server does."""
        self._forgets += 1
        for session in self._sessions.values():
            session.end()
        self._sessions.clear()
        for scope in list(self._connections):
            scope.cancel()

    def finish(self) -> None:
        """Tell all listeners, now and later, that what they hear is final."""
        self._is_finishing = True
        for session in self._sessions.values():
            session.finish()

    def statistics(self) -> dict:
        listened = [session for session in self._opened if session.clockwork is not None]
        return {
            "written": self.written,
            "rewritten": self.rewritten,
            "cancelled": self.cancelled,
            "sessions": len(self._opened),
            "open": len(self._sessions),
            "forgets": self._forgets,
            "epochs": [[s.id, s.client, s.clockwork.now()] for s in listened if s.clockwork is not None],
        }

    async def serve(self, connection: RawConnection) -> None:
        """Serve one connection until it ends, or until everything is forgotten."""
        with trio.CancelScope() as scope, contextlib.suppress(*GONE):
            self._connections.add(scope)
            try:
                while message := await connection.read_message():
                    await self._answer(connection, message)
            finally:
                self._connections.remove(scope)

    async def _answer(self, connection: RawConnection, message: RawMessage) -> None:
        method, path, _ = message.start.split(" ", 2)
        if path.startswith("/control/"):
            await self._obey(connection, path.removeprefix("/control/"))
            return
        call = message.json if method == "POST" else {}
        if call.get("method") == "initialize":
            await self._open(connection, call)
            return
        session = self._sessions.get(message.headers.get("mcp-session-id", ""))
        if session is None:
            await respond(connection, 404, error(call.get("id"), "no such session"))
        elif method == "DELETE":
            self._sessions.pop(session.id).end()
            await respond(connection, 200, {})
        elif method == "GET":
            await self._listen(connection, session, message.headers.get("last-event-id"))
        elif "id" not in call:
            self.cancelled += call.get("method") == "notifications/cancelled"
            await respond(connection, 202)
        elif call["method"] == "tools/call":
            await self._call(connection, session, call)
        else:
            await respond(connection, 200, {"jsonrpc": "2.0", "id": call["id"], "result": {}})

    async def _obey(self, connection: RawConnection, order: str) -> None:
        if order == "forget":
            # The connection that says so is one of those that are lost.
            await respond(connection, 200, {})
            self.forget()
            return
        if order == "finish":
            self.finish()
        await respond(connection, 200, self.statistics())

    async def _open(self, connection: RawConnection, call: dict) -> None:
        client = call["params"].get("clientInfo", {}).get("name", "")
        session = Session(secrets.token_hex(8), client)
        if self._is_finishing:
            session.finish()
        self._sessions[session.id] = session
        self._opened.append(session)
        result = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "counter", "version": "1"},
        }
        message = {"jsonrpc": "2.0", "id": call["id"], "result": result}
        await connection.answer(message, mcp_session_id=session.id)

    async def _call(self, connection: RawConnection, session: Session, call: dict) -> None:
        params = call["params"]
        total, rate = params["arguments"]["total"], params["arguments"]["rate"]
        token = json.dumps(params["_meta"]["progressToken"]).encode()
        result = {"jsonrpc": "2.0", "id": call["id"], "result": {"content": [], "structuredContent": {"total": total}}}
        stream = CallStream(session.new_name(), total=total, rate=rate, token=token, result=json.dumps(result).encode())
        session.keep(stream)
        await self._write(connection, stream, None)

    async def _listen(self, connection: RawConnection, session: Session, last_event_id: str | None) -> None:
        if last_event_id is None or not self._manners.has_ids:
            await self._write(connection, session.listen(self._manners.rate), None)
            return
        name, _, number = last_event_id.rpartition("_")
        stream = session.streams.get(name)
        if stream is None:
            await respond(connection, 400, error(None, f"no stream has event {last_event_id}"))
            return
        position = int(number)
        if position < stream.last():
            position = int(min(max(position + self._manners.off_by, stream.first - 1), stream.last() - 1))
        await self._write(connection, stream, position)

    async def _write(self, connection: RawConnection, stream: Stream, after: int | None) -> None:
        """Send the events beyond *after*, or all if that is None, for as long as nobody else wants them."""
        stream.reader = connection
        stream.attach()
        try:
            position = stream.first - 1 if after is None else after
            primer = b"id: %s_%d\ndata: \n\n" % (stream.name.encode(), position)
            await connection.stream.send_all(HEAD)
            if self._manners.has_ids and after is None:
                await send_chunk(connection, primer)
            is_complete = await self._pour(connection, stream, position)
        finally:
            if stream.reader is connection:
                stream.reader = None
                stream.detach()
        if is_complete:
            await connection.stream.send_all(b"0\r\n\r\n")
        else:
            await connection.stream.aclose()

    async def _pour(self, connection: RawConnection, stream: Stream, position: int) -> bool:
        """Send events until there will be no more here; whether the answer ends properly."""
        enough = position + (self._manners.polling or 10**12)
        while stream.reader is connection:
            upto = min(stream.there(), position + BATCH, enough)
            if upto > position:
                await send_chunk(connection, self._blocks(stream, range(position + 1, upto + 1)))
                self._count(stream, position, upto)
                position = upto
            elif position >= stream.last():
                return True
            elif position >= enough:
                await send_chunk(connection, b"retry: 20\n\n")
                return True
            else:
                await trio.sleep(stream.tick())
        return False

    def _blocks(self, stream: Stream, numbers: range) -> bytes:
        if not self._manners.has_ids:
            return b"".join([b"data: %s\n\n" % stream.data(number) for number in numbers])
        name = stream.name.encode()
        return b"".join([b"id: %s_%d\ndata: %s\n\n" % (name, number, stream.data(number)) for number in numbers])

    def _count(self, stream: Stream, position: int, upto: int) -> None:
        new = max(upto - max(position, stream.written), 0)
        stream.written = max(stream.written, upto)
        self.written += new
        self.rewritten += upto - position - new


def error(request_id, message: str) -> dict:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": -32000, "message": message}}


async def respond(connection: RawConnection, status: int, message: dict | None = None) -> None:
    body = b"" if message is None else json.dumps(message).encode()
    head = b"HTTP/1.1 %d -\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    await connection.stream.send_all(head + body)


async def send_chunk(connection: RawConnection, data: bytes) -> None:
    await connection.stream.send_all(b"%x\r\n%s\r\n" % (len(data), data))


async def forget_at_signals(forget: Callable[[], None]) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            forget()


async def serve(manners: Manners) -> None:
    upstream = Upstream(manners)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forget_at_signals, upstream.forget)
        print(f"serving {await serve_raw(nursery, upstream.serve)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polling", type=int, metavar="N", help="close each connection after N events")
    parser.add_argument("--no-ids", action="store_true", help="send no event ids")
    parser.add_argument("--off-by", type=int, default=0, metavar="N", help="resume N events too late, or too early")
    parser.add_argument("--rate", type=float, default=5.0, help="events per second for each listener; default: 5")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(
            serve,
            Manners(polling=options.polling, has_ids=not options.no_ids, off_by=options.off_by, rate=options.rate),
        )


if __name__ == "__main__":
    main()
