"""Metrics and the admin API, as a command serves them beside a proxy."""

from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from shadowcat import MetricsConfig, ReverseProxyConfig
from shadowcat.admin import AdminConfig
from shadowcat.cli.beside import open_beside
from shadowcat.config import BesideConfig
from shadowcat.testing import open_proxy_kit
from shadowcat.transport.upstream import HttpUpstreamConfig

TOKEN = "a-token-of-24-characters"
CONFIG = ReverseProxyConfig(upstream=HttpUpstreamConfig(url="http://upstream.invalid/mcp"))


@pytest.fixture
def said(caplog):
    """Return the URL that the log gives for what it says is served."""
    caplog.set_level("INFO")
    return lambda what: next(
        word for message in caplog.messages if what in message for word in message.split() if word.startswith("http")
    )


async def test_what_is_wanted_is_served_and_what_is_given_is_opened_within(said):
    opened = []

    @asynccontextmanager
    async def more(app):
        opened.append(app)
        yield
        opened.clear()

    config = BesideConfig(metrics=MetricsConfig(bind="127.0.0.1:0"), admin=AdminConfig(bind="127.0.0.1:0", token=TOKEN))
    async with open_proxy_kit(CONFIG) as kit, httpx.AsyncClient() as client:
        with trio.fail_after(10):
            async with open_beside(config, more, 0, kit.app):
                assert opened == [kit.app]
                assert "shadowcat_build_info" in (await client.get(said("metrics"))).text
                answer = await client.get(f"{said('admin')}/v1/sessions", headers={"Authorization": f"Bearer {TOKEN}"})
                assert answer.status_code == 200
        assert opened == []


async def test_nothing_is_served_that_nobody_wants(caplog):
    caplog.set_level("INFO")
    async with open_proxy_kit(CONFIG) as kit, open_beside(BesideConfig(), None, 0, kit.app):
        pass
    assert not [message for message in caplog.messages if "served" in message]
