"""Sending within a session, whatever became of its other side.

An upstream that was redeployed refuses connections for a moment, and then has
forgotten its sessions.  Both are known before anything was executed: nothing was
sent, or the answer is 404.  So the request waits, a new upstream session is opened
with what the client once said, and the request is sent there.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping

import attrs
import msgspec
import trio

from ..errors import (
    RemoteProtocolError,
    SessionConflict,
    SessionNotFound,
    UpstreamBusy,
    UpstreamError,
    UpstreamUnavailable,
)
from ..protocol import (
    INITIALIZE,
    INITIALIZED,
    LAST_EVENT_ID,
    PROTOCOL_VERSION,
    SESSION_ID,
    RawId,
    mint_id,
    read_value,
)
from ..resilience import Backoff, BackoffConfig
from ..session import EPOCH, EndReason, Session, SessionId, SessionManager, UpstreamSessionId, epoch_of
from ..transport import RawHeaders, Upstream, UpstreamRequest, UpstreamResponse
from .opening import hold_opening
from .standing import standing_requests

log = logging.getLogger(__name__)

END_TIMEOUT = 5.0
"""Seconds the upstream has to end a session that is already ended here."""

_MAX_RECOVERIES = 2
"""Upstream sessions that are opened for one request, should the upstream be redeployed again meanwhile."""

_UNANSWERED = "the upstream does not open a session again; try again later"

NO_SUCH_SESSION = "no such session; send initialize, without Mcp-Session-Id, to open another"

_PING = b'{"jsonrpc":"2.0","id":%b,"method":"ping"}'

MESSAGE_HEADERS = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
)
_OF_ONE_MESSAGE = (b"accept", b"content-type", PROTOCOL_VERSION, SESSION_ID, LAST_EVENT_ID)


@attrs.frozen(kw_only=True)
class RecoveryConfig:
    """What is done for a session whose upstream side is gone."""

    is_enabled: bool = True
    """Whether another is opened; if not, the client is told 404, and opens another session."""

    timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds to open one, the wait for a place included."""

    max_concurrent: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    """Sessions for which one is being opened at once: after a restart of the upstream, all of them need one."""

    refused: BackoffConfig = attrs.field(factory=lambda: BackoffConfig(base=0.2, cap=1.0, budget=10.0))
    """How a request in a session is tried again while connections are refused."""


@attrs.define(eq=False)
class _Attempt:
    """A recovery under way, for those who wait for it."""

    done: trio.Event = attrs.field(factory=trio.Event)
    recovered: Session | None = None
    failure: Exception | None = None
    """If there is neither, whoever made it was cancelled, or may not open a session."""


class _CredentialsRefused(UpstreamUnavailable):
    """The request that found the session gone may not open another; one with other credentials may."""


