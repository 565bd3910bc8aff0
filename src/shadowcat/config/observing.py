"""What is told about a proxy, and who may steer it."""

from __future__ import annotations

from typing import TypeVar

import attrs

from ..admin import AdminConfig
from ..errors import ConfigError
from ..telemetry import AccessLogConfig, AuditLogConfig, MetricsConfig, TracingConfig
from ..transport.downstream import parse_bind
from .observing_table import SWITCHES
from .problem import Problems
from .values import Origin, Values

T = TypeVar("T")

_MAX_TOKEN_FILE = 8192
_LAST_PORT = 65535


@attrs.frozen(kw_only=True)
class BesideConfig:
    """What is served about a proxy, on listeners of its own."""

    metrics: MetricsConfig | None = None
    admin: AdminConfig | None = None


def build_beside(values: Values) -> BesideConfig:
    """Return what *values* want to be served about a proxy.

    Raises:
        ConfigError: A value is out of range or malformed, or values contradict each other.
    """
    problems = Problems()
    metrics: MetricsConfig | None = None
    admin: AdminConfig | None = None
    with problems.collecting():
        metrics = _build_metrics(values)
    with problems.collecting():
        admin = _build_admin(values)
    problems.check()
    _check_ports(values, metrics, admin)
    return BesideConfig(metrics=metrics, admin=admin)


def _check_ports(values: Values, metrics: MetricsConfig | None, admin: AdminConfig | None) -> None:
    taken = {parse_bind(values["listener.bind"]): values.source("listener.bind")}
    wanted = [("admin.bind", parse_bind(admin.bind))] if admin is not None else []
    if metrics is not None:
        host, port = parse_bind(metrics.bind)
        workers = range(1, values["listener.workers"] + 1) if values["listener.workers"] > 1 else (0,)
        wanted += [("metrics.bind", (host, port + worker)) for worker in workers if port]
    for key, address in wanted:
        if address[1] > _LAST_PORT:
            raise ConfigError(f"{values.source(key)}: each worker has a port of its own, and ports go to {_LAST_PORT}")
        other = taken.setdefault(address, values.source(key))
        if address[1] and other != values.source(key):
            told = f"port {address[1]} is that of {other} too"
            raise ConfigError(f"{values.source(key)}: {told}; choose another for one of them")


def build_logs(values: Values) -> dict[str, object]:
    """Return, by their names in a proxy's configuration, where *values* want exchanges to be told of.

    Raises:
        ConfigError: As `build_beside`.
    """
    problems = Problems()
    parts: dict[str, object] = {}
    with problems.collecting():
        parts["access"] = _make(values, "access_log", AccessLogConfig)
    with problems.collecting():
        parts["audit"] = _make(values, "audit_log", AuditLogConfig)
    with problems.collecting():
        parts["tracing"] = _make(values, "tracing", TracingConfig)
    problems.check()
    return parts


def _make(values: Values, section: str, kind: type[T]) -> T | None:
    return values.make(kind) if _is_on(values, section) else None


def _is_on(values: Values, section: str) -> bool:
    """Tell whether *section* is wanted; refuse what would have no effect."""
    switches = SWITCHES[section]
    if any(values.is_given(key) for key in switches):
        return True
    for key in values.settings:
        # What the environment says of what is off is for another program.
        is_meant = values.is_given(key) and values.origin(key) is not Origin.ENVIRONMENT
        if is_meant and key.startswith(f"{section}."):
            wanted = values.source(switches[-1])
            raise ConfigError(f"{values.source(key)} goes with {wanted} only; give that too, or remove it")
    return False


def _build_metrics(values: Values) -> MetricsConfig | None:
    config = _make(values, "metrics", MetricsConfig)
    if config is not None:
        try:
            parse_bind(config.bind)
        except ConfigError as error:
            raise ConfigError(f"{values.source('metrics.bind')}: {error}") from None
    return config


def _build_admin(values: Values) -> AdminConfig | None:
    if not _is_on(values, "admin"):
        return None
    if not values.is_given("admin.token_file"):
        config = values.make(AdminConfig)
    elif values.is_given("admin.token") and values.origin("admin.token") is not Origin.ENVIRONMENT:
        sources = f"{values.source('admin.token')} and {values.source('admin.token_file')}"
        raise ConfigError(f"{sources} both give the admin token; remove one of them")
    else:
        # A variable too is for the commands that ask the API.
        config = values.without("admin.token").make(AdminConfig, token=_read_token(values))
    if values["listener.workers"] > 1:
        source = values.source("admin.token_file" if values.is_given("admin.token_file") else "admin.token")
        raise ConfigError(
            f"{source}: the admin API is that of one process; drop it, or {values.source('listener.workers')}"
        )
    return config


def _read_token(values: Values) -> str:
    path, source = values["admin.token_file"], values.source("admin.token_file")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(_MAX_TOKEN_FILE).strip()
    except OSError as error:
        raise ConfigError(f"{source}: {path!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: {path!r} is not text") from None
