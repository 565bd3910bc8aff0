"""The ways to reach an MCP server."""

from .http import HttpUpstream as HttpUpstream
from .http import HttpUpstreamConfig as HttpUpstreamConfig
from .pipe_config import PipeConfig as PipeConfig
from .pipe_config import PipeStatistics as PipeStatistics
from .pipes import PipeUpstream as PipeUpstream
from .pipes import open_pipe_upstream as open_pipe_upstream
from .pool import Http1Transport as Http1Transport
