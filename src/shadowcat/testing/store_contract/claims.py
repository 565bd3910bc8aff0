"""Promises about who may append to an event stream, for stores that keep them."""

from __future__ import annotations

from functools import partial

import attrs

from ...session import OwnerId, SessionStore, StreamAppend, StreamRecord, StreamSlice
from .client import (
    LIMITS,
    OTHER,
    OWNER,
    A,
    Clients,
    S,
    append,
    append_of,
    event_at,
    found,
    is_known,
    race,
    session_called,
)


async def others_cannot_append(clients: Clients) -> None:
    """An append of another owner, or with another fence, is refused and changes nothing; others in the call do."""
    await clients.one.create_session(session_called(A))
    await append(clients.one, append_of([event_at(1)]))
    before = await found(clients.one)
    for number, (owner, fence) in enumerate(((OTHER, 1), (OWNER, 2), (OWNER, 0), (OTHER, 2))):
        wrong = append_of([event_at(2)], resume_id="wrong", is_ended=True, owner=owner, fence=fence)
        right = append_of([event_at(1)], stream=f"right{number}")
        refused = list(await clients.either(number).append_events([right, wrong], LIMITS))
        assert refused == [wrong.key], (
            f"append_events as {owner} with fence {fence} refused {refused}, not exactly the one to refuse"
        )
        assert await found(clients.one) == before, (
            f"append_events as {owner} with fence {fence} changed the stream it refused"
        )
        assert await is_known(clients.other, f"right{number}"), "an append was dropped together with one refused"


async def the_living_keep_their_streams(clients: Clients) -> None:
    """A stream is claimed from an owner that is dead or has let go, with a larger fence, and from no other."""
    one, other = clients.one, clients.other
    assert await other.claim_stream(A, S, OTHER) is None, "a stream of no session was claimed"
    await one.create_session(session_called(A))
    assert await other.claim_stream(A, S, OTHER) is None, "a stream that is unknown was claimed"
    await one.renew_owner(OWNER, 60.0)
    await one.renew_owner(OTHER, 60.0)
    await append(one, append_of([event_at(1)], sent_id=b"7"))
    before = await found(one)
    assert before.record.owner == OWNER, f"the record names {before.record.owner}, not the owner, who is alive"
    assert await other.claim_stream(A, S, OTHER) == before.record, "a live owner's stream was claimed, or changed"
    await one.renew_owner(OWNER, 0.0)
    assert (await found(other)).record.owner is None, "an owner that is dead is named"
    claimed = await other.claim_stream(A, S, OTHER)
    assert claimed is not None, "a stream was unknown that there is"
    expected = attrs.evolve(before.record, owner=OTHER, fence=claimed.fence)
    assert claimed == expected, f"claimed it was {claimed}, not {expected}"
    assert claimed.fence > 1, "claiming a dead owner's stream did not make its fence larger"
    assert await found(one) == StreamSlice(expected, before.events), "the stream is not as it was claimed"
    await _is_refused(one, append_of([event_at(2)]), "whoever owned a stream before it was claimed")
    await append(other, append_of([event_at(2)], owner=OTHER, fence=claimed.fence, is_released=True))
    assert (await found(one)).record.owner is None, "an owner that has let go is named"
    again = await one.claim_stream(A, S, OWNER)
    assert again is not None, "a stream was unknown that there is"
    assert again.owner == OWNER, "a stream that its owner has let go was not claimed"
    assert again.fence > claimed.fence, "claiming a stream that was let go did not make its fence larger"
    await one.renew_owner(OTHER, 0.0)


async def owners_can_claim_again(clients: Clients) -> None:
    """A live owner that claims its own stream gets a new fence, and the one before is of no use."""
    await clients.one.create_session(session_called(A))
    await clients.one.renew_owner(OWNER, 60.0)
    await append(clients.one, append_of([event_at(1)]))
    claimed = await clients.other.claim_stream(A, S, OWNER)
    assert claimed is not None, "a stream was unknown that there is"
    assert (claimed.owner, claimed.fence > 1) == (OWNER, True), f"its own stream claimed again is {claimed}"
    await _is_refused(clients.one, append_of([event_at(2)]), "an owner with its fence of before")
    await append(clients.one, append_of([event_at(2)], fence=claimed.fence))
    await clients.one.renew_owner(OWNER, 0.0)


async def one_claimant_wins(clients: Clients) -> None:
    """Of several that claim a stream at once exactly one gets it and the others are told who; the zombie is refused."""
    claimants = [OwnerId(f"claimant{number}") for number in range(10)]
    for name in claimants:
        await clients.one.renew_owner(name, 60.0)
    for turn in range(3):
        session = session_called(f"contended{turn}")
        await clients.one.create_session(session)
        await append(clients.one, append_of([event_at(1)], session=session.id, owner=OwnerId("zombie")))
        claims = [partial(clients.either(n).claim_stream, session.id, S, name) for n, name in enumerate(claimants)]
        outcomes = [outcome for outcome in await race(claims) if isinstance(outcome, StreamRecord)]
        winners = [name for name, outcome in zip(claimants, outcomes, strict=True) if outcome.owner == name]
        assert len(winners) == 1, f"{len(winners)} of 10 got it"
        assert len(set(outcomes)) == 1, "not everybody was told of the same owner and fence"
        zombie = append_of([event_at(2)], session=session.id, owner=OwnerId("zombie"))
        await _is_refused(clients.one, zombie, "whoever owned a stream before it was claimed")
        won = append_of([event_at(2)], session=session.id, owner=winners[0], fence=outcomes[0].fence)
        await append(clients.other, won)
    for name in claimants:
        await clients.one.renew_owner(name, 0.0)


async def _is_refused(store: SessionStore, wrong: StreamAppend, who: str) -> None:
    refused = list(await store.append_events([wrong], LIMITS))
    assert refused == [wrong.key], f"{who} could still append"


PROMISES = (
    others_cannot_append,
    the_living_keep_their_streams,
    owners_can_claim_again,
    one_claimant_wins,
)
