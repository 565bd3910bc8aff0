"""Streams of numbered events of which none is kept.

What an event holds follows from its stream and its number, and how many there are from
the time.  So a stream goes on while nobody reads it, and any part of it can be sent again.
"""

import math
from itertools import count

import attrs
import trio

UNREAD = 10.0
"""Seconds for which events for listeners go on while nobody listens."""


@attrs.define(eq=False)
class Clockwork:
    """How many events there are by now, at a constant rate."""

    rate: float
    """Per second."""
    _base: float = 0.0
    _since: float = attrs.field(factory=trio.current_time)
    _until: float = math.inf

    def now(self) -> int:
        return int(self._exact())

    def _exact(self) -> float:
        return self._base + self.rate * (min(trio.current_time(), self._until) - self._since)

    def wind(self) -> None:
        """Go on without end."""
        self._base, self._since, self._until = self._exact(), trio.current_time(), math.inf

    def run_down(self, seconds: float) -> None:
        """Stop in a while."""
        self._until = min(self._until, trio.current_time() + seconds)


@attrs.define(eq=False)
class Stream:
    """What one request is answered with, on however many connections."""

    name: str
    first: int = 1
    """Number of its first event."""
    reader: object = None
    """The connection that has it; the newest takes it from the others."""
    written: int = 0
    """Number of the newest event that was ever written."""

    def there(self) -> int:
        """Return the number of the newest event there is by now."""
        raise NotImplementedError

    def last(self) -> float:
        """Return the number of the last event there will be."""
        raise NotImplementedError

    def data(self, number: int) -> bytes:
        raise NotImplementedError

    def tick(self) -> float:
        """Return the seconds to wait for more."""
        return 0.02

    def attach(self) -> None:
        """Go on: somebody reads."""

    def detach(self) -> None:
        """Nobody reads any more."""


@attrs.define(eq=False, kw_only=True)
class CallStream(Stream):
    """Progress of a call, numbered from 1, then its result."""

    total: int
    rate: float
    """Events per second; 0 for all at once."""
    token: bytes
    """For progress, as JSON."""
    result: bytes
    _clockwork: Clockwork = attrs.field(default=attrs.Factory(lambda self: Clockwork(self.rate), takes_self=True))

    def there(self) -> int:
        if self.rate and (number := self._clockwork.now()) < self.total:
            return number
        return self.total + 1

    def last(self) -> float:
        return self.total + 1

    def data(self, number: int) -> bytes:
        if number > self.total:
            return self.result
        progress = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":%d}}'
        return progress % (self.token, number)


@attrs.define(eq=False)
class Session:
    id: str
    client: str
    """The name the client gave itself; a session that replaces another has the same."""
    final_from: float = math.inf
    """Events for listeners say that they are final from this number on."""
    clockwork: Clockwork | None = None
    """Of the events for listeners; none if nobody ever listened."""
    listening: "ListeningStream | None" = None
    """The newest of its streams for listeners."""
    streams: dict[str, Stream] = attrs.field(factory=dict)
    _names: count = attrs.field(factory=count)

    def new_name(self) -> str:
        return f"{self.id}-{next(self._names)}"

    def keep(self, stream: Stream) -> None:
        """Keep *stream*, and forget the calls that nobody can be interested in any more."""
        self.streams[stream.name] = stream
        if len(self.streams) > 256:
            over = (name for name, old in self.streams.items() if old.written >= old.last())
            del self.streams[next(over, next(iter(self.streams)))]

    def listen(self, rate: float) -> "ListeningStream":
        """Open a stream; what is emitted from now on goes there and nowhere else."""
        if self.clockwork is None:
            self.clockwork = Clockwork(rate)
        first = 1
        if self.listening is not None:
            self.listening.end = self.clockwork.now()
            first = self.listening.end + 1
        self.listening = ListeningStream(self.new_name(), first, session=self, clockwork=self.clockwork)
        self.keep(self.listening)
        return self.listening

    def finish(self) -> None:
        """Make what is emitted from now on final."""
        self.final_from = 1 if self.clockwork is None else self.clockwork.now() + 1

    def end(self) -> None:
        """Emit no more, to nobody."""
        if self.clockwork is not None:
            self.clockwork.run_down(0)
        for stream in self.streams.values():
            stream.reader = None
        self.streams.clear()


@attrs.define(eq=False, kw_only=True)
class ListeningStream(Stream):
    """Part of the log messages of a session; they are numbered throughout the session."""

    session: Session
    clockwork: Clockwork
    end: int | None = None
    """The last number before the next stream took over."""

    def there(self) -> int:
        return self.clockwork.now() if self.end is None else self.end

    def last(self) -> float:
        return math.inf if self.end is None else self.end

    def data(self, number: int) -> bytes:
        final = b"true" if number >= self.session.final_from else b"false"
        return (
            b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"upstream",'
            b'"data":{"epoch":"%s","number":%d,"final":%s}}}' % (self.session.id.encode(), number, final)
        )

    def tick(self) -> float:
        return 1 / self.clockwork.rate

    def attach(self) -> None:
        if self.end is None:
            self.clockwork.wind()

    def detach(self) -> None:
        if self.end is None:
            self.clockwork.run_down(UNREAD)
