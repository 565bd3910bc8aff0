"""The extension points: what you may implement yourself."""

from .session import SessionStore as SessionStore
from .transport import Upstream as Upstream
from .transport import UpstreamRequest as UpstreamRequest
from .transport import UpstreamResponse as UpstreamResponse
