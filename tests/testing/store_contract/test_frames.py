"""Stores that break one promise about frames, event ids or batches, and what they are told."""

import attrs
import pytest
import trio

from shadowcat.session import InMemoryStore

from ..opening import complaint_about


class ReformattingStore(InMemoryStore):
    """Keeps the meaning of a message, not its bytes."""

    async def add_frame(self, frame):
        await super().add_frame(attrs.evolve(frame, message=frame.message.strip()))


class UnsortedStore(InMemoryStore):
    """Orders frames by their time."""

    async def get_frames(self, session_id):
        return sorted(await super().get_frames(session_id), key=lambda frame: frame.recorded_at)


class SharedFramesStore(InMemoryStore):
    """Deletes everybody's frames."""

    async def delete_frames(self, session_id):
        for entry in self._entries.values():
            entry.frames.clear()


class ThriftyStore(InMemoryStore):
    """Keeps a hundred frames."""

    async def add_frame(self, frame):
        await super().add_frame(frame)
        frames = self._entry(frame.session_id).frames
        while len(frames) > 100:
            frames.popleft()


class OldestFramesStore(InMemoryStore):
    """Keeps the first thousand frames, not the last."""

    async def add_frame(self, frame):
        if len(self._entry(frame.session_id).frames) < 1000:
            await super().add_frame(frame)


class LosingStore(InMemoryStore):
    """Reads the frames, waits, and writes them back."""

    async def add_frame(self, frame):
        entry = self._entry(frame.session_id)
        frames = entry.frames.copy()
        await trio.lowlevel.checkpoint()
        frames.append(frame)
        entry.frames = frames


class HighestStore(InMemoryStore):
    """Keeps the greatest event id, as if they were numbers."""

    async def store_last_event_id(self, session_id, event_id):
        last = await self.get_last_event_id(session_id)
        await super().store_last_event_id(session_id, max(last or "", event_id))


class UnorderedBatchStore(InMemoryStore):
    async def get_sessions_batch(self, session_ids):
        return sorted(await super().get_sessions_batch(session_ids), key=lambda session: session.id)


class QuietUpdateStore(InMemoryStore):
    async def update_sessions_batch(self, sessions):
        await super().update_sessions_batch(sessions)
        return []


class QuietEventIdStore(InMemoryStore):
    async def store_event_ids_batch(self, event_ids):
        await super().store_event_ids_batch(event_ids)
        return []


class AbruptBatchStore(InMemoryStore):
    """Stops at the first session that is gone."""

    async def store_event_ids_batch(self, event_ids):
        for session_id, event_id in event_ids:
            await self.store_last_event_id(session_id, event_id)
        return []


class EmptyBatchStore(InMemoryStore):
    """Cannot ask for nothing, as a database that is sent an empty list."""

    async def get_sessions_batch(self, session_ids):
        return (await super().get_sessions_batch(session_ids)) or [await self.get_session(session_ids[0])]


BROKEN = [
    (ReformattingStore, "Frames come back to the byte", "other frames"),
    (UnsortedStore, "Frames come back to the byte, in the order", "in another order"),
    (SharedFramesStore, "Frames of one session are never seen in another", "deleted those of another session"),
    (ThriftyStore, "at least its newest thousand frames", "only 100 of 1005 were kept"),
    (OldestFramesStore, "at least its newest thousand frames", "not the newest"),
    (LosingStore, "Frames added at once are all kept", "a task added 0 to 9"),
    (HighestStore, "The last event id stored is the one returned", "was stored and"),
    (UnorderedBatchStore, "A session comes back as it was created", "get_sessions_batch returned something else"),
    (QuietUpdateStore, "reports the sessions that were gone or refused", "update_sessions_batch reported []"),
    (QuietEventIdStore, "reports the sessions that were gone or refused", "store_event_ids_batch reported []"),
    (AbruptBatchStore, "reports the sessions that were gone or refused", "SessionNotFound was raised"),
    (EmptyBatchStore, "reports the sessions that were gone or refused", "SessionNotFound was raised"),
]


@pytest.mark.parametrize(("store_class", "promise", "detail"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
async def test_a_store_that_breaks_a_promise_is_told_which(store_class, promise, detail):
    complaint = await complaint_about(store_class)
    assert promise in complaint
    assert detail in complaint
