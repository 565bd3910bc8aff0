"""What a client was told: each event once and in order, or that some are lost.

Events are numbered, so nothing but the newest number and the holes is kept of a stream.
"""

import enum
from collections import Counter, deque
from collections.abc import Sequence

import attrs


class Fate(enum.Enum):
    """How a call ended."""

    ANSWERED = "answered"
    REPORTED = "reported lost"
    UNKNOWN = "unknown outcome"
    """The connection broke before the client had anything to resume from."""
    UNFINISHED = "unfinished"


@attrs.frozen
class Epoch:
    """A session of the upstream in which somebody listened, and the number of events it emitted."""

    id: str
    last: int


@attrs.define
class Ledger:
    """The sums over all streams."""

    received: int = 0
    """Events that came for the first time, in order or not."""
    duplicated: int = 0
    out_of_order: int = 0
    stray: int = 0
    """Messages that belong to another stream."""
    repeated_ids: int = 0
    """Event ids that another event of the client had, on whatever stream."""
    unprimed: int = 0
    """Streams that did not begin with an id and no data: they could not be resumed from the beginning."""
    reported_lost: int = 0
    silently_lost: int = 0
    unknown: int = 0
    """Events of calls whose outcome is unknown."""
    unfinished: int = 0
    """Events of calls that were neither answered nor given up; a listener that did not end is one."""
    calls: Counter[Fate] = attrs.field(factory=Counter)
    reports: Counter[str] = attrs.field(factory=Counter)
    """What clients were told of losses."""
    sessions: int = 0
    reconnects: int = 0
    complaints: list[str] = attrs.field(factory=list)
    """What must not be, the first of each kind."""
    _kinds: Counter[str] = attrs.field(factory=Counter)

    @property
    def faults(self) -> int:
        """How many things happened that must not."""
        order = self.duplicated + self.out_of_order + self.stray + self.repeated_ids
        return order + self.silently_lost + self.unfinished

    def complain(self, kind: str, text: str) -> None:
        """Note *text*, unless there is enough of its kind."""
        self._kinds[kind] += 1
        if self._kinds[kind] <= 8:
            self.complaints.append(f"{kind}: {text}")


@attrs.define(eq=False)
class Numbers:
    """The numbers seen of one sequence that begins with 1."""

    newest: int = 0
    holes: set[int] = attrs.field(factory=set)

    def take(self, number: int, ledger: Ledger, name: str) -> int:
        """Count *number*; return how many were passed over."""
        if number > self.newest:
            skipped = range(self.newest + 1, number)
            self.newest = number
            ledger.received += 1
            return len(skipped)
        if number in self.holes:
            self.holes.remove(number)
            ledger.received += 1
            ledger.out_of_order += 1
            ledger.complain("out of order", f"{name}: {number} came after {self.newest}")
        else:
            ledger.duplicated += 1
            ledger.complain("duplicated", f"{name}: {number} came again, after {self.newest}")
        return 0


@attrs.define(eq=False)
class Call:
    """One call for numbered events; its answer is one more."""

    name: str
    """Its progress token, and its id."""
    total: int
    ledger: Ledger
    fate: Fate = Fate.UNFINISHED
    trail: deque[str] = attrs.field(factory=lambda: deque(maxlen=4))
    _numbers: Numbers = attrs.field(factory=Numbers)

    def take(self, message: dict) -> bool:
        """Count what came on its stream; whether it was the answer."""
        match message:
            case {"method": "notifications/progress", "params": {"progressToken": self.name, "progress": number}}:
                self._count(number)
            case {"method": "notifications/message", "params": {"logger": "shadowcat"}}:
                pass  # says why; what counts is the answer
            case {"id": self.name, "result": {"structuredContent": {"total": self.total}}}:
                self._count(self.total + 1)
                self.fate = Fate.ANSWERED
            case {"id": self.name, "error": {"message": text}}:
                self.report(f"error: {text}")
            case _:
                self.ledger.stray += 1
                self.ledger.complain("stray", f"{self.name}: not its own: {message}")
        return self.fate is not Fate.UNFINISHED

    def _count(self, number: int) -> None:
        before = self._numbers.newest
        if self._numbers.take(number, self.ledger, self.name):
            self._numbers.holes.update(range(before + 1, number))
            self.ledger.complain("silently lost", f"{self.name}: {number} followed upon {before}")

    def report(self, reason: str) -> None:
        """Take notice that the rest is lost."""
        self.fate = Fate.REPORTED
        self.ledger.reports[reason] += 1

    def close(self) -> None:
        """Draw the balance."""
        ledger = self.ledger
        ledger.calls[self.fate] += 1
        # A hole that was passed over is silent, however the call ended.
        ledger.silently_lost += len(self._numbers.holes)
        rest = self.total + 1 - self._numbers.newest
        match self.fate:
            case Fate.REPORTED:
                ledger.reported_lost += rest
            case Fate.UNKNOWN:
                ledger.unknown += rest
            case Fate.UNFINISHED:
                ledger.unfinished += rest
                newest, trail = self._numbers.newest, list(self.trail)
                ledger.complain("unfinished", f"{self.name}: no word after {newest} of {self.total}, {trail}")


