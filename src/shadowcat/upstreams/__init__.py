"""Many endpoints behind one name."""

from .balance import Strategy as Strategy
from .config import UpstreamEndpointConfig as UpstreamEndpointConfig
from .config import UpstreamSetConfig as UpstreamSetConfig
from .config import check_servers as check_servers
from .config import is_name as is_name
from .endpoint import Endpoint as Endpoint
from .endpoint import EndpointStatistics as EndpointStatistics
from .endpoint import Health as Health
from .endpoint import HealthConfig as HealthConfig
from .health import CheckConfig as CheckConfig
from .health import CheckKind as CheckKind
from .health import keep_checking as keep_checking
from .health import mcp_check as mcp_check
from .health import tcp_check as tcp_check
from .queue import ConcurrencyConfig as ConcurrencyConfig
from .reach import OpenUpstream as OpenUpstream
from .reach import UpstreamConfig as UpstreamConfig
from .reach import open_upstream as open_upstream
from .set import UpstreamSet as UpstreamSet
from .set import UpstreamSetStatistics as UpstreamSetStatistics
from .sets import UpstreamSets as UpstreamSets
from .sets import open_upstream_sets as open_upstream_sets
