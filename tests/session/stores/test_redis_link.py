"""Against peers that are no Redis server, or behave as none does."""

from __future__ import annotations

import re
import socket
import ssl
import sys
import traceback
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trustme

from shadowcat.errors import ConfigError, StoreUnavailable
from shadowcat.session import Session, SessionId
from shadowcat.session.stores.redis import RedisConfig, open_redis_store

A = SessionId("a")


@attrs.define
class FakeRedis:
    """Answers each command of a connection with what *answer* returns; None closes it."""

    answer: Callable[[bytes], bytes | None]
    version: str = "7.0.15"
    port: int = 0
    connections: int = 0
    commands: list[bytes] = attrs.field(factory=list)
    greetings: list[list[bytes]] = attrs.field(factory=list)
    mode: bytes = b"standalone"
    go: trio.Event = attrs.field(factory=trio.Event)
    """Nothing is answered before it is set."""

    @property
    def config(self) -> RedisConfig:
        return RedisConfig(url=f"redis://127.0.0.1:{self.port}", response_timeout=0.3)

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        version = b"$%d\r\n%s\r\n" % (len(self.version), self.version.encode())
        mode = b"$4\r\nmode\r\n+%s\r\n" % self.mode
        hello = b"%4\r\n$7\r\nversion\r\n" + version + mode + b"$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n"
        async with stream:
            buffer = b""
            async for data in stream:
                buffer += data
                # A command is complete when as many words have come as it announces.
                while match := re.match(rb"\*(\d+)\r\n", buffer):
                    end, words = match.end(), []
                    for _ in range(int(match[1])):
                        length = re.compile(rb"\$(\d+)\r\n").match(buffer, end)
                        assert length is not None
                        words.append(buffer[length.end() : length.end() + int(length[1])])
                        end = length.end() + int(length[1]) + 2
                    buffer = buffer[end:]
                    if words[0] == b"HELLO":
                        self.greetings.append(words)
                    reply = hello if words[0] == b"HELLO" else self._reply(words[0])
                    await self.go.wait()
                    if reply is None:
                        return
                    await stream.send_all(reply)

    def _reply(self, name: bytes) -> bytes | None:
        if name == b"CLIENT":
            return b"+OK\r\n"
        self.commands.append(name)
        return self.answer(name)


@asynccontextmanager
async def fake_redis(answer, **options):
    fake = FakeRedis(answer, **options)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, fake.serve, 0)
        fake.go.set()
        fake.port = listeners[0].socket.getsockname()[1]
        yield fake
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://localhost",
        "redis://",
        "redis:///0",
        "redis://localhost/zero",
        "redis://localhost:0",
        "redis://localhost:70000",
        "redis://localhost?noreply=1",
        "unix://",
        "redis://:s3cret/#@localhost",
        "redis://user:s3cret/word@localhost:1",
    ],
)
def test_a_wrong_url_is_said(url):
    """How it should look; not what is wrong with it, which may be in the password."""
    with pytest.raises(ConfigError, match="Write the Redis URL as redis://USER:PASSWORD@HOST:PORT") as excinfo:
        RedisConfig(url=url)
    assert "s3cret" not in str(excinfo.value)
    assert excinfo.value.__suppress_context__


@pytest.mark.parametrize("prefix", ["", "a{b}", "a b", "ü"])
def test_a_wrong_prefix_is_said(prefix):
    """A brace in it would be a hash tag."""
    with pytest.raises(ConfigError, match="prefix"):
        RedisConfig(url="redis://localhost", prefix=prefix)


@pytest.mark.parametrize("password", ["s3cret", "s3c@ret", "s%2Fret", ":ret"])
def test_the_password_is_not_shown(password):
    """The rest of the URL is."""
    config = RedisConfig(url=f"rediss://user:{password}@localhost:1/2")
    assert "ret" not in repr(config)
    assert "rediss://***@localhost:1/2" in repr(config)


