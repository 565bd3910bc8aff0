"""Sessions outlive the proxy that opened them, and what keeps them may fail."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import trio

from tests.e2e.child import PATIENCE
from tests.e2e.rawhttp import serve_raw
from tests.e2e.storing import (
    Client,
    Opened,
    Place,
    RecordingServer,
    Seen,
    bind_of,
    client_of,
    is_served,
    opened_by,
    redis_place,
    running_proxy,
    sqlite_place,
    status,
    until,
    url_of,
)
from tests.session.stores.redis_server import RedisServer, running_cluster, running_redis

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

PERSISTENT = ("--appendonly", "yes", "--appendfsync", "always")
"""Makes a Redis server come back with what it had."""

UNREACHABLE = "http://127.0.0.1:9/mcp"


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    if request.param == "sqlite":
        yield sqlite_place(tmp_path / "sessions.db")
    else:
        with running_redis() as server:
            yield redis_place(server)


# ------------------------------------------------------------------ kill -9 and start again


class Traffic:
    """What clients were told until the proxy was killed."""

    def __init__(self) -> None:
        self.opened: dict[str, Opened] = {}
        self.ended: set[str] = set()
        self.unsure: set[str] = set()
        """Sessions whose end was asked for and not answered."""
        self.calls = 0

    async def use(self, url: str) -> None:
        """Open a session and call in it."""
        async with client_of(url) as client:
            session = await self._open(client)
            while session is not None and await self._call(client, session):
                continue

    async def come_and_go(self, url: str) -> None:
        """Open a session, call in it once, end it, and so on."""
        async with client_of(url) as client:
            while (session := await self._open(client)) and await self._call(client, session):
                self.unsure.add(session.id)
                if (answer := await client.delete(session.id)) is None:
                    return
                assert status(answer) == 200
                self.unsure.remove(session.id)
                self.ended.add(session.id)

    async def _open(self, client: Client) -> Opened | None:
        answer = await client.initialize()
        if answer is None:
            return None
        session = opened_by(answer)
        self.opened[session.id] = session
        return session

    async def _call(self, client: Client, session: Opened) -> bool:
        answer = await client.call(session.id)
        if answer is None:
            return False
        assert is_served(answer, session)
        self.calls += 1
        return True


async def test_killed_proxy_serves_every_session_again(place: Place, nursery):
    """Acknowledged is stored: the opening of a session, and its end."""
    server = RecordingServer()
    upstream = await serve_raw(nursery, server.serve)
    traffic = Traffic()
    with running_proxy(upstream, place.options) as proxy, trio.fail_after(60):
        url = await url_of(proxy)
        async with trio.open_nursery() as clients:
            for _ in range(10):
                clients.start_soon(traffic.use, url)
            for _ in range(3):
                clients.start_soon(traffic.come_and_go, url)
            await until(lambda: traffic.calls >= 500 and len(traffic.ended) >= 20, 30)
            proxy.kill()

    with running_proxy(upstream, [*place.options, *bind_of(url)]) as proxy, trio.fail_after(60):
        assert await url_of(proxy) == url
        alive = [s for s in traffic.opened.values() if s.id not in traffic.ended | traffic.unsure]
        assert len(alive) >= 10
        async with client_of(url) as client:
            for session in alive:
                assert is_served(await client.call(session.id), session)
            for session_id in traffic.ended:
                assert status(await client.call(session_id)) == 404
            assert is_served(await client.call((session := await client.open()).id), session)
        assert server.strangers == []
        assert "Traceback" not in proxy.output
    nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- two proxies on one store


async def agree_on(place: Place, upstream: str, rounds: int) -> None:
    """Open at one proxy, call and end at the other, ask the first, ten at once."""

    async def lane(first: str, second: str) -> None:
        async with client_of(first) as a, client_of(second) as b:
            for _ in range(rounds // 10):
                session = await a.open()
                assert is_served(await b.call(session.id), session)
                assert status(await b.delete(session.id)) == 200
                assert status(await a.call(session.id)) == 404

    with running_proxy(upstream, place.options) as one, running_proxy(upstream, env=place.env) as other:
        with trio.fail_after(90):
            urls = await url_of(one), await url_of(other)
            async with trio.open_nursery() as lanes:
                for number in range(10):
                    lanes.start_soon(lane, urls[number % 2], urls[1 - number % 2])
        assert "Traceback" not in one.output + other.output
    assert await place.upstream_ids() == {}


async def test_two_proxies_tell_the_same_of_every_session(place: Place, nursery):
    """What one of them has answered the other knows: a thousand times, ten at once."""
    server = RecordingServer()
    await agree_on(place, await serve_raw(nursery, server.serve), 1000)
    assert len(server.ended) == 1000
    assert server.strangers == []
    nursery.cancel_scope.cancel()


async def test_two_proxies_agree_on_a_redis_cluster(nursery):
    """The sessions are spread over three nodes; the index is on one of them."""
    server = RecordingServer()
    upstream = await serve_raw(nursery, server.serve)
    with running_cluster() as cluster:
        await agree_on(redis_place(cluster), upstream, 400)
    assert len(server.ended) == 400
    assert server.strangers == []
    nursery.cancel_scope.cancel()


async def test_a_lost_node_of_a_cluster_refuses_its_own_sessions_only(nursery):
    """503 for those that it has, 200 for those of the other nodes, until it is back."""
    server = RecordingServer()
    upstream = await serve_raw(nursery, server.serve)
    with running_cluster() as cluster:
        lost = next(n for n in range(3) if n != cluster.number_of("e2e:index"))
        with running_proxy(upstream, redis_place(cluster).options) as proxy, trio.fail_after(60):
            async with client_of(await url_of(proxy)) as client:
                sessions = [await client.open() for _ in range(40)]
                home = {s.id: cluster.number_of(f"e2e:{{s:{s.id}}}:session") for s in sessions}
                assert set(home.values()) == {0, 1, 2}
                cluster.primaries[lost].kill()
                for session in sessions * 2:
                    with trio.fail_after(LIMIT):
                        answer = await client.call(session.id)
                    if home[session.id] == lost:
                        assert is_refusal(answer, 1), answer
                    else:
                        assert is_served(answer, session), answer
            assert "Traceback" not in proxy.output
    nursery.cancel_scope.cancel()


# --------------------------------------------------------------------------- last event id


async def watch_streams(place: Place, url: str, streams: trio.Nursery) -> dict[str, Seen]:
    """Open ten sessions with a stream each; return once some time of each has been seen."""
    seen: dict[str, Seen] = {}
    async with client_of(url) as client:
        for _ in range(10):
            session = await client.open()
            seen[session.id] = Seen()
            streams.start_soon(seen[session.id].read, url, session.id)
    await until(lambda: min(stream.last for stream in seen.values()) >= 60, 30)
    return seen


async def test_killed_proxy_has_stored_event_ids_but_for_the_last_moment(place: Place, nursery):
    """At most a tenth of a second is missing, and the time that a write takes."""
    upstream = await serve_raw(nursery, RecordingServer().serve)
    with running_proxy(upstream, place.options) as proxy, trio.fail_after(60):
        async with trio.open_nursery() as streams:
            seen = await watch_streams(place, await url_of(proxy), streams)
            killed_at = trio.current_time()
            proxy.kill()
        stored = await place.positions(list(seen))
    behind = []
    for position, stream in zip(stored, seen.values(), strict=True):
        assert position is not None
        missing = [when for number, when in stream.times.items() if number > position]
        behind.append(killed_at - min(missing, default=killed_at))
    print(f"seconds of event ids missing: {sorted(round(seconds, 3) for seconds in behind)}")
    # The tenth itself is held on the mock clock, in tests/session/test_persistence.py;
    # the rest is how long a write may take on a machine with other things to do.
    assert max(behind) <= 0.1 + 0.4
    nursery.cancel_scope.cancel()


async def test_stopped_proxy_has_stored_every_event_id(place: Place, nursery):
    upstream = await serve_raw(nursery, RecordingServer().serve)
    with running_proxy(upstream, [*place.options, "--shutdown-timeout", "1"]) as proxy, trio.fail_after(60):
        async with trio.open_nursery() as streams:
            seen = await watch_streams(place, await url_of(proxy), streams)
            proxy.terminate()
        assert await trio.to_thread.run_sync(proxy.wait, PATIENCE) == 0, proxy.output
        stored = await place.positions(list(seen))
    behind = [stream.last - (position or -1) for position, stream in zip(stored, seen.values(), strict=True)]
    assert max(behind) <= 0
    nursery.cancel_scope.cancel()


# -------------------------------------------------------------------------- a failing Redis

LIMIT = 3.0
"""Seconds within which everything is answered, whatever becomes of Redis."""


class Load:
    """Calls in known sessions and new sessions, until told to stop; how each was answered."""

    def __init__(self, url: str, known: list[Opened]) -> None:
        self._url = url
        self._known = known
        self.is_over = False
        self.calls: list[int] = []
        self.openings: list[int] = []
        self.opened: list[Opened] = []
        self.slowest = 0.0

    async def run(self) -> None:
        async with trio.open_nursery() as lanes:
            for session in self._known:
                lanes.start_soon(self._call, session)
            lanes.start_soon(self._open)

    async def _call(self, session: Opened) -> None:
        async with client_of(self._url) as client:
            while not self.is_over:
                answer = await self._timed(client.call(session.id))
                assert is_served(answer, session) or is_refusal(answer, 1), answer
                self.calls.append(status(answer))

    async def _open(self) -> None:
        async with client_of(self._url) as client:
            while not self.is_over:
                answer = await self._timed(client.initialize())
                if not is_refusal(answer, 0):
                    self.opened.append(opened_by(answer))
                self.openings.append(status(answer))

    async def _timed(self, asking):
        begin = trio.current_time()
        with trio.fail_after(LIMIT):
            answer = await asking
        self.slowest = max(self.slowest, trio.current_time() - begin)
        assert answer is not None, "the proxy hung up"
        return answer

    def forget(self) -> None:
        """Count from here."""
        self.calls.clear()
        self.openings.clear()


def is_refusal(answer, request_id: int) -> bool:
    """Whether *answer* says in all due form that the store is not there."""
    if status(answer) != 503:
        return False
    assert answer.json["error"]["code"] == -32603
    assert answer.json["id"] == request_id
    assert "retry-after" in answer.headers
    return True


def stop(redis: RedisServer) -> None:
    redis.signal(signal.SIGSTOP)


def go_on(redis: RedisServer) -> None:
    redis.signal(signal.SIGCONT)


OUTAGES = pytest.mark.parametrize(
    ("fail", "recover"),
    [(RedisServer.kill, RedisServer.start), (stop, go_on)],
    ids=["killed", "stopped"],
)


@pytest.fixture
def redis():
    with running_redis(*PERSISTENT) as server:
        yield server


async def open_many(url: str) -> list[Opened]:
    async with client_of(url) as client:
        return [await client.open() for _ in range(5)]


@OUTAGES
async def test_without_fallback_an_outage_is_said_and_over_when_it_is_over(fail, recover, redis: RedisServer, nursery):
    server = RecordingServer()
    upstream = await serve_raw(nursery, server.serve)
    with running_proxy(upstream, redis_place(redis).options) as proxy, trio.fail_after(90):
        url = await url_of(proxy)
        load = Load(url, known := await open_many(url))
        async with trio.open_nursery() as loading:
            loading.start_soon(load.run)
            for _ in range(2):
                await until(lambda: load.calls.count(200) >= 50 and 200 in load.openings, 20)
                await trio.to_thread.run_sync(fail, redis)
                load.forget()
                await until(lambda: load.calls.count(503) >= 20 and load.openings.count(503) >= 3, 30)
                await trio.to_thread.run_sync(recover, redis)
                load.forget()
            await until(lambda: load.calls.count(200) >= 50 and 200 in load.openings, 20)
            load.forget()
            await until(lambda: len(load.calls) >= 50, 20)
            load.is_over = True
        print(f"slowest answer: {load.slowest:.2f} s")
        assert set(load.calls) == {200}
        kept = {session.upstream_id for session in [*known, *load.opened]}
        await until(lambda: server.opened - server.ended == kept, 10)
        assert server.strangers == []
        assert "Traceback" not in proxy.output
    nursery.cancel_scope.cancel()


@OUTAGES
async def test_with_fallback_an_outage_is_not_noticed(fail, recover, redis: RedisServer, nursery):
    place, server = redis_place(redis), RecordingServer()
    upstream = await serve_raw(nursery, server.serve)
    options = [*place.options, "--store-fallback", "memory"]
    with running_proxy(upstream, options) as proxy, trio.fail_after(110):
        url = await url_of(proxy)
        load = Load(url, await open_many(url))
        async with client_of(url) as client, trio.open_nursery() as loading:
            assert await client.readiness() == "ready"
            loading.start_soon(load.run)
            await until(lambda: len(load.calls) >= 50, 20)
            await trio.to_thread.run_sync(fail, redis)
            await until_ready(url, "degraded", 20)
            marked = len(load.opened)
            await until(lambda: len(load.opened) >= marked + 10, 20)
            outage_session = load.opened[-1]
            load.is_over = True
        async with client_of(url) as client:
            assert is_served(await client.call(outage_session.id), outage_session)
            recovered_at = trio.current_time()
            await trio.to_thread.run_sync(recover, redis)
            await until_ready(url, "ready", 60)
            print(f"ready {trio.current_time() - recovered_at:.1f} s after; slowest answer: {load.slowest:.2f} s")
            assert (await place.upstream_ids())[outage_session.id] == outage_session.upstream_id
            assert is_served(await client.call(outage_session.id), outage_session)
        assert set(load.calls) == set(load.openings) == {200}
        assert server.strangers == []
        assert "Traceback" not in proxy.output
    nursery.cancel_scope.cancel()


async def test_with_fallback_a_proxy_starts_without_redis(redis: RedisServer, nursery):
    place, server = redis_place(redis), RecordingServer()
    upstream = await serve_raw(nursery, server.serve)
    redis.kill()
    with running_proxy(upstream, [*place.options, "--store-fallback", "memory"]) as proxy, trio.fail_after(100):
        url = await url_of(proxy)
        async with client_of(url) as client:
            session = await client.open()
            answer = await client.ask("GET", "/ready")
            assert answer is not None
            assert answer.json["status"] == "degraded"
            assert answer.json["store"]["fallbacks"] >= answer.json["store"]["pending"] >= 1
            assert is_served(await client.call(session.id), session)
            await trio.to_thread.run_sync(redis.start)
            await until_ready(url, "ready", 60)
            assert await place.upstream_ids() == {session.id: session.upstream_id}
            assert is_served(await client.call(session.id), session)
        assert "Traceback" not in proxy.output
    nursery.cancel_scope.cancel()


async def until_ready(url: str, expected: str, seconds: float) -> None:
    """Return when the proxy says *expected* of itself."""
    with trio.fail_after(seconds):
        async with client_of(url) as client:
            while True:
                if await client.readiness() == expected:
                    return
                await trio.sleep(0.05)


# ---------------------------------------------------------------------- what cannot be right


def refusal(options: list[str], env: dict[str, str] | None = None) -> str:
    """Return the one line that a proxy says which does not start, and lets nobody connect."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()
    let_in = 0
    with running_proxy(UNREACHABLE, ["--bind", f"127.0.0.1:{address[1]}", *options], env) as proxy:
        deadline = time.monotonic() + PATIENCE
        while proxy.is_running and time.monotonic() < deadline:
            with socket.socket() as client:
                let_in += client.connect_ex(address) == 0
            time.sleep(0.002)
        assert proxy.wait(1) == 1, proxy.output
        (line,) = proxy.lines
    assert line.startswith("shadowcat: ")
    assert let_in == 0, line
    return line


