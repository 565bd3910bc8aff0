"""Sessions and streams, as somebody outside sees and ends them."""

import contextlib
import time

import pytest
import trio

from shadowcat.admin.key import key_of
from shadowcat.errors import StoreUnavailable
from shadowcat.session import InMemoryStore, Session, SessionId, StreamKind
from shadowcat.testing import notification, open_proxy_kit, request, result
from tests.proxy.conversation import open_session, start_listen, start_post, start_stream

from .administering import fill, open_admin_kit


def key_of_client(kit):
    return key_of(kit.proxy.client.session_id)


async def test_a_session_is_shown_without_its_id(autojump_clock):
    async with open_admin_kit() as kit:
        await open_session(kit.proxy)
        listed = await kit.admin.get("/v1/sessions")
        shown = await kit.admin.get(f"/v1/sessions/{key_of_client(kit)}")

    (session,) = listed.body["sessions"]
    assert key_of_client(kit) == session["key"] == shown.body["key"]
    assert {"name": "shadowcat.testing", "version": "1"} == session["client"]
    assert ("default", "2025-11-25", True) == (session["server"], session["protocol_version"], session["is_here"])
    assert shown.body["has_upstream_session"]
    for secret in (kit.proxy.client.session_id, "upstream-1"):
        assert secret not in str(listed) + str(shown)


async def test_use_is_seen_before_the_store_knows(autojump_clock):
    async with open_admin_kit() as kit:
        await open_session(kit.proxy)
        await trio.sleep(100)
        idle = (await kit.admin.get("/v1/sessions?idle=99")).body["sessions"]
        call, pending = await start_post(kit.proxy, request(1, "tools/list"))
        busy = (await kit.admin.get(f"/v1/sessions/{key_of_client(kit)}")).body
        none = (await kit.admin.get("/v1/sessions?idle=99")).body["sessions"]
        call.answer(result(1))
        await (await pending()).read()

    assert [100] == [round(session["idle_seconds"]) for session in idle]
    assert (0, 1, []) == (busy["idle_seconds"], busy["requests_under_way"], none)


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
async def test_pages_have_every_session_once(limit):
    async with open_admin_kit() as kit:
        ids = await fill(kit.store, 120)
        pages = await kit.admin.pages("/v1/sessions", "sessions", limit=limit)

    assert max(map(len, pages)) <= limit
    assert sorted(map(key_of, ids)) == sorted(session["key"] for page in pages for session in page)
    assert not any(session["is_here"] for page in pages for session in page)


async def test_filters_leave_out_the_others():
    async with open_admin_kit() as kit:
        now = kit.sessions.now()
        await fill(kit.store, 50, now=now)
        await fill(kit.store, 30, prefix="other", now=now, upstream_name="other")
        of_one = await kit.admin.pages("/v1/sessions", "sessions", server="other", limit=20)
        idle = await kit.admin.pages("/v1/sessions", "sessions", idle=39.5, limit=20)
        both = await kit.admin.pages("/v1/sessions", "sessions", idle=19.5, server="other", limit=20)

    assert 30 == sum(map(len, of_one))
    assert {"other"} == {session["server"] for page in of_one for session in page}
    assert (10, 10) == (sum(map(len, idle)), sum(map(len, both)))


async def test_a_page_is_bounded_whatever_is_looked_for():
    """Looking for what is not there does not walk through everything at once."""
    async with open_admin_kit() as kit:
        await fill(kit.store, 5000)
        pages = await kit.admin.pages("/v1/sessions", "sessions", server="nowhere", limit=1000)

    assert [[], [], []] == pages


async def test_nobody_is_missed_while_sessions_end():
    async with open_admin_kit() as kit:
        ids = await fill(kit.store, 100)
        first = await kit.admin.get("/v1/sessions?limit=50")
        for session_id in ids[:60:2]:
            await kit.store.delete_session(session_id)
        rest = await kit.admin.get(f"/v1/sessions?limit=1000&cursor={first.body['next']}")

    met = {session["key"] for reply in (first, rest) for session in reply.body["sessions"]}
    assert set(map(key_of, ids[1::2])) <= met


