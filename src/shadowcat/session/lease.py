"""Being known as alive to those that share the store."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from ..errors import StoreError
from .store import SessionStore
from .stream import new_owner_id

log = logging.getLogger(__name__)

_RENEWALS = 3
"""Times that a lease is renewed while it lasts, so that one may fail."""


class OwnerLease:
    """Says in the store that this process lives, whatever the number of its streams.

    Args:
        timeout: Seconds that others wait after the last sign of life.
    """

    def __init__(self, store: SessionStore, timeout: float) -> None:
        self.owner = new_owner_id()
        self._store = store
        self._timeout = timeout
        self._renewed_at = -math.inf

    async def ensure(self) -> None:
        """Renew the lease if it is time.

        Raises:
            StoreError: It could not be.
        """
        now = trio.current_time()
        if now >= self._renewed_at + self._timeout / _RENEWALS:
            await self._store.renew_owner(self.owner, self._timeout)
            self._renewed_at = now

    async def keep(self, is_needed: Callable[[], bool]) -> None:
        """Renew the lease, as well as the store allows, until it is not needed any more."""
        while is_needed():
            try:
                await self.ensure()
            except (StoreError, OSError) as error:
                log.debug("the store was not told that this proxy lives: %s", error)
            await trio.sleep(self._timeout / _RENEWALS)

    async def give_up(self) -> None:
        """Let others have this process's streams at once, if the store can be told so."""
        if self._renewed_at == -math.inf:
            return
        try:
            await self._store.renew_owner(self.owner, 0)
        except (StoreError, OSError) as error:
            log.debug("the store was not told that this proxy ends: %s", error)
