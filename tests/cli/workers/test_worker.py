"""What runs in a worker process: obeying, and ending."""

import json
import os
import signal
import socket

import pytest
import trio

from shadowcat.cli.main import build_parser
from shadowcat.cli.workers import worker
from shadowcat.cli.workers.lifeline import DRAIN, RETIRE, Reports
from tests.e2e.child import PATIENCE

pytestmark = pytest.mark.slow

COMMAND = ["reverse", "--upstream", "http://127.0.0.1:1/mcp", "--workers", "2", "--store", "sqlite", "--sqlite-path"]


@pytest.fixture
def command(tmp_path):
    return [*COMMAND, str(tmp_path / "s.db")]


@pytest.fixture
def sock():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def line():
    """Both ends of a lifeline: ours as a stream, and the worker's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs


@pytest.fixture
def serving(nursery, command, sock, line):
    """Run a worker; return the URL it reports, and what tells that it has ended."""

    async def serving():
        ended = trio.Event()

        async def run():
            assert await worker.serve(build_parser().parse_args(command), sock, line[1], 1) == 0
            ended.set()

        nursery.start_soon(run)
        with trio.fail_after(PATIENCE):
            report = await Reports(line[0]).next()
        assert report is not None
        return report.urls[0], ended

    return serving


async def test_serves_where_it_was_told_and_says_so(serving, sock):
    """The port is the supervisor's choice."""
    port = sock.getsockname()[1]
    url, _ = await serving()

    assert url == f"http://127.0.0.1:{port}/mcp"
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(PATIENCE):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_ends_when_told_to_drain(serving, line):
    _, ended = await serving()
    await line[0].send_all(DRAIN)
    with trio.fail_after(PATIENCE):
        await ended.wait()


async def test_ends_when_the_supervisor_is_gone(serving, line):
    _, ended = await serving()
    await line[0].aclose()
    with trio.fail_after(PATIENCE):
        await ended.wait()


async def test_worker_that_retires_serves_who_is_connected(serving, sock, line, monkeypatch):
    """... once more, and then ends."""
    monkeypatch.setattr(worker, "FAREWELL", 0.5)
    _, ended = await serving()
    async with await trio.open_tcp_stream(*sock.getsockname()) as stream:
        await line[0].send_all(RETIRE)
        await trio.sleep(0.05)
        await stream.send_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(PATIENCE):
            answer = b"".join([part async for part in stream])
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    with trio.fail_after(PATIENCE):
        await ended.wait()


async def test_signals_only_ask_to_retire(serving, monkeypatch):
    """Two of them are one: a terminal and a service manager signal the supervisor as well."""
    monkeypatch.setattr(worker, "FAREWELL", 0.1)
    _, ended = await serving()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    with trio.fail_after(PATIENCE):
        await ended.wait()


def test_error_is_reported_and_not_printed(command, sock, capfd, monkeypatch):
    """The supervisor says it, once for all workers."""
    monkeypatch.setattr(worker, "configure_logging", lambda *args, **kwargs: None)
    before = signal.getsignal(signal.SIGHUP)
    ours, theirs = socket.socketpair()
    command[-1] = "/nonexistent/s.db"
    with ours:
        status = worker.main(["1", str(os.dup(sock.fileno())), str(theirs.detach()), *command])
        report = json.loads(ours.recv(4096))
    signal.signal(signal.SIGHUP, before)

    assert status == 1
    assert ["the directory of /nonexistent/s.db does not exist"] == [e.partition(":")[0] for e in report["errors"]]
    assert capfd.readouterr() == ("", "")
