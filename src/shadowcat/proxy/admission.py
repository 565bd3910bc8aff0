"""Letting a client's message in, or only the part of it that must never be kept out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import trio

from ..errors import TooManyRequests
from ..protocol import Batch, Message, split_batch
from ..transport import Exchange
from .boundary import serve_safely
from .limits import Limits, is_never_refused

SendBatch = Callable[[Exchange, bytes, Batch], Awaitable[None]]
"""Sends a batch on, and answers the exchange."""


async def admit(limits: Limits, exchange: Exchange, body: bytes, message: Message | Batch, send: SendBatch) -> None:
    """Return if *message* may be served.

    What belongs to calls under way is sent on even if the batch that it is in is refused.

    A checkpoint only if a store counts, or if something was refused.  If cancelled, the message
    may have been counted.

    Raises:
        TooManyRequests: It may not.
    """
    try:
        undecided = limits.admit(exchange, message)
        if undecided is not None:
            await undecided
        return
    except TooManyRequests as error:
        refusal = error
    if isinstance(message, Batch):
        await _send_rest(exchange, body, message, send)
    raise refusal


async def _send_rest(exchange: Exchange, body: bytes, batch: Batch, send: SendBatch) -> None:
    """Send on what asks for nothing new; the client hears no more of that than that the rest was refused."""
    parts = zip(split_batch(body) or (), batch.messages, strict=False)
    rest = [(text, message) for text, message in parts if is_never_refused(message)]
    if not rest:
        await trio.lowlevel.checkpoint()
        return
    inner = Exchange({"method": "POST", "path": "(batch)", "headers": ()}, _never, _drop)
    inner.headers = exchange.headers
    rest_body = b"[%s]" % b",".join(text for text, _ in rest)
    rest_batch = Batch(tuple(message for _, message in rest))
    await serve_safely(inner, lambda: send(inner, rest_body, rest_batch))


async def _never() -> NoReturn:
    await trio.sleep_forever()


async def _drop(_event: Mapping[str, Any]) -> None:
    await trio.lowlevel.checkpoint()
