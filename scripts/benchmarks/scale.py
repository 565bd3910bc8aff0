"""Measure what the proxy costs as it fills up: open streams, and sessions.

Prints a Markdown table.  Calls are made over sixteen connections; what they cost with
many streams or sessions is given as a multiple of what they cost with few.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httptools
import programs
import trio
from messages import LEGACY_HEADERS, initialize, legacy_call
from programs import Failed, python, read_line, running

CONNECTIONS = 16
REPEATS = 5
AT_ONCE = 50
OPENED = 400
"""Streams whose opening is measured."""

SETTLE = 10.0
"""Seconds that the proxy has to deal with clients that have all left at once."""

_INITIALIZED = b'{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"bench","version":"1"}}'
_RESULT = b'{"content":[],"isError":false}'


class _Request:
    """One request, as httptools reports it."""

    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


@asynccontextmanager
async def _until_it_breaks() -> AsyncGenerator[None, None]:
    try:
        yield
    except trio.BrokenResourceError:
        pass


async def answer(stream: trio.SocketStream) -> None:
    """Answer POST at once; begin an event stream for GET, and say nothing on it."""
    async with stream, _until_it_breaks():
        while True:
            request = _Request()
            parser = httptools.HttpRequestParser(request)
            while not request.is_complete:
                data = await stream.receive_some()
                if not data:
                    return
                parser.feed_data(data)
            if parser.get_method() == b"GET":
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                await stream.send_all(head)
                await stream.receive_some()
                return
            request_id = request.body.partition(b'"id": ')[2].partition(b",")[0] or b"0"
            is_first = b'"initialize"' in request.body
            body = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request_id, _INITIALIZED if is_first else _RESULT)
            fields = b"Mcp-Session-Id: up-%d\r\n" % time.perf_counter_ns() if is_first else b""
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
            await stream.send_all(head % (fields, len(body)) + body)


async def serve() -> None:
    """Be the server behind the proxy."""
    _raise_file_limit()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1", backlog=1024))
        print(listener.socket.getsockname()[1], flush=True)


async def send(port: int, text: bytes) -> tuple[trio.SocketStream, bytes]:
    """Send a request on a connection of its own; return that, and what came back first."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(text)
    return stream, bytes(await stream.receive_some())


def request(method: str, body: str, headers: dict[str, str]) -> bytes:
    """Return a request as it is sent."""
    fields = {"Host": "127.0.0.1", **headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} /mcp HTTP/1.1\r\n{head}\r\n{body}".encode()


class Crowd:
    """Sessions and streams that are opened and left alone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sessions: list[str] = []
        self.streams: list[trio.SocketStream] = []

    async def open_sessions(self, count: int) -> None:
        """Open *count* more sessions."""

        async def open_some(share: int) -> None:
            for _ in range(share):
                stream, got = await send(self._port, request("POST", initialize(), LEGACY_HEADERS))
                named = re.search(rb"(?i)\r\nmcp-session-id: *([^\r]+)", got)
                if named is None:
                    raise Failed(f"a session was refused: {got[:100]!r}")
                self.sessions.append(named[1].decode())
                await stream.aclose()

        await _spread(open_some, count)

    async def open_streams(self, count: int) -> None:
        """Have *count* more sessions listened to."""
        sessions = iter(self.sessions[len(self.streams) : len(self.streams) + count])

        async def open_some(share: int) -> None:
            for _ in range(share):
                headers = {"Accept": "text/event-stream", "Mcp-Session-Id": next(sessions)}
                stream, got = await send(self._port, request("GET", "", headers))
                if b" 200 " not in got:
                    raise Failed(f"a stream was refused: {got[:100]!r}")
                self.streams.append(stream)

        await _spread(open_some, count)


async def _spread(work, count: int) -> None:  # type: ignore[no-untyped-def]
    async with trio.open_nursery() as nursery:
        for number in range(AT_ONCE):
            nursery.start_soon(work, count // AT_ONCE + (number < count % AT_ONCE))


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cost(pid: int, port: int, session_id: str) -> float:
    """Return the microseconds of processor time of one call."""
    found = []
    for _ in range(REPEATS):
        count = programs.call(pid, f"http://127.0.0.1:{port}/mcp", legacy_call(session_id), CONNECTIONS, 1.0)
        found.append(count.cpu * 1e6 / count.operations)
    return statistics.median(found)


async def opening_cost(pid: int, crowd: Crowd) -> float:
    """Return the processor time of opening some streams more."""
    before = programs.cpu_seconds(pid)
    await crowd.open_streams(OPENED)
    return programs.cpu_seconds(pid) - before


async def measure(pid: int, port: int, streams: int, sessions: int) -> None:
    """Fill the proxy up, and print what it costs."""
    crowd = Crowd(port)
    await crowd.open_sessions(10)
    empty = await trio.to_thread.run_sync(cost, pid, port, crowd.sessions[0])
    await crowd.open_sessions(streams)
    await crowd.open_streams(10)
    before = resident(pid)
    first = await opening_cost(pid, crowd)
    half = streams * 5 // 9
    await crowd.open_streams(half - len(crowd.streams))
    crowded = await trio.to_thread.run_sync(cost, pid, port, crowd.sessions[0])
    await crowd.open_streams(streams - half - OPENED)
    last = await opening_cost(pid, crowd)
    memory = (resident(pid) - before) / (streams - 10)
    for stream in crowd.streams:
        await stream.aclose()
    await trio.sleep(SETTLE)
    await crowd.open_sessions(max(sessions - len(crowd.sessions), 0))
    await trio.sleep(2)
    full = await trio.to_thread.run_sync(cost, pid, port, crowd.sessions[0])
    print("| As it fills up | |")
    print("|---|--:|")
    print(f"| memory of an idle stream, of {streams:,} at once | {memory / 1024:.1f} KiB |")
    print(f"| CPU of opening a stream, beside {streams:,} ÷ beside 10 | {last / first:.2f} |")
    print(f"| CPU of a call beside {half:,} idle streams ÷ beside none | {crowded / empty:.2f} |")
    print(f"| CPU of a call with {len(crowd.sessions):,} sessions ÷ with 10 | {full / empty:.2f} |")


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench --scale", description=__doc__)
    parser.add_argument("--streams", type=int, default=9000)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("role", nargs="?", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role == "serve":
        trio.run(serve)
        return 0
    _raise_file_limit()
    with ExitStack() as stack:
        upstream = stack.enter_context(running(python("scale", "serve")))
        url = f"http://127.0.0.1:{read_line(upstream)}/mcp"
        options = ["--bind", "127.0.0.1:0", "--upstream", url, "--max-sessions", str(args.sessions + 1000)]
        command = [sys.executable, "-m", "shadowcat", "reverse", *options, "--log-level", "error"]
        proxy = stack.enter_context(running(command))
        port = int(read_line(proxy).rpartition(":")[2].partition("/")[0])
        print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}; medians of {REPEATS}\n")
        try:
            trio.run(measure, proxy.pid, port, args.streams, args.sessions)
        except* Failed as group:
            sys.exit(f"scripts/bench: {group.exceptions[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
