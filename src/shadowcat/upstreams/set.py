"""Several endpoints behind one name, as one `Upstream`.

A session stays with the endpoint that holds its upstream session: the endpoint's
name is a part of the upstream session id as the proxy knows it, so whoever has
the session from the store, any replica, finds the endpoint too.

If that endpoint is dead or is no more, and another could serve, the answer is 404,
as that of a server that has lost a session: the proxy then opens another one.

A plain set has one endpoint, which is only counted: nothing is added to ids, nothing
is refused.  What is said above costs nothing where there is nothing to choose.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from ..errors import ConfigError, RemoteProtocolError, UpstreamBusy, UpstreamError, UpstreamUnavailable
from ..protocol import SESSION_ID
from ..resilience import Permit
from ..transport import Upstream, UpstreamRequest, UpstreamResponse
from .balance import Strategy, make_balancer
from .config import is_name
from .endpoint import Endpoint, EndpointStatistics
from .queue import CallQueue, ConcurrencyConfig

log = logging.getLogger(__name__)

_SEPARATOR = b"~"

_NONE_LEFT = "no server behind this proxy can take the request now, and nothing was sent; send it again later"
_LOST = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"the server that had this session is gone"}}'


@attrs.frozen
class UpstreamSetStatistics:
    """A snapshot of a set, and of what it has done so far."""

    endpoints: Sequence[EndpointStatistics]
    waiting: int
    """Calls that wait for a place now."""
    refused: int
    """Calls that could not even wait."""
    timed_out: int
    """Calls that waited in vain."""
    retries: int
    """Requests that an endpoint never saw, and that were sent to another."""
    homeless: int
    """Requests in sessions whose endpoint was dead or gone."""


class UpstreamSet(Upstream):
    """Sends each request to one of several endpoints.

    A request is sent to another endpoint only if the first never saw it.

    Args:
        endpoints: Each stays its owner's to close.
        draw: For what is left to chance.
        is_plain: Whether the one endpoint is to be left alone.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        strategy: Strategy = Strategy.ROUND_ROBIN,
        *,
        concurrency: ConcurrencyConfig | None = None,
        is_plain: bool = False,
        draw: random.Random | None = None,
    ) -> None:
        names = [endpoint.name for endpoint in endpoints]
        if wrong := [name for name in names if not is_name(name)]:
            raise ConfigError(f"{wrong[0]!r} cannot be the name of an endpoint; use letters, digits and -_. only")
        if len(set(names)) != len(names) or not names:
            raise ConfigError("give each endpoint a name of its own, and at least one endpoint")
        self._draw = draw
        self._strategy = strategy
        self._balancer = make_balancer(strategy, draw)
        self._members: Sequence[Endpoint] = ()
        self._by_name: dict[bytes, Endpoint] = {}
        self._queue = CallQueue(concurrency or ConcurrencyConfig(), lambda: self._members)
        self._retries = 0
        self._homeless = 0
        self.reconfigure(endpoints, strategy, self._queue.config, is_plain=is_plain)

    def reconfigure(
        self, endpoints: Sequence[Endpoint], strategy: Strategy, concurrency: ConcurrencyConfig, *, is_plain: bool
    ) -> None:
        """Send to *endpoints* from now on.

        Sessions of those that were there before, and whose names nobody has now, stay
        there until `forget` is called.
        """
        self._members = list(endpoints)
        self._by_name |= {endpoint.name.encode(): endpoint for endpoint in endpoints}
        self._plain = endpoints[0] if is_plain else None
        if strategy is not self._strategy:
            self._strategy = strategy
            self._balancer = make_balancer(strategy, self._draw)
        self._queue.config = concurrency
        for endpoint in endpoints:
            endpoint.on_change = self._queue.serve
        self._queue.serve_all()

    def forget(self, endpoint: Endpoint) -> None:
        """Send nothing to *endpoint* any more; its sessions are lost."""
        self._members = [member for member in self._members if member is not endpoint]
        if self._plain is endpoint:
            self._plain = None
        if self._by_name.get(endpoint.name.encode()) is endpoint:
            del self._by_name[endpoint.name.encode()]
        self._queue.send_away(endpoint)
        self._queue.serve(endpoint)

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """All of them, in the order they were given; also those that only finish their work."""
        return list(self._by_name.values())

    def statistics(self) -> UpstreamSetStatistics:
        """Return a snapshot."""
        return UpstreamSetStatistics(
            [endpoint.statistics() for endpoint in self.endpoints],
            self._queue.waiting,
            self._queue.refused,
            self._queue.timed_out,
            self._retries,
            self._homeless,
        )

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send *request* to the endpoint of its session, or to one that can take it.

        As `Upstream.send`.

        Raises:
            UpstreamBusy: None can take it now; nothing was sent.
        """
        endpoint = self._plain
        if endpoint is None:
            return await self._send_chosen(request)
        if endpoint.is_draining and not any(name == SESSION_ID for name, _ in request.headers):
            await trio.lowlevel.checkpoint()
            raise self._busy([endpoint])
        is_call = request.is_call
        endpoint.begin(is_call)
        endpoint.requests += 1
        try:
            answer = await endpoint.upstream.send(request)
        except BaseException as error:
            endpoint.finish(is_call)
            if isinstance(error, UpstreamError | RemoteProtocolError) and not isinstance(error, UpstreamBusy):
                endpoint.failures += 1
            raise
        if answer.status >= 500:
            endpoint.failures += 1
        answer.close = _once(endpoint, is_call, answer.close)
        return answer

    async def _send_chosen(self, request: UpstreamRequest) -> UpstreamResponse:
        for index, (name, value) in enumerate(request.headers):
            if name == SESSION_ID:
                return await self._send_in_session(request, index, value)
        return await self._send_anywhere(request)

    async def _send_in_session(self, request: UpstreamRequest, index: int, value: bytes) -> UpstreamResponse:
        name, separator, session_id = value.partition(_SEPARATOR)
        headers = list(request.headers)
        headers[index] = (SESSION_ID, session_id)
        is_call = request.is_call
        endpoint = self._home(name) if separator else None
        if endpoint is None or not await self._enter(endpoint, is_call):
            self._homeless += 1
            await trio.lowlevel.checkpoint()
            return _not_found()
        permit = endpoint.circuit.admit()
        if permit is None:
            endpoint.finish(is_call)
            raise self._busy([endpoint])
        own = UpstreamRequest(request.method, headers, request.body, request.on_sent, is_call)
        return await self._send_to(endpoint, permit, own)

    def _home(self, name: bytes) -> Endpoint | None:
        """Return the endpoint that has the sessions with *name*; None if they are lost."""
        endpoint = self._by_name.get(name)
        if endpoint is None or not endpoint.is_dead:
            return endpoint
        if any(other.is_available for other in self._members):
            return None
        raise self._busy([endpoint, *self._members])

    async def _enter(self, endpoint: Endpoint, is_call: bool) -> bool:
        """Count a request at *endpoint* when its turn has come; False if the endpoint was lost meanwhile."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not is_call or self._queue.has_room(endpoint):
            endpoint.begin(is_call)
            return True
        if await self._queue.wait(endpoint) is None:
            return False
        if endpoint.is_dead:
            endpoint.finish()
            return False
        return True

    async def _send_anywhere(self, request: UpstreamRequest) -> UpstreamResponse:
        tried: set[Endpoint] = set()
        failure: UpstreamUnavailable | None = None
        while (endpoint := await self._choose(request, tried, may_wait=failure is None)) is not None:
            tried.add(endpoint)
            permit = endpoint.circuit.admit()
            if permit is None:
                endpoint.finish(request.is_call)
                continue
            self._retries += failure is not None
            try:
                return await self._send_to(endpoint, permit, request)
            except UpstreamUnavailable as error:
                log.warning("endpoint %s: %s", endpoint.name, error)
                failure = error
        await trio.lowlevel.checkpoint_if_cancelled()
        raise failure or self._busy(self._members)

    async def _choose(self, request: UpstreamRequest, tried: set[Endpoint], *, may_wait: bool) -> Endpoint | None:
        """Return an endpoint that the request has been counted at."""
        await trio.lowlevel.checkpoint_if_cancelled()
        queue = self._queue
        if queue.waiting:
            # A circuit may have had its rest, which nobody is told of.
            queue.serve_all()
        found = [endpoint for endpoint in self._members if endpoint.is_available and endpoint not in tried]
        candidates = [endpoint for endpoint in found if queue.has_room(endpoint)] if request.is_call else found
        if candidates:
            chosen = self._balancer.pick(candidates)
            chosen.begin(request.is_call)
            return chosen
        return await queue.wait(None) if found and may_wait else None

    async def _send_to(self, endpoint: Endpoint, permit: Permit, request: UpstreamRequest) -> UpstreamResponse:
        endpoint.requests += 1
        # The one that gave the permit: the endpoint may get another meanwhile.
        circuit = endpoint.circuit
        answer: UpstreamResponse | None = None
        try:
            answer = await endpoint.upstream.send(request)
        except UpstreamBusy:
            # A server that is full is not broken.
            raise
        except (UpstreamError, RemoteProtocolError) as error:
            endpoint.note_failure(is_refused=isinstance(error, UpstreamUnavailable))
            circuit.fail(permit)
            raise
        finally:
            if answer is None:
                circuit.release(permit)
                endpoint.finish(request.is_call)
        if answer.status >= 500:
            endpoint.note_failure(is_refused=False)
            circuit.fail(permit)
        else:
            endpoint.note_answer()
            circuit.succeed(permit)
        # Only the answer that opens a session has its id.
        if answer.header(SESSION_ID) is not None:
            prefix = endpoint.name.encode() + _SEPARATOR
            answer.headers = [(name, prefix + value if name == SESSION_ID else value) for name, value in answer.headers]
        answer.close = _once(endpoint, request.is_call, answer.close)
        return answer

    def _busy(self, endpoints: Sequence[Endpoint]) -> UpstreamBusy:
        waits = [endpoint.retry_after for endpoint in endpoints if not endpoint.is_draining]
        seconds = math.ceil(min((wait for wait in waits if wait > 0), default=0.0))
        return UpstreamBusy(f"{_NONE_LEFT}, in {seconds} s", seconds) if seconds else UpstreamBusy(_NONE_LEFT)

    async def aclose(self) -> None:
        """Do nothing: the endpoints are their owner's to close."""
        await trio.lowlevel.checkpoint()


def _once(endpoint: Endpoint, is_call: bool, close: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Return *close*, which ends the work of *endpoint* too."""
    is_done = False

    def close_once() -> Awaitable[None]:
        nonlocal is_done
        if not is_done:
            is_done = True
            endpoint.finish(is_call)
        return close()

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
