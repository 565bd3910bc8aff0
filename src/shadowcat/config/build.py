"""From values to the configuration of a proxy."""

from __future__ import annotations

from typing import Any

import attrs

from ..auth import OriginConfig
from ..errors import ConfigError
from ..proxy import EndpointConfig, ForwardProxyConfig, LimitsConfig, RecoveryConfig, ReverseProxyConfig, ServerRule
from ..session import LogLimits, SessionConfig, StorageBackend, StorageConfig, StreamConfig
from ..transport.downstream import ListenerConfig, TlsConfig
from ..transport.upstream import HttpUpstreamConfig
from ..upstreams import UpstreamConfig, UpstreamSetConfig
from .observing import build_logs
from .problem import Problems, SettingsError
from .server import build_children, build_upstream
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
    servers = [*filter(None, [parts.get("upstream")]), *parts.get("servers", {}).values()]
    with problems.collecting():
        parts["limits"] = values.make(LimitsConfig)
    with problems.collecting():
        parts |= build_logs(values)
    with problems.collecting():
        check_workers(values, storage, *servers)
    with problems.collecting():
        parts["rules"] = _build_rules(values)
    problems.check()
    try:
        config = values.make(ReverseProxyConfig, **parts, storage=storage)
    except SettingsError as error:
        # Some of it is about several settings at once, and none in particular.
        where = f"{values.file}:1: " if values.file else ""
        raise SettingsError(text if ": " in text else where + text for text in error.problems) from None
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
    parts.pop("servers")
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
    servers: dict[str, Any] = {}
    names = values.names_in("servers")
    for name in names:
        with problems.collecting():
            servers[name] = _build_named(values, name)
    parts["servers"] = servers
    with problems.collecting():
        if not names or _says_where(values):
            parts["upstream"] = build_upstream(values)
        if (sessions := parts.get("sessions")) is not None:
            reached = [*filter(None, [parts.get("upstream")]), *servers.values()]
            parts["children"] = build_children(values, reached, sessions.max_sessions, default_spares)


def _says_where(values: Values) -> bool:
    return any(values.is_given(f"upstream.{key}") for key in ("url", "command", "endpoints"))


def _build_named(values: Values, name: str) -> UpstreamConfig | UpstreamSetConfig:
    own = values.seen_from(f"servers.{name}", "upstream")
    if not _says_where(own):
        raise ConfigError(f"{values.source(f'servers.{name}')}: give the server a url, a command or endpoints")
    return build_upstream(own)


def _build_rules(values: Values) -> list[ServerRule]:
    known = [*values.names_in("servers"), *(["default"] if _says_where(values) else [])]
    problems = Problems()
    rules: list[ServerRule] = []
    for number in range(values.given["rules"].value if values.is_given("rules") else 0):
        own = values.seen_from(f"rules[{number}]", "rules[]")
        source = own.given.get("rules[].server")
        with problems.collecting():
            if source is None:
                raise ConfigError(f"{values.source('rules')}: rule {number + 1} names no server; give it one")
            if source.value not in known:
                names = ", ".join(known) or "none"
                raise ConfigError(f"{source.source}: there is no server {source.value!r}; there are: {names}")
            rules.append(own.make(ServerRule))
    problems.check()
    return rules


def check_workers(values: Values, storage: StorageConfig, *servers: object) -> None:
    """Refuse what would work with one process only.

    Any connection may reach any worker.  So a session must be in a store that all can
    read, and its upstream must be one that each can call by itself.

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
    sets = [server for server in servers if isinstance(server, UpstreamSetConfig)]
    addresses: list[object] = [endpoint.upstream for each in sets for endpoint in each.endpoints]
    addresses += [server for server in servers if not isinstance(server, UpstreamSetConfig)]
    if not all(isinstance(address, HttpUpstreamConfig) for address in addresses):
        raise ConfigError(
            f"{source} {count} needs an upstream at an http or https URL: "
            f"one process alone holds the pipe of any other; drop {source}"
        )
