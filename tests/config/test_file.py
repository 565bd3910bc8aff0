"""A file is read, or everything that is wrong with it is told: file, line, key and what to do."""

import random
import re
from pathlib import Path

import pytest

from shadowcat.config import SETTINGS, Values, build_reverse, settings_of
from shadowcat.config.file import MAX_SIZE, read_file, read_text
from shadowcat.config.problem import SettingsError
from shadowcat.errors import ConfigError
from tests.config.reading import read

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "shadowcat.toml"

WRONG = [
    ("[listener]\nbnd = 1", "f.toml:2: listener.bnd is not known; did you mean listener.bind?"),
    ("[lisener]", "f.toml:1: lisener is not known; did you mean listener?"),
    ("\n\nbind = 1", "f.toml:3: bind is not known; did you mean listener.bind?"),
    ("upstream.max_body_size = 1", "f.toml:1: upstream.max_body_size is not known; did you mean limits.max_body_size?"),
    ("[log]\nzzz = 1", "f.toml:2: log.zzz is not known; log may have: level, format"),
    ("listener = 1", "f.toml:1: listener must be a table, not a number"),
    ("[listener]\nbind = 8080", "f.toml:2: listener.bind must be a string, not a number"),
    ("[listener]\nworkers = 'x'", "f.toml:2: listener.workers must be a whole number, not a string"),
    ("[listener]\nworkers = 1.5", "f.toml:2: listener.workers must be a whole number, not 1.5"),
    ("[listener]\nworkers = true", "f.toml:2: listener.workers must be a whole number, not a boolean"),
    ("[streams]\nlinger = inf", "f.toml:2: streams.linger must be a finite number, not inf"),
    ("[streams]\nheartbeat_interval = nan", "f.toml:2: streams.heartbeat_interval must be a number, not nan"),
    ("[sessions]\nrecovery = 0", "f.toml:2: sessions.recovery must be true or false, not a number"),
    ("[sessions]\nstore = 'disk'", "f.toml:2: sessions.store must be one of memory, sqlite, redis, not 'disk'"),
    ("[log]\nlevel = 1979-05-27", "f.toml:2: log.level must be one of debug, info, warning, error, not a date or time"),
    ("[listener]\nallow_hosts = 'a'", "f.toml:2: listener.allow_hosts must be an array of strings, not a string"),
    ("[listener]\nallow_hosts = [\n'a',\n1]", "f.toml:4: listener.allow_hosts[1] must be a string, not a number"),
    ("[upstream]\nheaders = ['a']", "f.toml:2: upstream.headers must be a table of names and values, not an array"),
    (
        "[upstream.headers]\nA = 'x'\nB = { envv = 'x' }",
        'f.toml:3: upstream.headers.B must be a string, { env = "VARIABLE" } or { file = "PATH" }',
    ),
    (
        "[upstream.headers]\nA = { env = 'SHADOWCAT_UNSET' }",
        "f.toml:2: upstream.headers.A takes the variable 'SHADOWCAT_UNSET', which is not set",
    ),
    (
        "[sessions]\nredis_url = { file = '/no/such' }",
        "f.toml:2: sessions.redis_url takes the file '/no/such', which cannot be read: No such file or directory",
    ),
    ("a = \n", "f.toml:1: Invalid value"),
    ("a = 1\nb = '", "f.toml:2: Expected"),
    ("a = 1\na = 2", "f.toml:2: Cannot overwrite a value"),
    ('[listener]\nbind = "\\u0000"', "f.toml:2: listener.bind has a NUL character in it"),
    ("a = " + "[" * 5000, "f.toml:1: this is nested too deeply"),
    ("\na = " + "9" * 5000, "f.toml:2: this number is too long"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_wrong_is_told_with_its_line(text, said):
    with pytest.raises(SettingsError) as excinfo:
        read(text)
    assert str(excinfo.value).startswith(said)
    assert len(excinfo.value.problems) == 1


def test_all_that_is_wrong_is_told_in_order():
    with pytest.raises(SettingsError) as excinfo:
        read("[log]\nlevel = 'x'\nfomat = 1\n[listener]\nbind = 1\n")
    assert [text[:9] for text in excinfo.value.problems] == ["f.toml:2:", "f.toml:3:", "f.toml:5:"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"# \xff", "f.toml:1: this is not UTF-8"),
        (b"\n" * (MAX_SIZE + 1), "f.toml:1: the file is longer"),
        (b"a = 1\r\n[log]\r\nlevel = 1\r\n", "f.toml:1: a is not known"),
    ],
)
def test_what_is_no_text_is_told(data, said):
    with pytest.raises(SettingsError, match=re.escape(said)):
        read_text("f.toml", data, SETTINGS)


def test_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"/none\.toml cannot be read: No such file"):
        read_file(str(tmp_path / "none.toml"), SETTINGS)
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_file(str(tmp_path), SETTINGS)
    with pytest.raises(SettingsError, match="no file has such a name"):
        read_file("a\0b", SETTINGS)


