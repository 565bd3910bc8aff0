"""Sessions from initialize to their end, on a clock of the test's own."""

import logging

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import SessionConflict, SessionLimitReached, SessionNotFound, StoreCorrupt, StoreUnavailable
from shadowcat.protocol import ResponseMode
from shadowcat.session import Cursor, InMemoryStore, ResumePoint, SessionId, StreamKind, parse_cursor

from .managing import RESULT, SlowStore, create, open_manager


class TestCreate:
    async def test_session_is_stored_with_what_both_sides_said(self, autojump_clock):
        """MCP 2025-11-25, lifecycle: version, capabilities and info are settled by initialize."""
        async with open_manager() as manager:
            session = await create(manager)

            assert session == await manager.find(session.id)
            assert (session.upstream_session_id, session.protocol_version) == ("u", "2025-11-25")
            assert (session.initialize_params, session.initialize_result) == ({"capabilities": {}}, RESULT)
            assert (session.response_mode, session.created_at > 1.7e9) == (ResponseMode.JSON, True)

    async def test_session_is_stored_with_its_times(self, autojump_clock):
        """Last use, and the latest end of a session that nobody uses again: idle time and the lag of the store."""
        async with open_manager(max_idle=80, reap_interval=15) as manager:
            await trio.sleep(7)
            session = await create(manager)
            assert session.created_at == session.last_activity == manager.now()
            assert session.expires_at - session.created_at == pytest.approx(80 + 15)
            assert session.revision == 0

    @pytest.mark.parametrize("result", [{}, {"protocolVersion": 5}, {"protocolVersion": None}])
    async def test_version_that_is_none_is_empty(self, autojump_clock, result):
        """What an upstream answers is kept, however odd."""
        async with open_manager() as manager:
            assert (await create(manager, result=result)).protocol_version == ""

    async def test_unknown_session_is_not_found(self, autojump_clock):
        """MCP 2025-11-25: requests to a session that is over get 404."""
        async with open_manager() as manager:
            with pytest.raises(SessionNotFound):
                await manager.find(SessionId("never"))


class TestLimit:
    async def test_as_many_as_the_limit_and_no_more(self, autojump_clock):
        """One more initialize is refused, and possible again when a session has ended."""
        async with open_manager(max_sessions=2) as manager:
            for _ in range(2):
                async with manager.reserve():
                    await create(manager)
            with pytest.raises(SessionLimitReached):
                async with manager.reserve():
                    pytest.fail("there was no place")

            session, _ = await manager.store.list_sessions()
            await manager.end(session.id)
            async with manager.reserve():
                await create(manager)

    async def test_place_is_held_while_the_upstream_is_asked(self, autojump_clock):
        """Two clients that come at once do not both get the last place."""
        async with open_manager(max_sessions=1) as manager:
            async with manager.reserve():
                with pytest.raises(SessionLimitReached):
                    async with manager.reserve():
                        pytest.fail("the place was held")

            async with manager.reserve():
                pass

    async def test_place_is_free_again_however_it_was_left(self, autojump_clock):
        """An upstream that refuses, and a client that is cancelled, take no place."""
        async with open_manager(max_sessions=1) as manager:
            with pytest.raises(KeyError):
                async with manager.reserve():
                    raise KeyError
            with trio.move_on_after(1):
                async with manager.reserve():
                    await trio.sleep_forever()

            async with manager.reserve():
                pass


class TestEnd:
    async def test_what_is_attached_ends_with_the_session(self, autojump_clock):
        """MCP 2025-11-25: after the session has ended the server closes its streams."""
        ended = []
        async with open_manager() as manager, trio.open_nursery() as nursery:
            session, other = await create(manager), await create(manager)

            async def attach(session, number):
                with manager.attached(session) as scope:
                    await trio.sleep_forever()
                ended.append((number, scope.cancelled_caught))

            for number, where in enumerate([session, session, other]):
                nursery.start_soon(attach, where, number)
            await wait_all_tasks_blocked()
            await manager.end(session.id)
            await wait_all_tasks_blocked()

            assert sorted(ended) == [(0, True), (1, True)]
            nursery.cancel_scope.cancel()

    async def test_what_was_attached_is_not_cancelled(self, autojump_clock):
        """What its task does next is its own."""
        async with open_manager() as manager:
            session = await create(manager)
            with manager.attached(session) as scope:
                pass
            await manager.end(session.id)
            assert not scope.cancel_called

    async def test_attachment_alone_is_no_use(self, autojump_clock):
        """Whoever sends or receives says so with `use`; expiry then ends nothing that is under way."""
        async with open_manager(max_idle=90, reap_interval=30) as manager:
            session = await create(manager)
            with manager.attached(session) as scope:
                await trio.sleep(1000)
            assert scope.cancelled_caught

    async def test_ending_twice_is_ending(self, autojump_clock):
        """Client and reaper may both."""
        async with open_manager() as manager:
            session = await create(manager)
            await manager.end(session.id)
            await manager.end(session.id)
            with pytest.raises(SessionNotFound):
                await manager.find(session.id)

    async def test_what_is_attached_ends_when_an_end_elsewhere_is_noticed(self, autojump_clock):
        """A store may be shared by several proxies."""
        async with open_manager() as manager:
            session = await create(manager)
            await manager.store.delete_session(session.id)
            with manager.attached(session) as scope:
                with pytest.raises(SessionNotFound):
                    await manager.find(session.id)
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught

    async def test_what_is_attached_ends_even_if_the_store_hangs(self, autojump_clock):
        """Ending begins here and then goes to the store."""
        store = SlowStore()
        async with open_manager(store) as manager:
            session = await create(manager)
            store.is_stuck = True
            with manager.attached(session) as scope, trio.move_on_after(1):
                await manager.end(session.id)
            assert scope.cancel_called


