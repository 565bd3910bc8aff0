"""Shadowcat: a proxy for the Model Context Protocol, on Trio."""

from importlib.metadata import version as _version

from .auth import OriginConfig as OriginConfig
from .proxy import AppConfig as AppConfig
from .proxy import EndpointConfig as EndpointConfig
from .proxy import ProxyStatistics as ProxyStatistics
from .proxy import PumpConfig as PumpConfig
from .proxy import RecoveryConfig as RecoveryConfig
from .proxy import ReverseProxyApp as ReverseProxyApp
from .proxy import ReverseProxyConfig as ReverseProxyConfig
from .proxy import ReverseProxyServer as ReverseProxyServer
from .proxy import ReverseProxyServerBuilder as ReverseProxyServerBuilder
from .proxy import open_reverse_proxy_app as open_reverse_proxy_app
from .proxy import run_reverse_proxy as run_reverse_proxy
from .proxy import serve_reverse_proxy as serve_reverse_proxy
from .resilience import BackoffConfig as BackoffConfig
from .session import FailoverConfig as FailoverConfig
from .session import FailoverStore as FailoverStore
from .session import InMemoryStore as InMemoryStore
from .session import LogLimits as LogLimits
from .session import PersistenceConfig as PersistenceConfig
from .session import PersistenceStatistics as PersistenceStatistics
from .session import RedisConfig as RedisConfig
from .session import RedisStore as RedisStore
from .session import Session as Session
from .session import SessionConfig as SessionConfig
from .session import SessionStore as SessionStore
from .session import SqliteConfig as SqliteConfig
from .session import SqliteStore as SqliteStore
from .session import StorageBackend as StorageBackend
from .session import StorageConfig as StorageConfig
from .session import StorageFactory as StorageFactory
from .session import StreamConfig as StreamConfig
from .session import StreamStatistics as StreamStatistics
from .transport.downstream import ListenerConfig as ListenerConfig
from .transport.upstream import HttpUpstream as HttpUpstream
from .transport.upstream import HttpUpstreamConfig as HttpUpstreamConfig
from .transport.upstream import PipeConfig as PipeConfig
from .transport.upstream import PipeStatistics as PipeStatistics
from .transport.upstream import PipeUpstream as PipeUpstream
from .transport.upstream import open_pipe_upstream as open_pipe_upstream

__version__ = _version("shadowcat")