def test_secret_comes_from_a_variable_or_a_file(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("s3cret\n")
    monkeypatch.setenv("TOKEN", "t")
    given = read(f"""\
        [upstream.headers]
        A = {{ env = "TOKEN" }}
        B = {{ file = "{tmp_path}/secret" }}
        C = "plain ${{TOKEN}}"
        """)
    assert given["upstream.headers"].value == [("A", "t"), ("B", "s3cret"), ("C", "plain ${TOKEN}")]


def test_problem_that_is_found_later_names_the_line():
    """... a bound, which the component knows, and a contradiction."""
    given = read("[upstream]\nurl = 'http://h/'\ncwd = '/'\n\n[limits]\nmax_sessions = 0\n")
    with pytest.raises(SettingsError) as excinfo:
        build_reverse(Values(settings_of("reverse"), given))
    assert excinfo.value.problems == (
        "f.toml:6: limits.max_sessions must be at least 1, not 0",
        "f.toml:3: upstream.cwd goes with upstream.command only; remove it",
    )


FULL = b"""\
[listener]
bind = "127.0.0.1:8080"
path = '/mcp'
workers = 2
allow_hosts = ["a.example", 'b.example']
[upstream]
url = "http://127.0.0.1:9000/mcp"
headers = { X-A = "b", "X-C" = "d" }
connect_timeout = 1.5
[sessions]
store = "sqlite"
sqlite_path = "x.db"
max_age = inf
recovery = true
[streams]
replay_events = 1_000
replay_age = 1e2
[limits]
max_body_size = 0x10000
[log]
level = "info"  # comment
"""

SEVERAL = b"""\
[upstream]
strategy = "weighted"
[[upstream.endpoints]]
name = "a"
url = "http://127.0.0.1:9001/mcp"
weight = 2
[[upstream.endpoints]]
name = "b"
url = "http://127.0.0.1:9002/mcp"
[upstream.health]
check = "http"
interval = 5
[upstream.circuit]
max_failure_rate = 0.5
[servers.search]
url = "http://127.0.0.1:9003/mcp"
[servers.files]
command = ["true"]
env = { A = "b" }
circuit.enabled = false
[[rules]]
header = "X-Tenant"
value = "a"
server = "search"
[[rules]]
host = "files.example"
server = "files"
"""

SWAPS = [b"1", b"-1", b"1.5", b"true", b'"x"', b"[]", b"{}", b"[{}]", b"1979-05-27", b"inf", b"nan", b"[[1]]", b'""']


def delete(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 12) :]


def duplicate(data, rng):
    lines = data.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"".join(lines)


def insert(data, rng):
    at = rng.randrange(len(data))
    junk = rng.choice(
        [b'"', b"'", b"[", b"]", b"{", b"}", b"=", b"\n", b"\0", b"\xff", b"#", b"\r", b"\\", b".", b'"""']
    )
    return data[:at] + junk + data[at:]


def swap(data, rng):
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    key, separator, _ = lines[at].partition(b"=")
    lines[at] = key + separator + rng.choice(SWAPS) + b"\n" if separator else lines[at]
    return b"".join(lines)


def rename(data, rng):
    found = list(re.finditer(rb"[a-z_]{3,}", data))
    word = rng.choice(found)
    return data[: word.start()] + word[0][::-1] + data[word.end() :]


MUTATIONS = [delete, duplicate, insert, swap, rename]


@pytest.mark.parametrize("whole", [FULL, EXAMPLE.read_bytes(), SEVERAL], ids=["full", "example", "several"])
def test_mutated_file_is_accepted_or_refused_by_line(whole, monkeypatch):
    """A thousand of each: never anything but a ConfigError, and never one that does not say where."""
    monkeypatch.setenv("UPSTREAM_TOKEN", "t")
    settings, refused = settings_of("reverse"), 0
    for seed in range(1000):
        rng = random.Random(seed)
        data = whole
        for _ in range(rng.randint(1, 3)):
            data = rng.choice(MUTATIONS)(data, rng)
        try:
            build_reverse(Values(settings, read_text("f.toml", data, settings), file="f.toml"))
        except SettingsError as error:
            refused += 1
            for text in error.problems:
                found = re.fullmatch(r"f\.toml:(\d+): .*", text)
                assert found, (seed, text)
                assert 1 <= int(found[1]) <= data.count(b"\n") + 1, (seed, text)
        except ConfigError as error:
            pytest.fail(f"{seed}: {error} does not say where")
    assert 300 < refused < 1000


def test_mark_at_the_beginning_that_some_editors_write_is_let_pass():
    assert read_text("f.toml", b"\xef\xbb\xbf[log]\r\nlevel = 'info'\r\n", SETTINGS).keys() == {"log.level"}
