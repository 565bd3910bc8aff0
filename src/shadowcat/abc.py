"""The extension points: what you may implement yourself."""

from .envelope import Direction as Direction
from .envelope import MessageEnvelope as MessageEnvelope
from .protocol import ResponseMode as ResponseMode
from .session import Activity as Activity
from .session import SessionId as SessionId
from .session import SessionStore as SessionStore
from .session import UpstreamSessionId as UpstreamSessionId
from .transport import Upstream as Upstream
from .transport import UpstreamRequest as UpstreamRequest
from .transport import UpstreamResponse as UpstreamResponse
