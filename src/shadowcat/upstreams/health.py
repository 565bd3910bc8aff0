"""Checking endpoints while nobody asks for anything."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import attrs
import trio

from ..errors import ProtocolError, UpstreamError
from ..protocol import PROTOCOL_VERSION, mint_id
from ..transport import Upstream, UpstreamRequest
from .endpoint import Endpoint

log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[bool]]
"""Returns whether a server is well; may be cancelled at any time."""

_JITTER = 0.2
"""The part of the interval by which checks are drawn apart."""

_DISCOVER = (
    b'{"jsonrpc":"2.0","id":%b,"method":"server/discover","params":{"_meta":{'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientInfo":{"name":"shadowcat","version":"1"},'
    b'"io.modelcontextprotocol/clientCapabilities":{}}}}'
)
_HEADERS = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
    (PROTOCOL_VERSION, b"2026-07-28"),
    (b"mcp-method", b"server/discover"),
)


@attrs.frozen(kw_only=True)
class CheckConfig:
    """How often endpoints are checked."""

    interval: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Seconds from one check to the next, more or less."""

    timeout: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """Seconds that a check may take."""


def mcp_check(upstream: Upstream) -> Check:
    """Return a check that asks with ``server/discover``.

    Any answer will do that is not the server's own failure: a server of the legacy era
    refuses the question, and one that wants credentials refuses us, and both are there.
    """

    async def check() -> bool:
        answer = await upstream.send(UpstreamRequest("POST", _HEADERS, _DISCOVER % mint_id()))
        try:
            return answer.status < 500
        finally:
            await answer.aclose()

    return check


def tcp_check(host: str, port: int) -> Check:
    """Return a check that connects, and nothing more."""

    async def check() -> bool:
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError:
            return False
        async with stream:
            return True

    return check


async def keep_checking(
    endpoint: Endpoint, check: Check, config: CheckConfig, draw: Callable[[float, float], float] = random.uniform
) -> None:
    """Check *endpoint* until cancelled, the first time at once."""
    while True:
        is_good = await _is_good(endpoint, check, config.timeout)
        before = endpoint.health
        endpoint.note_check(is_good=is_good)
        if endpoint.health is not before:
            log.warning("endpoint %s is %s now", endpoint.name, endpoint.health.value)
        await trio.sleep(config.interval * draw(1 - _JITTER, 1 + _JITTER))


async def _is_good(endpoint: Endpoint, check: Check, seconds: float) -> bool:
    await trio.lowlevel.checkpoint()
    with trio.move_on_after(seconds):
        try:
            return await check()
        except (UpstreamError, ProtocolError) as error:
            log.debug("endpoint %s: %s", endpoint.name, error)
    return False
