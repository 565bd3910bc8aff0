"""The connection of a `RedisStore` to one server, and what it is made from.

One connection to each server serves all calls.  coredis' own pool is not used: it loses a place
for every call that is cancelled while connecting, for good, and a pipeline that is
cancelled takes the connection, and all other calls on it, down with it.
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import attrs
import trio

from ...errors import ConfigError, StoreCorrupt, StoreError, StoreUnavailable
from .redis_slots import Address, Command

if TYPE_CHECKING:
    from coredis.connection import BaseConnection

_MOVING = "the Redis cluster is moving what this call needs to another node; try again"
_STRAYED = "attempted to access a non local key"
_LOST = "the connection to the Redis server broke, or none can be made"
_REFUSALS = {
    "MovedError": _MOVING,
    "AskError": _MOVING,
    "TryAgainError": _MOVING,
    "ClusterDownError": "the Redis cluster is down, or a part of it; see CLUSTER INFO",
    "ReadOnlyError": "this Redis server is a replica and cannot be written to",
    "AuthorizationError": "the Redis user in the URL lacks a permission that the session store needs",
    "BusyLoadingError": "the Redis server is still loading its data",
}


def _check_url(_: object, __: object, url: str) -> None:
    try:
        parts = urlsplit(url)
        place = parts.path if parts.scheme == "unix" else parts.hostname
        rest = "" if parts.scheme == "unix" else parts.path.strip("/")
        if parts.scheme not in ("redis", "rediss", "unix") or not place or parts.query or parts.fragment:
            raise ValueError
        if (rest and not rest.isdecimal()) or parts.port == 0:
            raise ValueError
    except ValueError:
        # Not `from` the other, which may quote a part of the password.
        raise ConfigError(
            "Write the Redis URL as redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss:// for TLS or unix:///PATH; "
            "special characters in the password are percent-encoded."
        ) from None


def _check_prefix(_: object, __: object, prefix: str) -> None:
    if not re.fullmatch(r"[\w.:-]+", prefix, re.ASCII):
        raise ConfigError(f"Use letters, digits and -_.: only in the Redis prefix, not {prefix!r}.")


def _without_password(url: str) -> str:
    return repr(re.sub(r"//[^/]*@", "//***@", url))


@attrs.frozen(kw_only=True)
class RedisConfig:
    """A Redis server (6.2 or later, or Valkey) that keeps sessions."""

    url: str = attrs.field(validator=_check_url, repr=_without_password)
    """``redis://USER:PASSWORD@HOST:PORT/DATABASE``; ``rediss://`` for TLS; ``unix:///PATH`` for a socket.

    Of a cluster, any node: it names the others, which take the same user and password."""

    @property
    def address(self) -> Address:
        """Where the server of the URL is."""
        parts = urlsplit(self.url)
        return Address("", 0) if parts.scheme == "unix" else Address(parts.hostname or "", parts.port or 6379)

    prefix: str = attrs.field(default="shadowcat", validator=_check_prefix)
    """What all keys begin with.  Proxies that share sessions share it."""

    response_timeout: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """Seconds that a call may take, with a new connection if one is needed."""

    connect_timeout: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """Seconds to connect and log in; calls give up on it earlier, it goes on."""


def connector(config: RedisConfig) -> Callable[[Address], BaseConnection]:
    """Return a function that makes connections, which are not open yet.

    Raises:
        ConfigError: coredis is not installed.
    """
    try:
        import coredis  # noqa: F401  (a part of it may be loaded when the whole cannot be)
        from coredis.connection import TCPConnection, TCPLocation, UnixDomainSocketConnection, UnixDomainSocketLocation
    except ImportError as error:
        raise ConfigError("The Redis store needs coredis: pip install 'shadowcat[redis]'.") from error
    parts = urlsplit(config.url)
    username, password = unquote(parts.username or "") or None, unquote(parts.password or "") or None
    socket = UnixDomainSocketLocation(unquote(parts.path))
    context = ssl.create_default_context() if parts.scheme == "rediss" else None
    database = 0 if parts.scheme == "unix" else int(parts.path.strip("/") or 0)

    def connect(address: Address) -> BaseConnection:
        if not address.host:
            return UnixDomainSocketConnection(socket, username=username, password=password)
        return TCPConnection(
            TCPLocation(address.host, address.port),
            socket_keepalive=True,
            username=username,
            password=password,
            db=database,
            ssl_context=context,
        )

    return connect


def is_lost(answer: object) -> bool:
    """Tell an error of the connection, instead of an answer, from what the server has answered."""
    if not isinstance(answer, Exception):
        return False
    from coredis.exceptions import ResponseError

    return not isinstance(answer, ResponseError)


def is_held(answer: object) -> bool:
    """Whether a cluster did not obey a command because it is moving a part of its keys just now.

    A script may find that out halfway; all of ours can then be sent again.
    """
    return isinstance(answer, Exception) and (type(answer).__name__ == "TryAgainError" or _STRAYED in str(answer))


def failure_of(error: Exception) -> StoreError:
    """Return what the answer *error* means to a user: without an address, and without data."""
    text, name = str(error), type(error).__name__
    if isinstance(error, StoreError):
        return type(error)(text)
    if name in _REFUSALS:
        return StoreUnavailable(_REFUSALS[name])
    if is_held(error):
        return StoreUnavailable(_MOVING)
    if is_lost(error):
        return StoreUnavailable(_LOST)
    if name == "WrongTypeError" or "WRONGTYPE" in text or (text.startswith("ERR") and "user_script" in text):
        return StoreCorrupt("a key of the session store holds something else; remove it from Redis")
    code = re.match(r"[A-Z]{3,}\b", text)
    return StoreUnavailable(f"the Redis server refused a command ({code[0] if code else name})")


@attrs.frozen
class _Request:
    """As much of coredis' ``CommandRequest`` as a connection looks at."""

    name: bytes | str | int
    serialized_arguments: tuple[bytes | str | int, ...]
    decode: bool = False


