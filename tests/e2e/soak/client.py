"""A client of the legacy era that does what a good one does when connections break, and keeps books."""

import contextlib
import json
import random
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from tests.e2e.soak.ledger import Call, Fate, Ledger, Listening
from tests.e2e.soak.wire import Broken, Event, EventCutter, Reply, Unreachable, ask

VERSION = "2025-11-25"
STREAMS = "application/json, text/event-stream"
LATER = {502, 503, 504}
"""Statuses after which the same GET may succeed."""


class Observer(Protocol):
    trail: deque[str]
    """What became of the latest resumptions."""

    def take(self, message: dict) -> bool:
        """Take a message; whether it is the last."""

    def report(self, reason: str) -> None:
        """Take notice of a loss."""


@attrs.define
class Cursor:
    """Where on a stream a client is, and how long it waits before it comes back."""

    name: str
    ledger: Ledger
    ids: set[int]
    """Hashes of the event ids that its client has seen, on any stream."""
    last_id: str | None = None
    retry: float | None = None
    """Seconds, as the server wishes."""
    failures: int = 0
    """Since the last event."""
    _is_fresh: bool = True

    def follow(self, event: Event) -> None:
        """Move on to *event*."""
        if self._is_fresh and (event.id is None or event.data):
            self.ledger.unprimed += 1
            if event.id is not None:
                self.ledger.complain("not primed", f"{self.name}: a stream began with {event}")
        if event.id is not None and event.id != self.last_id:
            if hash(event.id) in self.ids:
                self.ledger.repeated_ids += 1
                self.ledger.complain(
                    "id not unique", f"{self.name}: event id {event.id} came before, now with {event.data[:100]!r}"
                )
            self.ids.add(hash(event.id))
            self.last_id = event.id
        self.retry = event.retry or self.retry
        self.failures = 0
        self._is_fresh = False

    def pause(self, rng: random.Random) -> float:
        if self.failures == 0 and self.retry is not None:
            return self.retry
        return backoff(rng, self.failures)


PATIENCE = 300
"""Times in a row that a client comes back in vain before it counts as stranded."""


def backoff(rng: random.Random, failures: int) -> float:
    """Return the seconds to wait after a number of failures in a row."""
    return rng.uniform(0.5, 1) * min(0.05 * 2.0 ** min(failures, 10), 1.0)


@attrs.frozen(kw_only=True)
class Wants:
    """What one client asks for."""

    totals: Sequence[int]
    """Events of each call."""
    rates: Sequence[float] = (0.0, 50.0, 200.0)
    """Events per second, one of which each call has; 0 for all at once."""
    lanes: int = 3
    """Calls under way at once."""


