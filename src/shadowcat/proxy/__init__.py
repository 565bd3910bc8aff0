"""The compositions.  Read `reverse` first."""

from .app import AppConfig as AppConfig
from .app import ProxyStatistics as ProxyStatistics
from .app import ReverseProxyApp as ReverseProxyApp
from .config import EndpointConfig as EndpointConfig
from .forward import ForwardProxyConfig as ForwardProxyConfig
from .forward import serve_forward_proxy as serve_forward_proxy
from .http_sse import HttpSseConfig as HttpSseConfig
from .metrics import open_metrics as open_metrics
from .pipe_call import PipeEndpointConfig as PipeEndpointConfig
from .pump import PumpConfig as PumpConfig
from .recovery import RecoveryConfig as RecoveryConfig
from .reverse import ReverseProxyConfig as ReverseProxyConfig
from .reverse import ReverseProxyServer as ReverseProxyServer
from .reverse import ReverseProxyServerBuilder as ReverseProxyServerBuilder
from .reverse import open_reverse_proxy_app as open_reverse_proxy_app
from .reverse import run_reverse_proxy as run_reverse_proxy
from .reverse import serve_reverse_proxy as serve_reverse_proxy
from .upstream import UpstreamConfig as UpstreamConfig
