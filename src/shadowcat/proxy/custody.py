"""What a request holds until it is done."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol import Batch, Message, RawId, Request
from ..session import HeldId
from ..transport import UpstreamResponse


class Custody:
    """The id of a request and the answer to it: given up at the end of the block, unless handed over."""

    __slots__ = ("answer", "held")

    def __init__(self, held: HeldId | None) -> None:
        self.held = held
        self.answer: UpstreamResponse | None = None

    def hand_over(self) -> None:
        """Leave both to somebody else from here on."""
        self.held = self.answer = None

    async def __aenter__(self) -> Custody:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.held is not None:
            self.held.release()
        if self.answer is not None:
            await self.answer.aclose()


def waiting_ids(message: Message | Batch | None, held: HeldId | None) -> Sequence[RawId] | None:
    """Return the ids, as sent, of the requests that a stream answers; None if that is not known."""
    if isinstance(message, Batch):
        return [entry.id for entry in message.messages if isinstance(entry, Request)]
    return None if held is None else [held.sent_id]
