"""Bytes to messages and back; knows nothing of sessions or proxies."""

from .asgi import ASGIApp as ASGIApp
from .asgi import BodyStream as BodyStream
from .asgi import Exchange as Exchange
from .asgi import Receive as Receive
from .asgi import Scope as Scope
from .asgi import Send as Send
from .base import Connector as Connector
from .base import MessageStream as MessageStream
from .base import RawHeaders as RawHeaders
from .base import Upstream as Upstream
from .base import UpstreamRequest as UpstreamRequest
from .base import UpstreamResponse as UpstreamResponse
from .lines import LineStream as LineStream
from .websocket import SocketStream as SocketStream
from .websocket import Upgrade as Upgrade
