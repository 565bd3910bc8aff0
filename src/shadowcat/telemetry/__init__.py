"""What is told about a running proxy."""

from typing import TYPE_CHECKING

from ..lazy import load_on_demand
from .config import STDERR as STDERR
from .config import AccessLogConfig as AccessLogConfig
from .config import AuditLogConfig as AuditLogConfig
from .config import MetricsConfig as MetricsConfig
from .config import TracingConfig as TracingConfig
from .logs import FORMATS as FORMATS
from .logs import LEVELS as LEVELS
from .logs import configure_logging as configure_logging

if TYPE_CHECKING:
    from .access import AccessLog as AccessLog
    from .access import open_access_log as open_access_log
    from .audit import AuditEvent as AuditEvent
    from .audit import AuditLog as AuditLog
    from .audit import open_audit_log as open_audit_log
    from .calls import CallCounts as CallCounts
    from .histogram import Histogram as Histogram
    from .json_lines import JsonLines as JsonLines
    from .lag import LoopLag as LoopLag
    from .tracing import Tracer as Tracer
    from .tracing import open_tracing as open_tracing

__getattr__ = load_on_demand(
    __name__,
    {
        "AccessLog": ".access",
        "AuditEvent": ".audit",
        "AuditLog": ".audit",
        "CallCounts": ".calls",
        "Histogram": ".histogram",
        "JsonLines": ".json_lines",
        "LoopLag": ".lag",
        "Tracer": ".tracing",
        "open_access_log": ".access",
        "open_audit_log": ".audit",
        "open_tracing": ".tracing",
    },
)
