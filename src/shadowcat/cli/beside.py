"""What a command serves about a proxy, beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from ..config import BesideConfig
from ..proxy import Beside, ReverseProxyApp


@asynccontextmanager
async def open_beside(
    config: BesideConfig, more: Beside | None, worker: int, app: ReverseProxyApp
) -> AsyncGenerator[None, None]:
    """Serve metrics and the admin API of *app*, as far as they are wanted, for as long as the block lasts.

    Args:
        more: Opened after them.
        worker: Which of several processes this is; 0 if there is one.

    Raises:
        ConfigError: An address cannot be bound.
    """
    async with AsyncExitStack() as stack:
        if config.metrics is not None:
            # Imported when it is used, as the next: it takes a while.
            from ..proxy import open_metrics

            await stack.enter_async_context(open_metrics(app, attrs.evolve(config.metrics, worker=worker)))
        if config.admin is not None:
            from ..admin import open_admin

            await stack.enter_async_context(open_admin(app, config.admin))
        if more is not None:
            await stack.enter_async_context(more(app))
        yield
