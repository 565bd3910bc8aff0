"""The metrics of servers: connections, children, endpoints and circuits."""

import json
from functools import partial

import httpx
import pytest
import trio

from shadowcat.errors import UpstreamBusy
from shadowcat.proxy.upstream_metrics import upstream_metrics
from shadowcat.resilience import CircuitConfig
from shadowcat.testing import ScriptedConnector, ScriptedUpstream, request
from shadowcat.transport import UpstreamRequest
from shadowcat.transport.upstream import HttpUpstream, HttpUpstreamConfig, PipeConfig, open_pipe_upstream
from shadowcat.upstreams import ConcurrencyConfig, Endpoint, UpstreamSet

POST = UpstreamRequest("POST", [], b"{}")
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def values(found):
    """Return the samples of a set, or of what is reached alone, without those of the set itself."""
    upstreams = found if isinstance(found, dict) else {"default": UpstreamSet([Endpoint("one", found)])}
    return {
        (sample.name.removeprefix("shadowcat_"), *sample.labels.values()): sample.value
        for family in upstream_metrics(upstreams)
        for sample in family.samples
        if "endpoint" in sample.labels
    }


def permit(endpoint):
    found = endpoint.circuit.admit()
    assert found is not None
    return found


async def serve_answers(stream):
    async with stream:
        while data := await stream.receive_some(65536):
            if data.endswith(b"{}"):
                await stream.send_all(ANSWER)


async def test_connections_are_made_once_and_used_again(nursery):
    """Three calls one after the other: one connection, used again twice, and idle in the end."""
    (listener,) = await nursery.start(partial(trio.serve_tcp, serve_answers, 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    upstream = HttpUpstream(HttpUpstreamConfig(url=f"http://127.0.0.1:{port}/mcp"))
    with trio.fail_after(5):
        for _ in range(3):
            answer = await upstream.send(POST)
            assert [part async for part in answer.body] == [b"{}"]
            await answer.aclose()
    found = {key: value for key, value in values(upstream).items() if key[0].startswith("upstream_")}
    await upstream.aclose()
    nursery.cancel_scope.cancel()
    assert found == {
        ("upstream_connections", "default", "one", "idle"): 1,
        ("upstream_connections", "default", "one", "busy"): 0,
        ("upstream_connections_opened_total", "default", "one"): 1,
        ("upstream_connections_reused_total", "default", "one"): 2,
    }


async def test_transport_of_the_users_own_has_no_numbers():
    upstream = HttpUpstream(HttpUpstreamConfig(url="http://h/mcp"), httpx.AsyncBaseTransport())
    assert not [key for key in values(upstream) if key[0].startswith("upstream_")]


async def test_upstream_of_the_users_own_has_no_numbers():
    assert not [key for key in values(ScriptedUpstream()) if key[0].startswith(("upstream_", "children_"))]


async def test_endpoints_and_their_circuits(autojump_clock):
    """One that fails once too often, one that is drained and one that is well."""
    servers = [ScriptedUpstream() for _ in range(3)]
    endpoints = [
        Endpoint(name, server, circuit=CircuitConfig(max_failures=1))
        for name, server in zip("abc", servers, strict=True)
    ]
    failing, draining, well = endpoints
    failing.requests += 1
    failing.failures += 1
    failing.circuit.fail(permit(failing))
    draining.is_draining = True
    well.begin()
    well.requests += 1
    for _ in range(3):
        well.note_check(is_good=False)
    found = values({"search": UpstreamSet(endpoints)})

    def row(name):
        return [found[name, "search", endpoint] for endpoint in "abc"]

    assert row("circuit_state") == [2, 0, 0]
    assert row("circuit_opened_total") == [1, 0, 0]
    assert row("endpoint_failures_total") == [1, 0, 0]
    assert row("endpoint_requests_total") == [1, 0, 1]
    assert row("endpoint_in_flight") == [0, 0, 1]
    assert row("endpoint_draining") == [0, 1, 0]
    assert row("endpoint_healthy") == [1, 1, 0]
    await trio.sleep(31)
    assert values({"search": UpstreamSet(endpoints)})["circuit_state", "search", "a"] == 1


async def test_children_that_start_run_and_die(autojump_clock):
    """A spare is started, a session takes it and another spare is started; then the session's child dies."""
    connector = ScriptedConnector()
    async with open_pipe_upstream(connector, PipeConfig(spares=1)) as upstream:

        def row():
            found = values(upstream)
            names = ("children_running", "children_spare", "children_started_total", "children_died_total")
            return [found[name, "default", "one"] for name in names]

        server = await connector.next_stream()
        await trio.testing.wait_all_tasks_blocked()
        assert row() == [1, 1, 1, 0]
        message = json.dumps(request(1, "initialize", protocolVersion="2025-11-25", capabilities={})).encode()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.answer_initialize)
            answer = await upstream.send(UpstreamRequest("POST", [], message))
        await answer.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert row() == [2, 1, 2, 0]
        server.stop()
        await server.closed.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert row() == [1, 1, 2, 1]


async def test_calls_that_wait_are_refused_or_wait_in_vain(autojump_clock):
    """One place and a queue of one: the second waits, the third is refused; nobody answers in time."""
    server = ScriptedUpstream()
    concurrency = ConcurrencyConfig(max_in_flight=1, max_queue=1, queue_timeout=5)
    found = UpstreamSet([Endpoint("a", server)], concurrency=concurrency)
    call = UpstreamRequest("POST", [], b"{}", is_call=True)

    def row():
        rows = {
            (sample.name, *sample.labels.values()): sample.value
            for family in upstream_metrics({"search": found})
            for sample in family.samples
        }
        names = ("upstream_waiting", "upstream_unserved_total", "upstream_unserved_total")
        reasons = ((), ("full",), ("waited",))
        return [rows[f"shadowcat_{name}", "search", *reason] for name, reason in zip(names, reasons, strict=True)]

    async def be_refused():
        with pytest.raises(UpstreamBusy):
            await found.send(call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.send, call)
        await server.next_call()
        nursery.start_soon(be_refused)
        await trio.testing.wait_all_tasks_blocked()
        await be_refused()
        assert row() == [1, 1, 0]
        await trio.sleep(6)
        assert row() == [0, 1, 1]
        nursery.cancel_scope.cancel()
