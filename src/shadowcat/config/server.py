"""The MCP server behind the proxy: a URL, or a command to run."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..errors import ConfigError
from ..proxy import UpstreamConfig
from ..transport.upstream import (
    HttpSseUpstreamConfig,
    HttpUpstreamConfig,
    PipeConfig,
    StdioConfig,
    WebSocketUpstreamConfig,
)
from .values import Given, Origin, Values

_WEBSOCKET_SCHEMES = ("ws", "wss")

_FOR_A_URL = ("upstream.transport", "upstream.ca_file", "upstream.headers", "upstream.header_env")
_FOR_A_COMMAND = ("upstream.env", "upstream.env_pass", "upstream.cwd", "upstream.max_children", "upstream.spares")


def build_server(values: Values) -> UpstreamConfig:
    """Return what *values* name.

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


def build_children(values: Values, upstream: UpstreamConfig, max_sessions: int, default_spares: int) -> PipeConfig:
    """Return how clients share *upstream*.

    Args:
        max_sessions: How many there may be.
        default_spares: What is kept ready if *values* do not say.

    Raises:
        ConfigError: A number is out of range.
    """
    if isinstance(upstream, HttpUpstreamConfig):
        return PipeConfig(spares=default_spares)
    if not isinstance(upstream, StdioConfig):
        # Connections, not processes: the limit of sessions is theirs.
        return PipeConfig(max_sessions=max_sessions, spares=0)
    if values.is_given("upstream.spares"):
        return values.make(PipeConfig)
    return values.make(PipeConfig, spares=default_spares)


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
