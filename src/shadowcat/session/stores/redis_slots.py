"""Which node of a Redis cluster has which key.

The keys of a cluster are in 16,384 slots, and each node has some of them.  What stands in
braces in a key decides its slot, or all of the key if nothing does.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import attrs

from ...errors import StoreUnavailable

SLOTS = 16384

Command = tuple[bytes | str | int, ...]
"""The name of a command and its arguments."""


@attrs.frozen(order=True)
class Address:
    """Where a server listens; without a host, where the URL says."""

    host: str
    port: int


def tag_of(command: Command) -> tuple[bytes, bool]:
    """Return what decides the slot of *command*, and whether that is all of its key."""
    key = command[3 if command[0] == b"EVAL" else 1]
    if not isinstance(key, bytes):
        raise TypeError(f"the key of {command[0]!r} is no bytes")
    start = key.find(b"{") + 1
    end = key.find(b"}", start)
    return (key[start:end], False) if 0 < start < end else (key, True)


def slot_of(tag: bytes) -> int:
    """Return the slot of all keys with *tag*."""
    # What Redis calls CRC16 is the one of XMODEM, and of binhex.
    return crc_hqx(tag, 0) % SLOTS


class SlotMap:
    """Who has which slot, as far as is known.

    Args:
        ranges: First and last slot, and who has them.
    """

    def __init__(self, ranges: Iterable[tuple[int, int, Address]]) -> None:
        self._owners: list[Address | None] = [None] * SLOTS
        for first, last, owner in ranges:
            if not 0 <= first <= last < SLOTS:
                raise ValueError("no such slots")
            self._owners[first : last + 1] = [owner] * (last + 1 - first)

    def owner_of(self, tag: bytes) -> Address | None:
        """Return who has the keys with *tag*; None if nobody is known to."""
        return self._owners[slot_of(tag)]

    def move(self, tag: bytes, owner: Address) -> None:
        """Have *owner* have the slot of *tag*."""
        self._owners[slot_of(tag)] = owner

    def owners(self) -> set[Address]:
        """Return all that have a slot."""
        return {owner for owner in set(self._owners) if owner is not None}


def read_slots(answer: Any, asked: Address) -> SlotMap:
    """Return what *asked* has answered to ``CLUSTER SLOTS``; replicas are passed over.

    Raises:
        StoreUnavailable: It knows of no node that has slots.
    """
    try:
        slots = SlotMap((first, last, address_in(node[0], node[1], asked)) for first, last, node, *_ in answer)
    except (ValueError, TypeError, LookupError) as error:
        raise StoreUnavailable("the Redis cluster does not say which of its nodes has what") from error
    if not slots.owners():
        raise StoreUnavailable("no node of the Redis cluster has slots; finish setting the cluster up")
    return slots


def address_in(host: bytes | str | None, port: int, asked: Address) -> Address:
    """Return the address that *asked* has named; it leaves out a host that is its own, or that it does not know."""
    named = host.decode() if isinstance(host, bytes) else host
    return Address(asked.host if named in (None, "", "?") else str(named), int(port))


def stages_of(are_shared: Sequence[bool]) -> list[slice]:
    """Split commands, of which some are on keys that sessions share, where the order of two nodes matters.

    It does between a shared key and a session, and not between two sessions.
    """
    starts = [i for i, is_shared in enumerate(are_shared) if i == 0 or is_shared != are_shared[i - 1]]
    return [slice(start, end) for start, end in pairwise([*starts, len(are_shared)])]