async def test_without_coredis_the_extra_is_named(monkeypatch):
    """An error that says what to type; before anything is opened."""
    monkeypatch.setitem(sys.modules, "coredis", None)
    with pytest.raises(ConfigError, match=r"pip install 'shadowcat\[redis\]'"):
        async with open_redis_store(RedisConfig(url="redis://127.0.0.1:1")):
            pass


async def test_a_server_that_is_down_is_said_at_once():
    """The error is plain, not in a group, and has no address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        config = RedisConfig(url=f"redis://:s3cret@127.0.0.1:{port}")
        with trio.fail_after(2), pytest.raises(StoreUnavailable) as excinfo:
            async with open_redis_store(config):
                pass
    assert "127.0.0.1" not in str(excinfo.value)
    assert "s3cret" not in "".join(traceback.format_exception(excinfo.value))


async def test_a_socket_that_is_not_there_is_said(tmp_path):
    """The same for unix sockets."""
    with pytest.raises(StoreUnavailable):
        async with open_redis_store(RedisConfig(url=f"unix://{tmp_path}/none.sock")):
            pass


async def test_a_server_that_says_nothing_is_given_up():
    """Opening is bounded by connect_timeout."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        url = f"redis://127.0.0.1:{listener.socket.getsockname()[1]}"
        start = trio.current_time()
        with pytest.raises(StoreUnavailable):
            async with open_redis_store(RedisConfig(url=url, connect_timeout=0.3)):
                pass
        assert trio.current_time() - start < 1.0


@pytest.mark.parametrize(("version", "works"), [("6.0.16", False), ("6.2.0", True), ("10.0.1", True)])
async def test_old_servers_are_refused(version, works):
    """Before anything is stored."""
    async with fake_redis(lambda name: b":3\r\n", version=version) as fake:
        if works:
            async with open_redis_store(fake.config) as store:
                assert 3 == await store.count_sessions()
        else:
            with pytest.raises(ConfigError, match=r"6\.0\.16.*needs 6\.2"):
                async with open_redis_store(fake.config):
                    pass
            assert [] == fake.commands


async def test_a_read_is_sent_again_once():
    """On a new connection, if the first breaks before it is answered; not a third time."""
    async with fake_redis(lambda name: None) as fake, open_redis_store(fake.config) as store:
        with pytest.raises(StoreUnavailable, match="broke"):
            await store.get_session(A)
        assert [b"HMGET", b"HMGET"] == fake.commands

        replies = iter([None, b":7\r\n"])
        fake.answer = lambda name: next(replies)
        assert 7 == await store.count_sessions()


async def test_a_write_is_sent_once():
    """It may have been obeyed; only the caller knows whether to repeat it."""
    async with fake_redis(lambda name: None) as fake, open_redis_store(fake.config) as store:
        with pytest.raises(StoreUnavailable, match="broke"):
            await store.update_session(Session(id=A))
        assert [b"EVAL"] == fake.commands


async def test_a_silent_connection_is_replaced():
    """After one timeout calls have a new connection: a firewall may have forgotten the old one."""
    async with fake_redis(lambda name: b"") as fake, open_redis_store(fake.config) as store:
        with pytest.raises(StoreUnavailable, match="in time"):
            await store.count_sessions()
        fake.answer = lambda name: b":1\r\n"
        assert 1 == await store.count_sessions()
        assert 2 == fake.connections