@attrs.frozen
class Passage:
    """From one session of the upstream to the next, as a listener sees it."""

    left: str | None
    last_seen: int
    entered: str
    first_seen: int
    is_reported: bool


@attrs.define(eq=False)
class Listening:
    """All that a client hears, on however many streams and sessions of the upstream."""

    name: str
    ledger: Ledger
    is_over: bool = False
    trail: deque[str] = attrs.field(factory=lambda: deque(maxlen=4))
    _epoch: str | None = None
    _numbers: Numbers = attrs.field(factory=Numbers)
    _is_reported: bool = False
    """Whether a loss was reported since the last event."""
    _passages: list[Passage] = attrs.field(factory=list)
    _silent: int = 0
    _reported: int = 0

    def take(self, message: dict) -> bool:
        """Count what was heard; whether it says that it is over."""
        match message:
            case {"method": "notifications/message", "params": {"logger": "shadowcat", "data": data}}:
                self.report(f"log: {data}")
            case {"method": "notifications/message", "params": {"logger": "upstream", "data": event}}:
                self._count(event["epoch"], event["number"])
                self.is_over = event["final"]
            case _:
                self.ledger.stray += 1
                self.ledger.complain("stray", f"{self.name}: nothing for listeners: {message}")
        return self.is_over

    def _count(self, epoch: str, number: int) -> None:
        if epoch != self._epoch:
            self._passages.append(Passage(self._epoch, self._numbers.newest, epoch, number, self._is_reported))
            self._silent += len(self._numbers.holes)
            self._epoch, self._numbers = epoch, Numbers(newest=number - 1)
        before = self._numbers.newest
        skipped = self._numbers.take(number, self.ledger, self.name)
        if skipped and self._is_reported:
            self._reported += skipped
        elif skipped:
            self._numbers.holes.update(range(before + 1, number))
            self.ledger.complain("silently lost", f"{self.name}: {number} followed upon {before} without a word")
        self._is_reported = False

    def report(self, reason: str) -> None:
        """Take notice that some may be lost before the next event."""
        self._is_reported = True
        self.ledger.reports[reason] += 1

    def close(self, epochs: Sequence[Epoch]) -> None:
        """Draw the balance, given all *epochs* of this client, in order."""
        order = {epoch.id: place for place, epoch in enumerate(epochs)}
        for passage in self._passages:
            begin = -1 if passage.left is None else order[passage.left]
            between = epochs[begin + 1 : order[passage.entered]]
            lost = sum(epoch.last for epoch in between) + passage.first_seen - 1
            if passage.left is not None:
                lost += max(epochs[begin].last - passage.last_seen, 0)
            if passage.is_reported:
                self._reported += lost
            elif lost:
                self._silent += lost
                self.ledger.complain("silently lost", f"{self.name}: {lost} lost without a word, {passage}")
        self.ledger.reported_lost += self._reported
        self.ledger.silently_lost += self._silent + len(self._numbers.holes)
        if not self.is_over:
            self.ledger.unfinished += 1
            newest, trail = self._numbers.newest, list(self.trail)
            self.ledger.complain("unfinished", f"{self.name}: heard no end after {newest} of {self._epoch}, {trail}")
