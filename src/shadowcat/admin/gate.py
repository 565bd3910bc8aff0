"""Letting in who has the token."""

from __future__ import annotations

import hmac
import logging
from hashlib import sha256

import trio

from ..errors import TooManyRequests, Unauthorized

log = logging.getLogger(__name__)

_MAX_WAITING = 100
"""Wrong tokens that wait for their answer at once."""

_HOW = "send the token of the admin API: Authorization: Bearer TOKEN"


class TokenGate:
    """Compares tokens in constant time, and answers wrong ones slowly.

    Args:
        failures_per_second: Wrong tokens that are answered in a second.
    """

    def __init__(self, token: str, failures_per_second: float) -> None:
        self._digest = _digest(token.encode())
        self._interval = 1.0 / failures_per_second
        self._next_turn = 0.0
        self._waiting = 0
        self.failures = 0
        """Requests that were not let in."""

    async def check(self, authorization: bytes | None) -> None:
        """Return if *authorization* has the token.  Cancel safe.

        Raises:
            Unauthorized: It has not; told in turn, some time later if there are many.
            TooManyRequests: As `Unauthorized`, and too many wait to be told already.
        """
        scheme, _, token = (authorization or b"").partition(b" ")
        is_right = hmac.compare_digest(_digest(token.strip()), self._digest)
        if scheme.lower() == b"bearer" and is_right:
            await trio.lowlevel.checkpoint()
            return
        self.failures += 1
        if self._waiting >= _MAX_WAITING:
            raise TooManyRequests("too many requests have a wrong token; wait a little, and correct it")
        await self._wait_for_turn()
        if authorization is None:
            raise Unauthorized(f"this needs a token; {_HOW}")
        log.warning("a request to the admin API had a wrong token")
        raise Unauthorized(f"the token is wrong; {_HOW}")

    async def _wait_for_turn(self) -> None:
        now = trio.current_time()
        turn = max(self._next_turn, now)
        self._next_turn = turn + self._interval
        self._waiting += 1
        try:
            await trio.sleep_until(turn)
        finally:
            self._waiting -= 1


def _digest(token: bytes) -> bytes:
    # Of one length, so that comparing does not tell how long the right one is.
    return sha256(token).digest()
