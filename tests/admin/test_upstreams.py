"""Endpoints that are looked at and steered."""

import pytest
import trio

from shadowcat.resilience import CircuitState
from shadowcat.upstreams import Health

from .administering import open_admin_kit, upstream_set

ACTIONS = ["drain", "enable", "reset-circuit"]


@pytest.fixture
async def kit():
    async with open_admin_kit() as kit:
        kit.proxy.app.upstream_sets = {"default": upstream_set("a", "b.example"), "files": upstream_set("a")}
        yield kit


def endpoint_of(kit, server="default", number=0):
    return kit.proxy.app.upstream_sets[server].endpoints[number]


async def test_without_sets_there_is_nothing_to_steer(autojump_clock):
    async with open_admin_kit() as kit:
        kit.proxy.app.upstream_sets = {}
        listed = await kit.admin.get("/v1/upstreams")
        drained = await kit.admin.send("POST", "/v1/upstreams/default/a/drain")

    assert {"servers": []} == listed.body
    assert (404, True) == (drained.status, "GET /v1/upstreams" in drained.detail)


async def test_endpoints_are_shown_as_they_are(autojump_clock, kit):
    endpoint = endpoint_of(kit, number=1)
    for _ in range(3):
        endpoint.note_check(is_good=False)
    for _ in range(5):
        endpoint.begin()
        endpoint.circuit.fail(endpoint.circuit.admit())
    endpoint.finish()
    endpoint.requests = endpoint.failures = 5
    listed = (await kit.admin.get("/v1/upstreams")).body["servers"]

    assert [("default", ["a", "b.example"]), ("files", ["a"])] == [
        (each["server"], [endpoint["name"] for endpoint in each["endpoints"]]) for each in listed
    ]
    shown = listed[0]["endpoints"][1]
    assert (Health.UNHEALTHY.value, "open", 1, 30.0) == (
        shown["health"],
        shown["circuit"],
        shown["circuit_opened"],
        shown["retry_after_seconds"],
    )
    assert (4, 5, 5) == (shown["in_flight"], shown["requests"], shown["failures"])


async def test_an_endpoint_is_drained_and_enabled(autojump_clock, kit):
    drained = await kit.admin.send("POST", "/v1/upstreams/files/a/drain")
    assert drained.body["is_draining"]
    assert not endpoint_of(kit, "files").is_available
    assert endpoint_of(kit).is_available, "the other server has one of the same name"

    enabled = await kit.admin.send("POST", "/v1/upstreams/files/a/enable")
    assert not enabled.body["is_draining"]
    assert endpoint_of(kit, "files").is_available


async def test_a_circuit_is_closed(autojump_clock, kit):
    circuit = endpoint_of(kit).circuit
    for _ in range(5):
        circuit.fail(circuit.admit())
    assert not circuit.has_room

    reply = await kit.admin.send("POST", "/v1/upstreams/default/a/reset-circuit")
    assert ("closed", 0) == (reply.body["circuit"], reply.body["retry_after_seconds"])
    assert CircuitState.CLOSED is circuit.state
    assert circuit.admit() is not None
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("path", ["default/zzz", "zzz/a", "%20/%00", "..%2F/a", "default/" + "a" * 4000])
async def test_an_unknown_endpoint_is_told_where_to_look(autojump_clock, kit, path, action):
    reply = await kit.admin.send("POST", f"/v1/upstreams/{path}/{action}")
    assert 404 == reply.status
