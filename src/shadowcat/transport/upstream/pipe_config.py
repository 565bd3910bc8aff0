"""What may be set of upstreams on pipes, and what is counted of them."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class PipeConfig:
    """How callers share the message streams to one server.  Durations are in seconds."""

    max_sessions: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    """Streams at once: one for each session, and those that serve modern requests.  Spares come on top."""

    max_pending: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Requests under way on one stream."""

    spares: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    """Streams opened before anybody asks, so that ``initialize`` need not wait for a server to start.

    None where what a stream leads to depends on the client's headers."""

    idle_timeout: float = attrs.field(default=3600.0, validator=attrs.validators.gt(0))
    """A session ends when for so long nothing was said in it, and nobody waited or listened."""

    stream_after: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """An answer of which nothing has come for so long becomes an event stream, which can be kept alive."""

    max_queued: int = attrs.field(default=1024 * 1024, validator=attrs.validators.ge(1))
    """Bytes that wait for the reader of one answer, or one message; then the stream is not read on."""

    max_held: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    """Messages of a session that wait for somebody to listen."""

    max_held_bytes: int = attrs.field(default=1024 * 1024, validator=attrs.validators.ge(1))

    pool_size: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """Streams that modern requests share; one that asks for log messages has another to itself.

    More than one only for servers of which each can go on where another has asked the
    client something: the ``requestState`` of an answer may come back to any of them."""

    pool_idle_timeout: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """How long those beyond the first are kept unused."""

    patience: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """How long others on a shared stream wait for one reader who does not take his answer; then it is given up."""

    probe_timeout: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """How long a server may take to answer ``server/discover``; one that does not is legacy."""


@attrs.frozen
class PipeStatistics:
    """What an upstream on pipes has, and has had, to do."""

    open: int
    """Streams open now, spares included: children that run, if they lead to those."""

    sessions: int
    """Sessions open now."""

    spares: int
    """Streams that wait for a session."""

    pending: int
    """Requests under way."""

    late: int
    """Answers that nobody waited for any more."""

    dropped: int
    """Other messages that could be given to nobody."""

    garbage: int
    """Pieces of text that were no JSON-RPC message."""

    opened: int
    """Streams opened so far."""

    broken: int
    """Of those, the ones that the server ended or broke."""


@attrs.define(eq=False)
class PipeCounters:
    """The counts behind `PipeStatistics`."""

    pending: int = 0
    late: int = 0
    dropped: int = 0
    garbage: int = 0
    opened: int = 0
    broken: int = 0
