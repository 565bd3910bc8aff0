"""What survives between two requests of one client."""

from typing import TYPE_CHECKING

from ..lazy import load_on_demand
from .codec import decode_session as decode_session
from .codec import encode_session as encode_session
from .config import SessionConfig as SessionConfig
from .event_stream import EventStream as EventStream
from .event_stream import Reader as Reader
from .events import Cursor as Cursor
from .events import EventLog as EventLog
from .events import EventTracker as EventTracker
from .events import LogEntry as LogEntry
from .events import ResumePoint as ResumePoint
from .events import parse_cursor as parse_cursor
from .events import read_upstream_id as read_upstream_id
from .journal import EndReason as EndReason
from .journal import SessionJournal as SessionJournal
from .journal import SessionStatistics as SessionStatistics
from .lifetime import open_session_manager as open_session_manager
from .manager import SessionManager as SessionManager
from .model import EPOCH as EPOCH
from .model import Session as Session
from .model import SessionId as SessionId
from .model import SessionState as SessionState
from .model import TransportType as TransportType
from .model import UpstreamSessionId as UpstreamSessionId
from .model import epoch_of as epoch_of
from .model import parse_session_id as parse_session_id
from .persistence import PersistenceConfig as PersistenceConfig
from .persistence import PersistenceStatistics as PersistenceStatistics
from .persistence import PersistenceWorker as PersistenceWorker
from .presence import HeldId as HeldId
from .presence import Presence as Presence
from .rates import RateCounter as RateCounter
from .rates import RateTake as RateTake
from .rates import RateTaken as RateTaken
from .store import Activity as Activity
from .store import IdPage as IdPage
from .store import SessionStore as SessionStore
from .stores import InMemoryStore as InMemoryStore
from .stores import StorageBackend as StorageBackend
from .stores import StorageConfig as StorageConfig
from .stores import StorageFactory as StorageFactory
from .stream import LogLimits as LogLimits
from .stream import OwnerId as OwnerId
from .stream import Ownership as Ownership
from .stream import StreamAppend as StreamAppend
from .stream import StreamEvent as StreamEvent
from .stream import StreamId as StreamId
from .stream import StreamKey as StreamKey
from .stream import StreamKind as StreamKind
from .stream import StreamRecord as StreamRecord
from .stream import StreamSlice as StreamSlice
from .stream import new_owner_id as new_owner_id
from .streams import SessionStreams as SessionStreams
from .streams import StreamConfig as StreamConfig
from .streams import StreamStatistics as StreamStatistics

if TYPE_CHECKING:
    from .stores import FailoverConfig as FailoverConfig
    from .stores import FailoverStatistics as FailoverStatistics
    from .stores import FailoverStore as FailoverStore
    from .stores import RedisConfig as RedisConfig
    from .stores import RedisStore as RedisStore
    from .stores import SqliteConfig as SqliteConfig
    from .stores import SqliteStore as SqliteStore
    from .stores import open_failover_store as open_failover_store
    from .stores import open_redis_store as open_redis_store
    from .stores import open_sqlite_store as open_sqlite_store

__getattr__ = load_on_demand(
    __name__,
    {
        "FailoverConfig": ".stores",
        "FailoverStatistics": ".stores",
        "FailoverStore": ".stores",
        "RedisConfig": ".stores",
        "RedisStore": ".stores",
        "SqliteConfig": ".stores",
        "SqliteStore": ".stores",
        "open_failover_store": ".stores",
        "open_redis_store": ".stores",
        "open_sqlite_store": ".stores",
    },
)
