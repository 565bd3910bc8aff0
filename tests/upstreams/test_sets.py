"""Sets that come, change and go, on the mock clock."""

from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import ConfigError, UpstreamBusy, UpstreamUnavailable
from shadowcat.resilience import CircuitConfig
from shadowcat.testing import ScriptedUpstream
from shadowcat.transport import UpstreamRequest
from shadowcat.transport.upstream import HttpUpstreamConfig, PipeConfig, StdioConfig
from shadowcat.upstreams import (
    CheckConfig,
    ConcurrencyConfig,
    Health,
    Strategy,
    UpstreamEndpointConfig,
    UpstreamSetConfig,
    open_upstream_sets,
)


def http(name):
    return HttpUpstreamConfig(url=f"http://{name}.invalid/mcp")


def members(*names, **more):
    endpoints = [UpstreamEndpointConfig(name=name, upstream=http(name)) for name in names]
    return UpstreamSetConfig(endpoints=endpoints, **{"check": None, **more})


class World:
    """Servers that are opened as they are asked for."""

    def __init__(self):
        self.open = {}
        self.opened = []
        self.failure = None
        self.sets = None

    @asynccontextmanager
    async def reach(self, config, _children):
        await trio.lowlevel.checkpoint()
        if self.failure and "bad" in config.url:
            raise self.failure
        self.opened.append(config.url)
        self.open[config.url] = ScriptedUpstream()
        try:
            yield self.open[config.url]
        finally:
            del self.open[config.url]

    @property
    def names(self):
        return sorted(url.removeprefix("http://").partition(".")[0] for url in self.open)

    def upstream(self, name):
        return self.open[http(name).url]


@pytest.fixture
async def world():
    return World()


@asynccontextmanager
async def opened(world, **configs):
    async with open_upstream_sets(configs, PipeConfig(), open_one=world.reach) as sets:
        world.sets = sets
        yield sets


async def begin(nursery, found, headers=()):
    """Begin a call; return what waits for its answer."""
    sender, receiver = trio.open_memory_channel(1)

    async def call():
        await sender.send(await found.send(UpstreamRequest("POST", list(headers), b"{}")))

    nursery.start_soon(call)
    await wait_all_tasks_blocked()
    return receiver


async def test_all_are_opened_and_closed_again(autojump_clock, world):
    async with opened(world, default=http("a"), files=members("b", "c")) as sets:
        assert world.names == ["a", "b", "c"]
        assert list(sets.sets) == ["default", "files"]
        assert [endpoint.name for endpoint in sets.sets["default"].endpoints] == ["default"]
    assert world.names == []


async def test_an_endpoint_that_stays_keeps_what_is_known_of_it(autojump_clock, world):
    """Neither connection nor health is lost; weight and limits are taken over."""
    async with opened(world, files=members("a", "b")) as sets:
        found = sets.sets["files"]
        a = found.endpoints[0]
        for _ in range(3):
            a.note_check(is_good=False)
        await sets.reconfigure({"files": members("b", "a", "c", circuit=CircuitConfig(max_failures=1))})
        assert sets.sets["files"] is found
        assert [endpoint.name for endpoint in found.endpoints] == ["a", "b", "c"]
        assert found.endpoints[0] is a
        assert a.health is Health.UNHEALTHY
        assert len(world.opened) == 3
        weighted = attrs.evolve(members("a", "b", "c").endpoints[0], weight=7)
        await sets.reconfigure({"files": attrs.evolve(members("b"), endpoints=[weighted])})
        assert a.weight == 7
        assert len(world.opened) == 3


async def test_one_that_goes_finishes_its_calls_first(autojump_clock, nursery, world):
    async with opened(world, files=members("a", "b")) as sets:
        found = sets.sets["files"]
        a = found.endpoints[0]
        answer = await begin(nursery, found)
        call = await world.upstream("a").next_call()
        await sets.reconfigure({"files": members("b")})
        assert a.is_draining
        # Its sessions go on meanwhile; new ones go elsewhere.
        in_session = await begin(nursery, found, [(b"mcp-session-id", b"a~1")])
        assert (await world.upstream("a").next_call()).headers["mcp-session-id"] == "1"
        other = await begin(nursery, found)
        await world.upstream("b").next_call()
        assert world.names == ["a", "b"]
        await trio.sleep(59)
        call.answer({})
        await (await answer.receive()).aclose()
        await trio.sleep(0.5)
        assert world.names == ["a", "b"]  # the call in the session is still under way
        await trio.sleep(1)
        assert world.names == ["b"]  # enough
        assert [endpoint.name for endpoint in found.endpoints] == ["b"]
        assert (await found.send(UpstreamRequest("POST", [(b"mcp-session-id", b"a~1")]))).status == 404
        del in_session, other
        nursery.cancel_scope.cancel()


async def test_one_without_calls_is_closed_at_once(autojump_clock, world):
    async with opened(world, files=members("a", "b")) as sets:
        await sets.reconfigure({"files": members("b")})
        await wait_all_tasks_blocked()
        assert world.names == ["b"]
        assert trio.current_time() == 0


async def test_another_server_under_the_same_name_is_another_endpoint(autojump_clock, world):
    async with opened(world, default=http("a")) as sets:
        found = sets.sets["default"]
        old = found.endpoints[0]
        await sets.reconfigure({"default": http("b")})
        await wait_all_tasks_blocked()
        assert sets.sets["default"] is found
        assert found.endpoints[0] is not old
        assert world.names == ["b"]


