"""A store that fails when it is told to."""

from __future__ import annotations

import trio

from shadowcat.errors import StoreUnavailable
from shadowcat.session import InMemoryStore


class FlakyStore(InMemoryStore):
    """Up until `mode` says otherwise; as slow as a network, that is, a checkpoint before and after."""

    def __init__(self):
        super().__init__()
        self.mode = "up"
        """Or ``down``: refuses.  ``deaf``: does it, and says that it failed.  ``hung``: never answers."""
        self.calls = 0


def _flaky(method):
    async def call(self, *args, **kwargs):
        self.calls += 1
        await trio.lowlevel.checkpoint()
        if self.mode == "down":
            raise StoreUnavailable("scripted")
        if self.mode == "hung":
            await trio.sleep_forever()
        outcome = await method(self, *args, **kwargs)
        await trio.lowlevel.checkpoint()
        if self.mode == "deaf":
            raise StoreUnavailable("scripted")
        return outcome

    return call


for _name, _method in list(vars(InMemoryStore).items()):
    if not _name.startswith("_") and callable(_method):
        setattr(FlakyStore, _name, _flaky(_method))
