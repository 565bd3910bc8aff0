"""Stores that break one promise about who owns a stream, and what they are told."""

import attrs
import pytest
import trio

from shadowcat.session import InMemoryStore
from tests.testing.opening import complaint_about


class TrustingStore(InMemoryStore):
    """Asks who appends, and not in which reign."""

    def _append(self, append, limits):
        stream = self._stream(append.key.session_id, append.key.stream_id)
        if stream is not None:
            append = attrs.evolve(append, fence=stream.newest.fence)
        return super()._append(append, limits)


class AnonymousStore(InMemoryStore):
    """Asks for the fence, and not who appends."""

    def _append(self, append, limits):
        stream = self._stream(append.key.session_id, append.key.stream_id)
        if stream is not None:
            append = attrs.evolve(append, owner=stream.newest.owner)
        return super()._append(append, limits)


class AllOrNothingStore(InMemoryStore):
    """Drops the whole call when one of it is refused."""

    async def append_events(self, appends, limits):
        for one in appends:
            stream = self._stream(one.key.session_id, one.key.stream_id)
            if stream is not None and (stream.newest.owner, stream.newest.fence) != (one.owner, one.fence):
                return [one.key]
        return await super().append_events(appends, limits)


class RobbingStore(InMemoryStore):
    """Gives a stream to whoever asks."""

    async def claim_stream(self, session_id, stream_id, owner):
        self._alive_until.clear()
        return await super().claim_stream(session_id, stream_id, owner)


class JealousStore(InMemoryStore):
    """Gives no stream away that somebody has owned."""

    async def claim_stream(self, session_id, stream_id, owner):
        stream = self._stream(session_id, stream_id)
        return None if stream is None else self._record(stream.newest)


class FencelessStore(InMemoryStore):
    """Changes the owner only."""

    async def claim_stream(self, session_id, stream_id, owner):
        claimed = await super().claim_stream(session_id, stream_id, owner)
        stream = self._stream(session_id, stream_id)
        if stream is None or claimed is None:
            return claimed
        stream.newest = attrs.evolve(stream.newest, fence=1)
        return attrs.evolve(claimed, fence=1)


class GraspingStore(InMemoryStore):
    """Forgets that an owner has let go."""

    def _append(self, append, limits):
        return super()._append(attrs.evolve(append, is_released=False), limits)


class ImmortalStore(InMemoryStore):
    """Never believes that an owner is dead."""

    async def renew_owner(self, owner, ttl):
        await super().renew_owner(owner, 1000.0)


class ContentStore(InMemoryStore):
    """Leaves the fence to an owner that has the stream already."""

    async def claim_stream(self, session_id, stream_id, owner):
        stream = self._stream(session_id, stream_id)
        if stream is not None and self._record(stream.newest).owner == owner:
            return self._record(stream.newest)
        return await super().claim_stream(session_id, stream_id, owner)


class RacingClaimStore(InMemoryStore):
    """Looks, and claims later."""

    async def claim_stream(self, session_id, stream_id, owner):
        stream = self._stream(session_id, stream_id)
        if stream is None:
            return None
        is_free = self._record(stream.newest).owner in (None, owner)
        await trio.lowlevel.checkpoint()
        if not is_free:
            return self._record(stream.newest)
        stream.newest = attrs.evolve(stream.newest, owner=owner, fence=stream.newest.fence + 1, is_released=False)
        return attrs.evolve(self._record(stream.newest), owner=owner)


REFUSED = "An append of another owner, or with another fence, is refused"
CLAIMED = "A stream is claimed from an owner that is dead or has let go"

BROKEN = [
    (TrustingStore, REFUSED, "as owner with fence 2 refused []"),
    (AnonymousStore, REFUSED, "as other with fence 1 refused []"),
    (AllOrNothingStore, REFUSED, "dropped together with one refused"),
    (RobbingStore, CLAIMED, "a live owner's stream was claimed"),
    (JealousStore, CLAIMED, "claimed it was"),
    (FencelessStore, CLAIMED, "did not make its fence larger"),
    (GraspingStore, CLAIMED, "an owner that has let go is named"),
    (ImmortalStore, "What is kept of a stream", "an owner that is no longer alive is named"),
    (ContentStore, "A live owner that claims its own stream", "claimed again is"),
    (RacingClaimStore, "exactly one gets it", "10 of 10 got it"),
]


@pytest.mark.parametrize(("store_class", "promise", "detail"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
async def test_a_store_that_breaks_a_promise_is_told_which(store_class, promise, detail):
    complaint = await complaint_about(store_class)
    assert promise in complaint
    assert detail in complaint
