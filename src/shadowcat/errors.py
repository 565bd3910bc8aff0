"""Every exception Shadowcat raises on purpose.

* ShadowcatError
  + ConfigError               a setting is wrong; nothing was started
  + WorkerFailed              a process that serves beside others does not
  + ProtocolError             the bytes break JSON-RPC, SSE, HTTP or MCP
    - ParseError              ... the body is not JSON
    - InvalidRequest          ... it is JSON, but no message we may accept
    - HeaderMismatch          ... headers and body disagree (2026-07-28)
    - RemoteProtocolError     ... and the upstream sent them
      * MessageTooLong        ... or more at once than is allowed
  + StreamBroken              a pipe that carries messages has ended
  + RequestError              an HTTP request we refuse before reading a message
    - PathNotFound, MethodNotAllowed, NotAcceptable, UnsupportedMediaType, UpgradeRequired
    - ForbiddenOrigin, MisdirectedHost
    - PayloadTooLarge, HeadersTooLarge, RequestTimeout, ClientDisconnected, TooManyRequests
  + SessionError
    - SessionRequired, SessionNotFound, SessionExists, SessionLimitReached
    - SessionConflict         somebody else updated the session first
    - SessionBusy             its messages are taken more slowly than they come
    - EventsLost              a stream cannot be resumed without a gap
    - StreamTaken             another connection has taken a stream over
  + StoreError
    - StoreUnavailable        the store cannot be reached; retrying may help
    - StoreCorrupt            it holds something we cannot read; retrying does not
  + Draining                  the proxy is shutting down
  + UpstreamError
    - UpstreamUnavailable     no connection: the upstream never saw the request
      * UpstreamBusy          ... because as much is under way as is allowed
    - UpstreamDisconnected    it broke off: it may have acted on the request
    - UpstreamTimeout         it did not answer in time: it may still act on it
    - UpstreamAbandoned       the proxy stopped waiting: it may still act on it
    - UpstreamRedirected      it answered with a redirect, which is not followed
    - MessageRefused          it refused one message of a stream, which goes on

The message of each is a sentence for the person who has to act on it.  It goes
to the client as it stands, so it never holds a credential or the upstream's
address.  `shadowcat.proxy.answers` gives each an HTTP status and a JSON-RPC code.
"""


class ShadowcatError(Exception):
    """Base of everything a user can act on."""

    retry_after: float | None = None
    """Seconds after which trying again is worth it, where that is known."""


class ConfigError(ShadowcatError):
    """A setting is missing, malformed or contradicts another."""


class WorkerFailed(ShadowcatError):
    """A worker process could not serve, or did not end in order."""


class ProtocolError(ShadowcatError):
    """A peer sent bytes that break JSON-RPC, SSE, HTTP or MCP."""

    def __init__(self, message: str, request_id: bytes | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id
        """The id of the message at fault, as JSON text, if it could be read."""


class ParseError(ProtocolError):
    """The body is not JSON in UTF-8."""


class InvalidRequest(ProtocolError):
    """The body is JSON, but not a message that may be sent here and now."""


class HeaderMismatch(ProtocolError):
    """Headers that must mirror the body do not (MCP 2026-07-28)."""


class RemoteProtocolError(ProtocolError):
    """The upstream sent something that cannot be relayed."""


class MessageTooLong(RemoteProtocolError):
    """A peer sent one message that is longer than allowed; it was dropped."""


class StreamBroken(ShadowcatError):
    """The other side of a message stream is gone, or cannot be understood any more."""


class RequestError(ShadowcatError):
    """An HTTP request that is refused whatever message it carries."""


class PathNotFound(RequestError):
    """Nothing is served at this path."""


class MethodNotAllowed(RequestError):
    """The path is served, the HTTP method is not."""

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class NotAcceptable(RequestError):
    """The client does not accept any media type we could answer with."""


class UnsupportedMediaType(RequestError):
    """The body is not declared as plain JSON."""


class UpgradeRequired(RequestError):
    """Only WebSockets are served at this path."""


class ForbiddenOrigin(RequestError):
    """A web page from an origin that is not allowed made this request."""


class MisdirectedHost(RequestError):
    """The ``Host`` header names a host that is not allowed."""


class PayloadTooLarge(RequestError):
    """The body is larger than the limit."""


class HeadersTooLarge(RequestError):
    """The header section is larger than the limit."""


class RequestTimeout(RequestError):
    """The client did not send its body in time."""


class ClientDisconnected(RequestError):
    """The client left before its request was complete; nobody reads an answer."""


class TooManyRequests(RequestError):
    """As many requests are under way, or have come within some time, as may; nothing was sent on."""

    def __init__(self, message: str, retry_after: float | None = None, limit: str | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.limit = limit
        """The name of the rate limit that is reached, if one is."""


class SessionError(ShadowcatError):
    """The request cannot be placed in a session."""


class SessionRequired(SessionError):
    """The message needs a session and names none."""


class SessionNotFound(SessionError):
    """No such session: it never was, has expired, or has been ended."""


class SessionExists(SessionError):
    """A session with this id is already stored."""


class SessionLimitReached(SessionError):
    """As many sessions are open as the limit allows."""


class SessionConflict(SessionError):
    """The session was updated by somebody else since it was read."""


class SessionBusy(SessionError):
    """A message of the session was not taken in time; it was dropped, and may be sent again."""


class EventsLost(SessionError):
    """Events that the client asks for are gone, here and upstream; the session lives."""


class StreamTaken(SessionError):
    """Another connection of the client has taken over the stream before this one began."""


class StoreError(ShadowcatError):
    """The session store failed."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or did not answer in time; retrying may help."""


class StoreCorrupt(StoreError):
    """The store holds something that cannot be read; it was left untouched."""


class Draining(ShadowcatError):
    """The proxy is shutting down and takes no new requests."""


class UpstreamError(ShadowcatError):
    """The upstream did not give an answer."""


class UpstreamUnavailable(UpstreamError):
    """No connection could be made, so the upstream never saw the request."""


class UpstreamBusy(UpstreamUnavailable):
    """As much is under way as is allowed, or the server is given a rest; nothing was sent."""

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which it is worth to send it again."""


class UpstreamDisconnected(UpstreamError):
    """The connection broke; the upstream may have acted on the request."""


class UpstreamTimeout(UpstreamError):
    """No answer in time; the upstream may still be acting on the request."""


class UpstreamAbandoned(UpstreamError):
    """The proxy shut down before the answer came; the upstream may still act."""


class UpstreamRedirected(UpstreamError):
    """The upstream redirected; redirects are not followed."""


class MessageRefused(UpstreamError):
    """The upstream refused one message of a stream; the stream goes on."""
