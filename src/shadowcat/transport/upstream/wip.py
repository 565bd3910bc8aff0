"""Stand-in."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs


@attrs.frozen(kw_only=True)
class PipeConfig:
    """Stand-in."""

    max_sessions: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    spares: int = attrs.field(default=1, validator=attrs.validators.ge(0))


@asynccontextmanager
async def open_pipe_upstream(connector, config):
    yield None
