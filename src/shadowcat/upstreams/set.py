"""Several endpoints behind one name, as one `Upstream`.

A session stays with the endpoint that holds its upstream session: the endpoint's
name is a part of the upstream session id as the proxy knows it, so whoever has
the session from the store, any replica, finds the endpoint too.

If that endpoint is dead or is no more, and another could serve, the answer is 404,
as that of a server that has lost a session: the proxy then opens another one.
"""

from __future__ import annotations

import logging
import math
import random
import re
from collections.abc import Awaitable, Callable, Sequence

import trio

from ..errors import ConfigError, RemoteProtocolError, UpstreamBusy, UpstreamError, UpstreamUnavailable
from ..protocol import SESSION_ID
from ..resilience import Permit
from ..transport import Upstream, UpstreamRequest, UpstreamResponse
from .balance import Strategy, make_balancer
from .endpoint import Endpoint, EndpointStatistics

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SEPARATOR = b"~"

_NONE_LEFT = "no server behind this proxy can take the request now; send it again later"
_LOST = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"the server that had this session is gone"}}'


class UpstreamSet(Upstream):
    """Sends each request to one of several endpoints.

    A request is sent to another endpoint only if the first never saw it.

    Args:
        endpoints: Each stays its owner's to close.
        draw: For what is left to chance.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        strategy: Strategy = Strategy.ROUND_ROBIN,
        *,
        draw: random.Random | None = None,
    ) -> None:
        names = [endpoint.name for endpoint in endpoints]
        if wrong := [name for name in names if not _NAME.fullmatch(name)]:
            raise ConfigError(f"{wrong[0]!r} cannot be the name of an endpoint; use letters, digits and -_. only")
        if len(set(names)) != len(names) or not names:
            raise ConfigError("give each endpoint a name of its own, and at least one endpoint")
        self._endpoints = {endpoint.name.encode(): endpoint for endpoint in endpoints}
        self._balancer = make_balancer(strategy, draw)

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """All of them, in the order they were given."""
        return list(self._endpoints.values())

    def statistics(self) -> Sequence[EndpointStatistics]:
        """Return a snapshot of each endpoint."""
        return [endpoint.statistics() for endpoint in self.endpoints]

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send *request* to the endpoint of its session, or to one that can take it.

        As `Upstream.send`.

        Raises:
            UpstreamBusy: None can take it now; nothing was sent.
        """
        for index, (name, value) in enumerate(request.headers):
            if name == SESSION_ID:
                return await self._send_in_session(request, index, value)
        return await self._send_anywhere(request)

    async def _send_in_session(self, request: UpstreamRequest, index: int, value: bytes) -> UpstreamResponse:
        name, separator, session_id = value.partition(_SEPARATOR)
        endpoint = self._endpoints.get(name) if separator else None
        if endpoint is None or endpoint.is_dead:
            if endpoint is None or any(other.is_available for other in self.endpoints):
                await trio.lowlevel.checkpoint()
                return _not_found()
            raise UpstreamBusy(_NONE_LEFT)
        headers = list(request.headers)
        headers[index] = (SESSION_ID, session_id)
        permit = endpoint.circuit.admit()
        if permit is None:
            raise _busy([endpoint])
        return await self._send_to(endpoint, permit, UpstreamRequest(request.method, headers, request.body))

    async def _send_anywhere(self, request: UpstreamRequest) -> UpstreamResponse:
        candidates = [endpoint for endpoint in self.endpoints if endpoint.is_available]
        failure: UpstreamUnavailable | None = None
        while candidates:
            endpoint = self._balancer.pick(candidates)
            candidates.remove(endpoint)
            permit = endpoint.circuit.admit()
            if permit is None:
                continue
            try:
                return await self._send_to(endpoint, permit, request)
            except UpstreamUnavailable as error:
                log.warning("endpoint %s: %s", endpoint.name, error)
                failure = error
        raise failure or _busy(self.endpoints)

    async def _send_to(self, endpoint: Endpoint, permit: Permit, request: UpstreamRequest) -> UpstreamResponse:
        endpoint.begin()
        answer: UpstreamResponse | None = None
        try:
            answer = await endpoint.upstream.send(request)
        except (UpstreamError, RemoteProtocolError) as error:
            # A server that is full is not broken.
            is_busy = isinstance(error, UpstreamBusy)
            self._note(endpoint, permit, is_good=is_busy)
            raise
        finally:
            if answer is None:
                endpoint.circuit.release(permit)
                endpoint.finish()
        self._note(endpoint, permit, is_good=answer.status < 500)
        return _accompanied(endpoint, answer)

    def _note(self, endpoint: Endpoint, permit: Permit, *, is_good: bool) -> None:
        if is_good:
            endpoint.circuit.succeed(permit)
        else:
            endpoint.failures += 1
            endpoint.circuit.fail(permit)

    async def aclose(self) -> None:
        """Do nothing: the endpoints are their owner's to close."""
        await trio.lowlevel.checkpoint()


def _accompanied(endpoint: Endpoint, answer: UpstreamResponse) -> UpstreamResponse:
    """Return *answer* with the endpoint's name in its session id; *endpoint* is at work until it is closed."""
    headers = [
        (name, endpoint.name.encode() + _SEPARATOR + value) if name == SESSION_ID else (name, value)
        for name, value in answer.headers
    ]
    return UpstreamResponse(answer.status, headers, answer.body, _once(endpoint.finish, answer.close))


def _once(done: Callable[[], None], close: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    is_done = False

    async def close_once() -> None:
        nonlocal is_done
        if not is_done:
            is_done = True
            done()
        await close()

    return close_once


class _Whole:
    """A body that is at hand."""

    def __init__(self, body: bytes) -> None:
        self._parts = [body]

    def __aiter__(self) -> _Whole:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


def _not_found() -> UpstreamResponse:
    return UpstreamResponse(
        404, [(b"content-type", b"application/json")], _Whole(_LOST), trio.lowlevel.checkpoint_if_cancelled
    )


def _busy(endpoints: Sequence[Endpoint]) -> UpstreamBusy:
    waits = [endpoint.circuit.retry_after for endpoint in endpoints if not endpoint.is_draining]
    seconds = math.ceil(min(waits, default=0.0))
    return UpstreamBusy(_NONE_LEFT if not seconds else f"{_NONE_LEFT}, in {seconds} s")