class SessionUpstream:
    """The upstream, as a session has it: at most one recovery is under way in each.

    Args:
        upstreams: By the name that `Session.upstream_name` has; may change.
    """

    def __init__(self, upstreams: Mapping[str, Upstream], sessions: SessionManager, config: RecoveryConfig) -> None:
        self.recoveries = 0
        self.is_enabled = config.is_enabled
        self._upstreams = upstreams
        self._sessions = sessions
        self._config = config
        self._attempts: dict[SessionId, _Attempt] = {}
        self._places = trio.CapacityLimiter(config.max_concurrent)

    def upstream_of(self, name: str) -> Upstream:
        """Return the upstream called *name*.

        Raises:
            SessionNotFound: There is none any more, and so none of its sessions.
        """
        try:
            return self._upstreams[name]
        except KeyError:
            raise SessionNotFound(NO_SUCH_SESSION) from None

    async def send(
        self,
        session: Session,
        method: str,
        headers: RawHeaders,
        body: bytes = b"",
        on_sent: Callable[[], None] | None = None,
        *,
        is_call: bool = False,
    ) -> tuple[Session, UpstreamResponse]:
        """Send a request in *session*; return its answer, and the session it was sent in.

        As `Upstream.send`; the request is sent again only where it was not executed.

        Raises:
            SessionNotFound: The session has ended, here or because it could not be recovered.
        """

        def build(session: Session) -> UpstreamRequest:
            fields = [*headers, *session_headers(session.upstream_session_id)]
            return UpstreamRequest(method, fields, body, on_sent, is_call)

        session, answer = await self._send_patiently(session, build)
        # To a GET, 404 may as well mean that there is nothing to listen to.
        is_bound = session.upstream_session_id is not None and method == "POST"
        for _ in range(_MAX_RECOVERIES):
            if answer.status != 404 or not is_bound or not self.is_enabled:
                break
            await answer.aclose()
            session = await self.recover(session, headers)
            session, answer = await self._send_patiently(session, build)
        if answer.status == 404 and is_bound:
            try:
                await self._sessions.end(session.id, EndReason.UPSTREAM)
            except BaseException:
                await answer.aclose()
                raise
        return session, answer

    async def _send_patiently(
        self, session: Session, build: Callable[[Session], UpstreamRequest]
    ) -> tuple[Session, UpstreamResponse]:
        backoff: Backoff | None = None
        while True:
            upstream = self.upstream_of(session.upstream_name)
            try:
                return session, await upstream.send(build(session))
            except UpstreamBusy:
                # The server is there, and whoever says so knows how long to wait.
                raise
            except UpstreamUnavailable:
                backoff = backoff or Backoff(self._config.refused)
                wait = backoff.next_wait()
                if wait is None or not self.is_enabled:
                    raise
                await trio.sleep(wait)
                session = await self._sessions.store.get_session(session.id)

    async def ping(self, session: Session, headers: RawHeaders) -> tuple[Session, UpstreamResponse]:
        """Ask the upstream whether it knows *session* and lets in who has *headers*; as `send`.

        Takes no place of a call: the stream that somebody wants to come back to may be one.
        """
        kept = [field for field in headers if field[0] not in (b"accept", b"content-type")]
        return await self.send(session, "POST", [*kept, *MESSAGE_HEADERS], _PING % mint_id())

    async def find_lost(self, session: Session, headers: RawHeaders, answer: UpstreamResponse) -> Session | None:
        """Return *session* in another upstream session, if the one that it had turns out to be lost.

        Closes *answer*, which made that likely, unless it returns None.
        """
        if session.upstream_session_id is None:
            return None
        is_there = False
        try:
            current, pong = await self.ping(session, headers)
            await pong.aclose()
            is_there = current.upstream_session_id == session.upstream_session_id
        finally:
            if not is_there:
                await answer.aclose()
        return None if is_there else current

    async def recover(self, session: Session, headers: RawHeaders) -> Session:
        """Open another upstream session for *session*, unless somebody has already; return what it is now.

        Args:
            headers: Of the request that found it gone; what credentials it has are used.

        However many find it gone at once, one tries, and the others share what comes of
        it; but if it is cancelled, or its credentials are refused, the next one tries.
        Cancel safe: an upstream session that was opened and is not used is ended.

        Raises:
            SessionNotFound: The upstream is not what it was; the session has been ended.
            UpstreamError: It does not answer, or refuses for now.
        """
        while (attempt := self._attempts.get(session.id)) is not None:
            await attempt.done.wait()
            if attempt.failure is not None:
                raise copy.copy(attempt.failure)
            recovered = attempt.recovered
            if recovered is not None and recovered.upstream_session_id != session.upstream_session_id:
                return recovered
        attempt = self._attempts[session.id] = _Attempt()
        try:
            attempt.recovered = await self._recover(session, headers)
            return attempt.recovered
        except _CredentialsRefused:
            raise
        except Exception as error:
            attempt.failure = error
            raise
        finally:
            del self._attempts[session.id]
            attempt.done.set()

    async def _recover(self, session: Session, headers: RawHeaders) -> Session:
        current = await self._sessions.store.get_session(session.id)
        if current.upstream_session_id != session.upstream_session_id:
            return current
        kept = [field for field in headers if field[0] not in _OF_ONE_MESSAGE and not field[0].startswith(b"mcp-")]
        opened: UpstreamSessionId | None = None
        adopted = current
        try:
            with trio.move_on_after(self._config.timeout) as waiting:
                async with self._places:
                    request_id = mint_id()
                    unbound = attrs.evolve(current, upstream_session_id=None)
                    answer = await self._ask(unbound, kept, INITIALIZE, current.initialize_params, request_id)
                    # Before all else: from here on there is something to end.
                    opened = upstream_session_id_of(answer)
                    await self._compare(current, answer, request_id)
                    await self._restore(attrs.evolve(current, upstream_session_id=opened), kept)
                    adopted = await self._adopt(current, opened)
            if waiting.cancelled_caught:
                raise UpstreamUnavailable(_UNANSWERED)
        finally:
            if opened is not None and adopted.upstream_session_id != opened:
                with trio.move_on_after(END_TIMEOUT, shield=True):
                    await self.end_upstream(session.upstream_name, opened)
        return adopted

    async def _compare(self, session: Session, answer: UpstreamResponse, request_id: RawId) -> None:
        """Read the answer to ``initialize``; end *session* if it could not go on with that."""
        try:
            if answer.status != 200:
                raise _refusal(answer.status)
            opening = await hold_opening(answer, request_id)
        finally:
            await answer.aclose()
        if opening.response is None:
            raise UpstreamUnavailable(_UNANSWERED)
        if upstream_session_id_of(answer) is None or not _is_like_before(read_value(opening.response.result), session):
            log.warning("the upstream is not what it was; a session ends")
            await self._sessions.end(session.id, EndReason.UPSTREAM)
            raise SessionNotFound(NO_SUCH_SESSION)

    async def _restore(self, session: Session, kept: RawHeaders) -> None:
        """Tell a new upstream session what the lost one had been told."""
        kept = [*kept, (PROTOCOL_VERSION, session.protocol_version.encode())]
        await self._tell(session, kept, INITIALIZED, None)
        for method, params in standing_requests(session):
            await self._tell(session, kept, method, params)

    async def _tell(self, session: Session, kept: RawHeaders, method: str, params: object) -> None:
        request_id = None if method == INITIALIZED else mint_id()
        answer = await self._ask(session, kept, method, params, request_id)
        try:
            if request_id is not None and (await hold_opening(answer, request_id)).response is None:
                log.warning("the upstream was told %s again and did not answer to it", method)
        finally:
            await answer.aclose()

    async def _ask(
        self, session: Session, kept: RawHeaders, method: str, params: object, request_id: RawId | None
    ) -> UpstreamResponse:
        members: dict[str, object] = {"jsonrpc": "2.0", "method": method}
        if request_id is not None:
            members["id"] = msgspec.Raw(request_id)
        if params is not None:
            members["params"] = params
        fields = [*kept, *MESSAGE_HEADERS, *session_headers(session.upstream_session_id)]
        return await self.upstream_of(session.upstream_name).send(
            UpstreamRequest("POST", fields, msgspec.json.encode(members), is_call=request_id is not None)
        )

    async def _adopt(self, session: Session, opened: UpstreamSessionId | None) -> Session:
        """Store the new upstream session, unless another proxy was faster; return the session as it is then."""
        while True:
            current = await self._sessions.store.get_session(session.id)
            if current.upstream_session_id != session.upstream_session_id:
                return current
            metadata = {**current.metadata, EPOCH: str(epoch_of(current) + 1)}
            try:
                adopted = await self._sessions.store.update_session(
                    attrs.evolve(current, upstream_session_id=opened, metadata=metadata)
                )
            except SessionConflict:
                continue
            self.recoveries += 1
            log.info("the upstream had lost a session and has another now")
            return adopted

    async def end_upstream_of(self, session: Session) -> None:
        """Tell its upstream that *session* is over; as `end_upstream`."""
        await self.end_upstream(session.upstream_name, session.upstream_session_id)

    async def end_upstream(self, name: str, upstream_session_id: UpstreamSessionId | None) -> None:
        """Tell the upstream called *name* that a session is over; what it says to that is only logged.

        Takes a few seconds at most.  Cancel safe: the upstream may not have been told.
        """
        await trio.lowlevel.checkpoint()
        if upstream_session_id is None:
            return
        request = UpstreamRequest("DELETE", session_headers(upstream_session_id), is_call=False)
        try:
            with trio.move_on_after(END_TIMEOUT):
                answer = await self.upstream_of(name).send(request)
                await answer.aclose()
                log.debug("upstream answered %d to the end of a session", answer.status)
        except (UpstreamError, RemoteProtocolError, SessionNotFound) as error:
            log.warning("a session may still be open upstream: %s", error)


def session_headers(upstream_session_id: UpstreamSessionId | None) -> list[tuple[bytes, bytes]]:
    """Return the header that names a session to the upstream."""
    return [] if upstream_session_id is None else [(SESSION_ID, upstream_session_id.encode("latin-1"))]


def upstream_session_id_of(answer: UpstreamResponse) -> UpstreamSessionId | None:
    """Return the id of the session that an answer to ``initialize`` opens."""
    value = answer.header(SESSION_ID)
    return None if value is None else UpstreamSessionId(value.decode("latin-1"))


def _refusal(status: int) -> UpstreamUnavailable:
    if status in (401, 403):
        return _CredentialsRefused(
            f"the upstream does not open a session again for these credentials (HTTP {status}); try again with others"
        )
    return UpstreamUnavailable(
        f"the upstream does not open a session again for now (HTTP {status}); "
        "try again later, or send initialize, without Mcp-Session-Id, to open another"
    )


def _is_like_before(result: object, session: Session) -> bool:
    if not isinstance(result, dict):
        return False
    return all(result.get(name) == session.initialize_result.get(name) for name in ("protocolVersion", "capabilities"))
