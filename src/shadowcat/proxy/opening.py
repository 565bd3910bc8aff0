"""Answers that are looked at before they are relayed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs

from ..errors import RemoteProtocolError
from ..protocol import Batch, Message, RawId, Request, Response, ResponseMode, SSEDecoder, is_same_id, peek_response
from ..transport import UpstreamResponse

_MAX_HELD = 4 * 1024 * 1024
"""Bytes of an answer to ``initialize``."""


@attrs.frozen
class Opening:
    """The answer to ``initialize``, read as far as its JSON-RPC response."""

    response: Response | None
    """None if the answer is not one: an HTTP error, or nothing we know."""

    replayed: UpstreamResponse
    """The whole answer again, to be relayed; shares the upstream's connection."""


async def hold_opening(answer: UpstreamResponse, request_id: RawId) -> Opening:
    """Read *answer* until the response to *request_id* is in it, or it ends.

    Cancel safe, in that *answer* is still the caller's to close.

    Raises:
        RemoteProtocolError: It is longer than any ``initialize`` result should be.
        UpstreamError: It broke off.
    """
    held: list[bytes] = []
    body = aiter(answer.body)
    response: Response | None = None
    if 200 <= answer.status < 300 and answer.mode is not ResponseMode.PASSTHROUGH:
        response = await _read_response(answer.mode, body, held, request_id)
    return Opening(response, UpstreamResponse(answer.status, answer.headers, _Replay(held, body), answer.close))


async def _read_response(
    mode: ResponseMode, body: AsyncIterator[bytes], held: list[bytes], request_id: RawId
) -> Response | None:
    decoder = SSEDecoder(_MAX_HELD)
    size = 0
    async for chunk in body:
        held.append(chunk)
        size += len(chunk)
        if size > _MAX_HELD:
            raise RemoteProtocolError("the upstream's answer to initialize is too long to be one")
        if mode is ResponseMode.SSE_STREAM:
            for event in decoder.feed(chunk):
                if found := _response_in(event.data or b"", request_id):
                    return found
    return _response_in(b"".join(held), request_id) if mode is ResponseMode.JSON else None


def _response_in(data: bytes, request_id: RawId) -> Response | None:
    message = peek_response(data)
    if message is None:
        return None
    return message if is_same_id(message.id, request_id) else None


class _Replay:
    """The chunks held back, then the rest of the body.

    Not a generator, because one that is cancelled while it reads cannot go on.
    """

    def __init__(self, held: list[bytes], body: AsyncIterator[bytes]) -> None:
        self._held = iter(held)
        self._body = body

    def __aiter__(self) -> _Replay:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._held:
            return chunk
        return await anext(self._body)


def is_asking(message: Message | Batch) -> bool:
    """Whether *message* is owed an answer."""
    if isinstance(message, Request):
        return True
    return isinstance(message, Batch) and any(isinstance(entry, Request) for entry in message.messages)


def is_accepted(message: Message | Batch, answer: UpstreamResponse) -> bool:
    """Whether *message* is owed no answer, and the upstream does not refuse it."""
    return not is_asking(message) and 200 <= answer.status < 300


def is_stream(answer: UpstreamResponse) -> bool:
    """Whether *answer* is an event stream that can be resumed, and not an error that comes as one."""
    return answer.status == 200 and answer.mode is ResponseMode.SSE_STREAM
