"""Checking endpoints while nobody asks for anything."""

from __future__ import annotations

import enum
import logging
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import attrs
import trio

from ..errors import ConfigError, ProtocolError, UpstreamError
from ..protocol import PROTOCOL_VERSION, mint_id
from ..transport import Upstream, UpstreamRequest
from ..transport.upstream import HttpUpstream, HttpUpstreamConfig, StdioConfig
from .endpoint import Endpoint
from .reach import UpstreamConfig

log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[bool]]
"""Returns whether a server is well; may be cancelled at any time."""

_PATH = re.compile(r"/[!\"$-~]*")

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


class CheckKind(enum.Enum):
    """How endpoints are checked."""

    MCP = "mcp"
    """With ``server/discover``; any answer will do that is not the server's own failure."""

    HTTP = "http"
    """With ``GET`` of a path at the same address; an answer of 200 to 299 will do."""

    TCP = "tcp"
    """By connecting."""

    @classmethod
    def parse(cls, name: str) -> CheckKind:
        """Return the kind called *name*.

        Raises:
            ConfigError: There is none.
        """
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(kind.value for kind in cls)
            raise ConfigError(f"no check is called {name!r}; choose one of: {known}") from None


def _as_kind(kind: CheckKind | str) -> CheckKind:
    return CheckKind.parse(kind) if isinstance(kind, str) else kind


@attrs.frozen(kw_only=True)
class CheckConfig:
    """How endpoints are checked, and how often."""

    kind: CheckKind = attrs.field(default=CheckKind.MCP, converter=_as_kind)
    path: str = attrs.field(default="/health")
    """What is asked for over HTTP, at the address of each endpoint."""

    interval: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Seconds from one check to the next, drawn apart by a fifth."""

    timeout: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """Seconds that a check may take."""

    @path.validator
    def _check_path(self, _: object, value: str) -> None:
        if not _PATH.fullmatch(value):
            raise ConfigError(f"{value!r} cannot be the path of a health check; write one like /health")

    def refuse_for(self, upstream: UpstreamConfig) -> None:
        """See whether *upstream* can be checked this way.

        Raises:
            ConfigError: It cannot: a command has no address.
        """
        if self.kind is not CheckKind.MCP and isinstance(upstream, StdioConfig):
            raise ConfigError(f"a command cannot be checked by {self.kind.value}; choose the check mcp, or none")


@asynccontextmanager
async def open_check(config: CheckConfig, server: UpstreamConfig, upstream: Upstream) -> AsyncGenerator[Check, None]:
    """Yield what checks *server* as *config* says, for as long as the block lasts.

    Args:
        upstream: Reaches the server.
    """
    if config.kind is CheckKind.MCP or isinstance(server, StdioConfig):
        yield mcp_check(upstream)
        return
    url = urlsplit(server.url)
    scheme = "https" if url.scheme in ("https", "wss") else "http"
    if config.kind is CheckKind.TCP:
        yield tcp_check(url.hostname or "", url.port or (443 if scheme == "https" else 80))
        return
    asked = HttpUpstream(
        HttpUpstreamConfig(url=f"{scheme}://{url.netloc}{config.path}", headers=server.headers, ca_file=server.ca_file)
    )
    try:
        yield http_check(asked)
    finally:
        with trio.move_on_after(1, shield=True):
            await asked.aclose()


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


def http_check(upstream: Upstream) -> Check:
    """Return a check that asks with ``GET`` for what *upstream* leads to."""

    async def check() -> bool:
        answer = await upstream.send(UpstreamRequest("GET", ((b"accept", b"*/*"),), is_call=False))
        try:
            return 200 <= answer.status < 300
        finally:
            await answer.aclose()

    return check


def tcp_check(host: str, port: int) -> Check:
    """Return a check that connects, and nothing more."""

    async def check() -> bool:
        try:
            stream = await trio.open_tcp_stream(host, port)
        except (OSError, ValueError, OverflowError):  # ValueError: a name IDNA cannot encode
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
