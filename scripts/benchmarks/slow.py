"""Measure how long a caller waits beside a thousand clients that are slow on purpose.

Prints a Markdown table.  One caller makes a call every few milliseconds, first alone and
then beside each kind of slow client; what it waited is its own time on the clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack

import trio
from messages import LEGACY_HEADERS, initialize, legacy_call
from programs import Failed, cpu_seconds, python, read_line, running
from scale import request, send

CLIENTS = 1000
CALLS = 1500
PAUSE = 0.002
SETTLE = 5.0
"""Seconds that the proxy has to deal with what they send at first."""

DRIP = 2.0
"""Seconds between two bytes of a client that sends slowly."""

_HEAD = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


class Slow:
    """One kind of client.

    Args:
        begin: What it sends at once.
        drip: What it then sends again and again.
    """

    def __init__(self, name: str, begin: bytes, drip: bytes = b"") -> None:
        self.name = name
        self.begin = begin
        self.drip = drip


def kinds(session_id: str) -> list[Slow]:
    """Return the kinds there are."""
    call = legacy_call(session_id)
    whole = request("POST", f"{call.head}1{call.tail}", call.headers)
    socket = (
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    return [
        Slow("send a head byte by byte", _HEAD + b"X-Slow: ", b"x"),
        Slow("send a body byte by byte", _HEAD + b"Content-Length: 1000\r\n\r\n{", b" "),
        Slow("send call after call and read no answer", whole * 5),
        Slow("open a WebSocket and say nothing", socket),
    ]


async def wait_times(port: int, session_id: str) -> list[float]:
    """Return the seconds that each of some calls took, over one connection."""
    call = legacy_call(session_id)
    found = []
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        for number in range(CALLS):
            text = request("POST", f"{call.head}{number}{call.tail}", call.headers)
            start = time.perf_counter()
            await stream.send_all(text)
            answer = await stream.receive_some()
            found.append(time.perf_counter() - start)
            if b" 200 " not in answer[:20]:
                raise Failed(f"a call was refused: {bytes(answer[:100])!r}")
            await trio.sleep(PAUSE)
    return found


async def beside(port: int, slow: Slow, measure: Callable[[], object]) -> list[float]:
    """Return what *measure* does beside many clients of a kind."""
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(CLIENTS):
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            await stream.send_all(slow.begin)
            streams.append(stream)

        async def keep_dripping() -> None:
            while True:
                for stream in streams:
                    try:
                        await stream.send_all(slow.drip)
                    except trio.BrokenResourceError:
                        pass  # it was cut off, as it should be
                    await trio.sleep(DRIP / CLIENTS)

        async with trio.open_nursery() as nursery:
            if slow.drip:
                nursery.start_soon(keep_dripping)
            await trio.sleep(SETTLE)
            found = await measure()  # type: ignore[misc]
            nursery.cancel_scope.cancel()
    return found  # type: ignore[no-any-return]


async def measure_all(pid: int, port: int) -> None:
    """Measure, and print rows."""
    _, got = await send(port, request("POST", initialize(), LEGACY_HEADERS))
    session_id = got.lower().partition(b"mcp-session-id:")[2].partition(b"\r\n")[0].strip()
    named = got[got.lower().index(session_id) :][: len(session_id)].decode()

    async def measure() -> list[float]:
        return await wait_times(port, named)

    print(f"| {CLIENTS:,} clients that | p50 ms | p99 ms | CPU of the proxy |")
    print("|---|--:|--:|--:|")
    await measure()
    await print_row("are not there", pid, measure)
    for slow in kinds(named):

        async def crowded(slow: Slow = slow) -> list[float]:
            return await beside(port, slow, measure)

        await print_row(slow.name, pid, crowded)


async def print_row(name: str, pid: int, measure: Callable[[], object]) -> None:
    """Print the times of one row."""
    before, start = cpu_seconds(pid), time.perf_counter()
    found = sorted(await measure())  # type: ignore[misc]
    share = (cpu_seconds(pid) - before) / (time.perf_counter() - start)
    p99 = found[int(len(found) * 0.99)]
    print(f"| {name} | {statistics.median(found) * 1000:.2f} | {p99 * 1000:.2f} | {share:.0%} |", flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench --slow", description=__doc__)
    parser.parse_args()
    with ExitStack() as stack:
        upstream = stack.enter_context(running(python("scale", "serve")))
        url = f"http://127.0.0.1:{read_line(upstream)}/mcp"
        command = [sys.executable, "-m", "shadowcat", "reverse", "--bind", "127.0.0.1:0", "--upstream", url]
        proxy = stack.enter_context(running([*command, "--log-level", "error"]))
        port = int(read_line(proxy).rpartition(":")[2].partition("/")[0])
        print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}\n")
        try:
            trio.run(measure_all, proxy.pid, port)
        except* Failed as group:
            sys.exit(f"scripts/bench: {group.exceptions[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
