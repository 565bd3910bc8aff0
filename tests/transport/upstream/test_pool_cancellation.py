"""Cancelling a request, at whatever point, leaves the transport usable and nothing open."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from shadowcat.transport import UpstreamRequest
from shadowcat.transport.upstream import Http1Transport, HttpUpstream, HttpUpstreamConfig

from .loopback import BIG, Server, call, request


class CancelAtStep(trio.abc.Instrument):
    def __init__(self, scope, steps):
        self.scope = scope
        self.steps = steps
        self.task = trio.lowlevel.current_task()

    def after_task_step(self, task):
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


@pytest.mark.parametrize("is_kept", [False, True])
async def test_cancelling_at_any_step_leaves_the_transport_usable(server, is_kept):
    step, is_cancelled = 0, True
    while is_cancelled:
        step += 1
        transport = Http1Transport()
        if is_kept:
            await call(transport, server)
        hits = server.hits
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                await call(transport, server, "/parts")
            finally:
                trio.lowlevel.remove_instrument(instrument)
        await trio.testing.wait_all_tasks_blocked()
        assert server.hits <= hits + 1
        assert transport.statistics().open == transport.statistics().idle == server.open
        assert b"hi" == await call(transport, server)
        await transport.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert 0 == server.open
        is_cancelled = scope.cancelled_caught
    assert step > 4


@pytest.mark.parametrize("path", ["/hang", "/half", "/events"])
async def test_cancelled_response_closes_its_connection(server, transport, path, autojump_clock):
    with trio.move_on_after(1) as scope:
        await call(transport, server, path)
    assert scope.cancelled_caught
    await trio.testing.wait_all_tasks_blocked()

    assert 0 == transport.statistics().open == server.open


async def test_cancelled_write_closes_its_connection(transport, autojump_clock):
    with trio.socket.socket() as deaf:
        await deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        server = Server()
        server.port = deaf.getsockname()[1]
        with trio.move_on_after(1) as scope:
            await call(transport, server, content=b"x" * BIG)
        assert scope.cancelled_caught
        assert 0 == transport.statistics().open

        with pytest.raises(httpx.WriteTimeout):
            await call(transport, server, content=b"x" * BIG, timeout={"write": 3.0})
    assert 4.0 == trio.current_time()
    assert (0, 2) == (transport.statistics().open, transport.statistics().opened_total)


async def test_cancelled_read_of_the_body_can_be_repeated(server, transport, autojump_clock):
    response = await transport.handle_async_request(request(server, "/half"))
    stream = aiter(response.stream)
    assert b"h" == await anext(stream)
    for _ in range(3):
        with trio.move_on_after(1) as scope:
            await anext(stream)
        assert scope.cancelled_caught
    assert 1 == transport.statistics().open
    await response.aclose()

    with pytest.raises(httpx.ReadError):
        await anext(stream)
    assert 0 == transport.statistics().open


async def test_response_is_closed_though_cancelled(server, transport):
    response = await transport.handle_async_request(request(server, "/events"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await response.aclose()

    assert 0 == transport.statistics().open


async def test_cancelled_read_of_an_upstreams_answer_can_be_repeated(server, autojump_clock):
    upstream = HttpUpstream(HttpUpstreamConfig(url=f"http://127.0.0.1:{server.port}/slow"))
    response = await upstream.send(UpstreamRequest("POST", [], b"{}"))
    received = b""
    while received != b"slow":
        with trio.move_on_after(2):
            received += await anext(response.body)
    with pytest.raises(StopAsyncIteration):
        await anext(response.body)

    assert 12.0 == trio.current_time()
    assert 1 == server.hits
    await response.aclose()
    await upstream.aclose()
