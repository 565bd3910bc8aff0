"""Whatever clients send, however they leave: the server lives, and nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import resource
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET /{path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def post(path: str, body: bytes = b"") -> bytes:
    return b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body


WEBSOCKET = get(
    "echo", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: mcp",
)  # fmt: skip
SEEDS = [
    post("echo", b'{"jsonrpc":"2.0","id":1,"method":"ping"}'),
    post("early", bytes(300)),
    post("fail", b"hello"),
    get("stream", "Accept: text/event-stream"),
    get("fail_late"),
    get("wait"),
    get("echo") + get("stream") + get("echo"),
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n world\r\n0\r\n\r\n",
    b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n world\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /echo HTTP/1.0\r\n\r\n",
    get("echo", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
    WEBSOCKET + b"\x81\x85\0\0\0\0hello",
    WEBSOCKET + b"\x01\x85\0\0\0\0hello\x89\x80\0\0\0\0\x80\x85\0\0\0\0hello\x88\x82\0\0\0\0\x03\xe8",
    WEBSOCKET + b"\x82\xfe\x13\x88\1\2\3\4" + bytes(5000) + b"\x82\x80\0\0\0\0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip
SPICES = [b"\r\n", b"\n", b" ", b":", b"\x00", b"\xff", b"\xc3\xa9", b"chunked", b"HTTP/2.0", b"Content-Length: 9\r\n"]


def mutate(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 1, 4, 20]))
        match rng.randrange(7):
            case 0:
                data[at:at] = rng.choice(SPICES)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * rng.choice([1, 2, 50])
            case 3:
                data[at:end] = rng.randbytes(end - at)
            case 4:
                data[at:] = rng.choice(SEEDS)
            case 5:
                data = bytearray(data.swapcase())
            case 6:
                del data[at:]
    return bytes(data)


async def misbehave(server, rng: random.Random) -> None:
    """Send something mutated, in one piece or several, and leave in some way."""
    async with server.connect() as client:
        data = mutate(rng)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
        try:
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                await client.send(data[start:end])
                await trio.lowlevel.checkpoint()
            match rng.randrange(4):
                case 0:
                    await client.reset()
                case 1:
                    await client.stream.aclose()
                case _:
                    await client.stream.send_eof()
                    await client.read_to_end()
        except trio.BrokenResourceError:
            pass  # we were cut off, which is the server's right


@attrs.frozen
class Usage:
    """What a process holds."""

    tasks: int
    files: int
    bytes: int

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(
            trio.lowlevel.current_statistics().tasks_living,
            len(os.listdir("/proc/self/fd")),
            pages * resource.getpagesize(),
        )


async def attack(server, app, seed: int, connections: int) -> None:
    """Misbehave many times, and see that another client is served all the while."""
    rng = random.Random(seed)
    async with server.connect() as bystander:
        for number in range(connections):
            with trio.fail_after(30):
                await misbehave(server, rng)
                message = b"still-here-%d." % number
                await bystander.send(post("echo", message))
                await bystander.read_until(message)
            app.calls.clear()
            app.events.clear()


async def fuzz(serve, app, caplog, seed: int, connections: int, attackers: int = 1) -> None:
    async with serve(app, graceful_timeout=60, max_message_bytes=4000) as server:
        await attack(server, app, seed, connections // 10)
        await trio.testing.wait_all_tasks_blocked(0.1)
        before = Usage.now()
        async with trio.open_nursery() as nursery:
            for attacker in range(attackers):
                nursery.start_soon(attack, server, app, seed + attacker, connections // attackers)
        with trio.move_on_after(5):
            while Usage.now().tasks > before.tasks:  # noqa: ASYNC110 - connections end by themselves
                await trio.sleep(0.1)
        after = Usage.now()
        assert (before.tasks, before.files) == (after.tasks, after.files)
        assert after.bytes - before.bytes < 8 * 2**20
        server.shutdown.set()
        with trio.fail_after(5):
            await server.stopped.wait()
    assert {"the application failed"} >= {record.message for record in caplog.records}


@pytest.mark.parametrize("seed", range(3))
async def test_fuzz(serve, app, caplog, seed):
    """No request brings the server down, leaves a task behind or surprises the guard."""
    await fuzz(serve, app, caplog, seed, connections=150)


@pytest.mark.slow
async def test_long_fuzz(serve, app, caplog):
    """Twenty thousand connections; every one has a chance of 1.5 % to end hypercorn's process."""
    await fuzz(serve, app, caplog, seed=1000, connections=20_000, attackers=8)


# ------------------------------------------------------------------- by the thousand

CROWD = 1000


class Crowd:
    """`CROWD` connections of one kind."""

    def __init__(self, server, act) -> None:
        self._server = server
        self._act = act
        self.size = 0

    async def run(self) -> None:
        """Open them, and stay until cancelled."""
        async with trio.open_nursery() as nursery:
            for number in range(CROWD):
                nursery.start_soon(self._join, 2 * number / CROWD)

    async def _join(self, delay: float) -> None:
        await trio.sleep(delay)
        async with self._server.connect(receive_buffer=4096) as client:
            self.size += 1
            with contextlib.suppress(trio.BrokenResourceError, ConnectionError):
                await self._act(client)
            await trio.sleep_forever()


async def slow_header(client) -> None:
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: " + bytes(1000):
        await client.send(bytes([byte or 97]))
        await trio.sleep(2)


async def slow_upload(client) -> None:
    await client.send(post("echo", bytes(1000))[:-1000])
    while True:
        await client.send(b"x")
        await trio.sleep(2)


async def never_reading(client) -> None:
    await client.send(get("flood"))
    await trio.sleep_forever()


async def silent_websocket(client) -> None:
    await client.send(WEBSOCKET)
    await trio.sleep_forever()


async def measure(server, calls: int) -> list[float]:
    """Return what *calls* calls on one connection took, in milliseconds, fastest first."""
    times = []
    async with server.connect() as client:
        for _ in range(calls):
            started = trio.current_time()
            await client.send(post("echo", b"hello"))
            await client.read_until(b"hello")
            times.append((trio.current_time() - started) * 1000)
            await trio.sleep(0.002)
    return sorted(times)


@pytest.mark.slow
@pytest.mark.parametrize("act", [slow_header, slow_upload, never_reading, silent_websocket])
async def test_crowd_of_bad_clients(serve, app, act):
    """A thousand of a kind: others are served, and shutdown takes no longer than it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * CROWD:
        pytest.skip("not enough open files allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * CROWD), hard))
    async with serve(app, graceful_timeout=1, header_timeout=60, write_timeout=60) as server:
        alone = await measure(server, 200)
        async with trio.open_nursery() as nursery:
            crowd = Crowd(server, act)
            nursery.start_soon(crowd.run)
            with trio.fail_after(60):
                while crowd.size < CROWD:  # noqa: ASYNC110 - they come as they come
                    await trio.sleep(0.05)
            await trio.sleep(0.5)
            among = await measure(server, 200)
            server.shutdown.set()
            with trio.fail_after(6):
                await server.stopped.wait()
            nursery.cancel_scope.cancel()
    for name, times in (("alone", alone), ("among them", among)):
        print(f"{act.__name__}: p99 {name} {times[int(len(times) * 0.99)]:.1f} ms")
