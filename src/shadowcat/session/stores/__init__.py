"""The session stores that come with Shadowcat."""

from .factory import StorageBackend as StorageBackend
from .factory import StorageConfig as StorageConfig
from .factory import StorageFactory as StorageFactory
from .failover import FailoverStore as FailoverStore
from .failover import open_failover_store as open_failover_store
from .failover_config import FailoverConfig as FailoverConfig
from .failover_config import FailoverStatistics as FailoverStatistics
from .memory import InMemoryStore as InMemoryStore
from .redis import RedisConfig as RedisConfig
from .redis import RedisStore as RedisStore
from .redis import open_redis_store as open_redis_store
from .sqlite import SqliteConfig as SqliteConfig
from .sqlite import SqliteStore as SqliteStore
from .sqlite import open_sqlite_store as open_sqlite_store