class FailingStore(InMemoryStore):
    """Takes sessions and then no updates."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    async def update_session(self, session):
        await trio.lowlevel.checkpoint()
        raise self.error


class OvertakenStore(InMemoryStore):
    """Somebody else names the principal while the first update is on its way."""

    async def update_session(self, session):
        if (current := await self.get_session(session.id)).principal is None:
            await super().update_session(attrs.evolve(current, principal="somebody"))
        return await super().update_session(session)


class TestMode:
    async def test_call_does_not_fail_because_its_store_hangs(self, autojump_clock):
        """How the answer was relayed is worth a second and no more."""
        store = SlowStore()
        async with open_manager(store) as manager:
            session = await create(manager)
            store.is_stuck = True
            await manager.record_mode(session, ResponseMode.SSE_STREAM)
            assert trio.current_time() == 1

    async def test_mode_that_is_known_is_not_stored_again(self, autojump_clock):
        """Most answers of a session are alike."""
        store = SlowStore()
        async with open_manager(store) as manager:
            session = await create(manager)
            await manager.record_mode(session, ResponseMode.JSON)
            assert trio.current_time() == 0

    async def test_mode_of_the_last_answer_is_kept(self, autojump_clock):
        """The session says how its last answer was relayed."""
        async with open_manager() as manager:
            session = await create(manager)
            await manager.record_mode(session, ResponseMode.SSE_STREAM)
            assert (await manager.find(session.id)).response_mode is ResponseMode.SSE_STREAM

    async def test_session_that_ended_meanwhile_stays_ended(self, autojump_clock, caplog):
        """An answer that comes late brings nothing back."""
        caplog.set_level(logging.DEBUG)
        async with open_manager() as manager:
            session = await create(manager)
            await manager.end(session.id)
            await manager.record_mode(session, ResponseMode.SSE_STREAM)

            assert await manager.store.count_sessions() == 0

    @pytest.mark.parametrize("error", [StoreUnavailable("down"), StoreCorrupt("bad"), SessionConflict("late")])
    async def test_call_does_not_fail_because_its_store_does(self, autojump_clock, error):
        """The mode is lost and the session is not, also if others are faster time and again."""
        async with open_manager(FailingStore(error)) as manager:
            session = await create(manager)
            await manager.record_mode(session, ResponseMode.SSE_STREAM)
            assert session == await manager.find(session.id)

    async def test_what_somebody_else_wrote_meanwhile_is_kept(self, autojump_clock):
        """The update is made again, upon what is stored by then."""
        async with open_manager(OvertakenStore()) as manager:
            session = await create(manager)
            await manager.record_mode(session, ResponseMode.SSE_STREAM)
            found = await manager.find(session.id)
            assert (found.principal, found.response_mode) == ("somebody", ResponseMode.SSE_STREAM)
            assert found.revision == 2


class TestEventId:
    async def test_newest_is_stored_a_little_later(self, autojump_clock):
        """One write within the flush interval, with no wait for the caller and no new revision."""
        async with open_manager() as manager:
            session, other = await create(manager), await create(manager)
            stream = manager.streams.begin(session, StreamKind.LISTENING)
            for number in range(10):
                stream.publish(b"data: x", str(number), manager.now())
            assert await manager.store.get_last_event_id(session.id) is None
            await trio.sleep(0.15)
            stored = parse_cursor((await manager.store.get_last_event_id(session.id)).encode())
            assert stored == Cursor(stream.key.stream_id, 10, ResumePoint(0, "9"))
            assert await manager.store.get_last_event_id(other.id) is None
            assert (await manager.find(session.id)).revision == 0

    async def test_what_is_pending_is_written_at_the_end(self, autojump_clock):
        """An orderly stop loses nothing, also if it comes as a cancellation."""
        store = InMemoryStore()
        with trio.CancelScope() as scope:
            async with open_manager(store) as manager:
                session = await create(manager)
                stream = manager.streams.begin(session, StreamKind.LISTENING)
                stream.publish(b"data: x", "last", manager.now())
                scope.cancel()
        assert await store.get_last_event_id(session.id) == stream.last_event_id
        page = await store.read_events(session.id, stream.key.stream_id, 0)
        assert page is not None
        assert [event.upstream_id for event in page.events] == ["last"]

    async def test_session_that_ended_meanwhile_stays_ended(self, autojump_clock):
        """Nothing is brought back, and nothing fails."""
        async with open_manager() as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.LISTENING)
            stream.publish(b"data: x", "1", manager.now())
            await manager.end(session.id)
            stream.publish(b"data: x", "2", manager.now())
            await trio.sleep(1)
            with pytest.raises(SessionNotFound):
                await manager.store.get_last_event_id(session.id)
            again = await create(manager)
            stream = manager.streams.begin(again, StreamKind.LISTENING)
            stream.publish(b"data: x", "3", manager.now())
            await trio.sleep(1)
            assert await manager.store.get_last_event_id(again.id) == stream.last_event_id


async def test_what_is_under_way_in_a_session_can_be_looked_at(autojump_clock):
    async with open_manager() as manager:
        session = await create(manager)
        assert 0 == manager.presence_of(session.id).in_use
        with manager.use(session):
            assert 1 == manager.presence_of(session.id).in_use
        await manager.end(session.id)
        assert manager.presence_of(session.id) is None
