"""What several processes can serve together."""

from __future__ import annotations

from ...errors import ConfigError
from ...session import StorageBackend, StorageConfig
from ...transport.upstream import HttpUpstreamConfig


def check_workers(count: int, storage: StorageConfig, upstream: object) -> None:
    """Refuse what would work with one process only.

    Any connection may reach any worker.  So a session must be in a store that all can
    read, and its upstream must be one that each can call by itself.

    Raises:
        ConfigError: *count* processes cannot share these sessions.
    """
    if count < 1:
        raise ConfigError(f"--workers must be at least 1, not {count}; see shadowcat reverse --help")
    if count == 1:
        return
    if storage.backend is StorageBackend.MEMORY:
        raise ConfigError(
            f"--workers {count} needs a store that processes share: "
            "give --store sqlite --sqlite-path FILE or --store redis --redis-url URL"
        )
    if not isinstance(upstream, HttpUpstreamConfig):
        raise ConfigError(
            f"--workers {count} needs an upstream at an http or https URL: "
            "one process alone holds the pipe of any other; drop --workers"
        )
