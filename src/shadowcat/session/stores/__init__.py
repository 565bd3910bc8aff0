"""The session stores that come with Shadowcat."""

from typing import TYPE_CHECKING

from ...lazy import load_on_demand
from .factory import StorageBackend as StorageBackend
from .factory import StorageConfig as StorageConfig
from .factory import StorageFactory as StorageFactory
from .memory import InMemoryStore as InMemoryStore

if TYPE_CHECKING:
    from .failover import FailoverStore as FailoverStore
    from .failover import open_failover_store as open_failover_store
    from .failover_config import FailoverConfig as FailoverConfig
    from .failover_config import FailoverStatistics as FailoverStatistics
    from .redis import RedisConfig as RedisConfig
    from .redis import RedisStore as RedisStore
    from .redis import open_redis_store as open_redis_store
    from .sqlite import SqliteConfig as SqliteConfig
    from .sqlite import SqliteStore as SqliteStore
    from .sqlite import open_sqlite_store as open_sqlite_store

__getattr__ = load_on_demand(
    __name__,
    {
        "FailoverStore": ".failover",
        "open_failover_store": ".failover",
        "FailoverConfig": ".failover_config",
        "FailoverStatistics": ".failover_config",
        "RedisConfig": ".redis",
        "RedisStore": ".redis",
        "open_redis_store": ".redis",
        "SqliteConfig": ".sqlite",
        "SqliteStore": ".sqlite",
        "open_sqlite_store": ".sqlite",
    },
)