@attrs.define(eq=False)
class Client:
    """One session, or one after another when the server forgets them."""

    name: str
    urls: Sequence[str]
    rng: random.Random
    ledger: Ledger
    listening: Listening = attrs.field(init=False)
    is_enough: bool = False
    """Set from outside: no new calls."""
    calls: list[Call] = attrs.field(factory=list)
    """Those under way."""
    is_idle: trio.Event = attrs.field(factory=trio.Event)
    """Set when all calls have ended."""
    _session_id: str | None = None
    _ids: set[int] = attrs.field(factory=set)
    _joining: trio.Lock = attrs.field(factory=trio.Lock)

    def __attrs_post_init__(self) -> None:
        self.listening = Listening(self.name, self.ledger)

    async def run(self, wants: Wants) -> None:
        """Make the calls, and listen until told that it was the end."""
        numbered = iter(list(enumerate(wants.totals)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            async with trio.open_nursery() as lanes:
                for _ in range(wants.lanes):
                    lanes.start_soon(self._call_all, numbered, wants.rates)
            self.is_idle.set()
        await self._end()

    async def _call_all(self, numbered, rates: Sequence[float]) -> None:
        for number, total in numbered:
            if self.is_enough:
                return
            call = Call(f"{self.name}/{number}", total, self.ledger)
            self.calls.append(call)
            await self._call(call, self.rng.choice(rates))
            if call.fate is not Fate.ANSWERED:
                await trio.sleep(self.rng.uniform(0.05, 0.2))
            self.calls.remove(call)
            call.close()

    async def _call(self, call: Call, rate: float) -> None:
        params = {
            "name": "count",
            "arguments": {"total": call.total, "rate": rate},
            "_meta": {"progressToken": call.name},
        }
        message = {"jsonrpc": "2.0", "id": call.name, "method": "tools/call", "params": params}
        cursor = self._cursor(call.name)
        session_id = await self._join()
        while True:
            try:
                async with self._ask("POST", session_id, message) as reply:
                    if reply.status == 404:
                        self._leave(session_id)
                    if not reply.is_event_stream:
                        await take_document(reply, call)
                    elif await read_events(reply, call, cursor):
                        return
            except Unreachable:
                # Nothing was sent, so this is not a second time.
                await trio.sleep(cursor.pause(self.rng))
                cursor.failures += 1
                continue
            except Broken:
                pass
            break
        if call.fate is Fate.UNFINISHED and cursor.last_id is None:
            call.fate = Fate.UNKNOWN
        elif call.fate is Fate.UNFINISHED:
            await self._resume(session_id, call, cursor)

    async def _listen(self) -> None:
        """Listen, with as many streams as it takes; a stream that cannot be resumed is a loss reported."""
        failures = 0
        while not self.listening.is_over:
            session_id = await self._join()
            cursor = self._cursor(f"listener {self.name}")
            cursor.failures = failures
            reason = "listener: connection broke before an event id"
            try:
                async with self._ask("GET", session_id) as reply:
                    if reply.status == 404:
                        self._leave(session_id)
                    if reply.status == 200:
                        await read_events(reply, self.listening, cursor)
                    else:
                        reason = f"HTTP {reply.status} to a listener"
            except (Unreachable, Broken):
                pass
            if cursor.last_id is not None and not self.listening.is_over:
                await self._resume(session_id, self.listening, cursor)
                failures = 0
            elif not self.listening.is_over:
                self.listening.report(reason)
                await trio.sleep(cursor.pause(self.rng))
                failures += 1

    async def _resume(self, session_id: str, observer: Observer, cursor: Cursor) -> None:
        """Come back to a stream until it is over, or said to be lost."""
        while cursor.failures < PATIENCE:
            await trio.sleep(cursor.pause(self.rng))
            cursor.failures += 1
            self.ledger.reconnects += 1
            step = f"at {trio.current_time():.1f} after {cursor.last_id}:"
            try:
                async with self._ask("GET", session_id, last_event_id=cursor.last_id) as reply:
                    observer.trail.append(f"{step} {reply.status}")
                    if reply.status == 200:
                        if await read_events(reply, observer, cursor):
                            return
                    elif reply.status == 404:
                        self._leave(session_id)
                        observer.report("HTTP 404 to a resume")
                        return
                    elif reply.status not in LATER:
                        observer.report(f"HTTP {reply.status} to a resume: {await reason_in(reply)}")
                        return
            except (Unreachable, Broken) as exc:
                observer.trail.append(f"{step} {exc!r}")

    async def _end(self) -> None:
        """Say that the session is over, once; who does not hear it will notice."""
        with contextlib.suppress(Unreachable, Broken):
            async with self._ask("DELETE", self._session_id):
                pass

    def _cursor(self, name: str) -> Cursor:
        return Cursor(name, self.ledger, self._ids)

    def _ask(self, method: str, session_id: str | None, message=None, last_event_id: str | None = None):
        """Ask any replica."""
        return ask(
            method,
            self.rng.choice(self.urls),
            message,
            accept=STREAMS if method == "POST" else "text/event-stream",
            mcp_session_id=session_id,
            mcp_protocol_version=VERSION if session_id is not None else None,
            last_event_id=last_event_id,
        )

    async def _join(self) -> str:
        """Return the id of the session; open one if there is none."""
        async with self._joining:
            failures = 0
            while self._session_id is None:
                try:
                    await self._initialize()
                except (Unreachable, Broken):
                    await trio.sleep(backoff(self.rng, failures))
                    failures += 1
            return self._session_id

    async def _initialize(self) -> None:
        info = {"name": self.name, "version": "1"}
        params = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": info}
        request = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        async with self._ask("POST", None, request) as reply:
            if reply.status != 200:
                raise Broken
            await reply.text()
            session_id = reply.headers["mcp-session-id"]
        async with self._ask("POST", session_id, {"jsonrpc": "2.0", "method": "notifications/initialized"}) as reply:
            if reply.status != 202:
                raise Broken
        self._session_id = session_id
        self.ledger.sessions += 1

    def _leave(self, session_id: str) -> None:
        if self._session_id == session_id:
            self._session_id = None


async def read_events(reply: Reply, observer: Observer, cursor: Cursor) -> bool:
    """Hand events to *observer* until the connection ends, properly or not; whether it got the last."""
    cutter = EventCutter()
    try:
        while piece := await reply.receive():
            for event in cutter.feed(piece):
                cursor.follow(event)
                if event.data and observer.take(json.loads(event.data)):
                    return True
    except Broken:
        pass
    return False


async def take_document(reply: Reply, call: Call) -> None:
    """Take an answer that is no stream: nothing else will come."""
    if reply.status == 200:
        call.take(await reply.json())
    else:
        call.report(f"HTTP {reply.status} to a call: {await reason_in(reply)}")


async def reason_in(reply: Reply) -> str:
    """Return what an error says; only its beginning, to count like reasons together."""
    try:
        return str(json.loads(await reply.text())["error"]["message"])[:80]
    except (Broken, ValueError, KeyError, TypeError):
        return "?"
