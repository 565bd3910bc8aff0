"""Messages of a server that wait until somebody listens."""

from __future__ import annotations

from collections import deque

from ...protocol import Notification, Request


class HeldMessages:
    """A bounded queue, in which requests are worth more than notifications.

    Args:
        max_count: Messages that are kept.
        max_bytes: Bytes of them together.
    """

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.dropped = 0
        """Notifications that were given up so far."""
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._size = 0
        self._requests: dict[int, bytes] = {}
        self._notifications: deque[tuple[int, bytes]] = deque()
        self._number = 0

    def __len__(self) -> int:
        return len(self._requests) + len(self._notifications)

    def add(self, message: Request | Notification, text: bytes) -> bool:
        """Keep a message, at the price of the oldest notifications; say whether that is possible.

        A notification that does not fit counts as dropped; a request that does not has
        to be answered by somebody.
        """
        is_request = isinstance(message, Request)
        while self._notifications and not self._has_room(text):
            self._size -= len(self._notifications.popleft()[1])
            self.dropped += 1
        if not self._has_room(text):
            self.dropped += not is_request
            return False
        if is_request:
            self._requests[self._number] = text
        else:
            self._notifications.append((self._number, text))
        self._number += 1
        self._size += len(text)
        return True

    def _has_room(self, text: bytes) -> bool:
        return len(self) < self._max_count and self._size + len(text) <= self._max_bytes

    def take_all(self) -> list[bytes]:
        """Return everything, in the order in which it came, and keep nothing."""
        found = sorted([*self._requests.items(), *self._notifications])
        self._requests.clear()
        self._notifications.clear()
        self._size = 0
        return [text for _, text in found]
