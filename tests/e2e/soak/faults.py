"""A TCP proxy that fails: it cuts, resets, stalls, delays and truncates, at points that follow from a seed.

What happens on a connection is a function of the seed, of how many connections came
before it and of the bytes that pass, never of time; only which connection comes first
is up to the scheduler.
"""

import contextlib
import enum
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count

import attrs
import trio

HOLD = 5.0
"""Seconds for which a connection is held while the target cannot be reached, as load balancers do."""


class Kind(enum.Enum):
    CUT = "cut"
    """FIN after all that has been received was passed on."""
    TRUNCATE = "truncated"
    """FIN at any byte."""
    RESET = "reset"
    STALL = "stalled"
    """Nothing passes for up to ``stall`` seconds."""
    DELAY = "delayed"
    """Nothing passes for a hundredth of that."""


ENDS = {Kind.CUT, Kind.TRUNCATE, Kind.RESET}


@attrs.frozen(kw_only=True)
class Faults:
    """How often connections fail, and how."""

    answer_bytes: float = 50_000
    """Mean number of bytes from the server between two faults."""
    request_bytes: float = 20_000
    """Mean number of bytes to the server between two faults."""
    weights: Mapping[Kind, float] = attrs.field(
        factory=lambda: {Kind.CUT: 3, Kind.TRUNCATE: 3, Kind.RESET: 3, Kind.STALL: 1, Kind.DELAY: 2}
    )
    stall: float = 1.0


@attrs.frozen
class Fault:
    after: int
    """Bytes that pass before it."""
    kind: Kind
    seconds: float


def fault_plan(seed: int, connection: int, direction: str, faults: Faults) -> Iterator[Fault]:
    """Yield what happens to the bytes of one direction of a connection, without end."""
    rng = random.Random(f"{seed}/{connection}/{direction}")
    mean = faults.answer_bytes if direction == "answer" else faults.request_bytes
    kinds, weights = list(faults.weights), list(faults.weights.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        longest = faults.stall / 100 if kind is Kind.DELAY else faults.stall
        yield Fault(1 + int(rng.expovariate(1 / mean)), kind, rng.uniform(0, longest))


class FaultProxy:
    """Stands in front of any number of servers."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self._seed = seed
        self._faults = faults
        self._numbers = count()
        self.counts: Counter[Kind] = Counter()

    async def start(self, nursery: trio.Nursery, target: str) -> str:
        """Serve in *nursery* and return the URL that stands for *target*."""
        authority, _, path = target.removeprefix("http://").partition("/")
        host, port = authority.split(":")

        async def handle(client: trio.SocketStream) -> None:
            async with client:
                server = await _connect(host, int(port))
                if server is None:
                    _reset(client)
                    return
                async with server:
                    await self._relay(client, server)

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/{path}"

    async def _relay(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        number = next(self._numbers)
        requests = fault_plan(self._seed, number, "request", self._faults)
        answers = fault_plan(self._seed, number, "answer", self._faults)

        async def pump(source: trio.SocketStream, sink: trio.SocketStream, plan: Iterator[Fault]) -> None:
            try:
                end = await self._pump(source, sink, plan)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                end = Kind.RESET
            if end is Kind.RESET:
                _reset(client)
                _reset(server)
            if end is not None:
                pumps.cancel_scope.cancel()
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await sink.send_eof()

        async with trio.open_nursery() as pumps:
            pumps.start_soon(pump, client, server, requests)
            pumps.start_soon(pump, server, client, answers)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, plan: Iterator[Fault]) -> Kind | None:
        """Pass on what comes; return the fault that ends the connection, None if *source* ended."""
        fault = next(plan)
        left = fault.after
        async for data in source:
            rest = bytes(data)
            while len(rest) >= left:
                self.counts[fault.kind] += 1
                await sink.send_all(rest if fault.kind is Kind.CUT else rest[:left])
                if fault.kind in ENDS:
                    return fault.kind
                await trio.sleep(fault.seconds)
                rest = rest[left:]
                fault = next(plan)
                left = fault.after
            await sink.send_all(rest)
            left -= len(rest)
        return None


async def _connect(host: str, port: int) -> trio.SocketStream | None:
    with trio.move_on_after(HOLD):
        while True:
            try:
                return await trio.open_tcp_stream(host, port)
            except OSError:
                await trio.sleep(0.05)
    return None


def _reset(stream: trio.SocketStream) -> None:
    """Make the end of *stream* an RST."""
    with contextlib.suppress(OSError, trio.ClosedResourceError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
