"""Several endpoints as one upstream, on the mock clock."""

import random
from collections import Counter

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import (
    ConfigError,
    RemoteProtocolError,
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from shadowcat.resilience import CircuitConfig, CircuitState
from shadowcat.testing import ScriptedUpstream
from shadowcat.transport import Upstream, UpstreamRequest, UpstreamResponse
from shadowcat.upstreams import ConcurrencyConfig, Endpoint, HealthConfig, Strategy, UpstreamSet


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


class Many(Servers):
    """With limits on what is under way, and servers that answer when they are told to."""

    def __init__(self, names="ab", strategy=Strategy.ROUND_ROBIN, **limits):
        super().__init__(names, strategy)
        self.upstreams = [ScriptedUpstream() for _ in names]
        for endpoint, upstream in zip(self.endpoints, self.upstreams, strict=True):
            endpoint.upstream = upstream
        self.set = UpstreamSet(self.endpoints, strategy, concurrency=ConcurrencyConfig(**limits))

    async def begin(self, nursery, session=None, method="POST", *, is_call=True):
        """Begin a request; return what waits for its answer, or for what is raised."""
        headers = [] if session is None else [(b"mcp-session-id", session)]
        sender, receiver = trio.open_memory_channel(1)

        async def run():
            try:
                await sender.send(await self.set.send(UpstreamRequest(method, headers, b"{}", is_call=is_call)))
            except UpstreamBusy as error:
                await sender.send(error)

        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        return receiver


async def test_no_more_calls_at_an_endpoint_than_may_be(autojump_clock, nursery):
    many = Many(max_in_flight=1, max_queue=1)
    for _ in range(2):
        await many.begin(nursery)
    waiting = await many.begin(nursery)
    refused = await (await many.begin(nursery)).receive()
    assert isinstance(refused, UpstreamBusy)
    assert refused.retry_after == 1
    assert [upstream.hits for upstream in many.upstreams] == [1, 1]
    call = await many.upstreams[1].next_call()
    call.respond(200)
    await wait_all_tasks_blocked()
    assert [upstream.hits for upstream in many.upstreams] == [1, 1]  # not before the answer has been read
    nursery.cancel_scope.cancel()
    del waiting


async def test_a_place_is_taken_until_the_answer_has_been_read(autojump_clock, nursery):
    many = Many("a", max_in_flight=1)
    first = await many.begin(nursery)
    second = await many.begin(nursery, b"a~1")
    (await many.upstreams[0].next_call()).respond(200)
    answer = await first.receive()
    assert many.set.statistics().waiting == 1
    await answer.aclose()
    call = await many.upstreams[0].next_call()
    assert call.headers["mcp-session-id"] == "1"
    call.respond(200)
    await (await second.receive()).aclose()
    assert many.endpoints[0].in_flight == 0


async def test_what_only_listens_or_tells_needs_no_place(autojump_clock, nursery):
    """A tool that asks the client something waits for a message that must not wait for the tool."""
    many = Many("a", max_in_flight=1, max_queue=0)
    await many.begin(nursery, b"a~1")
    for method in ("GET", "DELETE", "POST"):
        await many.begin(nursery, b"a~1", method, is_call=False)
    assert many.upstreams[0].hits == 4
    seen = many.endpoints[0].statistics()
    assert (seen.in_flight, seen.listening) == (1, 3)
    nursery.cancel_scope.cancel()


async def test_a_call_that_waits_too_long_is_refused(autojump_clock, nursery):
    many = Many("a", max_in_flight=1, queue_timeout=7)
    await many.begin(nursery)
    refused = await (await many.begin(nursery, b"a~1")).receive()
    assert trio.current_time() == 7
    assert "nothing was sent" in str(refused)
    assert many.set.statistics().timed_out == 1
    nursery.cancel_scope.cancel()


async def test_a_session_that_waits_for_an_endpoint_that_dies_is_lost(autojump_clock, nursery):
    many = Many("ab", max_in_flight=1)
    await many.begin(nursery, b"a~1")
    waiting = await many.begin(nursery, b"a~2")
    many.set.forget(many.endpoints[0])
    assert (await waiting.receive()).status == 404
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("strategy", Strategy)
async def test_limits_hold_for_the_whole_set(autojump_clock, strategy):
    """However many come at once, through whatever strategy."""
    busy, most, refused = 0, 0, 0

    class Slow(Server):
        async def send(self, request):
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            try:
                await trio.sleep(0.3)
                return await super().send(request)
            finally:
                busy -= 1

    endpoints = [Endpoint(name, Slow(name)) for name in "abc"]
    limits = ConcurrencyConfig(max_in_flight=4, max_queue=100, queue_timeout=2)
    upstreams = UpstreamSet(endpoints, strategy, concurrency=limits, draw=random.Random(3))

    async def call(session):
        nonlocal refused
        try:
            headers = [] if session is None else [(b"mcp-session-id", session)]
            await (await upstreams.send(UpstreamRequest("POST", headers, b"{}"))).aclose()
        except UpstreamBusy:
            refused += 1

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(call, [None, b"a~1", b"b~1", b"c~1"][number % 4])
    seen = upstreams.statistics()
    assert most == 12
    assert (seen.refused, seen.timed_out + seen.refused) == (300 - 112, refused)
    assert [endpoint.in_flight for endpoint in seen.endpoints] == [0, 0, 0]
    assert sum(endpoint.requests for endpoint in seen.endpoints) == 300 - refused


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.ROUND_ROBIN, (1 / 4, 3 / 4)),
        (Strategy.WEIGHTED, (1 / 4, 3 / 4)),
        (Strategy.LEAST_IN_FLIGHT, (1 / 4, 3 / 4)),
        (Strategy.RANDOM, (1 / 4, 3 / 4)),
        (Strategy.POWER_OF_TWO, (1 / 4, 3 / 4)),
    ],
)
async def test_each_strategy_gives_each_endpoint_its_share(autojump_clock, nursery, strategy, expected):
    """With requests that last."""
    found = Many("ab")
    weights = [1, 1] if strategy is Strategy.ROUND_ROBIN else [1, 3]
    for endpoint, weight in zip(found.endpoints, weights, strict=True):
        endpoint.configure(weight, HealthConfig(), CircuitConfig())
    found.set = UpstreamSet(found.endpoints, strategy, draw=random.Random(11))
    for _ in range(400):
        nursery.start_soon(found.set.send, UpstreamRequest("POST", [], b"{}"))
    await wait_all_tasks_blocked()
    share = found.upstreams[0].hits / 400
    wanted = 1 / 2 if strategy is Strategy.ROUND_ROBIN else expected[0]
    assert abs(share - wanted) < 0.06
    nursery.cancel_scope.cancel()


