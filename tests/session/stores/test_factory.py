"""A store by its setting."""

import sys

import pytest

from shadowcat import (
    FailoverStore,
    InMemoryStore,
    RedisConfig,
    SqliteConfig,
    SqliteStore,
    StorageBackend,
    StorageConfig,
    StorageFactory,
)
from shadowcat.errors import ConfigError, StoreUnavailable
from shadowcat.session import Session, SessionId

NOWHERE = RedisConfig(url="redis://127.0.0.1:1", connect_timeout=0.5)


async def test_memory_is_the_default():
    """Nothing to configure."""
    async with StorageFactory.open(StorageConfig()) as store:
        assert isinstance(store, InMemoryStore)


async def test_sqlite_keeps_sessions_in_its_file(tmp_path):
    """It is closed at the end of the block, and can be opened again."""
    config = StorageConfig(backend=StorageBackend.SQLITE, sqlite=SqliteConfig(path=tmp_path / "sessions.db"))
    async with StorageFactory.open(config) as store:
        assert isinstance(store, SqliteStore)
        await store.create_session(Session(id=SessionId("s")))
    async with StorageFactory.open(config) as store:
        assert await store.count_sessions() == 1


async def test_redis_that_cannot_be_reached_is_an_error():
    """Found at the start, not with the first request."""
    with pytest.raises(StoreUnavailable, match="start it"):
        async with StorageFactory.open(StorageConfig(backend=StorageBackend.REDIS, redis=NOWHERE)):
            pytest.fail("there is no server")


async def test_redis_that_cannot_be_reached_is_replaced_if_allowed():
    """Sessions can be opened in the outage."""
    config = StorageConfig(backend=StorageBackend.REDIS, redis=NOWHERE, has_fallback=True)
    async with StorageFactory.open(config) as store:
        assert isinstance(store, FailoverStore)
        await store.create_session(Session(id=SessionId("s")))
        assert (await store.get_session(SessionId("s"))).id == "s"


async def test_missing_extra_is_named(monkeypatch):
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "coredis", None)
    with pytest.raises(ConfigError, match=r"shadowcat\[redis\]"):
        async with StorageFactory.open(StorageConfig(backend=StorageBackend.REDIS, redis=NOWHERE)):
            pytest.fail("coredis is not there")


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": StorageBackend.SQLITE},
        {"backend": StorageBackend.REDIS},
        {"sqlite": SqliteConfig(path="x")},
        {"redis": NOWHERE},
        {"has_fallback": True},
        {"backend": StorageBackend.SQLITE, "sqlite": SqliteConfig(path="x"), "has_fallback": True},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings):
    """Before anything is opened."""
    with pytest.raises(ConfigError, match="--"):
        StorageConfig(**settings)
