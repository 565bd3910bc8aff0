"""Where sessions are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..session import StorageBackend, StorageConfig
from .values import Origin, Values

if TYPE_CHECKING:
    from ..session import RedisConfig, SqliteConfig


def build_storage(values: Values) -> StorageConfig:
    """Return the store that *values* choose.

    Raises:
        ConfigError: They contradict each other.
    """
    store = values["sessions.store"]
    path = _said(values, "sessions.sqlite_path", store == "sqlite")
    url = _said(values, "sessions.redis_url", store == "redis")
    prefix = _said(values, "sessions.redis_prefix", store == "redis")
    if prefix and not url:
        source = values.source("sessions.redis_prefix")
        raise ConfigError(f"{source} goes with {values.source('sessions.redis_url')}; give both or neither")
    try:
        return StorageConfig(
            backend=StorageBackend(store),
            sqlite=_sqlite(path) if path else None,
            redis=_redis(url, prefix) if url else None,
            has_fallback=values["sessions.store_fallback"] == "memory",
        )
    except ConfigError as error:
        keys = ("sqlite_path", "redis_url", "store_fallback", "store")
        said = [values.source(f"sessions.{key}") for key in keys if values.is_given(f"sessions.{key}")]
        raise ConfigError(f"{', '.join(said)}: {error}") from None


def _said(values: Values, key: str, is_chosen: bool) -> str | None:
    # What the environment says of a store that is not chosen is for another program.
    if not is_chosen and values.origin(key) is Origin.ENVIRONMENT:
        return None
    return values[key]  # type: ignore[no-any-return]


def _sqlite(path: str) -> SqliteConfig:
    # To import a store takes a while; only those pay who use it.
    from ..session import SqliteConfig

    return SqliteConfig(path=path)


def _redis(url: str, prefix: str | None) -> RedisConfig:
    from ..session import RedisConfig

    return RedisConfig(url=url, prefix=prefix) if prefix else RedisConfig(url=url)
