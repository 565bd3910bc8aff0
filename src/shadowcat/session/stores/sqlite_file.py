"""The file of a `SqliteStore`: what is in it, how it is opened, what its errors mean."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, Literal

import attrs

from ...errors import ConfigError, StoreCorrupt, StoreUnavailable

APPLICATION_ID: Final = 0x53484443
"""Marks the file as ours: ``SHDC``."""

_MIN_SQLITE = (3, 38)
"""For ``RETURNING`` and ``json_each``."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        # The columns beside data are the truth; what data says of them is not read.
        # A session that never expires has infinity for expires_at.
        """
        CREATE TABLE sessions (
            id TEXT PRIMARY KEY,
            data TEXT NOT NULL,
            revision INTEGER NOT NULL,
            last_activity REAL NOT NULL,
            expires_at REAL NOT NULL,
            last_event_id TEXT
        )
        """,
        "CREATE INDEX sessions_by_expiry ON sessions (expires_at)",
        # seq counts from 1 in each session, without gaps.
        """
        CREATE TABLE frames (
            session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
            seq INTEGER NOT NULL,
            direction TEXT NOT NULL,
            message BLOB NOT NULL,
            recorded_at REAL NOT NULL,
            UNIQUE (session_id, seq)
        )
        """,
    ),
    (
        # The sums, and the time of the oldest event, so that trimming need not look at
        # events that stay.  A larger id is a stream that began later.
        """
        CREATE TABLE streams (
            id INTEGER PRIMARY KEY,
            session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
            stream_id TEXT NOT NULL,
            owner TEXT NOT NULL,
            fence INTEGER NOT NULL,
            kind TEXT NOT NULL,
            request_id BLOB,
            sent_id BLOB,
            last_position INTEGER NOT NULL,
            resume_id TEXT,
            is_ended INTEGER NOT NULL,
            is_released INTEGER NOT NULL,
            appended_at REAL NOT NULL,
            event_count INTEGER NOT NULL,
            event_bytes INTEGER NOT NULL,
            oldest_at REAL NOT NULL,
            UNIQUE (session_id, stream_id)
        )
        """,
        "CREATE INDEX streams_by_end ON streams (appended_at) WHERE is_ended",
        """
        CREATE TABLE events (
            stream INTEGER NOT NULL REFERENCES streams ON DELETE CASCADE,
            position INTEGER NOT NULL,
            upstream_id TEXT,
            block BLOB NOT NULL,
            recorded_at REAL NOT NULL,
            PRIMARY KEY (stream, position)
        ) WITHOUT ROWID
        """,
        "CREATE TABLE owners (id TEXT PRIMARY KEY, alive_until REAL NOT NULL)",
    ),
)
"""How each version of the file (``user_version``) becomes the next; only ever appended to."""

_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "another process keeps the session store locked; try again later",
    sqlite3.SQLITE_LOCKED: "another process keeps the session store locked; try again later",
    sqlite3.SQLITE_PROTOCOL: "another process keeps the session store locked; try again later",
    sqlite3.SQLITE_FULL: "the disk with the session store is full; make room and try again",
    sqlite3.SQLITE_IOERR: "the session store cannot be read or written; check its disk",
    sqlite3.SQLITE_CANTOPEN: "the session store cannot be opened; check its file",
    sqlite3.SQLITE_READONLY: "the session store cannot be written; check its file",
    sqlite3.SQLITE_PERM: "the session store cannot be written; check its file",
    sqlite3.SQLITE_NOMEM: "there is no memory for the session store; try again later",
    sqlite3.SQLITE_INTERRUPT: "the session store is closed",
}

_creating = threading.Lock()


@attrs.frozen
class Connections:
    """The connections of one store.  Each may be used in any thread, by one at a time."""

    writing: sqlite3.Connection
    near: sqlite3.Connection
    """For reading in the event loop: does not wait for a lock."""

    far: sqlite3.Connection
    """For reading in a thread."""

    def close(self) -> None:
        """Close them; blocks, for the last to close folds the ``-wal`` file into the other."""
        self.near.close()
        self.far.close()
        self.writing.close()


