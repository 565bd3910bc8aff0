"""Servers that are commands, as a user runs them: behind standard streams, and behind an address."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from shadowcat.testing import notification, request
from tests.e2e.child import PATIENCE, module, running
from tests.proxy.piping import initialize

pytestmark = pytest.mark.slow

SERVER = [sys.executable, str(Path(__file__).with_name("mcp_command.py"))]
ACCEPT = {"accept": "application/json, text/event-stream"}


class PipedClient:
    """A client that has started the program."""

    def __init__(self, process):
        self.process = process

    def call(self, message):
        self.send(message)
        while "id" not in (answer := json.loads(self.process.stdout.readline())):
            pass
        return answer

    def send(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def begin(self):
        assert self.call(initialize())["result"]["protocolVersion"] == "2025-11-25"
        self.send(notification("notifications/initialized"))

    def ask(self):
        return told(self.call(request(1, "tools/call", name="t", arguments={})))


class HttpClient:
    """A client that knows the address."""

    def __init__(self, url):
        self.url = url
        self.headers = dict(ACCEPT)

    def post(self, message):
        return httpx.post(self.url, json=message, headers=self.headers, timeout=PATIENCE)

    def begin(self):
        response = self.post(initialize())
        if response.status_code == 200:
            self.headers["mcp-session-id"] = response.headers["mcp-session-id"]
            self.post(notification("notifications/initialized"))
        return response.status_code

    def ask(self):
        return told(self.post(request(1, "tools/call", name="t", arguments={})).json())

    def end(self):
        httpx.delete(self.url, headers=self.headers)


def told(answer):
    return json.loads(answer["result"]["content"][0]["text"])


@contextmanager
def piped(*options, command=SERVER, env=None):
    arguments = module("shadowcat", "forward", *options, "--", *command)
    with subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    ) as process:
        try:
            yield PipedClient(process)
        finally:
            process.kill()


def wait_gone(pid):
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def test_command_gets_its_words_its_place_and_what_is_named(tmp_path):
    options = ["--env", "A=1", "--env-pass", "SECRET", "--cwd", str(tmp_path)]
    env = {"SECRET": "s", "OTHER": "o"}
    with piped(*options, command=[*SERVER, "--bind", "--", "x y"], env=env) as client:
        client.begin()
        said = client.ask()
    assert said["arguments"] == ["--bind", "--", "x y"]
    assert said["cwd"] == str(tmp_path)
    assert (said["env"]["A"], said["env"]["SECRET"]) == ("1", "s")
    assert "OTHER" not in said["env"]


@pytest.mark.parametrize("by", ["end of input", signal.SIGTERM, signal.SIGKILL])
def test_command_ends_with_the_program(by):
    """However that ends."""
    with piped() as client:
        client.begin()
        pid = client.ask()["pid"]
        client.process.stdin.close() if by == "end of input" else client.process.send_signal(by)
        client.process.wait(PATIENCE)
        wait_gone(pid)
        assert client.process.returncode == (-by if by is signal.SIGKILL else 0)


def test_command_that_dies_is_replaced():
    """The call that it had fails, the session goes on in another."""
    with piped() as client:
        client.begin()
        first = client.ask()["pid"]
        os.kill(first, signal.SIGKILL)
        wait_gone(first)
        assert client.ask()["pid"] != first


@pytest.mark.parametrize("program", [["reverse"], ["forward"]])
def test_each_client_has_a_process_of_its_own_up_to_the_limit(program):
    """Who comes then is told to come back; who leaves makes room."""
    command = [*program, "--bind", "127.0.0.1:0", "--max-children", "2", "--spares", "0", "--", *SERVER]
    with running(module("shadowcat", *command)) as child:
        url = child.wait_for_url()
        clients = [HttpClient(url) for _ in range(3)]
        assert [200, 200, 503] == [client.begin() for client in clients]
        pids = {client.ask()["pid"] for client in clients[:2]}
        assert len(pids) == 2
        gone = clients[0].ask()["pid"]
        clients[0].end()
        wait_gone(gone)
        assert clients[2].begin() == 200
        assert clients[2].ask()["pid"] not in pids
        left = clients[1].ask()["pid"]
        child._process.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE) == 0
        wait_gone(left)
