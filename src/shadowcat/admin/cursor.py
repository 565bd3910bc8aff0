"""Places in a listing, as somebody outside may have them.

What a store needs to go on is or holds a session's id, which is a credential.  So it stays
here, under a name that means nothing.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Generic, TypeVar

from ..errors import InvalidRequest

T = TypeVar("T")


class Cursors(Generic[T]):
    """Keeps the latest places that were handed out; a place can be gone back to.

    Args:
        max_kept: Beyond that, the place that was used longest ago is forgotten.
    """

    def __init__(self, max_kept: int) -> None:
        self._places: OrderedDict[str, T] = OrderedDict()
        self._max_kept = max_kept

    def put(self, place: T) -> str:
        """Keep *place*; return its name."""
        name = secrets.token_urlsafe(12)
        self._places[name] = place
        if len(self._places) > self._max_kept:
            self._places.popitem(last=False)
        return name

    def get(self, name: str) -> T:
        """Return the place called *name*.

        Raises:
            InvalidRequest: There is none, or none any more.
        """
        try:
            self._places.move_to_end(name)
        except KeyError:
            raise InvalidRequest("this cursor is not known, or not any more; list again without a cursor") from None
        return self._places[name]
