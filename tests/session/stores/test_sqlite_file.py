"""The file of the SQLite store: made for its owner only, checked before it is touched."""

import hashlib
import os
import sqlite3
import stat
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from shadowcat.errors import ConfigError, StoreCorrupt, StoreUnavailable
from shadowcat.session.stores import sqlite_file
from shadowcat.session.stores.sqlite_file import APPLICATION_ID, MIGRATIONS, explain, open_connections
from shadowcat.session.stores.sqlite_streams import append
from shadowcat.testing.store_contract.client import LIMITS, append_of, event_at

NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


def execute(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_ours(path):
    open_connections(path, 1.0).close()


@contextmanager
def as_nobody(path: Path):
    """Be a user who may not write: root may anything."""
    if os.geteuid() != 0:
        yield
        return
    modes = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in path.parents}
    for parent, mode in modes.items():
        parent.chmod(mode | stat.S_IXOTH)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for parent, mode in modes.items():
            parent.chmod(mode)


def test_new_file_is_marked_as_ours(path):
    """The file says whose it is and of which version."""
    with closing(open_connections(path, 1.0)) as connections:
        assert (APPLICATION_ID,) == connections.near.execute("PRAGMA application_id").fetchone()
        assert (len(MIGRATIONS),) == connections.near.execute("PRAGMA user_version").fetchone()
        assert (b"wal",) == connections.near.execute("PRAGMA journal_mode").fetchone()
        assert (1,) == connections.writing.execute("PRAGMA synchronous").fetchone()


def test_opening_again_keeps_what_is_there(path):
    """A file of ours is opened as it is."""
    make_ours(path)
    execute(path, "INSERT INTO sessions VALUES ('a', '{}', 0, 0, 9e999, NULL)")

    with closing(open_connections(path, 1.0)) as connections:
        assert [(b"a",)] == connections.near.execute("SELECT id FROM sessions").fetchall()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_files_are_for_their_owner_only(path, umask):
    """All three files have mode 0600, whatever the umask."""
    before = os.umask(umask)
    try:
        connections = open_connections(path, 1.0)
    finally:
        os.umask(before)
    with closing(connections):
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert {"sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600} == modes


def test_mode_of_a_file_that_is_there_is_left_alone(path):
    """The operator's choice stands."""
    make_ours(path)
    path.chmod(0o640)

    make_ours(path)

    assert 0o640 == stat.S_IMODE(path.stat().st_mode)


def test_opened_by_many_threads_at_once(tmp_path):
    """A new file is set up once, whoever comes first."""
    problems = []

    def open_it(path, start):
        start.wait()
        try:
            make_ours(path)
        except Exception as error:
            problems.append(error)

    for number in range(20):
        start = threading.Barrier(8)
        threads = [threading.Thread(target=open_it, args=(tmp_path / f"{number}.db", start)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [] == problems


def test_set_up_by_another_just_now(path, monkeypatch):
    """SQLite does not wait for another process that is setting up the file; we do."""
    path.touch()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        naps = []

        def nap(seconds):
            naps.append(seconds)
            other.execute("ROLLBACK")

        monkeypatch.setattr(time, "sleep", nap)
        make_ours(path)

    assert 1 == len(naps)


def spoil_nothing(path):
    path.write_bytes(b"this is no database, but somebody's letter" * 100)


def spoil_pages(path):
    make_ours(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)


def spoil_end(path):
    make_ours(path)
    os.truncate(path, 4096)


def write_newer(path):
    make_ours(path)
    execute(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


def write_foreign(path):
    execute(path, "CREATE TABLE theirs (a)")


def write_foreign_wal(path):
    execute(path, "PRAGMA journal_mode = WAL", "PRAGMA application_id = 7", "CREATE TABLE theirs (a)")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (spoil_nothing, "is damaged or no SQLite database"),
        (spoil_pages, "is damaged or no SQLite database"),
        (spoil_end, "is damaged or no SQLite database"),
        (write_newer, "upgrade Shadowcat, or choose another file with --sqlite-path"),
        (write_foreign, "is the database of another program"),
        (write_foreign_wal, "is the database of another program"),
    ],
)
def test_what_is_not_ours_is_left_untouched(path, write, sentence):
    """Not a byte of a file that we cannot read is changed."""
    write(path)
    before = digest(path)

    with pytest.raises(StoreCorrupt, match=sentence) as caught:
        open_connections(path, 1.0)

    assert str(path) in str(caught.value)
    assert before == digest(path)


def test_foreign_wal_is_not_folded_in(path):
    """What another program has written, but not yet moved to its file, stays where it is."""
    theirs = sqlite3.connect(path, isolation_level=None)
    theirs.execute("PRAGMA journal_mode = WAL")
    theirs.execute("CREATE TABLE theirs (a)")
    wal = path.with_name("sessions.db-wal")
    copies = path.parent / "copies"
    copies.mkdir()
    for file in (path, wal):
        (copies / file.name).write_bytes(file.read_bytes())
    theirs.close()
    before = digest(copies / path.name), digest(copies / wal.name)

    with pytest.raises(StoreCorrupt, match="another program"):
        open_connections(copies / path.name, 1.0)

    assert before == (digest(copies / path.name), digest(copies / wal.name))


def test_empty_file_becomes_ours(path):
    """A process that died between making the file and setting it up does no harm."""
    path.touch()

    make_ours(path)

    assert APPLICATION_ID.to_bytes(4, "big") == path.read_bytes()[68:72]


def test_older_file_is_brought_up_to_date(path, monkeypatch):
    """Scripts that the file has not seen are run once, in order; its content stays."""
    make_ours(path)
    execute(path, "INSERT INTO sessions VALUES ('a', '{}', 0, 0, 9e999, NULL)")
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*MIGRATIONS, ("ALTER TABLE sessions ADD COLUMN more TEXT",)))

    make_ours(path)
    with closing(open_connections(path, 1.0)) as connections:
        assert [(b"a", None)] == connections.near.execute("SELECT id, more FROM sessions").fetchall()
        assert (len(MIGRATIONS) + 1,) == connections.near.execute("PRAGMA user_version").fetchone()