async def test_sets_come_and_go(autojump_clock, nursery, world):
    async with opened(world, default=http("a"), files=members("b")) as sets:
        names = sets.sets
        files = names["files"]
        await sets.reconfigure({"default": http("a"), "mail": members("c")})
        await wait_all_tasks_blocked()
        assert list(names) == ["default", "mail"]
        assert world.names == ["a", "c"]
        with pytest.raises(UpstreamBusy):
            await files.send(UpstreamRequest("POST", []))


@pytest.mark.parametrize("failure", [ConfigError("no such certificate"), UpstreamUnavailable("no")])
async def test_what_is_wrong_changes_nothing(autojump_clock, world, failure):
    async with opened(world, default=http("a"), files=members("b")) as sets:
        before = {name: list(found.endpoints) for name, found in sets.sets.items()}
        world.failure = failure
        with pytest.raises(type(failure)):
            await sets.reconfigure({"default": http("c"), "files": members("d", "bad"), "mail": http("e")})
        await wait_all_tasks_blocked()
        assert {name: list(found.endpoints) for name, found in sets.sets.items()} == before
        assert not any(endpoint.is_draining for endpoint in before["files"])
        assert world.names == ["a", "b"]


async def test_a_command_that_does_not_exist_is_found_before_anything_is_opened(autojump_clock, world):
    async with opened(world, default=http("a")) as sets:
        with pytest.raises(ConfigError, match="shadowcat-no-such-program"):
            await sets.reconfigure({"default": StdioConfig(command=["shadowcat-no-such-program"])})
        assert len(world.opened) == 1


async def test_an_error_at_the_start_comes_alone(autojump_clock, world):
    world.failure = ConfigError("no such certificate")
    with pytest.raises(ConfigError, match="no such certificate"):
        async with opened(world, default=http("bad")):
            pass
    assert world.names == []


async def test_a_change_that_is_cancelled_changes_nothing(autojump_clock, world):
    async with opened(world, files=members("a")) as sets:
        with trio.CancelScope() as scope:
            scope.cancel()
            await sets.reconfigure({"files": members("b")})
        await wait_all_tasks_blocked()
        assert world.names == ["a"]
        assert [endpoint.name for endpoint in sets.sets["files"].endpoints] == ["a"]


async def test_changes_come_one_after_the_other(autojump_clock, nursery, world):
    async with opened(world, files=members("a")) as sets:
        for names in ("bc", "de", "fg"):
            nursery.start_soon(sets.reconfigure, {"files": members(*names)})
        await wait_all_tasks_blocked()
        assert world.names in (["b", "c"], ["d", "e"], ["f", "g"])
        assert sorted(endpoint.name for endpoint in sets.sets["files"].endpoints) == world.names


def health(endpoint):
    """Return it as it is at this moment."""
    return endpoint.health


async def answer_checks(upstream, status):
    while True:
        (await upstream.next_call()).respond(status())


async def test_endpoints_are_checked_for_as_long_as_they_are_wanted(autojump_clock, nursery, world):
    checked = members("a", "b", check=CheckConfig(interval=10))
    async with opened(world, files=checked) as sets:
        status = {"a": 200, "b": 500}
        for name in "ab":
            nursery.start_soon(answer_checks, world.upstream(name), lambda name=name: status[name])
        a, b = sets.sets["files"].endpoints
        await trio.sleep(30)
        assert (a.health, b.health) == (Health.HEALTHY, Health.UNHEALTHY)
        assert b.retry_after == 10
        # Another interval forgets nothing.
        await sets.reconfigure({"files": members("a", "b", check=CheckConfig(interval=5))})
        assert health(b) is Health.UNHEALTHY
        status["b"] = 200
        await trio.sleep(12)
        assert health(b) is Health.HEALTHY
        status["b"] = 500
        await trio.sleep(20)
        assert health(b) is Health.UNHEALTHY
        await sets.reconfigure({"files": members("a", "b")})
        assert health(b) is Health.HEALTHY  # nobody knows any better
        hits = world.upstream("a").hits
        await trio.sleep(100)
        assert world.upstream("a").hits == hits
        nursery.cancel_scope.cancel()


async def test_strategy_and_limits_change_in_place(autojump_clock, nursery, world):
    async with opened(world, files=members("a", "b", concurrency=ConcurrencyConfig(max_in_flight=1))) as sets:
        found = sets.sets["files"]
        for _ in range(3):
            await begin(nursery, found)
        assert found.statistics().waiting == 1
        await sets.reconfigure({"files": members("a", "b", strategy=Strategy.LEAST_IN_FLIGHT)})
        await wait_all_tasks_blocked()
        assert found.statistics().waiting == 0
        nursery.cancel_scope.cancel()


async def test_an_upstream_of_the_callers_own_is_left_alone(autojump_clock, world):
    own = ScriptedUpstream()
    configs = {"default": http("a"), "files": http("b")}
    async with open_upstream_sets(configs, PipeConfig(), fixed={"default": own}, open_one=world.reach) as sets:
        assert world.names == ["b"]
        await sets.reconfigure({"default": http("c")})
        await wait_all_tasks_blocked()
        assert world.names == []
        assert sets.sets["default"].endpoints[0].upstream is own