@attrs.define(eq=False)
class _Attempt:
    """A connection, from the first try to its end.  Doubles as the task status of its task."""

    connection: BaseConnection
    scope: trio.CancelScope
    settled: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None

    def started(self, value: object = None) -> None:
        self.scope.deadline = float("inf")
        self.settled.set()

    def is_usable(self) -> bool:
        return self.settled.is_set() and self.connection.usable and not self.scope.cancel_called


class RedisLink:
    """The connection to a server: made when needed, made again when it broke or fell silent.

    Args:
        config: How long things may take.
        connect: Makes a connection, which is not open yet.
        nursery: For the connections.
    """

    def __init__(self, config: RedisConfig, connect: Callable[[], BaseConnection], nursery: trio.Nursery) -> None:
        self._config = config
        self._connect = connect
        self._nursery = nursery
        self._is_closed = False
        self._attempt: _Attempt | None = None
        import anyio
        from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
        from coredis.exceptions import RedisError, ResponseError

        self._streams = (MemoryObjectReceiveStream, MemoryObjectSendStream)
        self._refused: type[Exception] = ResponseError
        self._broken = (RedisError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)

    async def open(self) -> None:
        """Connect, and find out whether this server will do.

        Raises:
            ConfigError: It will not, or does not let us in.
            StoreUnavailable: It cannot be reached.
        """
        try:
            attempt = await self._connected()
        except StoreUnavailable as error:
            if isinstance(error.__cause__, self._refused):
                if "cluster mode" in str(error.__cause__):
                    raise ConfigError("a Redis cluster has database 0 only; leave the other out of the URL") from None
                raise ConfigError(
                    "the Redis server refused the connection: correct user, password and database in its URL"
                ) from None
            raise StoreUnavailable(
                "the Redis server cannot be reached; start it, correct its URL, or allow a fallback to memory"
            ) from error
        version = attempt.connection.server_version or ""
        if [int(number) for number in re.findall(r"\d+", version)[:2]] < [6, 2]:
            raise ConfigError(f"the Redis server is version {version}; the session store needs 6.2 or later")

    async def exchange(
        self, commands: Sequence[Command], *, again: bool = False, deadline: float = math.inf
    ) -> list[Any]:
        """Send *commands* at once; return the answers in order, among them errors.

        With *again*, they are sent once more on another connection if this one breaks.

        Args:
            deadline: When to give up if that is before the response timeout, by trio's clock.

        Raises:
            StoreUnavailable: There is no connection, or not all were answered in time.
        """
        attempt = None
        end = trio.current_time() + self._config.response_timeout
        with trio.CancelScope(deadline=min(deadline, end)):
            while True:
                attempt = self._attempt
                if attempt is None or not attempt.is_usable():
                    attempt = await self._connected()
                answers = await self._send(attempt.connection, commands)
                if not again or not any(is_lost(answer) for answer in answers):
                    return answers
                again = False
        if attempt is not None and attempt.settled.is_set() and self._was_patient(end):
            # Answers come in order, so all others on it wait as well; and what is
            # not sent yet would be obeyed some day, when nobody expects it.
            attempt.connection.invalidate("no answer in time")
        raise StoreUnavailable("the Redis server did not answer in time; it may be overloaded or cut off")

    def close(self) -> None:
        """Drop the connection, and make no other."""
        self._is_closed = True
        if self._attempt is not None:
            self._attempt.scope.cancel()

    def _was_patient(self, end: float) -> bool:
        """Whether a call that had until *end* has waited long enough to blame the server.

        One that came with little time left has not; it must not take the others' connection down.
        """
        return trio.current_time() >= end - self._config.response_timeout / 2

    async def _send(self, connection: BaseConnection, commands: Sequence[Command]) -> list[Any]:
        try:
            batch = connection.create_request_batch(
                [_Request(name, tuple(rest)) for name, *rest in commands]  # type: ignore[misc]
            )
        except self._broken as error:
            await trio.lowlevel.checkpoint()
            return [error] * len(commands)
        # Otherwise whoever is cancelled takes everybody else's connection along.
        batch.disconnect_on_cancellation = False
        return await batch

    async def _connected(self) -> _Attempt:
        """Wait for the connection, and make one if there is none."""
        attempt = self._attempt
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            raise StoreUnavailable("the session store is closed")
        if attempt is None or (attempt.settled.is_set() and not attempt.is_usable()):
            deadline = trio.current_time() + self._config.connect_timeout
            attempt = self._attempt = _Attempt(self._connect(), trio.CancelScope(deadline=deadline))
            self._nursery.start_soon(self._run, attempt)
        await attempt.settled.wait()
        if not attempt.is_usable():
            raise StoreUnavailable(_LOST) from attempt.error
        return attempt

    async def _run(self, attempt: _Attempt) -> None:
        try:
            with attempt.scope:
                await attempt.connection.run(task_status=attempt)
        except self._broken as error:
            attempt.error = error
        finally:
            attempt.settled.set()
            # coredis leaves these open if it cannot connect, and Python's development mode complains.
            for part in vars(attempt.connection).values():
                if isinstance(part, self._streams):
                    part.close()