async def test_answers_that_are_no_answers():
    """A peer that talks nonsense is unavailable, and is asked again on another connection."""
    async with fake_redis(lambda name: b"HTTP/1.1 400\r\n\r\n") as fake, open_redis_store(fake.config) as store:
        with pytest.raises(StoreUnavailable):
            await store.count_sessions()
        fake.answer = lambda name: b":1\r\n"
        assert 1 == await store.count_sessions()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("MOVED 866 10.9.8.7:6379", "cluster is moving"),
        ("CLUSTERDOWN The cluster is down", "cluster is down"),
        ("READONLY You can't write against a read only replica.", "replica"),
        ("NOPERM this user has no permissions", "permission"),
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("OOM command not allowed when used memory > 'maxmemory'. script: f00, on @user_script:1.", r"\(OOM\)"),
        ("MISCONF Errors writing to the AOF file", r"\(MISCONF\)"),
        ("ERR unknown command 'X 10.9.8.7'", r"\(UnknownCommandError\)"),
        ("odd 10.9.8.7", r"\(ResponseError\)"),
    ],
)
async def test_refusals_are_sentences(answer, sentence):
    """What Redis says may hold an address; the client is told something it may know."""
    async with fake_redis(lambda name: f"-{answer}\r\n".encode()) as fake, open_redis_store(fake.config) as store:
        with pytest.raises(StoreUnavailable, match=sentence) as excinfo:
            await store.count_sessions()
        assert "10.9.8.7" not in str(excinfo.value)


async def test_a_cancelled_batch_leaves_others_alone():
    """They share its connection, and get their answers."""
    async with fake_redis(lambda name: b"*3\r\n_\r\n_\r\n_\r\n") as fake:
        async with open_redis_store(attrs.evolve(fake.config, response_timeout=5.0)) as store:
            fake.go = trio.Event()
            other: list[object] = []

            async def read():
                other.append(await store.get_sessions_batch([A, A]))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                with trio.move_on_after(0.05) as scope:
                    await store.get_sessions_batch([A] * 400)
                assert scope.cancelled_caught
                fake.go.set()
            assert [[]] == other
            assert 1 == fake.connections


async def test_an_attempt_to_connect_outlives_the_call_that_began_it():
    """A call gives up after its timeout; the next one finds the connection made."""
    async with fake_redis(lambda name: None) as fake, open_redis_store(fake.config) as store:
        fake.go = trio.Event()
        with pytest.raises(StoreUnavailable, match="in time"):
            await store.count_sessions()
        start = trio.current_time()
        with pytest.raises(StoreUnavailable, match="in time"):
            await store.count_sessions()
        assert trio.current_time() - start < 0.5

        fake.go.set()
        fake.answer = lambda name: b":1\r\n"
        assert 1 == await store.count_sessions()
        assert 2 == fake.connections


async def test_a_call_that_has_little_time_left_leaves_the_connection_to_others():
    """It gives up at its deadline; one that has waited for long says that the connection is of no use."""
    async with fake_redis(lambda name: b"") as fake, open_redis_store(fake.config) as store:
        link = store._servers._only
        assert link is not None
        for patience in (0.01, 0.01, 0.2):
            with pytest.raises(StoreUnavailable, match="in time"):
                await link.exchange([(b"PING",)], deadline=trio.current_time() + patience)
            assert 1 == fake.connections
        fake.answer = lambda name: b":1\r\n"
        assert 1 == await store.count_sessions()
        assert 2 == fake.connections


async def test_all_nodes_of_a_cluster_take_the_same_login_over_tls(monkeypatch, tmp_path):
    """The URL has the first one; it names the other."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    first, other = FakeRedis(lambda name: None, mode=b"cluster"), FakeRedis(lambda name: b":7\r\n", mode=b"cluster")
    async with trio.open_nursery() as nursery:
        for fake in (first, other):
            fake.go.set()
            serve = partial(trio.serve_ssl_over_tcp, fake.serve, 0, context, host="127.0.0.1")
            fake.port = (await nursery.start(serve))[0].transport_listener.socket.getsockname()[1]
        row = b"*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % other.port
        first.answer = lambda name: b"*1\r\n" + row
        config = RedisConfig(url=f"rediss://me:s3cret@127.0.0.1:{first.port}")
        async with open_redis_store(config) as store:
            assert 7 == await store.count_sessions()
        nursery.cancel_scope.cancel()
    login = [b"HELLO", b"3", b"AUTH", b"me", b"s3cret"]
    assert login == first.greetings[0] == other.greetings[0]
    assert [b"CLUSTER"] == first.commands[:1]
    assert b"ZCARD" in other.commands
