"""What survives between two requests of one client."""

from .codec import decode_session as decode_session
from .codec import encode_session as encode_session
from .manager import SessionConfig as SessionConfig
from .manager import SessionManager as SessionManager
from .manager import open_session_manager as open_session_manager
from .model import Session as Session
from .model import SessionId as SessionId
from .model import TransportType as TransportType
from .model import UpstreamSessionId as UpstreamSessionId
from .model import parse_session_id as parse_session_id
from .persistence import PersistenceConfig as PersistenceConfig
from .persistence import PersistenceStatistics as PersistenceStatistics
from .persistence import PersistenceWorker as PersistenceWorker
from .store import Activity as Activity
from .store import SessionStore as SessionStore
from .stores import InMemoryStore as InMemoryStore
