"""The settings of what is told about a proxy, and of those who may steer it."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..admin import AdminConfig
from ..telemetry import AccessLogConfig, AuditLogConfig, MetricsConfig, TracingConfig
from .kind import SECONDS, SECRET, TEXT, TEXTS, WHOLE, Kind, named
from .setting import REVERSE, Setting


def _setting(key: str, kind: Kind, text: str, flag: str | None = None, **rest: Any) -> Setting:
    return Setting(key=key, kind=kind, help=text, flag=flag, commands=frozenset({REVERSE}), **rest)


_OFF = {"said_default": "off"}
_file = named(TEXT, "FILE")

METRICS = (
    _setting("metrics.bind", named(TEXT, "HOST:PORT"), "serve Prometheus metrics there, at /metrics; "
             "of several workers each at a port of its own, counted up from this", "--metrics-bind",
             owner=MetricsConfig, **_OFF),
)  # fmt: skip


def _log_file(section: str, owner: type[Any], text: str, *more: Setting) -> tuple[Setting, ...]:
    of = partial(_setting, owner=owner)
    flag = f"--{section.replace('_', '-')}"
    return (
        of(f"{section}.path", _file, f"{text}; - is standard error", flag, **_OFF),
        of(f"{section}.max_queued", WHOLE, "lines that may wait for the disk"),
        of(f"{section}.flush_timeout", SECONDS, "seconds to write what waits at shutdown"),
        *more,
    )


ACCESS_LOG = _log_file("access_log", AccessLogConfig, "write a line of JSON for each exchange that is over")
AUDIT_LOG = _log_file(
    "audit_log", AuditLogConfig, "write down as JSON who was let in, and what was done to the proxy",
    _setting("audit_log.wait_timeout", SECONDS, "seconds that what is done waits for the disk, "
             "before it goes on and is not written down", owner=AuditLogConfig),
)  # fmt: skip

TRACING = (
    _setting("tracing.endpoint", named(TEXT, "URL"), "send traces there, by OTLP over HTTP, "
             "as http://127.0.0.1:4318/v1/traces", "--trace-endpoint", owner=TracingConfig, **_OFF),
    _setting("tracing.sample_ratio", SECONDS, "the part of calls that are traced if their client does not say, from 0 "
             "to 1", owner=TracingConfig),
    _setting("tracing.service_name", TEXT, "what the proxy is called in traces", owner=TracingConfig),
)  # fmt: skip

ADMIN = (
    _setting("admin.bind", named(TEXT, "HOST:PORT"), "where the admin API listens, if there is a token for it",
             "--admin-bind", owner=AdminConfig),
    _setting("admin.token_file", _file, "serve the admin API to those who have the token in this file",
             "--admin-token-file", **_OFF),
    _setting("admin.token", SECRET, "the token itself, of at least 16 characters", owner=AdminConfig, **_OFF),
    _setting("admin.allowed_hosts", named(TEXTS, "HOST"), "let in this Host beside loopback names",
             owner=AdminConfig, in_environment=False),
    _setting("admin.failures_per_second", SECONDS, "wrong tokens that are answered in a second", owner=AdminConfig),
)  # fmt: skip

OBSERVING = (*METRICS, *ACCESS_LOG, *AUDIT_LOG, *TRACING, *ADMIN)

SWITCHES = {
    "metrics": ("metrics.bind",),
    "access_log": ("access_log.path",),
    "audit_log": ("audit_log.path",),
    "tracing": ("tracing.endpoint",),
    "admin": ("admin.token", "admin.token_file"),
}
"""By section, the keys of which one has to be given, or nothing of it is there."""
