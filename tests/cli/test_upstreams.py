"""Servers, from the command line."""

import pytest

from tests.admin.administering import upstream_set

from .steering import only, open_steered

pytestmark = pytest.mark.slow


@pytest.fixture
async def steered(capsys, monkeypatch):
    async with open_steered(capsys, monkeypatch) as steered:
        steered.kit.app.upstream_sets = {"default": upstream_set("a", "b"), "files": upstream_set("c")}
        yield steered


async def test_endpoints_are_listed(steered):
    said = await steered.run("upstreams", "list")
    assert ["default", "a", "healthy", "closed", "no", "0", "0", "0"] == said.splitlines()[1].split()
    assert ["default", "files"] == [each["server"] for each in await steered.run_json("upstreams", "list")]


async def test_a_single_server_is_said_to_be_one(steered):
    steered.kit.app.upstream_sets = {}
    assert "no endpoints to steer" in await steered.run("upstreams", "list")


async def test_an_endpoint_is_drained_and_enabled(steered):
    (endpoint,) = steered.kit.app.upstream_sets["files"].endpoints
    said = await steered.run("upstreams", "drain", "c", "--server", "files")
    assert "yes" == said.splitlines()[1].split()[4]
    assert endpoint.is_draining
    assert not (await steered.run_json("upstreams", "enable", "c", "--server", "files"))["is_draining"]
    assert not endpoint.is_draining


async def test_a_circuit_is_closed(steered):
    endpoint = steered.kit.app.upstream_sets["default"].endpoints[0]
    for _ in range(5):
        endpoint.circuit.fail(endpoint.circuit.admit())
    assert "closed" == (await steered.run_json("upstreams", "reset-circuit", "a"))["circuit"]
    assert endpoint.circuit.has_room


async def test_an_unknown_endpoint_is_told(steered):
    with pytest.raises(ExceptionGroup) as excinfo:
        await steered.run("upstreams", "drain", "c")
    assert "shadowcat upstreams list" in str(only(excinfo.value))
