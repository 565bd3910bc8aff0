"""The client's side: listening, and serving ASGI applications over HTTP/1.1.

Which HTTP server does the work is known inside this package only.
"""

from .http_sse import HttpSseClientStream as HttpSseClientStream
from .http_sse import endpoint_uri as endpoint_uri
from .listener import ListenerConfig as ListenerConfig
from .listener import bind_socket as bind_socket
from .listener import is_loopback as is_loopback
from .listener import open_listening_socket as open_listening_socket
from .listener import parse_bind as parse_bind
from .listener import start_listening as start_listening
from .listener import url_of as url_of
from .server import serve_asgi as serve_asgi
from .stdio import open_stdio as open_stdio
from .tls import ServerTls as ServerTls
from .tls import TlsConfig as TlsConfig
from .tls import build_context as build_context
