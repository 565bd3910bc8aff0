"""Stores that break one promise about event streams, and what they are told."""

import attrs
import pytest
import trio

from shadowcat.session import InMemoryStore, LogLimits, SessionId, StreamSlice
from shadowcat.testing.store_contract.client import append_of
from tests.testing.opening import complaint_about


class TidyingStore(InMemoryStore):
    """Takes an empty id for none."""

    async def append_events(self, appends, limits):
        tidied = [
            attrs.evolve(one, events=[attrs.evolve(e, upstream_id=e.upstream_id or None) for e in one.events])
            for one in appends
        ]
        return await super().append_events(tidied, limits)


class TextStore(InMemoryStore):
    """Takes blocks for text."""

    async def read_events(self, session_id, stream_id, after, limit=100):
        found = await super().read_events(session_id, stream_id, after, limit)
        if found is None:
            return None
        events = [attrs.evolve(e, block=e.block.decode("utf-8", "replace").encode()) for e in found.events]
        return StreamSlice(found.record, events)


class FirstRecordStore(InMemoryStore):
    """Keeps the kind that was said of a stream when it began."""

    def __init__(self):
        super().__init__()
        self._kinds = {}

    def _record(self, newest):
        record = super()._record(newest)
        self._kinds.setdefault(newest.key, newest.kind)
        return attrs.evolve(record, kind=self._kinds[newest.key])


class DoublingStore(InMemoryStore):
    """Does not look what it has already."""

    def _append(self, append, limits):
        stream = self._stream(append.key.session_id, append.key.stream_id)
        if stream is not None:
            stream.newest = attrs.evolve(stream.newest, last_position=0)
        return super()._append(append, limits)


class RevivingStore(InMemoryStore):
    """Believes whatever comes last, however old it is."""

    def _append(self, append, limits):
        is_taken = super()._append(append, limits)
        stream = self._stream(append.key.session_id, append.key.stream_id)
        if is_taken and stream is not None:
            stream.newest = attrs.evolve(append, last_position=stream.newest.last_position)
        return is_taken


class HoardingStore(InMemoryStore):
    async def append_events(self, appends, limits):
        return await super().append_events(appends, LogLimits(max_events=10**9, max_bytes=10**9, max_age=1e9))


class BytelessStore(InMemoryStore):
    """Counts events, and not how long they are."""

    async def append_events(self, appends, limits):
        return await super().append_events(appends, attrs.evolve(limits, max_bytes=10**9))


class AgelessStore(InMemoryStore):
    async def append_events(self, appends, limits):
        return await super().append_events(appends, attrs.evolve(limits, max_age=1e9))


