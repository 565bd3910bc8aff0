"""The ways to reach an MCP server."""

from .http import HttpUpstream as HttpUpstream
from .http import HttpUpstreamConfig as HttpUpstreamConfig
from .http import load_trust as load_trust
from .http_sse import HttpSseConnector as HttpSseConnector
from .http_sse import HttpSseUpstreamConfig as HttpSseUpstreamConfig
from .pipe_config import PipeConfig as PipeConfig
from .pipe_config import PipeStatistics as PipeStatistics
from .pipes import PipeUpstream as PipeUpstream
from .pipes import open_pipe_upstream as open_pipe_upstream
from .pool import Http1Transport as Http1Transport
from .pool import Http1TransportStatistics as Http1TransportStatistics
from .stdio import StdioConfig as StdioConfig
from .stdio import StdioConnector as StdioConnector
from .websocket import WebSocketConnector as WebSocketConnector
from .websocket import WebSocketUpstreamConfig as WebSocketUpstreamConfig
