"""What can be told about a proxy, and where."""

from __future__ import annotations

import attrs

from ..errors import ConfigError

STDERR = "-"
"""Stands for standard error in place of a file."""


def _check_path(_instance: object, _attribute: object, value: str) -> None:
    if not value or "\0" in value:
        raise ConfigError(f"{value!r} is no file to write to; name one, or - for standard error")


@attrs.frozen(kw_only=True)
class LogFileConfig:
    """A file of JSON lines."""

    path: str = attrs.field(validator=_check_path)
    """The file, which is appended to; ``-`` is standard error.  One that was moved away is opened anew."""

    max_queued: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    """Lines that may wait for the disk."""

    flush_timeout: float = attrs.field(default=5.0, validator=attrs.validators.ge(0))
    """Seconds that writing what waits may take when the proxy stops."""


@attrs.frozen(kw_only=True)
class AccessLogConfig(LogFileConfig):
    """Where each exchange is written down when it is over.

    No call ever waits for it: while the disk does not keep up, lines are left out and counted.
    """


@attrs.frozen(kw_only=True)
class AuditLogConfig(LogFileConfig):
    """Where is written down who was let in or not, and what was done to the proxy."""

    wait_timeout: float = attrs.field(default=1.0, validator=attrs.validators.ge(0))
    """Seconds that what is being done waits for the disk to keep up, before it is done without being written down."""


def _check_ratio(_instance: object, _attribute: object, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"the part of calls that are traced is a number from 0 to 1, not {value!r}")


def _check_url(_instance: object, _attribute: object, value: str) -> None:
    if not value.startswith(("http://", "https://")):
        raise ConfigError("write where spans are sent as a URL, for example http://127.0.0.1:4318/v1/traces")


@attrs.frozen(kw_only=True)
class TracingConfig:
    """Where spans are sent, by OTLP over HTTP.

    Headers for the collector, which may be secret, come from ``OTEL_EXPORTER_OTLP_HEADERS``, and other
    properties of the service from ``OTEL_RESOURCE_ATTRIBUTES``.
    """

    endpoint: str = attrs.field(default="http://127.0.0.1:4318/v1/traces", validator=_check_url)
    """Where a collector takes spans."""

    sample_ratio: float = attrs.field(default=1.0, validator=_check_ratio)
    """The part of calls that are traced if their client does not say; what it says counts."""

    service_name: str = "shadowcat"


@attrs.frozen(kw_only=True)
class MetricsConfig:
    """Where Prometheus finds the metrics: at ``/metrics`` of a listener of their own."""

    bind: str = "127.0.0.1:9464"
    """Address and port.  Port 0 lets the system choose."""

    worker: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Which of several processes this is; each has the port so much higher.  0 if there is only one."""