async def test_a_session_does_not_wait_for_an_endpoint_that_nobody_listens_at(autojump_clock, three):
    """Refused connections open the circuit; then the session is lost, and can be opened elsewhere."""
    three.servers[0].failure = UpstreamUnavailable("refused")
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable, match="refused"):
            await three.send(b"a~x")
    assert (await three.send(b"a~x")).status == 404
    assert three.set.statistics().homeless == 1
    await trio.sleep(30)
    with pytest.raises(UpstreamUnavailable, match="refused"):
        await three.send(b"a~x")  # a probe
    assert (await three.send(b"a~x")).status == 404
    await trio.sleep(30)
    three.servers[0].failure = None
    for _ in range(4):
        assert (await three.send(b"a~x")).status == 200
    assert not three.endpoints[0].is_dead


async def test_a_session_of_an_endpoint_that_fails_is_not_lost(autojump_clock, three):
    """It is there, and so are its sessions: they get 503 until it has had its rest."""
    three.servers[0].status = 500
    for _ in range(2):
        await three.send(b"a~x")
    with pytest.raises(UpstreamBusy) as caught:
        await three.send(b"a~x")
    assert caught.value.retry_after == 30
    assert not three.endpoints[0].is_dead


async def test_what_a_caller_wants_to_know_is_passed_on(autojump_clock, nursery):
    many = Many("a")
    sent = []
    headers = [(b"mcp-session-id", b"a~1")]
    nursery.start_soon(many.set.send, UpstreamRequest("POST", headers, b"{}", lambda: sent.append(1)))
    await many.upstreams[0].next_call()
    assert sent == [1]
    nursery.cancel_scope.cancel()


