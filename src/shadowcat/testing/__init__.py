"""Play a whole conversation through the real proxy, on trio's mock clock."""

from ..protocol import SSEEvent as SSEEvent
from .client import ClientResponse as ClientResponse
from .client import ProxyClient as ProxyClient
from .connector import ScriptedConnector as ScriptedConnector
from .connector import ScriptedStream as ScriptedStream
from .kit import ProxyKit as ProxyKit
from .kit import open_proxy_kit as open_proxy_kit
from .messages import error as error
from .messages import modern_headers as modern_headers
from .messages import modern_request as modern_request
from .messages import notification as notification
from .messages import request as request
from .messages import result as result
from .stores import check_session_store as check_session_store
from .upstream import EventSender as EventSender
from .upstream import ScriptedUpstream as ScriptedUpstream
from .upstream import UpstreamCall as UpstreamCall
