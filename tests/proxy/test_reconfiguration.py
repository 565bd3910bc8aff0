"""Other servers, while clients are served."""

import logging

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat import HttpUpstreamConfig, LimitsConfig, ReverseProxyConfig, ServerRule
from shadowcat.errors import ConfigError
from shadowcat.testing import request, result
from shadowcat.transport.upstream import StdioConfig

from .conversation import Pending
from .serving_several import at, serving, several
from .test_servers import call


async def reconfigure(world, **config):
    await world.kit.app.reconfigure(ReverseProxyConfig(**config))


async def test_servers_come_and_go(autojump_clock):
    async with serving("abc", upstream=at("a"), servers={"files": at("b")}) as world:
        client = await world.open("a")
        files = await world.open("b", "/mcp/files")
        await reconfigure(world, upstream=at("a"), servers={"mail": at("c")})
        assert list(world.kit.app.upstream_sets) == ["default", "mail"]
        assert await call(world, client, "a")
        assert await call(world, await world.open("c", "/mcp/mail"), "c")
        response = await files.post(request(1, "ping"))
        assert response.status == 404
        assert (await response.json())["error"]["message"].endswith("the MCP endpoints are /mcp, /mcp/mail")
        # And back again; the session has not been forgotten.
        await reconfigure(world, upstream=at("a"), servers={"files": at("b")})
        assert await call(world, files, "b")


async def test_a_call_under_way_at_a_server_that_goes_is_answered(autojump_clock):
    async with serving("ab", upstream=at("a"), servers={"files": at("b")}) as world:
        files = await world.open("b", "/mcp/files")
        pending = Pending()
        world.kit.nursery.start_soon(pending.run, files.post, request(1, "tools/call"))
        sent = await world.servers["b"].next_call()
        await reconfigure(world, upstream=at("a"))
        await trio.sleep(50)
        sent.answer(result(1, late=True))
        assert await (await pending()).json() == result(1, late=True)


async def test_rules_change(autojump_clock):
    servers = {"files": at("b")}
    async with serving("ab", upstream=at("a"), servers=servers) as world:
        await reconfigure(
            world,
            upstream=at("a"),
            servers=servers,
            rules=[ServerRule(server="files", header="x-tenant", value="acme")],
        )
        client = await world.open("b", "/mcp/files")
        client.path = "/mcp"
        assert await call(world, client, "b", {"x-tenant": "acme"})
        await reconfigure(world, upstream=at("a"), servers=servers)
        assert (await client.post(request(1, "ping"), {"x-tenant": "acme"})).status == 404


async def test_sessions_of_an_endpoint_that_goes_are_opened_elsewhere(autojump_clock):
    """As soon as no call is under way at it; the client notices nothing."""
    async with serving("ab", upstream=several("a", "b")) as world:
        client = await world.open("a")
        await reconfigure(world, upstream=several("b"))
        await wait_all_tasks_blocked()
        pending = Pending()
        world.kit.nursery.start_soon(pending.run, client.post, request(1, "tools/list"))
        await world.servers["b"].answer_initialize("b-1")
        (await world.servers["b"].next_call()).respond(202)
        again = await world.servers["b"].next_call()
        assert again.headers["mcp-session-id"] == "b-1"
        again.answer(result(1))
        assert await (await pending()).json() == result(1)
        assert world.kit.app.statistics().recoveries == 1


async def test_a_plain_server_can_become_a_set(autojump_clock):
    async with serving("ab", upstream=at("a")) as world:
        await world.open("a")
        await reconfigure(world, upstream=several("a", "b"))
        await wait_all_tasks_blocked()
        assert sorted(each.name for each in world.kit.app.upstream_sets["default"].endpoints) == ["a", "b"]
        assert await call(world, await world.open("a"), "a")
        assert await call(world, await world.open("b"), "b")


@pytest.mark.parametrize(
    "config",
    [
        {"upstream": StdioConfig(command=["shadowcat-no-such-program"])},
        {"upstream": HttpUpstreamConfig(url="http://a.invalid/mcp", ca_file="/no/such/file.pem")},
        {"upstream": at("b"), "servers": {"x": StdioConfig(command=["shadowcat-no-such-program"])}},
        # The paths are still those that it was started with.
        {"upstream": at("b"), "servers": {"x": at("b")}, "ws_path": "/other", "path": "/another"},
    ],
)
async def test_what_is_wrong_changes_nothing(autojump_clock, config):
    async with serving("ab", upstream=at("a"), ws_path="/mcp/x") as world:
        client = await world.open("a")
        with pytest.raises(ConfigError):
            await world.kit.app.reconfigure(ReverseProxyConfig(**config))
        await wait_all_tasks_blocked()
        assert list(world.kit.app.upstream_sets) == ["default"]
        assert not world.kit.app.upstream_sets["default"].endpoints[0].is_draining
        assert await call(world, client, "a")


async def test_the_log_says_what_has_to_wait(autojump_clock, caplog):
    config = ReverseProxyConfig(upstream=at("a"))
    async with serving("a", upstream=at("a")) as world:
        with caplog.at_level(logging.WARNING, "shadowcat"):
            await world.kit.app.reconfigure(config)
            assert caplog.text == ""
            await world.kit.app.reconfigure(attrs.evolve(config, path="/other", shutdown_timeout=3))
        assert "other settings of path, shutdown_timeout when it is started again only" in caplog.text
        assert await call(world, await world.open("a"), "a")


async def test_limits_change_at_once_and_hold_for_servers_that_come(autojump_clock):
    async with serving("ab", upstream=at("a")) as world:
        client = await world.open("a")
        assert await call(world, client, "a")
        limits = LimitsConfig(per_session="1/h")
        await reconfigure(world, upstream=at("a"), servers={"files": at("b")}, limits=limits)
        files = await world.open("b", "/mcp/files")
        assert await call(world, client, "a")
        assert await call(world, files, "b")
        for refused in (client, files):
            assert (await refused.post(request(9, "tools/call", name="x"))).status == 429
        await reconfigure(world, upstream=at("a"), servers={"files": at("b")})
        assert await call(world, files, "b")


async def test_limits_of_what_is_refused_are_not_used(autojump_clock):
    async with serving("a", upstream=at("a")) as world:
        client = await world.open("a")
        with pytest.raises(ConfigError):
            await reconfigure(
                world,
                upstream=StdioConfig(command=["shadowcat-no-such-program"]),
                limits=LimitsConfig(per_session="1/h"),
            )
        for _ in range(3):
            assert await call(world, client, "a")
