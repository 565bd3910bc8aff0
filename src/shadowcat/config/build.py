"""From values to the configuration of a proxy."""

from __future__ import annotations

from typing import Any

import attrs

from ..auth import OriginConfig
from ..errors import ConfigError
from ..proxy import EndpointConfig, ForwardProxyConfig, RecoveryConfig, ReverseProxyConfig
from ..session import LogLimits, SessionConfig, StorageBackend, StorageConfig, StreamConfig
from ..transport.downstream import ListenerConfig, TlsConfig
from ..transport.upstream import HttpUpstreamConfig
from .problem import Problems
from .server import build_children, build_server
from .storage import build_storage
from .values import Values


def build_reverse(values: Values) -> ReverseProxyConfig:
    """Return the configuration of a proxy for many clients, checked.

    Raises:
        ConfigError: Values are out of range or malformed, or contradict each other:
            all of them, as far as one does not hide another.
    """
    problems = Problems()
    parts: dict[str, Any] = {}
    storage = StorageConfig()
    with problems.collecting():
        storage = build_storage(values)
    _build_shared(values, problems, parts, default_spares=1)
    with problems.collecting():
        parts["listener"] = _build_listener(values)
    with problems.collecting():
        parts["origin"] = values.make(OriginConfig)
    with problems.collecting():
        check_workers(values, storage, parts.get("upstream"))
    with problems.collecting():
        upstream = parts.get("upstream") or HttpUpstreamConfig(url="http://not.built.invalid/")
        config = values.make(ReverseProxyConfig, **{**parts, "upstream": upstream}, storage=storage)
    problems.check()
    # A message over HTTP+SSE would have to reach the process that has its stream.
    return attrs.evolve(config, http_sse=None) if values["listener.workers"] > 1 else config


def build_listening(values: Values) -> ReverseProxyConfig:
    """As `build_reverse`, of values that say nothing of where sessions are kept: in memory."""
    problems = Problems()
    parts: dict[str, Any] = {}
    _build_shared(values, problems, parts, default_spares=1)
    with problems.collecting():
        parts["listener"] = _build_listener(values)
    with problems.collecting():
        parts["origin"] = values.make(OriginConfig)
    problems.check()
    return values.make(ReverseProxyConfig, **parts)


def _build_listener(values: Values) -> ListenerConfig:
    given = [key for key in ("listener.tls_key", "listener.tls_client_ca") if values.is_given(key)]
    if not values.is_given("listener.tls_cert"):
        if given:
            cert = values.source("listener.tls_cert")
            raise ConfigError(f"{values.source(given[0])} goes with {cert} only; give that too, or remove it")
        return values.make(ListenerConfig)
    return values.make(ListenerConfig, tls=values.make(TlsConfig))


def build_forward(values: Values) -> ForwardProxyConfig:
    """Return the configuration of a proxy for one client, checked.

    Raises:
        ConfigError: As `build_reverse`.
    """
    problems = Problems()
    parts: dict[str, Any] = {}
    _build_shared(values, problems, parts, default_spares=0)
    problems.check()
    return values.make(ForwardProxyConfig, ReverseProxyConfig, **parts)


def _build_shared(values: Values, problems: Problems, parts: dict[str, Any], *, default_spares: int) -> None:
    """Put what every proxy has into *parts*."""
    with problems.collecting():
        parts["endpoint"] = values.make(EndpointConfig)
    with problems.collecting():
        parts["recovery"] = values.make(RecoveryConfig)
    with problems.collecting():
        streams = values.make(StreamConfig, limits=values.make(LogLimits))
        parts["sessions"] = values.make(SessionConfig, streams=streams)
    with problems.collecting():
        upstream = build_server(values)
        parts["upstream"] = upstream
        if (sessions := parts.get("sessions")) is not None:
            parts["children"] = build_children(values, upstream, sessions.max_sessions, default_spares)


def check_workers(values: Values, storage: StorageConfig, upstream: object) -> None:
    """Refuse what would work with one process only.

    Any connection may reach any worker.  So a session must be in a store that all can
    read, and its upstream must be one that each can call by itself.

    Args:
        upstream: None if it is not known.

    Raises:
        ConfigError: As many processes cannot share these sessions.
    """
    count, source = values["listener.workers"], values.source("listener.workers")
    if count < 1:
        raise ConfigError(f"{source} must be at least 1, not {count}; see shadowcat reverse --help")
    if count == 1:
        return
    if storage.backend is StorageBackend.MEMORY:
        raise ConfigError(
            f"{source} {count} needs a store that processes share: "
            "give --store sqlite --sqlite-path FILE or --store redis --redis-url URL"
        )
    if upstream is not None and not isinstance(upstream, HttpUpstreamConfig):
        raise ConfigError(
            f"{source} {count} needs an upstream at an http or https URL: "
            f"one process alone holds the pipe of any other; drop {source}"
        )
