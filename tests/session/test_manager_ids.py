"""Request ids of the calls under way in one session."""

import pytest

from .managing import create, open_manager


class TestHold:
    @pytest.mark.parametrize(
        ("first", "second", "is_taken"),
        [
            (b"1", b"1", True),
            (b'"1"', b"1", True),
            (b"1", b'"1"', True),
            (b'"a"', b'"a"', True),
            (b'""', b'""', True),
            (b"0", b'"0"', True),
            (b"1", b"2", False),
            (b'"a"', b'"b"', False),
            (b'""', b"0", False),
        ],
    )
    async def test_id_in_flight_is_taken(self, autojump_clock, first, second, is_taken):
        """MCP: the request ID MUST NOT have been previously used; there are servers that take "1" for 1."""
        async with open_manager() as manager:
            session = await create(manager)
            before, after = manager.hold(session, first), manager.hold(session, second)
            assert before.sent_id == first
            assert (after.sent_id != second) == is_taken
            assert (before.request_id, after.request_id) == (first, second)

    async def test_id_is_free_after_the_answer(self, autojump_clock):
        """... but not when only one of two is over, whichever it is."""
        async with open_manager() as manager:
            session = await create(manager)
            manager.hold(session, b"1").release()
            first = manager.hold(session, b"1")
            assert first.sent_id == b"1"
            manager.hold(session, b"1").release()
            second = manager.hold(session, b"1")
            assert second.sent_id != b"1"
            first.release()
            third = manager.hold(session, b"1")
            assert third.sent_id not in (b"1", second.sent_id)
            second.release()
            third.release()
            assert manager.hold(session, b"1").sent_id == b"1"

    async def test_releasing_twice_frees_no_other(self, autojump_clock):
        """Whoever has the id by then keeps it."""
        async with open_manager() as manager:
            session = await create(manager)
            held = manager.hold(session, b"1")
            held.release()
            again = manager.hold(session, b"1")
            held.release()
            assert again.sent_id == b"1"
            assert manager.hold(session, b"1").sent_id != b"1"

    async def test_id_outlives_its_session(self, autojump_clock):
        """Releasing it is no mistake when the session has ended meanwhile."""
        async with open_manager() as manager:
            session = await create(manager)
            held = manager.hold(session, b"1")
            await manager.end(session.id)
            held.release()
            assert list(manager.ids_in_flight(session, b"1")) == []

    async def test_other_sessions_have_ids_of_their_own(self, autojump_clock):
        """An id is unique within a session."""
        async with open_manager() as manager:
            manager.hold(await create(manager), b"1")
            assert manager.hold(await create(manager), b"1").sent_id == b"1"


class TestInFlight:
    async def test_ids_that_went_upstream_are_known_by_the_clients(self, autojump_clock):
        """MCP, Cancellation: it names the request by the id that its sender gave it."""
        async with open_manager() as manager:
            session = await create(manager)
            first, second = manager.hold(session, b"1"), manager.hold(session, b"1")
            assert list(manager.ids_in_flight(session, b"1")) == [first.sent_id, second.sent_id]
            assert first.sent_id != second.sent_id
            first.release()
            assert list(manager.ids_in_flight(session, b"1")) == [second.sent_id]
            second.release()
            assert list(manager.ids_in_flight(session, b"1")) == []

    async def test_id_of_another_type_is_another_request(self, autojump_clock):
        """Cancelling "1" does not cancel 1."""
        async with open_manager() as manager:
            session = await create(manager)
            number, text = manager.hold(session, b"1"), manager.hold(session, b'"1"')
            assert list(manager.ids_in_flight(session, b"1")) == [number.sent_id]
            assert list(manager.ids_in_flight(session, b'"1"')) == [text.sent_id]
            assert list(manager.ids_in_flight(session, b"2")) == []

    async def test_minted_ids_lead_back_to_the_clients(self, autojump_clock):
        """Also after the call: its answer may come late, on a stream that is resumed."""
        async with open_manager() as manager:
            session = await create(manager)
            minted = manager.minted_ids(session)
            manager.hold(session, b"1")
            held = manager.hold(session, b'"1"')
            assert dict(minted) == {held.sent_id: b'"1"'}
            held.release()
            assert dict(minted) == {held.sent_id: b'"1"'}
