"""Which store to use, as a setting."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from ...errors import ConfigError
from ..store import SessionStore
from .memory import InMemoryStore

if TYPE_CHECKING:
    from .redis import RedisConfig
    from .sqlite import SqliteConfig


class StorageBackend(enum.Enum):
    """A kind of store that comes with Shadowcat."""

    MEMORY = "memory"
    """This process's memory: sessions end with it."""

    SQLITE = "sqlite"
    """A file: sessions survive the process, and several processes of one machine share them."""

    REDIS = "redis"
    """A Redis server: any number of proxies share them."""


@attrs.frozen(kw_only=True)
class StorageConfig:
    """A store, and what it needs; checked as a whole when it is made."""

    backend: StorageBackend = StorageBackend.MEMORY
    sqlite: SqliteConfig | None = None
    redis: RedisConfig | None = None
    has_fallback: bool = False
    """Whether requests go on from memory while Redis cannot be reached."""

    def __attrs_post_init__(self) -> None:
        if (self.sqlite is not None) != (self.backend is StorageBackend.SQLITE):
            raise ConfigError("a SQLite file goes with the sqlite store; give both --store sqlite and --sqlite-path")
        if (self.redis is not None) != (self.backend is StorageBackend.REDIS):
            raise ConfigError("a Redis URL goes with the redis store; give both --store redis and --redis-url")
        if self.has_fallback and self.backend is not StorageBackend.REDIS:
            raise ConfigError("only the redis store has something to fall back from; drop --store-fallback")


class StorageFactory:
    """Opens the store that a `StorageConfig` describes."""

    @staticmethod
    @asynccontextmanager
    async def open(config: StorageConfig) -> AsyncGenerator[SessionStore, None]:
        """Keep sessions as *config* says for as long as the block lasts; close the store then.

        Raises:
            ConfigError: It cannot work; for Redis, the extra may be missing.
            StoreUnavailable: It cannot be reached, and there is no fallback.
            StoreCorrupt: The SQLite file is not ours, or damaged; it was left untouched.
        """
        async with AsyncExitStack() as stack:
            store: SessionStore = InMemoryStore(keeps_streams=False)
            # What a store takes to import, only those pay who use it.
            if config.sqlite is not None:
                from .sqlite import open_sqlite_store

                store = await stack.enter_async_context(open_sqlite_store(config.sqlite))
            elif config.redis is not None:
                from .failover import open_failover_store
                from .redis import open_redis_store

                store = await stack.enter_async_context(open_redis_store(config.redis, may_be_down=config.has_fallback))
                if config.has_fallback:
                    store = await stack.enter_async_context(open_failover_store(store))
            yield store
