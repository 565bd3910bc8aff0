"""Against nodes that answer what a test says, on the mock clock; real ones are in test_redis_cluster.py."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from coredis.exceptions import (
    AuthorizationError,
    ClusterDownError,
    ConnectionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
    WrongTypeError,
)

from shadowcat.errors import ConfigError, StoreUnavailable
from shadowcat.session.stores import redis_servers
from shadowcat.session.stores.redis_link import failure_of
from shadowcat.session.stores.redis_slots import Address, slot_of
from tests.session.stores.redis_nodes import (
    ALSO_ON_A,
    INDEX,
    ON_A,
    ON_B,
    ON_C,
    A,
    B,
    C,
    FakeNodes,
    ask,
    get,
    moved,
    servers_of,
)

D = Address("d", 7000)

STRAYED = ResponseError("Script attempted to access a non local key in a cluster node script: f00, on @user_script:9.")


@asynccontextmanager
async def opened(nodes: FakeNodes, seed: Address = A):
    servers = servers_of(nodes, seed)
    await servers.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(servers.follow)
        await trio.testing.wait_all_tasks_blocked()
        nodes.asked.clear()
        nodes.made.clear()
        yield servers
        servers.close()


def refusal(answer: object) -> str:
    assert isinstance(answer, Exception), answer
    error = failure_of(answer)
    assert isinstance(error, StoreUnavailable)
    return str(error)


async def test_one_server_gets_everything_at_once(autojump_clock):
    """What a server is sent that is no node of a cluster is not looked at."""
    nodes = FakeNodes(mode=b"standalone")
    commands = [get(INDEX), get(ON_A), (b"PING", b"")]
    async with opened(nodes) as servers:
        assert ["a"] * 3 == [host for host, _ in await servers.exchange(commands)]
    assert [(A, commands)] == nodes.sent
    assert [] == nodes.asked
    assert [A] == nodes.closed


async def test_every_command_goes_to_who_has_its_key(autojump_clock):
    """And the answers are in the order of the commands."""
    nodes = FakeNodes(delay=0.1)
    async with opened(nodes) as servers:
        began = trio.current_time()
        answers = await servers.exchange([get(ON_B), get(ON_A), get(ON_C), get(ALSO_ON_A)])
    assert [("b", ON_B), ("a", ON_A), ("c", ON_C), ("a", ALSO_ON_A)] == answers
    assert (A, [get(ON_A), get(ALSO_ON_A)]) in nodes.sent
    assert 3 == len(nodes.sent)
    assert 0.1 == pytest.approx(trio.current_time() - began)


async def test_index_and_session_keep_their_order(autojump_clock):
    """Each is sent when the one before is answered: a crash in between must heal."""
    nodes = FakeNodes(delay=0.1)
    async with opened(nodes) as servers, trio.open_nursery() as nursery:
        nursery.start_soon(servers.exchange, [get(INDEX), get(ON_A), get(ON_B), get(INDEX)])
        await trio.sleep(0.05)
        assert [C] == [to for to, _ in nodes.sent]
        await trio.sleep(0.1)
        assert [C, A, B] == [C, *sorted(to for to, _ in nodes.sent[1:])]
        await trio.sleep(0.1)
        assert C == nodes.sent[-1][0]
    assert 4 == len(nodes.sent)


async def test_nothing_follows_what_was_not_obeyed(autojump_clock):
    """No session without its index: it would never expire."""
    nodes = FakeNodes(down={C})
    async with opened(nodes) as servers:
        answers = await servers.exchange([get(INDEX), get(ON_A), get(INDEX)])
    assert {"the connection broke"} == {refusal(answer) for answer in answers}
    assert [] == nodes.keys(A)

    nodes = FakeNodes(answer=lambda address, command: ResponseError("OOM") if address == C else None)
    async with opened(nodes) as servers:
        assert ["(OOM)"] * 2 == [refusal(a)[-5:] for a in await servers.exchange([get(INDEX), get(ON_A)])]
    assert [] == nodes.keys(A)


async def test_what_is_broken_keeps_nothing_from_following(autojump_clock):
    """A key of another type was answered for good; the other steps are as on one server."""
    nodes = FakeNodes(answer=lambda address, command: WrongTypeError("") if command[1] == ON_A else None)
    async with opened(nodes) as servers:
        broken, fine, last = await servers.exchange([get(ON_A), get(ON_B), get(INDEX)])
    assert isinstance(broken, WrongTypeError)
    assert [("b", ON_B), ("c", INDEX)] == [fine, last]


async def test_a_moved_slot_is_followed_and_remembered(autojump_clock):
    """The command goes on to the new node; the next one goes there at once."""
    nodes = FakeNodes(answer=lambda address, command: moved(B) if (address, command[1]) == (A, ON_A) else None)
    async with opened(nodes) as servers:
        nodes.slots.append([slot_of(b"s:1"), slot_of(b"s:1"), B])
        assert [("b", ON_A), ("a", ALSO_ON_A)] == await servers.exchange([get(ON_A), get(ALSO_ON_A)])
        assert [("b", ON_A)] == await servers.exchange([get(ON_A)])
        await trio.sleep(2)
        assert [("b", ON_A)] == await servers.exchange([get(ON_A)])
    assert [ON_A, ALSO_ON_A] == nodes.keys(A)


async def test_a_node_that_names_no_host_means_its_own(autojump_clock):
    nodes = FakeNodes(answer=lambda address, command: moved(":7009") if address.port == 7000 else None)
    async with opened(nodes) as servers:
        await servers.exchange([get(ON_B)])
    assert [ON_B] == nodes.keys(Address("b", 7009))


async def test_an_asked_node_is_asked_and_not_remembered(autojump_clock):
    """Every command needs its own ASKING; only those whose key has gone already are sent on."""
    nodes = FakeNodes(answer=lambda address, command: ask(B) if (address, command[1]) == (A, ON_A) else None)
    async with opened(nodes) as servers:
        for _ in range(2):
            answers = await servers.exchange([get(ON_A), get(ALSO_ON_A), get(ON_A)])
            assert [("b", ON_A), ("a", ALSO_ON_A), ("b", ON_A)] == answers
    sent = [(A, [get(ON_A), get(ALSO_ON_A), get(ON_A)]), (B, [(b"ASKING",), get(ON_A), (b"ASKING",), get(ON_A)])]
    assert sent * 2 == nodes.sent
    assert [] == nodes.asked


async def test_nodes_that_point_at_each_other_are_given_up(autojump_clock):
    """After five redirects."""
    nodes = FakeNodes(answer=lambda address, command: moved(B if address == A else A))
    async with opened(nodes) as servers:
        (answer,) = await servers.exchange([get(ON_A)])
    assert "is moving" in refusal(answer)
    assert 6 == len(nodes.sent)


@pytest.mark.parametrize("held", [TryAgainError(""), STRAYED])
async def test_keys_on_their_way_are_waited_for(autojump_clock, held):
    """For as long as a call may take, and no longer."""
    nodes = FakeNodes(answer=lambda address, command: held if trio.current_time() < until else None)
    async with opened(nodes) as servers:
        until = trio.current_time() + 0.5
        assert [("a", ON_A)] == await servers.exchange([get(ON_A)])
        assert 0 <= trio.current_time() - until < 0.1

        until = trio.current_time() + 5
        began = trio.current_time()
        (answer,) = await servers.exchange([get(ON_A)])
        assert 0.9 < trio.current_time() - began <= 1.0
    assert "is moving" in refusal(answer)


async def test_what_is_asked_of_one_session_stays_in_order_on_the_way(autojump_clock):
    """The second command is not sent on while the first is being held back."""
    done = []

    def answer(address, command):
        if address == A and trio.current_time() < until:
            return TryAgainError("") if command[0] == b"FIRST" else ask(B)
        if address == A:
            return ask(B)
        done.append(command[0])
        return "OK"

    nodes = FakeNodes(answer=answer)
    async with opened(nodes) as servers:
        until = trio.current_time() + 0.3
        assert ["OK", "OK"] == await servers.exchange([(b"FIRST", ON_A), (b"SECOND", ON_A)])
    assert [b"FIRST", b"SECOND"] == done


async def test_a_lost_node_takes_only_its_own_keys_along(autojump_clock):
    """Whoever has taken over is found at the others, within a second or so."""
    nodes = FakeNodes()
    async with opened(nodes) as servers:
        nodes.down = {A}
        lost, fine = await servers.exchange([get(ON_A), get(ON_B)])
        assert "broke" in refusal(lost)
        assert ("b", ON_B) == fine

        nodes.slots[0][2] = D
        refused = 0
        while not isinstance((await servers.exchange([get(ON_A)]))[0], tuple):
            refused += 1
            await trio.sleep(0.1)
        assert 0 < refused <= 11
        assert [("d", ON_A)] == await servers.exchange([get(ON_A)])
    assert {B, C} >= {address for _, address in nodes.asked if address != A}


async def test_a_silent_node_takes_only_its_own_keys_along(autojump_clock):
    """A call that needs it takes its second; one that does not, none."""
    nodes = FakeNodes(silent={A})
    async with opened(nodes, seed=B) as servers:
        began = trio.current_time()
        lost, fine = await servers.exchange([get(ON_A), get(ON_B)])
        assert "in time" in refusal(lost)
        assert ("b", ON_B) == fine
        assert 1.0 == pytest.approx(trio.current_time() - began)

        began = trio.current_time()
        assert [("c", ON_C)] == await servers.exchange([get(ON_C)])
        assert began == trio.current_time()


@pytest.mark.parametrize("sign", [ConnectionError(), ReadOnlyError(), ClusterDownError("")])
async def test_signs_that_a_node_is_not_the_one_to_ask(autojump_clock, sign):
    """Each has the cluster asked who has what, at most once a second, however many calls fail."""
    nodes = FakeNodes(answer=lambda address, command: sign if address == A else None)
    async with opened(nodes) as servers:
        await trio.sleep(5)
        nodes.asked.clear()
        began = trio.current_time()
        for _ in range(30):
            refusal((await servers.exchange([get(ON_A)]))[0])
            await trio.sleep(0.1)
    times = [when - began for when, _ in nodes.asked]
    assert [0.0, 1.0, 2.0] == pytest.approx(times[:3], abs=0.15)
    assert 4 >= len(times)


async def test_other_answers_are_no_sign(autojump_clock):
    nodes = FakeNodes(answer=lambda address, command: ResponseError("OOM"))
    async with opened(nodes) as servers:
        await trio.sleep(5)
        nodes.asked.clear()
        await servers.exchange([get(ON_A)])
        await trio.sleep(5)
    assert [] == nodes.asked


async def test_a_node_that_is_behind_is_not_asked_twice_in_a_row(autojump_clock):
    """The next one is: it alone may have missed what became of the others."""
    nodes = FakeNodes(answer=lambda address, command: ClusterDownError(""))
    async with opened(nodes) as servers:
        for _ in range(60):
            await servers.exchange([get(ON_A)])
            await trio.sleep(0.1)
    assert {A, B, C} == {address for _, address in nodes.asked}
    assert all(one != other for (_, one), (_, other) in zip(nodes.asked, nodes.asked[1:], strict=False))


async def test_links_to_nodes_that_have_left_are_closed(autojump_clock):
    """When no call can be using them any more."""
    nodes = FakeNodes()
    async with opened(nodes) as servers:
        await servers.exchange([get(ON_A), get(ON_B), get(ON_C)])
        nodes.slots[0][2] = B
        nodes.answer = lambda address, command: moved(B) if address == A else None
        await servers.exchange([get(ON_A)])
        await trio.sleep(0.9)
        assert [] == nodes.closed
        await trio.sleep(3)
        assert [A] == nodes.closed
        assert [("b", ON_A)] == await servers.exchange([get(ON_A)])
    assert sorted([A, B, C]) == sorted(nodes.closed)


async def test_a_link_that_is_in_use_stays(autojump_clock):
    """To a node that is being filled, and has no slot of its own yet."""
    nodes = FakeNodes(answer=lambda address, command: ask(D) if address == A else None)
    async with opened(nodes) as servers:
        await trio.sleep(5)
        servers._is_outdated.set()
        for _ in range(50):
            await servers.exchange([get(ON_A)])
            await trio.sleep(0.1)
        assert [] == nodes.closed
        nodes.answer = lambda address, command: None
        await trio.sleep(3)
        assert [D] == nodes.closed


async def test_the_first_node_is_needed_only_at_first(autojump_clock):
    """It is a way in, and may be under another name; if all are gone, it is asked again."""
    seed = Address("seed", 1)
    nodes = FakeNodes()
    async with opened(nodes, seed) as servers:
        await trio.sleep(3)
        assert [seed] == nodes.closed
        nodes.down = {seed, A}
        assert [("b", ON_B)] == await servers.exchange([get(ON_B)])
        nodes.slots[0][2] = B
        await servers.exchange([get(ON_A)])
        await trio.sleep(1)
        assert [("b", ON_A)] == await servers.exchange([get(ON_A)])

        nodes.down = {A, B, C}
        nodes.slots = [[0, 16383, D]]
        await servers.exchange([get(ON_A)])
        await trio.sleep(3)
        assert [("d", ON_A)] == await servers.exchange([get(ON_A)])


async def test_a_slot_that_nobody_has_is_said(autojump_clock):
    """And found when somebody has it."""
    nodes = FakeNodes()
    nodes.slots, whole = nodes.slots[1:], nodes.slots
    async with opened(nodes) as servers:
        assert "no node" in refusal((await servers.exchange([get(ON_A)]))[0])
        nodes.slots = whole
        await trio.sleep(2)
        assert [("a", ON_A)] == await servers.exchange([get(ON_A)])


@pytest.mark.parametrize("mode", [b"standalone", b"cluster"])
async def test_servers_that_are_down_at_first_are_found_later(autojump_clock, mode):
    """By the first call that reaches them; until then each says that they are down."""
    nodes = FakeNodes(mode=mode, down={A})
    servers = servers_of(nodes)
    with pytest.raises(StoreUnavailable):
        await servers.open()
    with pytest.raises(StoreUnavailable, match="broke"):
        await servers.exchange([get(ON_B)])
    nodes.down = set()
    expected = "a" if mode == b"standalone" else "b"
    for _ in range(2):
        assert [(expected, ON_B)] == await servers.exchange([get(ON_B)])


async def test_a_cluster_that_will_not_do_is_said_at_first(autojump_clock):
    for slots, error, sentence in (
        (AuthorizationError("NOPERM"), ConfigError, "allow it CLUSTER SLOTS"),
        (ResponseError("ERR odd"), StoreUnavailable, "refused a command"),
        ([], StoreUnavailable, "finish setting the cluster up"),
    ):
        with pytest.raises(error, match=sentence):
            await servers_of(FakeNodes(slots=slots)).open()


async def test_a_refusal_when_greeted_is_said(autojump_clock):
    with pytest.raises(StoreUnavailable, match="refused"):
        await servers_of(FakeNodes(mode=ResponseError("odd"))).open()


async def test_links_have_a_bound(autojump_clock, monkeypatch):
    """However many addresses a cluster names."""
    monkeypatch.setattr(redis_servers, "_MAX_NODES", 3)
    nodes = FakeNodes(answer=lambda address, command: moved(Address(address.host, address.port + 1)))
    async with opened(nodes) as servers:
        (answer,) = await servers.exchange([get(ON_A)])
        assert "more than 3 nodes" in refusal(answer)
        assert 3 == len(servers._links)


async def test_after_closing_there_are_no_links(autojump_clock):
    """Nor calls, and who follows the cluster has stopped."""
    nodes = FakeNodes()
    async with opened(nodes) as servers:
        await servers.exchange([get(ON_A)])
        servers.close()
        for key in (ON_A, ON_B):
            assert "closed" in refusal((await servers.exchange([get(key)]))[0])
    assert [] == nodes.made


async def test_a_cancelled_call_takes_nobody_along(autojump_clock):
    nodes = FakeNodes(delay=0.5)
    async with opened(nodes) as servers, trio.open_nursery() as nursery:
        answers = []

        async def read():
            answers.extend(await servers.exchange([get(ON_A), get(ON_B)]))

        nursery.start_soon(read)
        with trio.move_on_after(0.2) as scope:
            await servers.exchange([get(ON_A), get(ON_B), get(INDEX)])
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert [("a", ON_A), ("b", ON_B)] == answers
        assert [] == nodes.keys(C)
        assert [] == nodes.closed
