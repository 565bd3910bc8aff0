"""Where sessions are kept, as the command line and the environment say it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..session import StorageBackend, StorageConfig

if TYPE_CHECKING:
    from ..session import RedisConfig, SqliteConfig

_STORES = tuple(backend.value for backend in StorageBackend)
_FALLBACKS = ("none", "memory")


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group(
        "sessions", "each option can also be set in the environment, --sqlite-path as $SHADOWCAT_SQLITE_PATH"
    )
    group.add_argument("--store", choices=_STORES, help="where sessions are kept; default: memory")
    group.add_argument("--sqlite-path", metavar="FILE", help="the file of the sqlite store; made if there is none")
    group.add_argument("--redis-url", metavar="URL", help="the server of the redis store: redis://HOST:PORT/DATABASE")
    group.add_argument("--redis-prefix", metavar="PREFIX", help="of every key in Redis; default: shadowcat")
    group.add_argument(
        "--store-fallback",
        choices=_FALLBACKS,
        help="while Redis cannot be reached, refuse (none) or go on from memory; default: none",
    )


def build_storage(args: argparse.Namespace, environ: Mapping[str, str]) -> StorageConfig:
    """Return the store that *args* choose, and *environ* where they say nothing.

    Raises:
        ConfigError: They contradict each other.
    """
    store = args.store or _choice(environ, "SHADOWCAT_STORE", _STORES)
    fallback = args.store_fallback or _choice(environ, "SHADOWCAT_STORE_FALLBACK", _FALLBACKS)
    path, url, prefix = args.sqlite_path, args.redis_url, args.redis_prefix
    # What the environment says of a store that is not chosen is for another program.
    if store == "sqlite":
        path = path or environ.get("SHADOWCAT_SQLITE_PATH")
    if store == "redis":
        url, prefix = url or environ.get("SHADOWCAT_REDIS_URL"), prefix or environ.get("SHADOWCAT_REDIS_PREFIX")
    if prefix and not url:
        raise ConfigError("--redis-prefix goes with --redis-url; give both or neither")
    return StorageConfig(
        backend=StorageBackend(store),
        sqlite=_sqlite(path) if path else None,
        redis=_redis(url, prefix) if url else None,
        has_fallback=fallback == "memory",
    )


def _sqlite(path: str) -> SqliteConfig:
    # To import a store takes a while; only those pay who use it.
    from ..session import SqliteConfig

    return SqliteConfig(path=path)


def _redis(url: str, prefix: str | None) -> RedisConfig:
    from ..session import RedisConfig

    return RedisConfig(url=url, prefix=prefix) if prefix else RedisConfig(url=url)


def _choice(environ: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    value = environ.get(name) or choices[0]
    if value not in choices:
        raise ConfigError(f"${name} is {value!r}; set it to one of: {', '.join(choices)}")
    return value
