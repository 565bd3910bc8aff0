"""What may be set of logs, traces and metrics."""

import pytest

from shadowcat.errors import ConfigError
from shadowcat.telemetry import AccessLogConfig, AuditLogConfig, MetricsConfig, TracingConfig


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: AccessLogConfig(path=""),
        lambda: AccessLogConfig(path="a\0b"),
        lambda: AccessLogConfig(path="a", max_queued=0),
        lambda: AuditLogConfig(path="a", wait_timeout=-1),
        lambda: AuditLogConfig(path="a", flush_timeout=-1),
        lambda: TracingConfig(sample_ratio=1.1),
        lambda: TracingConfig(sample_ratio=float("nan")),
        lambda: TracingConfig(endpoint="localhost:4318"),
        lambda: MetricsConfig(worker=-1),
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises((ConfigError, ValueError)):
        wrong()
