"""Many endpoints behind one name."""

from .balance import Strategy as Strategy
from .endpoint import Endpoint as Endpoint
from .endpoint import EndpointStatistics as EndpointStatistics
from .endpoint import Health as Health
from .endpoint import HealthConfig as HealthConfig
from .health import CheckConfig as CheckConfig
from .health import keep_checking as keep_checking
from .health import mcp_check as mcp_check
from .health import tcp_check as tcp_check
from .set import UpstreamSet as UpstreamSet