def test_file_of_the_first_version(path):
    """Made before there were event streams: it keeps its sessions and frames, and takes streams."""
    execute(
        path,
        "PRAGMA journal_mode = WAL",
        """CREATE TABLE sessions (id TEXT PRIMARY KEY, data TEXT NOT NULL, revision INTEGER NOT NULL,
            last_activity REAL NOT NULL, expires_at REAL NOT NULL, last_event_id TEXT)""",
        "CREATE INDEX sessions_by_expiry ON sessions (expires_at)",
        """CREATE TABLE frames (session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, seq INTEGER NOT NULL,
            direction TEXT NOT NULL, message BLOB NOT NULL, recorded_at REAL NOT NULL, UNIQUE (session_id, seq))""",
        f"PRAGMA application_id = {APPLICATION_ID}",
        "PRAGMA user_version = 1",
        "INSERT INTO sessions VALUES ('a', '{}', 0, 0, 9e999, 'last')",
        "INSERT INTO frames VALUES ('a', 1, 'to_client', x'7b7d', 0)",
    )

    with (
        closing(open_connections(path, 1.0)) as upgraded,
        closing(open_connections(path.with_name("new.db"), 1.0)) as new,
    ):
        schema = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY name"
        assert new.near.execute(schema).fetchall() == upgraded.near.execute(schema).fetchall()
        assert (2,) == upgraded.near.execute("PRAGMA user_version").fetchone()
        assert [(b"last",)] == upgraded.near.execute("SELECT last_event_id FROM sessions").fetchall()
        assert [(b"{}",)] == upgraded.near.execute("SELECT message FROM frames").fetchall()
        assert [] == append(upgraded.writing, [append_of([event_at(1)])], LIMITS)
        upgraded.writing.execute("DELETE FROM sessions")
        assert [(0,)] == upgraded.near.execute("SELECT count(*) FROM events").fetchall()


def test_failed_migration_changes_nothing(path, monkeypatch):
    """A file is of one version or of the other."""
    make_ours(path)
    script = ("ALTER TABLE sessions ADD COLUMN more TEXT", "no SQL")
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*MIGRATIONS, script))

    with pytest.raises(StoreCorrupt):
        make_ours(path)

    monkeypatch.undo()
    with closing(open_connections(path, 1.0)) as connections:
        columns = [name for _, name, *_ in connections.near.execute("PRAGMA table_info(sessions)")]
    assert b"more" not in columns


def missing_directory(path):
    return path.parent / "missing" / "sessions.db"


def a_directory(path):
    path.mkdir()
    return path


def below_a_file(path):
    path.touch()
    return path / "sessions.db"


def dangling_link(path):
    path.symlink_to(path.parent / "nowhere" / "sessions.db")
    return path


def long_name(path):
    return path.with_name("x" * 300)


@pytest.mark.parametrize("place", [missing_directory, a_directory, below_a_file, dangling_link, long_name])
def test_impossible_path_is_a_setting_to_correct(path, place):
    """The sentence names the option."""
    with pytest.raises(ConfigError, match="--sqlite-path"):
        open_connections(place(path), 1.0)


def test_unwritable_directory(path):
    """No file can be made here."""
    path.parent.chmod(0o555)
    with as_nobody(path), pytest.raises(ConfigError, match="make its directory writable.*--sqlite-path"):
        open_connections(path, 1.0)


def test_unwritable_file(path):
    """A file that can be read but not written is of no use."""
    make_ours(path)
    path.chmod(0o444)
    path.parent.chmod(0o777)
    with as_nobody(path), pytest.raises(ConfigError, match="--sqlite-path"):
        open_connections(path, 1.0)


def test_locked_file(path):
    """Somebody who does not let go is waited for, but not for ever."""
    make_ours(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            open_connections(path, 0.05)


def test_old_sqlite(path, monkeypatch):
    """What we need is said, not found out later."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))

    with pytest.raises(ConfigError, match="too old"):
        open_connections(path, 1.0)
    assert not path.exists()


def test_file_system_without_wal(path, monkeypatch):
    """A file that cannot be shared is refused, as is done on some network file systems."""

    class Unable(sqlite3.Connection):
        def execute(self, sql, *parameters):
            return super().execute("SELECT CAST('delete' AS TEXT)" if "journal_mode" in sql else sql, *parameters)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Unable, **kwargs))

    with pytest.raises(ConfigError, match="local disk with --sqlite-path"):
        open_connections(path, 1.0)


def sqlite_error(code):
    error = sqlite3.OperationalError("near the session abc")
    if code is not None:
        error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_WRITE, StoreUnavailable),
        (sqlite3.SQLITE_FULL, StoreUnavailable),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorrupt),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt),
        (sqlite3.SQLITE_ERROR, StoreCorrupt),
        (None, StoreCorrupt),
        (sqlite3.SQLITE_CONSTRAINT_NOTNULL, sqlite3.OperationalError),
    ],
)
def test_errors_are_explained(code, kind):
    """A caller learns what to do, and never what SQLite said."""
    error = sqlite_error(code)
    explained = explain(error)

    assert kind is type(explained)
    assert explained is error or "abc" not in str(explained)
    assert explained is error or error is explained.__cause__