def explain(error: Exception) -> Exception:
    """Return what a caller of the store is to be told; *error* itself if it is a bug of ours."""
    match _code_of(error):
        case None | sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISUSE | sqlite3.SQLITE_TOOBIG:
            return error
        case code if code in _UNAVAILABLE:
            explained: Exception = StoreUnavailable(_UNAVAILABLE[code])
        case _:
            explained = StoreCorrupt("the session store is damaged; it was left as it is: restore or replace its file")
    explained.__cause__ = error
    return explained


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether *error* says that somebody else holds a lock."""
    return _code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def open_connections(path: Path, busy_timeout: float) -> Connections:
    """Open the file; create it, or bring it up to date, first.

    Blocks, for about twice *busy_timeout* at most.

    Raises:
        ConfigError: There can be no such file here.
        StoreCorrupt: The file is not ours, damaged, or of a newer version; not a byte was changed.
        StoreUnavailable: It is locked, or the disk fails.
    """
    if sqlite3.sqlite_version_info < _MIN_SQLITE:
        raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: Python must be linked with 3.38 or later")
    _create(path)
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            return _open(path, busy_timeout)
        except sqlite3.Error as error:
            # SQLite does not wait when two connections turn a new file to WAL at once.
            if not is_busy(error) or time.monotonic() >= deadline:
                raise _explain_opening(error, path) from error
        time.sleep(0.01)


def _code_of(error: Exception) -> int | None:
    if not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.ProgrammingError):
        return None
    # Python's own complaint, of text that is not UTF-8, has no code.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF


def _create(path: Path) -> None:
    # A file that is there is not opened here: closing a descriptor drops every lock
    # that this process has on the file, those of SQLite for other stores included.
    with _creating:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if not path.is_file():
                raise ConfigError(f"{path} is not a regular file: choose another with --sqlite-path") from None
            return
        except OSError as error:
            raise ConfigError(_explain_creating(error, path)) from error
        try:
            os.fchmod(descriptor, 0o600)  # SQLite gives -wal and -shm the same mode
        finally:
            os.close(descriptor)


def _open(path: Path, busy_timeout: float) -> Connections:
    # A connection that may write checkpoints when it is closed, also what others left.
    with closing(_connect(path, "ro", busy_timeout)) as looking:
        looking.execute("BEGIN")
        _check(looking, path)
    with ExitStack() as opened:
        writing = opened.enter_context(closing(_connect(path, "rw", busy_timeout)))
        (mode,) = writing.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != b"wal":
            raise ConfigError(f"{path} cannot be shared on this file system: choose a local disk with --sqlite-path")
        writing.execute("PRAGMA synchronous = NORMAL")
        writing.execute("PRAGMA foreign_keys = ON")
        _upgrade(writing, path)
        near = opened.enter_context(closing(_connect(path, "ro", 0)))
        far = opened.enter_context(closing(_connect(path, "ro", busy_timeout)))
        opened.pop_all()
    return Connections(writing, near, far)


def _connect(path: Path, mode: Literal["ro", "rw"], busy_timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = bytes  # the codec reads bytes
    return connection


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    version = _check(connection, path)
    for script in MIGRATIONS[version:]:
        for statement in script:
            connection.execute(statement)
    if version < len(MIGRATIONS):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the file: 0 if it is empty.  Within a transaction, for others may be setting it up."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if (tables, application_id, version) == (0, 0, 0):
        return 0
    if application_id != APPLICATION_ID:
        raise StoreCorrupt(
            f"{path} is the database of another program; it was left untouched: choose another file with --sqlite-path"
        )
    if version > len(MIGRATIONS):
        raise StoreCorrupt(
            f"{path} was written by a newer Shadowcat; it was left untouched: "
            "upgrade Shadowcat, or choose another file with --sqlite-path"
        )
    return int(version)


def _explain_opening(error: sqlite3.Error, path: Path) -> Exception:
    match _code_of(error):
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return StoreCorrupt(
                f"{path} is damaged or no SQLite database; it was left untouched: "
                "restore it, or choose another file with --sqlite-path"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return ConfigError(
                f"{path} cannot be written: make it and its directory writable, "
                "or choose another file with --sqlite-path"
            )
        case _:
            return explain(error)


def _explain_creating(error: OSError, path: Path) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return f"the directory of {path} does not exist: create it, or choose another file with --sqlite-path"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{path} may not be created: make its directory writable, or choose another file with --sqlite-path"
        case code:
            return f"{path} cannot be created ({os.strerror(code or 0)}): choose another file with --sqlite-path"
