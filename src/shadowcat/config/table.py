"""Every setting there is.  Flags, variables, the file, its schema and the reference come from here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs

from ..auth import OriginConfig
from ..proxy import EndpointConfig, LimitsConfig, RecoveryConfig, ReverseProxyConfig
from ..session import LogLimits, SessionConfig, StorageBackend, StreamConfig
from ..telemetry import FORMATS, LEVELS
from ..transport.downstream import ListenerConfig, TlsConfig
from ..transport.upstream import HttpUpstreamConfig, PipeConfig, StdioConfig
from .kind import (
    BOOLEAN,
    FINITE,
    HEADER_VARIABLES,
    HEADERS,
    SECONDS,
    SECRET,
    TABLE,
    TEXT,
    TEXTS,
    VARIABLES,
    WHOLE,
    WORDS,
    Kind,
    choice,
    named,
)
from .observing_table import OBSERVING
from .servers_table import RULES, SET, SHARED, with_names
from .setting import FORWARD, REVERSE, Setting

TRANSPORTS = ("auto", "streamable-http", "sse", "ws")
STORES = tuple(backend.value for backend in StorageBackend)
FALLBACKS = ("none", "memory")

SECTIONS = {
    "listener": ("listener", "where clients connect, and who may"),
    "upstream": ("the MCP server", "either a URL, or a command after --"),
    "servers.*": ("servers", "a server with a name, which clients find below the path, at /mcp/NAME"),
    "rules": ("rules", "which server a request means that names none; the first rule that matches, or else [upstream]"),
    "sessions": ("sessions", "where they are kept"),
    "streams": ("streams", "what is kept of event streams, for clients that come back"),
    "limits": ("limits", None),
    "limits.rate": ("rates", "how many messages clients may send; a message must pass all limits it comes under"),
    "log": ("log", None),
    "metrics": ("metrics", "for Prometheus; needs pip install 'shadowcat[metrics]'"),
    "access_log": ("access log", "what was asked, and how it was answered; without bodies and secrets"),
    "audit_log": (
        "audit log",
        "sessions, refused requests, circuits, reloads, and what the admin API was used for",
    ),
    "tracing": ("tracing", "OpenTelemetry; needs pip install 'shadowcat[otel]'"),
    "admin": ("admin API", "sessions, streams and servers of a running proxy, to be looked at and steered"),
}
"""How ``--help`` calls the sections of the file, and what it says of them."""


def _setting(key: str, kind: Kind, text: str, flag: str | None = None, **rest: object) -> Setting:
    return Setting(key=key, kind=kind, help=text, flag=flag, **rest)  # type: ignore[arg-type]


_reverse = partial(_setting, commands=frozenset({REVERSE}))
_file = named(TEXT, "FILE")

LISTENER = (
    _setting(
        "listener.bind", named(TEXT, "HOST:PORT"), "address and port; port 0 takes a free one", "--bind",
        owner=ListenerConfig,
    ),
    _setting("listener.path", TEXT, "where clients find the MCP endpoint", "--path", owner=ReverseProxyConfig),
    _reverse(
        "listener.workers", WHOLE, "processes that serve; more than 1 need the sqlite or redis store", "--workers",
        fallback=1,
    ),
    _setting("listener.tls_cert", named(TEXT, "PEM"), "serve https, with the certificate in this file", "--tls-cert",
             owner=TlsConfig, field="cert_file", is_live=True),
    _setting("listener.tls_key", named(TEXT, "PEM"), "the key of it, if it has a file of its own", "--tls-key",
             owner=TlsConfig, field="key_file", is_live=True),
    _setting("listener.tls_client_ca", named(TEXT, "PEM"),
             "let in only clients with a certificate of these authorities", "--tls-client-ca",
             owner=TlsConfig, field="client_ca_file", is_live=True),
    _setting(
        "listener.allow_hosts", named(TEXTS, "HOST"), "let in this Host beside loopback names",
        "--allow-host", owner=OriginConfig, field="allowed_hosts",
    ),
    _setting(
        "listener.allow_origins", named(TEXTS, "ORIGIN"), "let in web pages of this origin",
        "--allow-origin", owner=OriginConfig, field="allowed_origins",
    ),
)  # fmt: skip

UPSTREAM: tuple[Setting, ...] = (
    _setting("upstream.command", named(WORDS, "COMMAND"), "the MCP server to run, and its arguments",
             owner=StdioConfig),
    _setting(
        "upstream.url", named(TEXT, "URL"), "where it is, with its path: http, https, ws or wss", "--upstream",
        owner=HttpUpstreamConfig,
    ),
    _setting(
        "upstream.transport", choice(*TRANSPORTS), "sse is the transport of 2024-11-05", "--upstream-transport",
        said_default="auto (ws for ws and wss, else streamable-http)",
    ),
    _setting("upstream.ca_file", named(TEXT, "PEM"), "trust these authorities for https and wss", "--ca-file",
             owner=HttpUpstreamConfig),
    _setting("upstream.headers", HEADERS, "send this header upstream", "--upstream-header",
             owner=HttpUpstreamConfig),
    _setting(
        "upstream.header_env", HEADER_VARIABLES,
        "send this header upstream, its value taken from the environment: for secrets",
        "--upstream-header-env", in_file=False, in_environment=False,
    ),
    _setting(
        "upstream.forward_headers", named(TEXTS, "NAME"),
        "pass this request header upstream, for example Authorization; credentials never pass otherwise",
        "--forward-header", owner=EndpointConfig,
    ),
    _setting("upstream.connect_timeout", SECONDS, "seconds to connect to the upstream", "--connect-timeout",
             owner=HttpUpstreamConfig),
    _setting("upstream.answer_timeout", SECONDS, "seconds until the upstream begins to answer a call",
             "--answer-timeout", owner=HttpUpstreamConfig),
    _setting("upstream.env", VARIABLES, "set this variable for the command", "--env",
             owner=StdioConfig),
    _setting("upstream.env_pass", named(TEXTS, "NAME"),
             "pass this variable on to the command; few others are", "--env-pass",
             owner=StdioConfig, field="inherit"),
    _setting("upstream.cwd", named(TEXT, "DIR"), "run the command in this directory", "--cwd", owner=StdioConfig),
    _setting("upstream.max_children", WHOLE, "commands run at once, one a session", "--max-children",
             owner=PipeConfig, field="max_sessions"),
    _setting("upstream.spares", WHOLE, "commands started before a session needs them", "--spares",
             owner=PipeConfig, said_default="1, 0 for one client"),
)  # fmt: skip

UPSTREAM = tuple(attrs.evolve(setting, is_live=setting.name not in SHARED) for setting in UPSTREAM)

SESSIONS = (
    _reverse("sessions.store", choice(*STORES), "where sessions are kept", "--store", fallback="memory"),
    _reverse("sessions.sqlite_path", _file, "the file of the sqlite store; made if there is none", "--sqlite-path"),
    _reverse("sessions.redis_url", named(SECRET, "URL"),
             "the server of the redis store: redis://HOST:PORT/DATABASE", "--redis-url"),
    _reverse("sessions.redis_prefix", named(TEXT, "PREFIX"), "of every key in Redis", "--redis-prefix",
             said_default="shadowcat"),
    _reverse(
        "sessions.store_fallback", choice(*FALLBACKS),
        "while Redis cannot be reached, refuse (none) or go on from memory", "--store-fallback", fallback="none",
    ),
    _setting(
        "sessions.recovery", BOOLEAN,
        "whether a session that the upstream has lost is opened again there; if not, its 404 is passed on",
        "--no-session-recovery",
        flag_help="pass on the 404 of an upstream that has lost a session, instead of opening another there",
        owner=RecoveryConfig, field="is_enabled",
    ),
    _setting("sessions.max_age", SECONDS, "seconds after which a session ends though it is used",
             "--session-max-age", owner=SessionConfig),
    _setting("sessions.idle_timeout", SECONDS, "seconds after which an unused session ends",
             "--session-idle-timeout", owner=SessionConfig, field="max_idle"),
)  # fmt: skip

STREAMS = (
    _setting("streams.replay_events", WHOLE, "newest events kept of a stream", "--replay-events",
             owner=LogLimits, field="max_events"),
    _setting("streams.replay_bytes", WHOLE, "bytes of those", "--replay-bytes", owner=LogLimits, field="max_bytes"),
    _setting("streams.replay_age", FINITE, "seconds that they are kept", "--replay-age",
             owner=LogLimits, field="max_age"),
    _setting("streams.linger", FINITE, "seconds that the upstream is read for a client that has left", "--linger",
             owner=StreamConfig),
    _setting("streams.heartbeat_interval", SECONDS, "seconds of silence before a comment on an event stream",
             "--heartbeat-interval", owner=EndpointConfig),
)  # fmt: skip

LIMITS = (
    _setting("limits.max_body_size", WHOLE, "bytes of a message of a client", "--max-body-size",
             owner=EndpointConfig),
    _setting("limits.max_sessions", WHOLE, "sessions open at once", "--max-sessions", owner=SessionConfig),
    _setting("limits.shutdown_timeout", SECONDS, "seconds that calls have to finish at shutdown",
             "--shutdown-timeout", owner=ReverseProxyConfig),
)  # fmt: skip

_rate = partial(_reverse, owner=LimitsConfig, is_live=True)

RATES = (
    _rate("limits.rate.total", TEXT, "messages of all clients together, as 100/s, 60/min burst 20 or 1000/h"),
    _rate("limits.rate.per_client", TEXT, "messages from one address"),
    _rate("limits.rate.per_session", TEXT, "messages in one session"),
    _rate("limits.rate.per_method", TABLE, "by method, messages of all clients; * is each that is not named",
          in_environment=False),
    _rate("limits.rate.per_tool", TABLE, "by tool, calls of all clients; * is each that is not named",
          in_environment=False),
    _rate("limits.rate.trusted_proxies", named(TEXTS, "NETWORK"),
          "networks, as 10.0.0.0/8, of proxies whose word is taken for where a request comes from"),
    _rate("limits.rate.client_header", TEXT, "the header in which they say it, x-forwarded-for or forwarded"),
    _rate("limits.rate.max_keys", WHOLE, "clients, sessions, methods or tools that one limit keeps count of"),
)  # fmt: skip

LOG = (
    _setting("log.level", choice(*LEVELS), "what is logged, and what is worse", "--log-level", fallback="info",
             is_live=True),
    _setting("log.format", choice(*FORMATS), "auto is human on a terminal, else json", "--log-format",
             fallback="auto", is_live=True),
)  # fmt: skip

SETTINGS: tuple[Setting, ...] = (
    *LISTENER,
    *UPSTREAM,
    *SET,
    *with_names((*UPSTREAM, *SET)),
    *RULES,
    *SESSIONS,
    *STREAMS,
    *LIMITS,
    *RATES,
    *LOG,
    *OBSERVING,
)

_IN_FORWARD: Mapping[str, Any] = {
    "help": "listen here instead",
    "said_default": "standard input and output",
    # What the environment says to others is not meant for a program that talks to its parent.
    "in_environment": False,
}


def settings_of(command: str) -> tuple[Setting, ...]:
    """Return the settings that *command* has."""
    return tuple(
        attrs.evolve(setting, **_IN_FORWARD) if command == FORWARD and setting.key == "listener.bind" else setting
        for setting in SETTINGS
        if command in setting.commands
    )