class OvereagerStore(InMemoryStore):
    """Drops all when it is too much."""

    async def append_events(self, appends, limits):
        return await super().append_events(appends, attrs.evolve(limits, max_events=max(1, limits.max_events // 2)))


class NewestFirstStore(InMemoryStore):
    """Drops what comes, not what is old."""

    async def append_events(self, appends, limits):
        for one in appends:
            stream = self._stream(one.key.session_id, one.key.stream_id)
            if stream is not None and len(stream.events) >= limits.max_events:
                return []
        return await super().append_events(appends, limits)


class PrincipledStore(InMemoryStore):
    """Drops what is too long, come what may."""

    async def append_events(self, appends, limits):
        short = [
            attrs.evolve(one, events=[e for e in one.events if len(e.block) <= limits.max_bytes]) for one in appends
        ]
        return await super().append_events(short, limits)


class EndlessStore(InMemoryStore):
    async def append_events(self, appends, limits):
        return await super().append_events(appends, attrs.evolve(limits, max_streams=10**9))


class OldestFirstStore(InMemoryStore):
    """Asks which stream is the oldest, not which has ended."""

    def _append(self, append, limits):
        streams = self._entries[append.key.session_id].streams if append.key.session_id in self._entries else {}
        if append.key.stream_id not in streams and len(streams) >= limits.max_streams:
            del streams[next(iter(streams))]
        return super()._append(append, limits)


class PoliteStore(InMemoryStore):
    """Has no room for what is new."""

    def _append(self, append, limits):
        is_taken = super()._append(append, limits)
        entry = self._entries.get(append.key.session_id)
        if entry is not None and len(entry.streams) == limits.max_streams and append.is_ended:
            entry.streams.pop(append.key.stream_id)
        return is_taken


class ResurrectingStore(InMemoryStore):
    """Keeps streams beside the sessions, for whoever may come."""

    async def append_events(self, appends, limits):
        await super().append_events(appends, limits)
        return []


class UnlimitedStore(InMemoryStore):
    async def read_events(self, session_id, stream_id, after, limit=100):
        return await super().read_events(session_id, stream_id, after, 10**9)


class InclusiveStore(InMemoryStore):
    """Takes "beyond" for "from"."""

    async def read_events(self, session_id, stream_id, after, limit=100):
        return await super().read_events(session_id, stream_id, after - 1, limit)


class InventingStore(InMemoryStore):
    """Knows of a stream, and has nothing, where there is no session."""

    async def read_events(self, session_id, stream_id, after, limit=100):
        if session_id == "gone":
            session_id, after = SessionId("a"), 10**9
            await self.append_events([append_of()], LogLimits())
        return await super().read_events(session_id, stream_id, after, limit)


class SurvivingStore(InMemoryStore):
    """Deletes a session, and leaves its streams for the next."""

    def __init__(self):
        super().__init__()
        self._left = {}

    async def delete_session(self, session_id):
        entry = self._entry(session_id)
        await super().delete_session(session_id)
        if session_id == "a" and entry.session.expires_at == 10.0:
            self._left[session_id] = entry.streams

    async def create_session(self, session):
        await super().create_session(session)
        self._entries[session.id].streams = self._left.pop(session.id, {})


class ImpatientStore(InMemoryStore):
    """Drops what has not ended too."""

    async def expire_streams(self, before):
        expired = 0
        for entry in self._entries.values():
            for key in [key for key, stream in entry.streams.items() if stream.newest.appended_at < before]:
                del entry.streams[key]
                expired += 1
        return expired


class PatientStore(InMemoryStore):
    async def expire_streams(self, before):
        return 0


class SleepyStore(InMemoryStore):
    async def wait_events(self, session_id, stream_id, after):
        await trio.sleep(3)


class SlowStore(InMemoryStore):
    """Lets the second pass, whatever comes."""

    async def wait_events(self, session_id, stream_id, after):
        await trio.sleep(1)


class HalvingStore(InMemoryStore):
    """Appends one event after the other."""

    async def append_events(self, appends, limits):
        refused = []
        for one in appends:
            parts = [attrs.evolve(one, events=[event], is_ended=False) for event in one.events] + [one]
            for part in parts:
                part = attrs.evolve(part, last_position=0)
                if await super().append_events([part], limits):
                    refused.append(one.key)
                    break
                await trio.lowlevel.checkpoint()
        return refused


KEPT = "The events of a stream come back as they were appended"
LIMITED = "Of a stream that exceeds a limit the oldest events are dropped"
FEW = "Of a session's streams those that have ended go first"

BROKEN = [
    (TidyingStore, KEPT, "or others came back"),
    (TextStore, KEPT, "or others came back"),
    (FirstRecordStore, "What is kept of a stream beside its events", "is not StreamRecord"),
    (DoublingStore, "An append that is made again", "came back twice"),
    (RevivingStore, "An append that is made again", "became StreamRecord"),
    (HoardingStore, LIMITED, "400 events are left with a max_events that 10"),
    (BytelessStore, LIMITED, "400 events are left with a max_bytes"),
    (AgelessStore, LIMITED, "400 events are left with a max_age"),
    (OvereagerStore, LIMITED, "only 5 events are left with a max_events"),
    (NewestFirstStore, LIMITED, "not the newest are left"),
    (PrincipledStore, LIMITED, "the newest event was dropped because it is long"),
    (EndlessStore, FEW, "200 streams are left with a limit of 10"),
    (OldestFirstStore, FEW, "streams that go on were dropped"),
    (PoliteStore, FEW, "the stream that was just begun is not there"),
    (ResurrectingStore, "An append to a session that is gone is refused", "refused []"),
    (UnlimitedStore, "Reading returns the events beyond a position", "at most 1, came [3, 6, 9"),
    (InclusiveStore, "Reading returns the events beyond a position", "beyond 3, at most 2, came [3, 6]"),
    (InventingStore, "None for what is unknown", "of a session that is gone is known"),
    (SurvivingStore, "A session that is deleted or expires takes its streams along", "outlives its session"),
    (ImpatientStore, "Streams that have ended are dropped", "streams were dropped, 13 were due"),
    (PatientStore, "Streams that have ended are dropped", "0 streams were dropped, 13 were due"),
    (SleepyStore, "Waiting for events returns within a second", "when nothing came"),
    (SlowStore, "Waiting for events returns within a second", "after it was appended"),
    (HalvingStore, "A cancelled write has happened in full or not at all", "append_events, cancelled in step"),
]


@pytest.mark.parametrize(("store_class", "promise", "detail"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
async def test_a_store_that_breaks_a_promise_is_told_which(store_class, promise, detail):
    complaint = await complaint_about(store_class)
    assert promise in complaint
    assert detail in complaint


class ForgetfulStore(InMemoryStore):
    """Keeps no streams, and says so."""

    keeps_streams = False

    async def append_events(self, appends, limits):
        return ()

    async def read_events(self, session_id, stream_id, after, limit=100):
        return None


async def test_a_store_need_not_keep_streams():
    """What it does not say it does is not asked for."""
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await complaint_about(ForgetfulStore)
