"""The harness for streams that break: its parts, and clients that speak to the upstream itself."""

import json
from itertools import islice

import pytest
import trio

from tests.e2e.rawhttp import serve_raw
from tests.e2e.soak.faults import ENDS, FaultProxy, Faults, Kind, fault_plan
from tests.e2e.soak.ledger import Call, Epoch, Fate, Ledger, Listening
from tests.e2e.soak.stage import Plan, run_soak
from tests.e2e.soak.upstream import Manners, Upstream
from tests.e2e.soak.wire import Body, Broken, Event, EventCutter, ask

# ------------------------------------------------------------------------------------ faults


def test_faults_follow_from_the_seed_and_the_connection():
    def kinds(seed: int, connection: int) -> list:
        return list(islice(fault_plan(seed, connection, "answer", Faults()), 50))

    assert kinds(1, 7) == kinds(1, 7)
    assert kinds(1, 7) != kinds(1, 8)
    assert kinds(1, 7) != kinds(2, 7)


async def relayed(kind: Kind, nursery) -> bytes | None:
    """Return what comes of a long text through a proxy with one kind of fault; None if reset."""

    async def say(connection) -> None:
        await connection.read_message()
        for _ in range(100):
            await connection.stream.send_all(b"x" * 100)

    weights = {each: float(each is kind) for each in Kind}
    faults = FaultProxy(0, Faults(answer_bytes=1000, request_bytes=1e9, weights=weights, stall=0.01))
    url = await faults.start(nursery, await serve_raw(nursery, say))
    stream = await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2].split("/")[0]))
    received = b""
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        try:
            async for data in stream:
                received += data
        except trio.BrokenResourceError:
            return None
        finally:
            assert faults.counts[kind] > 0
    return received


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
async def test_each_fault_does_what_it_says(kind, nursery):
    with trio.fail_after(5):
        received = await relayed(kind, nursery)
    if kind is Kind.RESET:
        assert received is None
    else:
        assert received is not None
        assert (len(received) < 10_000) == (kind in ENDS)
    nursery.cancel_scope.cancel()


# -------------------------------------------------------------------------------------- wire


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_framing_is_taken_away_however_the_bytes_come(size):
    raw = b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
    body = Body({"transfer-encoding": "chunked"})
    pieces = [body.feed(raw[begin : begin + size]) for begin in range(0, len(raw), size)]
    assert b"hello world" == b"".join(pieces)
    assert body.is_over


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_cut_however_the_bytes_come(size):
    raw = b'id: a\ndata: \n\n: heartbeat\n\nid: b\ndata: {}\n\nretry: 20\n\nid: c\ndata: {"cut'
    cutter = EventCutter()
    events = [event for begin in range(0, len(raw), size) for event in cutter.feed(raw[begin : begin + size])]
    assert [Event("a", b"", None), Event("b", b"{}", None), Event(None, b"", 0.02)] == events


# ------------------------------------------------------------------------------------ ledger


def progress(*numbers: int) -> list[dict]:
    def message(number: int) -> dict:
        return {"method": "notifications/progress", "params": {"progressToken": "t", "progress": number}}

    return [message(number) for number in numbers]


RESULT = {"id": "t", "result": {"structuredContent": {"total": 3}}}
ERROR = {"id": "t", "error": {"code": -32000, "message": "lost"}}
OTHER = {"id": "u", "result": {"structuredContent": {"total": 3}}}


@pytest.mark.parametrize(
    ("messages", "fate", "wrong"),
    [
        ([*progress(1, 2, 3), RESULT], Fate.ANSWERED, {}),
        ([*progress(1, 3), RESULT], Fate.ANSWERED, {"silently_lost": 1}),
        ([RESULT], Fate.ANSWERED, {"silently_lost": 3}),
        ([*progress(1, 1, 2, 3), RESULT], Fate.ANSWERED, {"duplicated": 1}),
        ([*progress(1, 3, 2), RESULT], Fate.ANSWERED, {"out_of_order": 1}),
        ([*progress(1, 2, 3), OTHER, RESULT], Fate.ANSWERED, {"stray": 1}),
        ([*progress(1), ERROR], Fate.REPORTED, {"reported_lost": 3}),
        ([*progress(1, 3), ERROR], Fate.REPORTED, {"reported_lost": 1, "silently_lost": 1}),
        (progress(1, 2), Fate.UNFINISHED, {"unfinished": 2}),
    ],
)
def test_call_is_answered_exactly_or_says_what_is_wrong(messages, fate, wrong):
    ledger = Ledger()
    call = Call("t", 3, ledger)
    for message in messages:
        call.take(message)
    call.close()
    assert {fate: 1} == ledger.calls
    names = ["duplicated", "out_of_order", "stray", "reported_lost", "silently_lost", "unfinished"]
    assert wrong == {name: number for name in names if (number := getattr(ledger, name))}


def heard(epoch: str, number: int, final: bool = False) -> dict:
    event = {"epoch": epoch, "number": number, "final": final}
    return {"method": "notifications/message", "params": {"logger": "upstream", "data": event}}


WARNING = {"method": "notifications/message", "params": {"logger": "shadowcat", "data": "some are lost"}}