@pytest.mark.parametrize(
    ("options", "env", "named"),
    [
        (["--store", "sqlite"], {}, "--sqlite-path"),
        ([], {"SHADOWCAT_STORE": "sqlite"}, "--sqlite-path"),
        (["--store", "redis"], {}, "--redis-url"),
        ([], {"SHADOWCAT_STORE": "redis"}, "--redis-url"),
        (["--store", "memory", "--redis-url", "redis://127.0.0.1:6379"], {}, "--redis-url"),
        (["--redis-url", "redis://127.0.0.1:6379"], {}, "--redis-url"),
        (["--store", "memory", "--sqlite-path", "sessions.db"], {}, "--sqlite-path"),
        (["--store", "redis", "--redis-url", "http://127.0.0.1:6379"], {}, "Redis"),
        (["--store-fallback", "memory"], {}, "--store-fallback"),
        ([], {"SHADOWCAT_STORE": "etcd"}, "SHADOWCAT_STORE"),
        ([], {"SHADOWCAT_STORE_FALLBACK": "Memory"}, "SHADOWCAT_STORE_FALLBACK"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, env, named):
    line = refusal(options, env)
    assert named in line
    assert not Path("sessions.db").exists()


def test_redis_that_cannot_be_reached_is_said_without_the_password():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    line = refusal(["--store", "redis", "--redis-url", f"redis://me:hunter2@127.0.0.1:{free}"])
    assert "Redis" in line
    assert "hunter2" not in line


def test_redis_that_says_nothing_is_given_up():
    """A connection is made, by the system, and nobody is there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = refusal(["--store", "redis", "--redis-url", f"redis://127.0.0.1:{silent.getsockname()[1]}"])
    assert "Redis" in line


@pytest.mark.parametrize("content", [b"this is a letter to my mother\n" * 200, b"SQLite format 3\0" + b"\xff" * 8176])
def test_file_that_is_no_store_is_left_as_it_is(content, tmp_path):
    path = tmp_path / "sessions.db"
    path.write_bytes(content)
    before = path.stat()
    refusal(["--store", "sqlite", "--sqlite-path", str(path)])
    assert path.read_bytes() == content
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path) == ["sessions.db"]
