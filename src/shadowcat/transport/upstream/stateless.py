"""Modern requests on pipes: each stands for itself, and a few streams serve them all."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import attrs
import trio

from ...errors import ShadowcatError, UpstreamDisconnected, UpstreamError, UpstreamUnavailable
from ...protocol import (
    CANCELLED,
    DISCOVER,
    SUBSCRIPTIONS_LISTEN,
    Era,
    Notification,
    RawId,
    Request,
    discover_request,
    era_of_answer,
    http_status_of,
    legacy_only_body,
    mint_id,
    peek,
    wants_logs,
)
from ..base import RawHeaders, UpstreamResponse
from .pipe import Pipe
from .pipe_config import PipeConfig, PipeCounters
from .pipe_exchange import PipeExchange, answer_with
from .pipe_opener import PipeOpener

log = logging.getLogger(__name__)

_DOUBT = 60.0
"""Seconds after which a server that said nothing to ``server/discover`` is asked again."""


class SharedPipe:
    """A pipe of several modern requests.

    Args:
        on_free: Told when it has one request less.
    """

    def __init__(self, pipe: Pipe, counters: PipeCounters, on_free: Callable[[SharedPipe], None]) -> None:
        self.pipe = pipe
        self.calls = 0
        """Requests under way that are not subscriptions, which cost the server nothing."""
        self.readers = 0
        """Answers that are not read to their end."""
        self.exclusive: PipeExchange | None = None
        """The only request under way, if it wants log messages: nothing says whose these are."""
        self.is_tainted = False
        """Whether log messages may come of a request that nobody waits for."""
        self._counters = counters
        self._on_free = on_free
        pipe.route = self._route

    def begin(self, request: Request, config: PipeConfig, *, is_exclusive: bool) -> PipeExchange:
        """Take a place for *request*, which is freed when its exchange is closed."""
        exchange = PipeExchange(config.max_queued, is_plain=True)
        is_call = request.method != SUBSCRIPTIONS_LISTEN
        exchange.on_close = lambda closed, _: self._closed(closed, is_call)
        self.calls += is_call
        self.readers += 1
        if is_exclusive:
            self.exclusive = exchange
        return exchange

    def _closed(self, exchange: PipeExchange, is_call: bool) -> None:
        # If it still waits, its client has left, and the server would go on for nothing.
        self.is_tainted |= bool(exchange.calls) and exchange is self.exclusive
        self.pipe.cancel(exchange, "the client does not wait any more")
        self.pipe.last_used = trio.current_time()
        self.calls -= is_call
        self.readers -= 1
        if exchange is self.exclusive:
            self.exclusive = None
        self._on_free(self)

    def _route(self, message: Request | Notification, text: bytes) -> PipeExchange | None:
        correlation = self.pipe.correlation
        if isinstance(message, Notification):
            if message.method == CANCELLED:
                if (found := correlation.match_cancelled(message, text)) is not None:
                    call, text = found
                    call.owner.put(text)
                    self.pipe.abandon(call.owner)
                    call.owner.end()
                    return call.owner
            elif (found := correlation.match_subscription(message, text)) is not None:
                found[0].owner.put(found[1])
                return found[0].owner
            elif self.exclusive is not None and self.exclusive.calls:
                self.exclusive.put(text)
                return self.exclusive
        self._counters.dropped += 1
        log.debug("a message was dropped that belongs to no request: %s", message.method)
        return None


@attrs.define(eq=False)
class _Group:
    """The pipes for requests that may share them."""

    shared: list[SharedPipe] = attrs.field(factory=list)
    exclusive: list[SharedPipe] = attrs.field(factory=list)
    opening: int = 0
    users: int = 0
    """Requests that have been given none yet, or are being sent."""
    changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def idle(self) -> SharedPipe | None:
        return next((pipe for pipe in self.shared if not pipe.calls), None)

    def note_change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


@attrs.define(eq=False)
class _Probe:
    """An attempt to learn the era, for those who wait for it."""

    done: trio.Event = attrs.field(factory=trio.Event)
    failure: ShadowcatError | None = None


class StatelessPipes:
    """Serves modern requests, if the server does."""

    def __init__(self, opener: PipeOpener, config: PipeConfig, counters: PipeCounters) -> None:
        self._opener = opener
        self._config = config
        self._counters = counters
        self._groups: dict[RawHeaders, _Group] = {}
        self._era: Era | None = None
        self._doubted_at = 0.0
        self._probe: _Probe | None = None

    async def post(
        self, headers: RawHeaders, message: Request | Notification, text: bytes, version: str
    ) -> UpstreamResponse:
        """Send a modern message; return the answer when its first message is there.

        A checkpoint.  If cancelled, the server is told, in the background.

        Args:
            headers: With which a stream is opened, if it takes any.
            version: Which the client wants to speak.

        Raises:
            UpstreamUnavailable: Nothing was sent.
            UpstreamDisconnected: The stream broke.
            RemoteProtocolError: The answer was too long.
        """
        group = self._groups.setdefault(tuple(headers) if self._opener.takes_headers else (), _Group())
        group.users += 1
        try:
            return await self._post(group, headers, message, text, version)
        finally:
            group.users -= 1

    async def _post(
        self, group: _Group, headers: RawHeaders, message: Request | Notification, text: bytes, version: str
    ) -> UpstreamResponse:
        if await self._find_era(group, headers) is Era.LEGACY:
            request_id: RawId | None = message.id if isinstance(message, Request) else None
            return answer_with(400, legacy_only_body(request_id, version))
        if isinstance(message, Notification):
            await (await self._find_shared(group, headers)).pipe.send(text)
            return answer_with(202)
        is_exclusive = wants_logs(message.params) and message.method != SUBSCRIPTIONS_LISTEN
        shared = await (self._find_exclusive if is_exclusive else self._find_shared)(group, headers)
        exchange = shared.begin(message, self._config, is_exclusive=is_exclusive)
        try:
            shared.pipe.check_room(1)
            await shared.pipe.send(shared.pipe.admit(message, text, exchange))
            answer = await exchange.respond(self._config.stream_after)
        except BaseException:
            exchange.close()
            raise
        if exchange.is_closed and exchange.response is not None:
            answer.status = http_status_of(exchange.response, message.params)
        return answer

    def reap(self, now: float) -> None:
        """Close what has been idle for long, but for one pipe where all may share it."""
        for key, group in list(self._groups.items()):
            kept = 0 if self._opener.takes_headers else 1
            for shared in list(group.shared[kept:]):
                if not shared.readers and now >= shared.pipe.last_used + self._config.pool_idle_timeout:
                    shared.pipe.end()
            if not (group.shared or group.exclusive or group.users):
                del self._groups[key]

    # Which pipe.

    async def _find_shared(self, group: _Group, headers: RawHeaders) -> SharedPipe:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if (idle := group.idle) is not None:
                return idle
            if len(group.shared) + group.opening < self._config.pool_size:
                try:
                    return await self._open(group, group.shared, headers)
                except UpstreamUnavailable:
                    if not group.shared:
                        raise
            if group.shared:
                return min(group.shared, key=lambda shared: shared.calls)
            await group.changed.wait()

    async def _find_exclusive(self, group: _Group, headers: RawHeaders) -> SharedPipe:
        await trio.lowlevel.checkpoint_if_cancelled()
        if (idle := group.idle) is not None:
            group.shared.remove(idle)
            group.exclusive.append(idle)
            return idle
        return await self._open(group, group.exclusive, headers)

    async def _open(self, group: _Group, place: list[SharedPipe], headers: RawHeaders) -> SharedPipe:
        group.opening += place is group.shared
        try:
            pipe = await self._opener.take(headers)
        finally:
            group.opening -= place is group.shared
            group.note_change()
        pipe.patience = self._config.patience
        shared = SharedPipe(pipe, self._counters, lambda freed: self._free(group, freed))
        pipe.on_end = lambda _: self._remove(group, shared)
        place.append(shared)
        return shared

    def _free(self, group: _Group, shared: SharedPipe) -> None:
        """Put a pipe back that served one request alone, unless it is of no more use."""
        if shared.pipe.is_ended or shared.exclusive is not None or shared not in group.exclusive:
            return
        if shared.is_tainted or len(group.shared) >= self._config.pool_size:
            if not shared.readers:
                shared.pipe.end()
            return
        group.exclusive.remove(shared)
        group.shared.append(shared)
        group.note_change()

    def _remove(self, group: _Group, shared: SharedPipe) -> None:
        for place in (group.shared, group.exclusive):
            if shared in place:
                place.remove(shared)
        group.note_change()

    # Which era.

    async def _find_era(self, group: _Group, headers: RawHeaders) -> Era:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._era is None or (self._doubted_at and trio.current_time() >= self._doubted_at):
            if self._probe is not None:
                probe = self._probe
                await probe.done.wait()
                if probe.failure is not None:
                    raise copy.copy(probe.failure)
                continue
            self._probe = probe = _Probe()
            try:
                await self._ask_era(group, headers)
            except UpstreamError as error:
                probe.failure = error
                raise
            finally:
                self._probe = None
                probe.done.set()
        return self._era

    async def _ask_era(self, group: _Group, headers: RawHeaders) -> None:
        """Ask the server; what cannot be asked is not remembered."""
        shared = await self._find_shared(group, headers)
        text = discover_request(mint_id())
        request = peek(text)
        assert isinstance(request, Request)
        exchange = shared.begin(request, self._config, is_exclusive=False)
        try:
            with trio.move_on_after(self._config.probe_timeout):
                await self._discover(shared.pipe, exchange, request, text)
        finally:
            exchange.close()
        response = exchange.response
        self._era = Era.LEGACY if response is None else era_of_answer(response)
        self._doubted_at = 0.0 if response is not None else trio.current_time() + _DOUBT
        log.info("the upstream server is %s", self._era.value)
        if self._era is Era.LEGACY:
            # It has been asked what it does not know, and is good for no session.
            shared.pipe.end()

    async def _discover(self, pipe: Pipe, exchange: PipeExchange, request: Request, text: bytes) -> None:
        await trio.lowlevel.checkpoint()
        try:
            await pipe.send(pipe.admit(request, text, exchange))
            await exchange.wait_response()
        except UpstreamDisconnected as error:
            log.info("the upstream server ended when it was asked for %s: %s", DISCOVER, error)