@pytest.mark.parametrize(
    ("messages", "reported", "silent"),
    [
        ([heard("a", 1), heard("a", 2, True)], 0, 0),
        ([heard("a", 1), heard("a", 4, True)], 0, 2),
        ([heard("a", 1), WARNING, heard("a", 4, True)], 2, 0),
        ([heard("a", 1), WARNING, heard("a", 2), heard("a", 4, True)], 0, 1),
        ([heard("a", 3, True)], 0, 2),
        ([heard("a", 5), heard("c", 1, True)], 0, 4 + 5 + 7),
        ([WARNING, heard("a", 5), WARNING, heard("c", 2, True)], 4 + 5 + 7 + 1, 0),
        ([WARNING, heard("c", 1, True)], 10 + 7, 0),
    ],
)
def test_listener_hears_all_or_of_each_loss_where_it_is(messages, reported, silent):
    """Also of what was said in sessions of the upstream that it heard nothing of."""
    ledger = Ledger()
    listening = Listening("c0", ledger)
    for message in messages:
        listening.take(message)
    listening.close([Epoch("a", 10), Epoch("b", 7), Epoch("c", 20)])
    assert (reported, silent, 0) == (ledger.reported_lost, ledger.silently_lost, ledger.unfinished)


# ---------------------------------------------------------------------------------- upstream


async def open_session(url: str) -> str:
    params = {"clientInfo": {"name": "c0"}}
    async with ask("POST", url, {"id": 0, "method": "initialize", "params": params}) as reply:
        return reply.headers["mcp-session-id"]


async def read_some(url: str, session_id: str, last_id: str | None, least: int) -> list[Event]:
    """Listen until there are *least* events or no more to come, then hang up."""
    events: list[Event] = []
    async with ask("GET", url, mcp_session_id=session_id, last_event_id=last_id) as reply:
        cutter = EventCutter()
        while len(events) < least and (piece := await reply.receive()):
            events += cutter.feed(piece)
    return events


def number_in(event: Event) -> int:
    number: int = json.loads(event.data)["params"]["data"]["number"]
    return number


@pytest.mark.slow
async def test_stream_goes_on_while_its_connection_is_cut_and_another_takes_over(nursery):
    url = await serve_raw(nursery, Upstream(Manners(rate=500)).serve)
    with trio.fail_after(5):
        session_id = await open_session(url)
        primer, *first = await read_some(url, session_id, None, 20)
        again = await read_some(url, session_id, first[9].id, 40)
        other_primer, *other = await read_some(url, session_id, None, 20)
        rest = await read_some(url, session_id, again[-1].id, 1000)
    assert primer.data == other_primer.data == b""
    assert list(range(1, len(first) + 1)) == [number_in(event) for event in first]
    assert first[10:] == again[: len(first) - 10]
    later = [number_in(event) for event in [*again, *rest, *other]]
    assert list(range(11, 11 + len(later))) == later, "what is for one stream is not for the other"
    nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_redeployed_upstream_knows_nobody_and_hangs_up(nursery):
    upstream = Upstream(Manners())
    url = await serve_raw(nursery, upstream.serve)
    with trio.fail_after(5):
        session_id = await open_session(url)
        async with ask("GET", url, mcp_session_id=session_id) as reply:
            upstream.forget()
            with pytest.raises(Broken):
                await reply.text()
        async with ask("GET", url, mcp_session_id=session_id) as reply:
            assert 404 == reply.status
    nursery.cancel_scope.cancel()


# ------------------------------------------------------------- clients, faults, and upstream

FAULTS = Faults(answer_bytes=10_000, request_bytes=20_000, stall=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--polling", "20"]], ids=["", "polling"])
async def test_without_a_proxy_each_event_comes_once_and_in_order(options):
    plan = Plan(replicas=0, client_faults=FAULTS, upstream_options=options)
    with trio.fail_after(60):
        outcome = await run_soak(plan)
    ledger = outcome.ledger
    assert outcome.is_exact, ledger.complaints
    assert ledger.reconnects > 20
    assert ledger.reported_lost <= 20, "only what was said before a listener had an id"
    assert ledger.calls[Fate.ANSWERED] >= 0.8 * ledger.calls.total()
    assert ledger.received >= 0.8 * plan.events


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "fate"),
    [
        (Plan(replicas=0, forget_interval=1), Fate.REPORTED),
        (Plan(replicas=0, client_faults=FAULTS, upstream_options=["--no-ids"]), Fate.UNKNOWN),
    ],
    ids=["forgetful", "no ids"],
)
async def test_without_a_proxy_each_loss_is_known(plan, fate):
    with trio.fail_after(60):
        outcome = await run_soak(plan)
    ledger = outcome.ledger
    assert outcome.is_exact, ledger.complaints
    assert ledger.calls[fate] > 0
    assert {Fate.ANSWERED, fate} == set(+ledger.calls)


@pytest.mark.slow
@pytest.mark.parametrize(("off_by", "lost", "doubled"), [(1, True, False), (-1, False, True)], ids=["late", "early"])
async def test_server_that_resumes_at_the_wrong_event_is_caught(off_by, lost, doubled):
    plan = Plan(replicas=0, client_faults=FAULTS, upstream_options=[f"--off-by={off_by}"])
    with trio.fail_after(60):
        outcome = await run_soak(plan)
    ledger = outcome.ledger
    assert not outcome.is_exact
    assert (lost, doubled) == (ledger.silently_lost > 0, ledger.duplicated > 0)
