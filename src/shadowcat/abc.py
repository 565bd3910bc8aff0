"""The extension points: what you may implement yourself."""

from .envelope import Direction as Direction
from .envelope import MessageEnvelope as MessageEnvelope
from .protocol import ResponseMode as ResponseMode
from .session import Activity as Activity
from .session import LogLimits as LogLimits
from .session import OwnerId as OwnerId
from .session import RateCounter as RateCounter
from .session import RateTake as RateTake
from .session import RateTaken as RateTaken
from .session import SessionId as SessionId
from .session import SessionStore as SessionStore
from .session import StreamAppend as StreamAppend
from .session import StreamEvent as StreamEvent
from .session import StreamId as StreamId
from .session import StreamKey as StreamKey
from .session import StreamKind as StreamKind
from .session import StreamRecord as StreamRecord
from .session import StreamSlice as StreamSlice
from .session import UpstreamSessionId as UpstreamSessionId
from .transport import Connector as Connector
from .transport import MessageStream as MessageStream
from .transport import Upstream as Upstream
from .transport import UpstreamRequest as UpstreamRequest
from .transport import UpstreamResponse as UpstreamResponse