async def test_what_a_client_calls_itself_is_cut_and_never_trusted():
    async with open_admin_kit() as kit:
        names = []
        for number, info in enumerate(({"name": "x" * 9999, "version": 3}, "nonsense", [], {"name": "\ud800"})):
            params = {"clientInfo": info, "capabilities": info}
            await kit.store.create_session(
                Session(id=SessionId(str(number)), initialize_params=params, created_at=1e300)
            )
            shown = await kit.admin.get(f"/v1/sessions/{key_of(str(number))}")
            names.append(shown.body["client"] and shown.body["client"]["name"])

    assert ["x" * 200, None, None, "\\ud800"] == names


async def test_ending_a_session_ends_it_everywhere(autojump_clock):
    """Here, upstream, and its streams; as the client's own DELETE."""
    async with open_admin_kit() as kit:
        await open_session(kit.proxy)
        call, pending = await start_listen(kit.proxy)
        call.open_events()
        listening = await pending()
        async with trio.open_nursery() as nursery:
            ended = []

            async def end():
                ended.append(await kit.admin.send("DELETE", f"/v1/sessions/{key_of_client(kit)}"))

            nursery.start_soon(end)
            farewell = await kit.proxy.upstream.next_call()
            assert ("DELETE", "upstream-1") == (farewell.request.method, farewell.headers["mcp-session-id"])
            farewell.respond(200)
        await read_to_end(listening)
        after = await kit.proxy.client.post(request(1, "ping"))
        again = await kit.admin.send("DELETE", f"/v1/sessions/{key_of_client(kit)}")

    assert [True] == [reply.body["is_ended"] for reply in ended]
    assert (404, 404) == (after.status, again.status)


async def test_a_session_of_another_process_is_ended_through_the_store(autojump_clock):
    """It is said to be elsewhere; there, its streams end when it looks next."""
    store = InMemoryStore()
    async with open_proxy_kit(store=store) as other, open_admin_kit(store=store) as kit:
        await open_session(other)
        call, pending = await start_listen(other)
        call.open_events()
        listening = await pending()
        key = key_of(other.client.session_id or "")
        shown = (await kit.admin.get(f"/v1/sessions/{key}")).body
        kit.proxy.nursery.start_soon(answer_farewell, kit.proxy)
        ended = await kit.admin.send("DELETE", f"/v1/sessions/{key}")
        with trio.fail_after(60):
            await read_to_end(listening)

    assert (False, None, []) == (shown["is_here"], shown["requests_under_way"], shown["open_streams"])
    assert 200 == ended.status


async def read_to_end(response):
    with contextlib.suppress(trio.EndOfChannel, trio.BrokenResourceError):
        while True:
            await response.next_event()


async def answer_farewell(kit):
    (await kit.upstream.next_call()).respond(200)


async def test_a_store_that_is_down_is_told_of():
    class DownStore(InMemoryStore):
        async def list_session_ids(self, after=None, limit=100):
            raise StoreUnavailable("the store cannot be reached; try again later")

    async with open_admin_kit(store=DownStore()) as kit:
        replies = [
            await kit.admin.get("/v1/sessions"),
            await kit.admin.get(f"/v1/sessions/{'0' * 16}"),
            await kit.admin.send("DELETE", f"/v1/sessions/{'0' * 16}"),
        ]

    assert [503] * 3 == [reply.status for reply in replies]
    assert "try again later" in replies[0].detail


async def test_streams_are_shown(autojump_clock):
    async with open_admin_kit() as kit:
        await open_session(kit.proxy)
        events, follower = await start_stream(kit.proxy)
        call, pending = await start_listen(kit.proxy)
        call.open_events()
        await pending()
        await events.send(notification("notifications/progress", progress=1), id="1")
        await follower.next()
        attended = (await kit.admin.get("/v1/streams")).body["streams"]
        follower.response.leave()
        await trio.sleep(61)
        parked = (await kit.admin.get(f"/v1/streams?session={key_of_client(kit)}")).body["streams"]
        nobody = (await kit.admin.get("/v1/streams?session=0000000000000000")).body["streams"]

    kinds = {stream["kind"]: stream for stream in attended}
    assert {"answer", "listening"} == set(kinds)
    assert (1, 1, True, False) == tuple(
        kinds["answer"][name] for name in ("position", "events_kept", "is_attended", "is_parked")
    )
    assert [("answer", False)] == [(s["kind"], s["is_attended"]) for s in parked if s["is_parked"]]
    assert [] == nobody


