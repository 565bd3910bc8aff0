"""A server on the loopback interface and a transport to reach it."""

from __future__ import annotations

import pytest

from shadowcat.transport.upstream import Http1Transport

from .loopback import run_server


@pytest.fixture
async def server():
    async with run_server() as server:
        yield server


@pytest.fixture
async def transport():
    transport = Http1Transport()
    yield transport
    await transport.aclose()
