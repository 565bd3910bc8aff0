"""Several endpoints as one upstream, on the mock clock."""

from collections import Counter

import pytest
import trio

from shadowcat.errors import (
    ConfigError,
    RemoteProtocolError,
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from shadowcat.resilience import CircuitConfig, CircuitState
from shadowcat.transport import Upstream, UpstreamRequest, UpstreamResponse
from shadowcat.upstreams import Endpoint, Strategy, UpstreamSet


async def _nothing():
    return
    yield b""


class Server(Upstream):
    """Answers as it is told to, and remembers what it was sent."""

    def __init__(self, name):
        self.name = name
        self.seen = []
        self.status = 200
        self.failure = None
        self.hang = False

    async def send(self, request):
        await trio.lowlevel.checkpoint()
        headers = dict(request.headers)
        self.seen.append(headers.get(b"mcp-session-id"))
        if self.hang:
            await trio.sleep_forever()
        if self.failure is not None:
            raise self.failure
        opened = [] if b"mcp-session-id" in headers else [(b"mcp-session-id", self.name.encode() + b"-1")]
        return UpstreamResponse(self.status, opened, _nothing(), trio.lowlevel.checkpoint)


class Servers:
    def __init__(self, names="abc", strategy=Strategy.ROUND_ROBIN, **circuit):
        self.servers = [Server(name) for name in names]
        self.endpoints = [Endpoint(server.name, server, circuit=CircuitConfig(**circuit)) for server in self.servers]
        self.set = UpstreamSet(self.endpoints, strategy)

    async def send(self, session=None):
        headers = [(b"x", b"y")] if session is None else [(b"mcp-session-id", session)]
        answer = await self.set.send(UpstreamRequest("POST", headers, b"{}"))
        await answer.aclose()
        return answer


@pytest.fixture
def three():
    return Servers(max_failures=2)


async def test_requests_without_a_session_are_spread(autojump_clock, three):
    for _ in range(9):
        await three.send()
    assert [len(server.seen) for server in three.servers] == [3, 3, 3]


async def test_a_session_stays_with_its_endpoint(autojump_clock, three):
    ids = [(await three.send()).header(b"mcp-session-id") for _ in range(3)]
    assert ids == [b"a~a-1", b"b~b-1", b"c~c-1"]
    for _ in range(5):
        await three.send(b"b~b-1")
    assert three.servers[1].seen == [None] + [b"b-1"] * 5


async def test_any_other_process_finds_the_endpoint_too(autojump_clock):
    """What it needs to know is in the id, and the id is in the store."""
    session = (await Servers().send()).header(b"mcp-session-id")
    other = Servers()
    await other.send(session)
    assert other.servers[0].seen == [b"a-1"]


@pytest.mark.parametrize("session", [b"gone~x", b"without-a-name", b"~", b"a"])
async def test_a_session_of_no_endpoint_is_lost(autojump_clock, three, session):
    assert (await three.send(session)).status == 404
    assert not any(server.seen for server in three.servers)


async def test_a_session_of_a_dead_endpoint_is_lost_if_another_could_serve(autojump_clock, three):
    for endpoint in three.endpoints:
        for _ in range(3):
            endpoint.note_check(is_good=False)
    with pytest.raises(UpstreamBusy):
        await three.send(b"a~x")
    for _ in range(2):
        three.endpoints[2].note_check(is_good=True)
    assert (await three.send(b"a~x")).status == 404
    await three.send()
    assert [len(server.seen) for server in three.servers] == [0, 0, 1]


async def test_what_was_never_seen_is_sent_to_another(autojump_clock, three):
    three.servers[0].failure = UpstreamUnavailable("refused")
    for _ in range(4):
        assert (await three.send()).status == 200
    assert len(three.servers[0].seen) == 2  # then its circuit is open
    assert three.endpoints[0].circuit.state is CircuitState.OPEN


@pytest.mark.parametrize(
    "failure", [UpstreamDisconnected("cut"), UpstreamTimeout("slow"), RemoteProtocolError("nonsense")]
)
async def test_what_may_have_been_seen_is_not_sent_again(autojump_clock, three, failure):
    for server in three.servers:
        server.failure = failure
    with pytest.raises(type(failure)):
        await three.send()
    assert Counter(len(server.seen) for server in three.servers) == {1: 1, 0: 2}


async def test_in_a_session_nothing_is_sent_elsewhere(autojump_clock, three):
    three.servers[0].failure = UpstreamUnavailable("refused")
    with pytest.raises(UpstreamUnavailable, match="refused"):
        await three.send(b"a~x")
    assert not three.servers[1].seen


async def test_no_endpoint_is_left(autojump_clock, three):
    for server in three.servers:
        server.failure = UpstreamUnavailable("refused")
    with pytest.raises(UpstreamUnavailable, match="refused"):
        await three.send()
    with pytest.raises(UpstreamUnavailable, match="refused"):
        await three.send()
    with pytest.raises(UpstreamBusy, match="in 30 s"):
        await three.send()
    assert [len(server.seen) for server in three.servers] == [2, 2, 2]
    await trio.sleep(30)
    three.servers[1].failure = None
    assert (await three.send()).status == 200


async def test_an_open_circuit_answers_a_session_at_once(autojump_clock, three):
    three.servers[0].status = 500
    for _ in range(2):
        await three.send(b"a~x")
    with pytest.raises(UpstreamBusy, match="in 30 s"):
        await three.send(b"a~x")
    assert trio.current_time() == 0
    assert len(three.servers[0].seen) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_the_clients_own_failures_do_not_count(autojump_clock, three, status):
    three.servers[0].status = status
    for _ in range(20):
        await three.send(b"a~x")
    assert three.endpoints[0].circuit.state is CircuitState.CLOSED


async def test_a_full_endpoint_is_not_a_broken_one(autojump_clock, three):
    three.servers[0].failure = UpstreamBusy("full")
    for _ in range(9):
        await three.send()
    assert three.endpoints[0].circuit.state is CircuitState.CLOSED
    assert three.endpoints[0].failures == 0


async def test_draining_takes_no_new_sessions_and_keeps_the_old(autojump_clock, three):
    three.endpoints[0].is_draining = True
    for _ in range(4):
        await three.send()
    await three.send(b"a~x")
    assert three.servers[0].seen == [b"x"]


async def test_in_flight_counts_until_the_answer_is_closed(autojump_clock, three):
    answer = await three.set.send(UpstreamRequest("POST", [], b"{}"))
    assert three.endpoints[0].in_flight == 1
    await answer.aclose()
    await answer.aclose()
    assert three.endpoints[0].in_flight == 0


async def test_a_cancelled_request_leaves_no_trace(autojump_clock):
    only = Servers("a", max_failures=1, max_probes=1)
    only.servers[0].failure = UpstreamTimeout("slow")
    with pytest.raises(UpstreamTimeout):
        await only.send()
    await trio.sleep(30)
    only.servers[0].hang = True
    with trio.move_on_after(1):
        await only.send()
    assert only.endpoints[0].in_flight == 0
    only.servers[0].hang, only.servers[0].failure = False, None
    await only.send()  # the place of the probe was given back
    assert only.endpoints[0].circuit.state is CircuitState.CLOSED


async def test_no_more_probes_than_said_reach_the_server(autojump_clock):
    only = Servers("a", max_failures=1, max_probes=3)
    only.servers[0].status = 500
    await only.send()
    await trio.sleep(30)
    only.servers[0].hang = True
    before = len(only.servers[0].seen)
    refused = 0

    async def call():
        nonlocal refused
        try:
            with trio.move_on_after(5):
                await only.send()
        except UpstreamBusy:
            refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(call)
    assert (len(only.servers[0].seen) - before, refused) == (3, 197)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a~b"], [""], ["x" * 65]])
def test_names_are_checked(names):
    with pytest.raises(ConfigError):
        UpstreamSet([Endpoint(name, Server(name)) for name in names])