async def test_when_to_come_again_is_the_shortest_wait(autojump_clock, three):
    for server in three.servers:
        server.failure = UpstreamUnavailable("refused")
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable):
            await three.send()
        await trio.sleep(4)
    three.endpoints[1].note_check(is_good=False)
    with pytest.raises(UpstreamBusy) as caught:
        await three.send()
    assert caught.value.retry_after == 26


async def test_a_probe_of_a_circuit_that_was_set_otherwise_is_none_of_the_new_one(autojump_clock, nursery):
    """Its end must not make room for a probe too many."""
    one = Servers("a", max_failures=1, open_time=1, max_probes=1)
    (server,), (endpoint,) = one.servers, one.endpoints

    async def probe(scope):
        server.failure = UpstreamDisconnected("cut")
        with pytest.raises(UpstreamDisconnected):
            await one.send()
        await trio.sleep(1)
        server.failure, server.hang = None, True
        nursery.start_soon(cancellable, scope)
        await wait_all_tasks_blocked()
        server.hang = False

    async def cancellable(scope):
        with scope:
            await one.send()

    old = trio.CancelScope()
    await probe(old)
    endpoint.configure(1, HealthConfig(), CircuitConfig(max_failures=1, open_time=1, max_probes=1, window=5))
    await probe(trio.CancelScope())
    old.cancel()
    await wait_all_tasks_blocked()
    with pytest.raises(UpstreamBusy):
        await one.send()
    nursery.cancel_scope.cancel()


async def test_a_plain_set_adds_nothing_and_refuses_nothing(autojump_clock):
    server = Server("a")
    plain = UpstreamSet([Endpoint("a", server)], is_plain=True)
    answer = await plain.send(UpstreamRequest("POST", [], b"{}"))
    assert answer.header(b"mcp-session-id") == b"a-1"
    assert plain.endpoints[0].in_flight == 1
    await answer.aclose()
    await answer.aclose()
    server.status = 500
    for _ in range(100):
        answer = await plain.send(UpstreamRequest("POST", [(b"mcp-session-id", b"a~b")], b"{}"))
        await answer.aclose()
    assert set(server.seen) == {None, b"a~b"}
    server.failure = UpstreamTimeout("slow")
    with pytest.raises(UpstreamTimeout):
        await plain.send(UpstreamRequest("GET", [], is_call=False))
    server.failure = UpstreamBusy("full")
    with pytest.raises(UpstreamBusy, match="full"):
        await plain.send(UpstreamRequest("GET", [], is_call=False))
    seen = plain.endpoints[0].statistics()
    assert (seen.requests, seen.failures, seen.in_flight, seen.listening) == (103, 101, 0, 0)
    assert seen.circuit is CircuitState.CLOSED


async def test_a_plain_server_can_be_drained(autojump_clock):
    server = Server("a")
    plain = UpstreamSet([Endpoint("a", server)], is_plain=True)
    plain.endpoints[0].is_draining = True
    with pytest.raises(UpstreamBusy):
        await plain.send(UpstreamRequest("POST", [], b"{}"))
    assert (await plain.send(UpstreamRequest("POST", [(b"mcp-session-id", b"1")], b"{}"))).status == 200
    plain.endpoints[0].is_draining = False
    assert (await plain.send(UpstreamRequest("POST", [], b"{}"))).status == 200
