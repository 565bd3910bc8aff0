"""Shadowcat: a proxy for the Model Context Protocol, on Trio."""

from typing import TYPE_CHECKING
from typing import Any as _Any

from .auth import OriginConfig as OriginConfig
from .lazy import load_on_demand as _load_on_demand
from .proxy import AppConfig as AppConfig
from .proxy import EndpointConfig as EndpointConfig
from .proxy import ForwardProxyConfig as ForwardProxyConfig
from .proxy import HttpSseConfig as HttpSseConfig
from .proxy import Limits as Limits
from .proxy import LimitsConfig as LimitsConfig
from .proxy import LimitStatistics as LimitStatistics
from .proxy import PipeEndpointConfig as PipeEndpointConfig
from .proxy import ProxyStatistics as ProxyStatistics
from .proxy import PumpConfig as PumpConfig
from .proxy import RecoveryConfig as RecoveryConfig
from .proxy import ReverseProxyApp as ReverseProxyApp
from .proxy import ReverseProxyConfig as ReverseProxyConfig
from .proxy import ReverseProxyServer as ReverseProxyServer
from .proxy import ReverseProxyServerBuilder as ReverseProxyServerBuilder
from .proxy import ServerRule as ServerRule
from .proxy import open_metrics as open_metrics
from .proxy import open_reverse_proxy_app as open_reverse_proxy_app
from .proxy import run_reverse_proxy as run_reverse_proxy
from .proxy import serve_forward_proxy as serve_forward_proxy
from .proxy import serve_reverse_proxy as serve_reverse_proxy
from .resilience import BackoffConfig as BackoffConfig
from .resilience import CircuitConfig as CircuitConfig
from .resilience import CircuitState as CircuitState
from .resilience import RateLimit as RateLimit
from .resilience import read_rate_limit as read_rate_limit
from .session import EndReason as EndReason
from .session import InMemoryStore as InMemoryStore
from .session import LogLimits as LogLimits
from .session import PersistenceConfig as PersistenceConfig
from .session import PersistenceStatistics as PersistenceStatistics
from .session import Session as Session
from .session import SessionConfig as SessionConfig
from .session import SessionStatistics as SessionStatistics
from .session import SessionStore as SessionStore
from .session import StorageBackend as StorageBackend
from .session import StorageConfig as StorageConfig
from .session import StorageFactory as StorageFactory
from .session import StreamConfig as StreamConfig
from .session import StreamStatistics as StreamStatistics
from .telemetry import AccessLogConfig as AccessLogConfig
from .telemetry import AuditLogConfig as AuditLogConfig
from .telemetry import MetricsConfig as MetricsConfig
from .telemetry import TracingConfig as TracingConfig
from .transport.downstream import ListenerConfig as ListenerConfig
from .transport.downstream import open_stdio as open_stdio
from .transport.upstream import HttpSseUpstreamConfig as HttpSseUpstreamConfig
from .transport.upstream import HttpUpstream as HttpUpstream
from .transport.upstream import HttpUpstreamConfig as HttpUpstreamConfig
from .transport.upstream import PipeConfig as PipeConfig
from .transport.upstream import PipeStatistics as PipeStatistics
from .transport.upstream import PipeUpstream as PipeUpstream
from .transport.upstream import StdioConfig as StdioConfig
from .transport.upstream import WebSocketUpstreamConfig as WebSocketUpstreamConfig
from .transport.upstream import open_pipe_upstream as open_pipe_upstream
from .upstreams import CheckConfig as CheckConfig
from .upstreams import CheckKind as CheckKind
from .upstreams import ConcurrencyConfig as ConcurrencyConfig
from .upstreams import Endpoint as Endpoint
from .upstreams import EndpointStatistics as EndpointStatistics
from .upstreams import Health as Health
from .upstreams import HealthConfig as HealthConfig
from .upstreams import Strategy as Strategy
from .upstreams import UpstreamConfig as UpstreamConfig
from .upstreams import UpstreamEndpointConfig as UpstreamEndpointConfig
from .upstreams import UpstreamSet as UpstreamSet
from .upstreams import UpstreamSetConfig as UpstreamSetConfig
from .upstreams import UpstreamSetStatistics as UpstreamSetStatistics

if TYPE_CHECKING:
    __version__: str
    from .admin import AdminConfig as AdminConfig
    from .admin import open_admin as open_admin
    from .session import FailoverConfig as FailoverConfig
    from .session import FailoverStore as FailoverStore
    from .session import RedisConfig as RedisConfig
    from .session import RedisStore as RedisStore
    from .session import SqliteConfig as SqliteConfig
    from .session import SqliteStore as SqliteStore

_load = _load_on_demand(
    __name__,
    {
        "AdminConfig": ".admin",
        "open_admin": ".admin",
        "FailoverConfig": ".session",
        "FailoverStore": ".session",
        "RedisConfig": ".session",
        "RedisStore": ".session",
        "SqliteConfig": ".session",
        "SqliteStore": ".session",
    },
)


def __getattr__(name: str) -> _Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("shadowcat")
    return _load(name)
