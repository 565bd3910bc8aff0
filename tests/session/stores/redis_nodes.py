"""Nodes of a Redis cluster that are none: what a test says is what they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import trio
from coredis.exceptions import AskError, MovedError

from shadowcat.errors import StoreUnavailable
from shadowcat.session.stores.redis_link import RedisConfig, RedisLink
from shadowcat.session.stores.redis_servers import RedisServers
from shadowcat.session.stores.redis_slots import Address, Command

A, B, C = (Address(name, 7000) for name in "abc")

ON_A, ALSO_ON_A, ON_B, ON_C, INDEX = (b"p:{s:1}", b"p:{s:5}", b"p:{s:0}", b"p:{s:2}", b"p:index")
"""Keys, and who has them; that of the index is on C."""

SLOTS = [[0, 5460, A], [5461, 10922, B], [10923, 16383, C]]

HELLO = (b"HELLO",)
TOPOLOGY = (b"CLUSTER", b"SLOTS")


def get(key: bytes) -> Command:
    return (b"GET", key)


def moved(to: Address | str) -> MovedError:
    return MovedError(f"1 {to.host}:{to.port}" if isinstance(to, Address) else f"1 {to}")


def ask(to: Address) -> AskError:
    return AskError(f"1 {to.host}:{to.port}")


@attrs.define(eq=False)
class FakeNodes:
    """All nodes; each answers a command with its address and the key unless *answer* has something else."""

    answer: Callable[[Address, Command], Any] = lambda address, command: None
    mode: bytes | Exception = b"cluster"
    slots: Any = attrs.field(factory=lambda: [list(row) for row in SLOTS])
    delay: float = 0.0
    """Seconds until they answer."""
    down: set[Address] = attrs.field(factory=set)
    silent: set[Address] = attrs.field(factory=set)
    sent: list[tuple[Address, list[Command]]] = attrs.field(factory=list)
    """What was sent at once, but for what is asked of the cluster."""
    asked: list[tuple[float, Address]] = attrs.field(factory=list)
    """When who was asked who has what."""
    made: list[Address] = attrs.field(factory=list)
    closed: list[Address] = attrs.field(factory=list)

    def make_link(self, address: Address) -> RedisLink:
        self.made.append(address)
        return cast(RedisLink, FakeLink(self, address))

    def keys(self, address: Address) -> list[object]:
        """Return the keys that *address* was sent, of all commands in order."""
        return [command[1] for to, commands in self.sent for command in commands if to == address]


@attrs.define(eq=False)
class FakeLink:
    nodes: FakeNodes
    address: Address
    is_closed: bool = False

    async def open(self) -> None:
        await self._reach()

    async def exchange(self, commands, *, again=False, deadline=float("inf")):
        nodes = self.nodes
        if commands not in ([HELLO], [TOPOLOGY]):
            nodes.sent.append((self.address, list(commands)))
        elif commands == [TOPOLOGY]:
            nodes.asked.append((trio.current_time(), self.address))
        with trio.move_on_at(min(deadline, trio.current_time() + 1.0)):
            await self._reach()
            await trio.sleep(nodes.delay)
            return [self._answer(command) for command in commands]
        raise StoreUnavailable("did not answer in time")

    def close(self) -> None:
        self.is_closed = True
        self.nodes.closed.append(self.address)

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_closed:
            raise StoreUnavailable("the session store is closed")
        if self.address in self.nodes.down:
            raise StoreUnavailable("the connection broke")
        if self.address in self.nodes.silent:
            await trio.sleep_forever()

    def _answer(self, command: Command) -> Any:
        if command == HELLO:
            return self.nodes.mode if isinstance(self.nodes.mode, Exception) else {b"mode": self.nodes.mode}
        if command == (b"ASKING",):
            return "OK"
        if command == TOPOLOGY:
            rows = self.nodes.slots
            if isinstance(rows, Exception):
                return rows
            return [[first, last, [to.host.encode(), to.port, b"id"]] for first, last, to in rows]
        answer = self.nodes.answer(self.address, command)
        return (self.address.host, command[1]) if answer is None else answer


def servers_of(nodes: FakeNodes, seed: Address = A) -> RedisServers:
    return RedisServers(RedisConfig(url=f"redis://{seed.host}:{seed.port}"), nodes.make_link)