async def test_streams_are_paged_as_they_were(autojump_clock):
    async with open_admin_kit() as kit:
        await open_session(kit.proxy)
        session = await kit.store.get_session(kit.proxy.client.session_id)
        streams = [kit.sessions.streams.begin(session, StreamKind.ANSWER) for _ in range(30)]
        first = await kit.admin.get("/v1/streams?limit=20")
        kit.sessions.streams.drop(streams[25])
        kit.sessions.streams.begin(session, StreamKind.LISTENING)
        rest = await kit.admin.get(f"/v1/streams?limit=20&cursor={first.body['next']}")

    assert (20, 9, None) == (len(first.body["streams"]), len(rest.body["streams"]), rest.body["next"])


async def end_one(kit, client, ended):
    reply = await kit.admin.send("DELETE", f"/v1/sessions/{key_of(client.session_id)}")
    ended.append(reply.status)


async def test_ending_sessions_under_load_leaves_the_others_alone(autojump_clock):
    """Calls in the sessions that stay are answered, those in the ones that end are told, and nothing is left over."""
    async with open_admin_kit() as kit:
        proxy = kit.proxy
        proxy.nursery.start_soon(serve_everything, proxy)
        clients = [proxy.new_client() for _ in range(40)]
        for client in clients:
            await (await client.initialize()).read()
        statuses = {client: [] for client in clients}
        ended = []
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(call_on, client, statuses[client])
                await trio.sleep(2)
                for client in clients[::2]:
                    nursery.start_soon(end_one, kit, client, ended)
                    await trio.sleep(0.05)
        left = await kit.admin.pages("/v1/sessions", "sessions")

    assert [200] * 20 == ended
    assert 20 == sum(map(len, left))
    assert {200} == {status for client in clients[1::2] for status in statuses[client]}
    assert all({200, 404} >= set(statuses[client]) and 404 == statuses[client][-1] for client in clients[::2])


async def call_on(client, statuses):
    while True:
        response = await client.post(request(1, "tools/list"))
        await response.read()
        statuses.append(response.status)
        await trio.sleep(0.05)


async def serve_everything(kit):
    async with trio.open_nursery() as nursery:
        for number in range(1_000_000):
            nursery.start_soon(answer_one, await kit.upstream.next_call(), number)


async def answer_one(call, number):
    await trio.sleep(0.02)
    if call.request.method == "DELETE":
        call.respond(200)
    elif call.message["method"] == "initialize":
        opened = result(0, protocolVersion="2025-11-25", capabilities={})
        call.answer(opened, headers={"mcp-session-id": f"upstream-{number}"})
    else:
        call.answer(result(1, tools=[]))


async def test_a_page_of_a_thousand_of_ten_thousand_lets_others_have_their_turn():
    """The loop goes round while a page is made; -s shows for how long it is kept, in time of the processor."""
    async with open_admin_kit() as kit:
        ids = await fill(kit.store, 10_000)
        turns, took = [], []

        async def tick():
            last = time.thread_time()
            while True:
                await trio.lowlevel.checkpoint()
                now = time.thread_time()
                turns.append(now - last)
                last = now

        async def read(path):
            before, start = len(turns), time.thread_time()
            body = await kit.admin.read(path)
            took.append((time.thread_time() - start, len(turns) - before))
            return body

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            cursor = None
            while cursor != "":
                page = await read("/v1/sessions?limit=1000" + (f"&cursor={cursor}" if cursor else ""))
                # Not read as JSON: that would take longer than to write it.
                cursor = page.rpartition(b'"next":')[2].decode().strip('"}').replace("null", "")
            await read(f"/v1/sessions/{key_of(ids[-1])}")
            nursery.cancel_scope.cancel()

    longest = [f"{1e3 * turn:.1f}" for turn in sorted(turns)[-3:]]
    for seconds, count in took:
        print(f"{1e3 * seconds:.1f} ms in {count} turns")
    print(f"the longest turns: {', '.join(longest)} ms")
    assert 11 == len(took)
    assert 20 < min(count for _, count in took), "what is in 25 sessions at once, or 500 ids, is soon done"
