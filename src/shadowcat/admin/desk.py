"""What the routes of the admin API work with."""

from __future__ import annotations

from collections.abc import Sequence

from ..proxy import ReverseProxyApp
from ..session import SessionManager, SessionStore, StreamKey
from .cursor import Cursors


class Desk:
    """A proxy, and the places that listings have come to."""

    def __init__(self, app: ReverseProxyApp) -> None:
        self.app = app
        self.session_places: Cursors[str] = Cursors(1000)
        """As the store has them."""
        self.stream_places: Cursors[tuple[Sequence[StreamKey], int]] = Cursors(64)
        """The streams there were as the listing began, and how many have been listed."""

    @property
    def sessions(self) -> SessionManager:
        """The sessions of the proxy."""
        return self.app.sessions

    @property
    def store(self) -> SessionStore:
        """Where they are kept."""
        return self.app.sessions.store
