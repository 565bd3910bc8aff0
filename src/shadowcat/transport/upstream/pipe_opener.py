"""Opening message streams: within a limit, and some before anybody asks."""

from __future__ import annotations

import logging
from collections import deque

import trio

from ...errors import UpstreamBusy, UpstreamUnavailable
from ..base import Connector, RawHeaders
from .pipe import Pipe
from .pipe_config import PipeConfig, PipeCounters

log = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
"""Seconds before a spare is opened again after one has failed; doubled for each further failure."""


class PipeOpener:
    """Opens pipes, each in a task of *nursery*, which owns them."""

    def __init__(self, connector: Connector, config: PipeConfig, counters: PipeCounters, nursery: trio.Nursery) -> None:
        self._connector = connector
        self._config = config
        self._counters = counters
        self._nursery = nursery
        self._max_spares = 0 if connector.takes_headers else config.spares
        self._spares: deque[Pipe] = deque()
        self._wanted = trio.Event()
        self._failures = 0
        self._taken = 0

    @property
    def spares(self) -> int:
        """How many there are."""
        return len(self._spares)

    @property
    def open(self) -> int:
        """How many pipes are open, spares included."""
        return self._taken + len(self._spares)

    @property
    def takes_headers(self) -> bool:
        """Whether what a pipe leads to depends on the headers it is opened with."""
        return self._connector.takes_headers

    async def take(self, headers: RawHeaders) -> Pipe:
        """Return a pipe that nobody has used.

        It counts against the limit until what it leads to is gone.  A checkpoint;
        if cancelled, or if it fails, nothing is left open.

        Raises:
            UpstreamBusy: As many are open as are allowed.
            UpstreamUnavailable: It cannot be opened.
        """
        await trio.lowlevel.checkpoint()
        if self._taken >= self._config.max_sessions:
            raise UpstreamBusy(
                f"{self._taken} connections to the upstream server are open, as many as are allowed; "
                "nothing was sent: end a session that is not needed any more, or try again later"
            )
        self._wanted.set()
        if self._spares:
            spare = self._spares.popleft()
            self._failures = 0
            spare.on_closed = self._note_closed
            self._taken += 1
            return spare
        self._taken += 1
        pipe = Pipe(self._config, self._counters)
        pipe.on_closed = self._note_closed
        await self._nursery.start(pipe.run, self._connector, headers)
        if pipe.is_ended:
            raise pipe.unavailable()
        return pipe

    def _note_closed(self) -> None:
        self._taken -= 1

    async def keep_spares(self) -> None:
        """Keep as many spares as are wanted, until cancelled."""
        self._wanted.set()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while len(self._spares) < self._max_spares:
                await self._open_spare()

    async def _open_spare(self) -> None:
        wait = _FIRST_WAIT * 2.0 ** min(self._failures - 1, 60) if self._failures else 0.0
        await trio.sleep(min(wait, _LONGEST_WAIT))
        pipe = Pipe(self._config, self._counters)
        pipe.on_end = lambda _: self._lose(pipe)
        try:
            await self._nursery.start(pipe.run, self._connector, ())
        except UpstreamUnavailable as error:
            log.warning("no connection to the upstream server could be opened in advance: %s", error)
            return
        if not pipe.is_ended:
            self._spares.append(pipe)

    def _lose(self, pipe: Pipe) -> None:
        """Note that a spare could not be opened, or has ended before anybody took it."""
        self._failures += 1
        if pipe in self._spares:
            self._spares.remove(pipe)
        self._wanted.set()
