"""The MCP server behind the proxy: a URL, or a command to run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigError
from ..resilience import CircuitConfig
from ..transport.upstream import (
    HttpSseUpstreamConfig,
    HttpUpstreamConfig,
    PipeConfig,
    StdioConfig,
    WebSocketUpstreamConfig,
)
from ..upstreams import (
    CheckConfig,
    ConcurrencyConfig,
    HealthConfig,
    UpstreamConfig,
    UpstreamEndpointConfig,
    UpstreamSetConfig,
)
from .problem import Problems
from .values import Given, Origin, Values

_WEBSOCKET_SCHEMES = ("ws", "wss")

_OF_A_SET = ("upstream.strategy", "upstream.drain_timeout", "upstream.endpoints")
_OF_A_SET_PARTS = ("upstream.health.", "upstream.circuit.", "upstream.concurrency.")

_FOR_A_URL = ("upstream.transport", "upstream.ca_file", "upstream.headers", "upstream.header_env")
_FOR_COMMANDS = ("upstream.max_children", "upstream.spares")
"""What holds for the commands of all servers."""

_FOR_A_COMMAND = ("upstream.env", "upstream.env_pass", "upstream.cwd")


def build_upstream(values: Values) -> UpstreamConfig | UpstreamSetConfig:
    """Return the server that *values* describe: one address, or several, or one that is watched.

    Raises:
        ConfigError: They name none, or something in them does not go with the rest.
    """
    if not is_set(values):
        return build_server(values)
    problems = Problems()
    endpoints: list[UpstreamEndpointConfig] = []
    for number in range(values.given["upstream.endpoints"].value if values.is_given("upstream.endpoints") else 0):
        with problems.collecting():
            endpoints.append(_build_endpoint(values, number))
    if not values.is_given("upstream.endpoints"):
        with problems.collecting():
            endpoints.append(UpstreamEndpointConfig(name="default", upstream=build_server(values)))
    elif values.is_given("upstream.url") or values.is_given("upstream.command"):
        with problems.collecting():
            one = "upstream.url" if values.is_given("upstream.url") else "upstream.command"
            raise ConfigError(f"{values.source(one)} goes without endpoints only; make it one of them")
    parts: dict[str, Any] = {"check": None, "circuit": None}
    with problems.collecting():
        parts["health"] = values.make(HealthConfig)
    with problems.collecting():
        if values["upstream.health.check"] != "none":
            parts["check"] = values.make(CheckConfig)
    with problems.collecting():
        if values["upstream.circuit.enabled"]:
            parts["circuit"] = values.make(CircuitConfig)
    with problems.collecting():
        parts["concurrency"] = values.make(ConcurrencyConfig)
    problems.check()
    try:
        return values.make(UpstreamSetConfig, endpoints=endpoints, **parts)
    except ConfigError as error:
        key = "upstream.endpoints" if values.is_given("upstream.endpoints") else "upstream.health.check"
        raise ConfigError(f"{values.source(key)}: {error}") from None


def is_set(values: Values) -> bool:
    """Tell whether the server has endpoints, or is watched, rather than being a plain address."""
    return any(values.is_given(key) for key in _OF_A_SET) or any(
        key.startswith(_OF_A_SET_PARTS) for key in values.given
    )


def _build_endpoint(values: Values, number: int) -> UpstreamEndpointConfig:
    place = f"upstream.endpoints[{number}]"
    own = values.seen_from(place, "upstream.endpoints[]")
    if not own.is_given("upstream.endpoints[].name"):
        raise ConfigError(f"{_first_source(values, place)}: give the endpoint a name, which no other has")
    both = [key for key in ("url", "command") if own.is_given(f"upstream.endpoints[].{key}")]
    reached = values.without("upstream.url", "upstream.command").with_given(
        {f"upstream.{key}": own.given[f"upstream.endpoints[].{key}"] for key in both}
    )
    if not both:
        raise ConfigError(f"{_first_source(values, place)}: give the endpoint a url, or a command")
    return own.make(UpstreamEndpointConfig, upstream=build_server(reached))


def _first_source(values: Values, place: str) -> str:
    inside = [given.source for key, given in values.given.items() if key.startswith(f"{place}.")]
    return inside[0] if inside else values.source(place.partition("[")[0])


def build_server(values: Values) -> UpstreamConfig:
    """Return the one address that *values* name.

    Raises:
        ConfigError: They name none, or two, or say something that does not go with it.
    """
    url, command = values["upstream.url"], values["upstream.command"]
    if command and url is not None:
        raise ConfigError(
            f"{_name(values, 'upstream.url')} and {_name(values, 'upstream.command')} are two servers; give one of them"
        )
    if command:
        _refuse(values, _FOR_A_URL, "upstream.url")
        _check_passed(values)
        return values.make(StdioConfig)
    if url is None:
        where = f"{values.file}:1: " if values.file else ""
        raise ConfigError(
            f"{where}name the MCP server: give --upstream URL, or -- COMMAND and its arguments at the end"
            f"{', or set upstream.url or upstream.command' if where else ''}"
        )
    _refuse(values, _FOR_A_COMMAND, "upstream.command")
    if not any(key.endswith(".command") for key in values.given):
        _refuse(values, _FOR_COMMANDS, "upstream.command")
    return _build_by_url(values, url)


def _name(values: Values, key: str) -> str:
    """Return how an error calls *key*: where it was said, or how it could be."""
    if key == "upstream.command" and values.origin(key) in (Origin.FLAG, Origin.DEFAULT):
        return "a command after --"
    return values.source(key)


def _build_by_url(values: Values, url: str) -> UpstreamConfig:
    scheme = url.partition(":")[0]
    is_websocket = scheme in _WEBSOCKET_SCHEMES
    transport = values["upstream.transport"] or "auto"
    if transport not in ("auto", "ws" if is_websocket else transport) or (transport == "ws" and not is_websocket):
        wanted = "ws or wss" if transport == "ws" else "http or https"
        raise ConfigError(
            f"{values.source('upstream.transport')} {transport} goes with a {wanted} URL, not with {scheme!r}"
        )
    kind: type[WebSocketUpstreamConfig | HttpSseUpstreamConfig | HttpUpstreamConfig]
    kind = (
        WebSocketUpstreamConfig if is_websocket else HttpSseUpstreamConfig if transport == "sse" else HttpUpstreamConfig
    )
    return _with_headers(values).make(kind, HttpUpstreamConfig)


def _with_headers(values: Values) -> Values:
    """Return *values* with all headers under one key; those of flags are in place of what is said elsewhere."""
    variables = values.given.get("upstream.header_env")
    if variables is None:
        return values
    others = values["upstream.headers"] if values.origin("upstream.headers") is Origin.FLAG else []
    source = values.source("upstream.headers") if others else variables.source
    both = Given([*others, *variables.value], source, Origin.FLAG)
    return values.with_given({"upstream.headers": both})


def build_children(
    values: Values, servers: Iterable[UpstreamConfig | UpstreamSetConfig], max_sessions: int, default_spares: int
) -> PipeConfig:
    """Return how clients share *servers*.

    Args:
        max_sessions: How many there may be.
        default_spares: What is kept ready if *values* do not say.

    Raises:
        ConfigError: A number is out of range.
    """
    reached = [address for server in servers for address in _addresses(server)]
    if all(isinstance(address, HttpUpstreamConfig) for address in reached):
        return PipeConfig(spares=default_spares)
    if not any(isinstance(address, StdioConfig) for address in reached):
        # Connections, not processes: the limit of sessions is theirs.
        return PipeConfig(max_sessions=max_sessions, spares=0)
    if values.is_given("upstream.spares"):
        return values.make(PipeConfig)
    return values.make(PipeConfig, spares=default_spares)


def _addresses(server: UpstreamConfig | UpstreamSetConfig) -> list[UpstreamConfig]:
    if isinstance(server, UpstreamSetConfig):
        return [endpoint.upstream for endpoint in server.endpoints]
    return [server]


def _refuse(values: Values, keys: Iterable[str], other: str) -> None:
    for key in keys:
        if values.is_given(key):
            name = other if values.origin(key) is Origin.FILE else _name(values, other)
            raise ConfigError(f"{values.source(key)} goes with {name} only; remove it")


def _check_passed(values: Values) -> None:
    for name in values["upstream.env_pass"] or ():
        if name not in os.environ:
            source = values.source("upstream.env_pass")
            raise ConfigError(f"{source} {name!r}: the variable is not set; set it, or leave it out")
