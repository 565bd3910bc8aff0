"""The process as a whole."""

import logging
from contextlib import asynccontextmanager

import pytest
import trio

from shadowcat import HttpUpstreamConfig, ReverseProxyConfig
from shadowcat.session.stores import SqliteConfig, open_failover_store, open_sqlite_store
from tests.proxy.conversation import open_session
from tests.session.stores.flaky import FlakyStore

from .administering import fill, open_admin_kit


@pytest.fixture
def root_level():
    root = logging.getLogger()
    before = root.level
    yield root
    root.setLevel(before)


async def test_health_needs_no_token():
    async with open_admin_kit() as kit:
        assert {"status": "ok"} == (await kit.admin.get("/health", token=None)).body


async def test_the_store_is_shown():
    async with open_admin_kit() as kit:
        await fill(kit.store, 3)
        shown = (await kit.admin.get("/v1/store")).body
    assert ("memory", 3, None, None) == (shown["kind"], shown["sessions"], shown["persistence"], shown["failover"])


async def test_a_file_is_shown(tmp_path):
    async with open_sqlite_store(SqliteConfig(path=tmp_path / "s.db")) as store, open_admin_kit(store=store) as kit:
        await fill(kit.store, 3)
        shown = (await kit.admin.get("/v1/store")).body
        pages = await kit.admin.pages("/v1/sessions", "sessions", limit=2)
    assert ("sqlite", 3, True) == (shown["kind"], shown["sessions"], shown["keeps_streams"])
    assert [2, 1] == [len(page) for page in pages if page]


@asynccontextmanager
async def open_fallback(primary):
    async with open_failover_store(primary) as store:
        yield store


async def test_a_fallback_is_shown(autojump_clock):
    primary = FlakyStore()
    async with open_fallback(primary) as store, open_admin_kit(store=store) as kit:
        well = (await kit.admin.get("/v1/store")).body
        primary.mode = "down"
        await fill(kit.store, 2)
        ill = (await kit.admin.get("/v1/store")).body
        primary.mode = "up"

    assert (False, 0) == (well["failover"]["is_degraded"], well["failover"]["pending"])
    assert (True, 2, 2) == (ill["failover"]["is_degraded"], ill["failover"]["pending"], ill["sessions"])


async def test_persistence_is_shown_once_there_is_some(autojump_clock):
    async with open_admin_kit() as kit:
        await open_session(kit.proxy)
        await kit.sessions.ensure_persistence_started()
        shown = (await kit.admin.get("/v1/store")).body
    assert {"pending", "written", "coalesced", "failures", "lost", "is_degraded", "batches", "flush_time"} == set(
        shown["persistence"]
    )


async def test_settings_are_shown_without_secrets():
    config = ReverseProxyConfig(
        upstream=HttpUpstreamConfig(url="https://up.example/mcp?k=s3cret", headers=[("authorization", "s3cret")]),
        path="/here",
    )
    async with open_admin_kit(config) as kit:
        shown = (await kit.admin.get("/v1/config")).body["config"]
    assert ("/here", 10_000) == (shown["path"], shown["sessions"]["max_sessions"])
    assert ["authorization", "***"] == shown["upstream"]["headers"][0]
    assert "s3cret" not in str(shown)


async def test_statistics_are_shown(autojump_clock):
    async with open_admin_kit() as kit:
        await open_session(kit.proxy)
        shown = (await kit.admin.get("/v1/statistics")).body
    assert (0, 0) == (shown["under_way"], shown["streams"]["open"])


async def test_the_log_level_is_changed(root_level):
    async with open_admin_kit() as kit:
        root_level.setLevel("INFO")
        before = (await kit.admin.get("/v1/log-level")).body
        changed = (await kit.admin.send("PUT", "/v1/log-level", {"level": "debug"})).body
    assert ("info", "debug", logging.DEBUG) == (before["level"], changed["level"], root_level.level)


@pytest.mark.parametrize("body", [{}, {"level": "loud"}, {"level": 10}, {"level": []}, {"level": "info", "more": 1}])
async def test_another_log_level_is_refused(body, root_level):
    level = root_level.level
    async with open_admin_kit() as kit:
        reply = await kit.admin.send("PUT", "/v1/log-level", body)
    assert (400, True, level) == (reply.status, "debug, info, warning, error" in reply.detail, root_level.level)
    await trio.lowlevel.checkpoint()
