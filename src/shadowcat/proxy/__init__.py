"""The compositions.  Read `reverse` first."""

from ..upstreams import UpstreamConfig as UpstreamConfig
from .answers import Answer as Answer
from .app import AppConfig as AppConfig
from .app import ProxyStatistics as ProxyStatistics
from .app import ReverseProxyApp as ReverseProxyApp
from .boundary import serve_safely as serve_safely
from .builder import ReverseProxyServer as ReverseProxyServer
from .builder import ReverseProxyServerBuilder as ReverseProxyServerBuilder
from .builder import run_reverse_proxy as run_reverse_proxy
from .config import EndpointConfig as EndpointConfig
from .forward import ForwardProxyConfig as ForwardProxyConfig
from .forward import serve_forward_proxy as serve_forward_proxy
from .http_sse import HttpSseConfig as HttpSseConfig
from .limits import Limits as Limits
from .limits import LimitStatistics as LimitStatistics
from .limits_config import LimitsConfig as LimitsConfig
from .metrics import open_metrics as open_metrics
from .pipe_call import PipeEndpointConfig as PipeEndpointConfig
from .pump import PumpConfig as PumpConfig
from .recovery import RecoveryConfig as RecoveryConfig
from .reverse import Beside as Beside
from .reverse import ReverseProxyConfig as ReverseProxyConfig
from .reverse import nothing_beside as nothing_beside
from .reverse import open_reverse_proxy_app as open_reverse_proxy_app
from .reverse import serve_reverse_proxy as serve_reverse_proxy
from .rules import ServerRule as ServerRule
