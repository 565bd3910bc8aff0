"""The servers of a `RedisStore`: the one in its URL, or the nodes of a cluster, of which that is one.

In a cluster each command goes to the node that has its key.  Between a session and a key
that sessions share, `RedisStore` relies on the order of commands; so those of one call go in
stages, each when all of the one before have been answered, and none after a stage that a
node could not obey.  Within a stage all nodes are asked at once.

A node that does not have the key says which does.  It has not obeyed, so whatever it was,
the command is sent there.  Who has what is asked anew after that, and after a node could not
be reached, for its replica may have taken over: by one task, at most once a second.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ...errors import ConfigError, StoreUnavailable
from .redis_link import RedisConfig, RedisLink, failure_of, is_held, is_lost
from .redis_slots import Address, Command, SlotMap, address_in, read_slots, stages_of, tag_of

if TYPE_CHECKING:
    from coredis.exceptions import AskError

log = logging.getLogger(__name__)

_MAX_NODES = 1000
_MAX_REDIRECTS = 5
"""In a row, before a call is given up: the nodes do not agree then."""

_REFRESH_INTERVAL = 1.0
_HOLD_INTERVAL = 0.05
"""Seconds until a command is sent again whose keys were being moved."""

_OUTDATED = ("MovedError", "ClusterDownError", "ReadOnlyError")
"""Answers of a node that is not, or no longer, the one to ask."""


@attrs.define(eq=False)
class _Errand:
    """A command, where it has been sent to instead of to who has its slot, and what came of it."""

    command: Command
    tag: bytes
    ask: Address | None = None
    answer: Any = None

    @property
    def redirect(self) -> AskError | None:
        """The answer, if it says whom to ask."""
        return self.answer if type(self.answer).__name__ in ("MovedError", "AskError") else None

    @property
    def failure(self) -> StoreUnavailable | None:
        """Why it was not obeyed, or may not have been."""
        error = failure_of(self.answer) if isinstance(self.answer, Exception) else None
        return error if isinstance(error, StoreUnavailable) else None


class RedisServers:
    """All servers that keep the sessions, and a link to each that has been needed.

    Args:
        config: Where the first one is, and how long things may take.
        make_link: Makes the link to one.
    """

    def __init__(self, config: RedisConfig, make_link: Callable[[Address], RedisLink]) -> None:
        self._config = config
        self._make_link = make_link
        self._links: dict[Address, RedisLink] = {}
        self._used: set[Address] = set()
        self._only: RedisLink | None = None
        self._slots: SlotMap | None = None
        self._is_outdated = trio.Event()
        self._turn = 0
        self._is_closed = False
        self._following = trio.CancelScope()

    async def open(self) -> None:
        """Connect to the first server, and to a cluster if it is of one.

        Raises:
            ConfigError: It will not do, or does not let us in.
            StoreUnavailable: It cannot be reached, or the cluster is not set up.
        """
        await self._link_to(self._config.address).open()
        await self._discover(math.inf)

    async def follow(self) -> None:
        """Keep up with a cluster until closed: who has what, and no links but to those.

        If cancelled, nothing is lost.
        """
        with self._following:
            while True:
                await self._is_outdated.wait()
                self._is_outdated = trio.Event()
                await self._refresh()
                self._used.clear()
                # Longer than any call takes: one that began before may still use a link.
                await trio.sleep(max(_REFRESH_INTERVAL, self._config.response_timeout))
                self._close_unused()

    async def exchange(self, commands: Sequence[Command], *, again: bool = False) -> list[Any]:
        """Send *commands*, each to who has its key; return the answers in order, among them errors.

        If cancelled, any of them may have been obeyed, but none of a later stage without all of the earlier.

        Args:
            again: Send them once more where a connection breaks.

        Raises:
            StoreUnavailable: With one server: not all were answered in time.  With a cluster that is an answer.
        """
        if self._only is not None:
            return await self._only.exchange(commands, again=again)
        deadline = trio.current_time() + self._config.response_timeout
        if self._slots is None:
            only = await self._discover(deadline)
            if only is not None:
                return await only.exchange(commands, again=again, deadline=deadline)
        tags = [tag_of(command) for command in commands]
        errands = [_Errand(command, tag) for command, (tag, _) in zip(commands, tags, strict=True)]
        for stage in stages_of([is_shared for _, is_shared in tags]):
            await self._settle(errands[stage], again, deadline)
            failure = next((errand.failure for errand in errands[stage] if errand.failure is not None), None)
            if failure is not None:
                for errand in errands[stage.stop :]:
                    errand.answer = failure
                break
        return [errand.answer for errand in errands]

    def close(self) -> None:
        """Drop all connections, and make no other."""
        self._is_closed = True
        self._following.cancel()
        for link in self._links.values():
            link.close()

    async def _settle(self, errands: Sequence[_Errand], again: bool, deadline: float) -> None:
        """Send *errands*, and after those that are sent elsewhere, until each has an answer that stays."""
        redirects = 0
        while errands:
            await self._send(errands, again, deadline)
            are_held = any(is_held(errand.answer) for errand in errands)
            errands = [errand for errand in errands if errand.redirect is not None or is_held(errand.answer)]
            if are_held:
                redirects = 0
                if trio.current_time() + _HOLD_INTERVAL >= deadline:
                    break
                await trio.sleep(_HOLD_INTERVAL)
            elif (redirects := redirects + 1) > _MAX_REDIRECTS:
                break

    async def _send(self, errands: Sequence[_Errand], again: bool, deadline: float) -> None:
        assert self._slots is not None
        groups: dict[tuple[Address | None, bool], list[_Errand]] = {}
        destinations: dict[bytes, tuple[Address | None, bool]] = {}
        for errand in errands:
            wanted = (errand.ask or self._slots.owner_of(errand.tag), errand.ask is not None)
            # What is asked of one session stays in order, also while it is being moved.
            groups.setdefault(destinations.setdefault(errand.tag, wanted), []).append(errand)
        if len(groups) == 1:
            ((destination, group),) = groups.items()
            await self._ask(*destination, group, again, deadline)
            return
        async with trio.open_nursery() as nursery:
            for destination, group in groups.items():
                nursery.start_soon(self._ask, *destination, group, again, deadline)

    async def _ask(
        self, address: Address | None, is_asking: bool, errands: Sequence[_Errand], again: bool, deadline: float
    ) -> None:
        """Have one node do *errands*; with *is_asking*, although the slot is not yet its own."""
        commands = [errand.command for errand in errands]
        answers: Sequence[Any]
        try:
            if address is None:
                await trio.lowlevel.checkpoint()
                raise StoreUnavailable("no node of the Redis cluster has what this call needs; see CLUSTER SLOTS")
            if is_asking:
                both: list[Command] = [part for command in commands for part in ((b"ASKING",), command)]
                answers = (await self._link_to(address).exchange(both, again=again, deadline=deadline))[1::2]
            else:
                answers = await self._link_to(address).exchange(commands, again=again, deadline=deadline)
        except StoreUnavailable as error:
            answers = [error] * len(errands)
        for errand, answer in zip(errands, answers, strict=True):
            errand.answer = answer
            if isinstance(answer, Exception):
                self._learn(errand, answer, address)

    def _learn(self, errand: _Errand, error: Exception, asked: Address | None) -> None:
        if is_lost(error) or type(error).__name__ in _OUTDATED:
            self._is_outdated.set()
        redirect = errand.redirect
        if redirect is None or asked is None or self._slots is None:
            return
        address = address_in(redirect.host, redirect.port, asked)
        if type(redirect).__name__ == "MovedError":
            self._slots.move(errand.tag, address)
            errand.ask = None
        else:
            errand.ask = address

    async def _discover(self, deadline: float) -> RedisLink | None:
        """Return the link if there is one server; find out who has what if there is a cluster."""
        address = self._config.address
        link = self._link_to(address)
        # What it says when it is greeted needs no permission, unlike INFO.
        (hello,) = await link.exchange([(b"HELLO",)], again=True, deadline=deadline)
        if isinstance(hello, Exception):
            raise failure_of(hello) from hello
        if hello.get(b"mode") != b"cluster":
            self._only = link
            return link
        self._slots = await self._ask_slots(address, deadline)
        # That address may be none of theirs; who follows will see.
        self._is_outdated.set()
        return None

    async def _refresh(self) -> None:
        """Ask the nodes in turn who has what, until one knows; it may be the only one that is behind."""
        known = sorted(self._slots.owners()) if self._slots is not None else []
        self._turn += 1
        turn = self._turn % max(len(known), 1)
        for address in (*known[turn:], *known[:turn], self._config.address):
            try:
                self._slots = await self._ask_slots(address, math.inf)
            except (StoreUnavailable, ConfigError):
                continue
            return
        log.debug("no node of the redis cluster says who has what")

    async def _ask_slots(self, address: Address, deadline: float) -> SlotMap:
        (answer,) = await self._link_to(address).exchange([(b"CLUSTER", b"SLOTS")], again=True, deadline=deadline)
        if type(answer).__name__ == "AuthorizationError":
            raise ConfigError("the Redis user in the URL may not see the cluster; allow it CLUSTER SLOTS and ASKING")
        if isinstance(answer, Exception):
            raise failure_of(answer) from answer
        return read_slots(answer, address)

    def _link_to(self, address: Address) -> RedisLink:
        link = self._links.get(address)
        if link is None:
            if self._is_closed:
                raise StoreUnavailable("the session store is closed")
            if len(self._links) >= _MAX_NODES:
                raise StoreUnavailable(f"the Redis cluster has more than {_MAX_NODES} nodes; use a smaller one")
            link = self._links[address] = self._make_link(address)
        self._used.add(address)
        return link

    def _close_unused(self) -> None:
        """Close the links to those that have left, and come again for those that are still in use."""
        left = self._links.keys() - (self._slots.owners() if self._slots is not None else set())
        for address in left - self._used:
            self._links.pop(address).close()
        if left & self._used:
            self._is_outdated.set()
