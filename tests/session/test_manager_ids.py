"""Request ids of the calls under way in one session."""

import pytest

from shadowcat.session import manager as module

from .managing import create, open_manager


class TestUse:
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
            (b"1", None, False),
            (None, None, False),
        ],
    )
    async def test_id_in_flight_is_taken(self, autojump_clock, first, second, is_taken):
        """MCP: the request ID MUST NOT have been previously used; there are servers that take "1" for 1."""
        async with open_manager() as manager:
            session = await create(manager)
            with manager.use(session, first) as before, manager.use(session, second) as after:
                assert before == first
                assert (after not in {second, None}) == is_taken

    async def test_id_is_free_after_the_answer(self, autojump_clock):
        """... also when the request failed; but not when only the second of two is over."""
        async with open_manager() as manager:
            session = await create(manager)
            with pytest.raises(KeyError), manager.use(session, b"1"):
                raise KeyError
            with manager.use(session, b"1") as sent_id:
                assert sent_id == b"1"
                with manager.use(session, b"1"):
                    pass
                with manager.use(session, b"1") as sent_id:
                    assert sent_id != b"1"

    async def test_other_sessions_have_ids_of_their_own(self, autojump_clock):
        """An id is unique within a session."""
        async with open_manager() as manager:
            with manager.use(await create(manager), b"1"), manager.use(await create(manager), b"1") as sent_id:
                assert sent_id == b"1"


class TestInFlight:
    async def test_ids_that_went_upstream_are_known_by_the_clients(self, autojump_clock):
        """MCP, Cancellation: it names the request by the id that its sender gave it."""
        async with open_manager() as manager:
            session = await create(manager)
            with manager.use(session, b"1") as first, manager.use(session, b"1") as second:
                assert list(manager.ids_in_flight(session, b"1")) == [first, second]
                assert first != second
            assert list(manager.ids_in_flight(session, b"1")) == []

    async def test_id_of_another_type_is_another_request(self, autojump_clock):
        """Cancelling "1" does not cancel 1."""
        async with open_manager() as manager:
            session = await create(manager)
            with manager.use(session, b"1") as number, manager.use(session, b'"1"') as text:
                assert list(manager.ids_in_flight(session, b"1")) == [number]
                assert list(manager.ids_in_flight(session, b'"1"')) == [text]
                assert list(manager.ids_in_flight(session, b"2")) == []

    async def test_minted_ids_lead_back_to_the_clients(self, autojump_clock):
        """Also after the call: its answer may come late, on a stream that is resumed."""
        async with open_manager() as manager:
            session = await create(manager)
            minted = manager.minted_ids(session)
            with manager.use(session, b"1"), manager.use(session, b'"1"') as sent_id:
                assert dict(minted) == {sent_id: b'"1"'}
            assert dict(minted) == {sent_id: b'"1"'}

    async def test_only_the_latest_are_kept(self, autojump_clock, monkeypatch):
        """A session that never ends costs no more memory than the limit."""
        monkeypatch.setattr(module, "_MAX_MINTED", 3)
        async with open_manager() as manager:
            session = await create(manager)
            sent = []
            with manager.use(session, b"1"):
                for _ in range(5):
                    with manager.use(session, b"1") as sent_id:
                        sent.append(sent_id)
            assert list(manager.minted_ids(session)) == sent[2:]
