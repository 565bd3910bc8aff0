"""Real Redis servers for tests, on free loopback ports: one, or a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """One ``redis-server``; nothing it holds outlives it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "no", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(1500):
            try:
                self.ask("ECHO", "here")
                return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError("redis-server did not start")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def ask(self, *words: str | bytes) -> object:
        """Send one command over a connection of its own; return the answer, as RESP2."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock, sock.makefile("rwb") as stream:
            raw = [word.encode() if isinstance(word, str) else word for word in words]
            stream.write(b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in raw))
            stream.flush()
            return _read(stream)


def _read(stream):
    line = stream.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b"*":
        return [_read(stream) for _ in range(int(rest))]
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2].decode("utf-8", "backslashreplace")
    return int(rest) if kind == b":" else (kind + rest).decode()


def _need_redis() -> None:
    if shutil.which("redis-server") is None:
        reason = "redis-server is not installed (Debian: apt-get install redis-server)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    _need_redis()
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), *options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


SLOTS = 16384

CLUSTER_OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
    # A replica is shown, and promoted, once it has received something.
    *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
)


class ClusterNode(RedisServer):
    def __init__(self, folder: Path) -> None:
        # By default its second port is the first and 10,000, which may be none.
        super().__init__(folder, *CLUSTER_OPTIONS, "--cluster-port", str(bus := free_port()))
        self.bus = bus

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID"))


@attrs.frozen
class Cluster:
    """Nodes that share the slots evenly and in order, and a replica of each after them, if there are any."""

    primaries: list[ClusterNode]
    replicas: list[ClusterNode]

    @property
    def url(self) -> str:
        return self.primaries[0].url

    def slots_of(self, number: int) -> tuple[int, int]:
        share = SLOTS // len(self.primaries)
        last = SLOTS if number == len(self.primaries) - 1 else (number + 1) * share
        return number * share, last - 1

    def slot_of(self, key: str) -> int:
        slot = self.primaries[-1].ask("CLUSTER", "KEYSLOT", key)
        assert isinstance(slot, int)
        return slot

    def number_of(self, key: str) -> int:
        """Return which primary has *key* at first."""
        return min(self.slot_of(key) // (SLOTS // len(self.primaries)), len(self.primaries) - 1)

    def keys(self, number: int) -> list[str]:
        keys = self.primaries[number].ask("KEYS", "*")
        assert isinstance(keys, list)
        return keys

    def move(self, slot: int, source: int, target: int) -> Iterator[None]:
        """Move *slot* from one primary to another, a key at each step."""
        giver, taker = self.primaries[source], self.primaries[target]
        taker.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", giver.id)
        giver.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", taker.id)
        yield
        while keys := giver.ask("CLUSTER", "GETKEYSINSLOT", str(slot), "1"):
            assert isinstance(keys, list)
            assert giver.ask("MIGRATE", "127.0.0.1", str(taker.port), "", "0", "1000", "KEYS", *keys) == "+OK"
            yield
        for node in (taker, giver, *self.primaries):
            node.ask("CLUSTER", "SETSLOT", str(slot), "NODE", taker.id)

    def set_up(self) -> None:
        first, *others = [*self.primaries, *self.replicas]
        for number, primary in enumerate(self.primaries):
            primary.ask("CLUSTER", "ADDSLOTSRANGE", *map(str, self.slots_of(number)))
            primary.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node in others:
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(first.port), str(first.bus))
        everybody = [first, *others]
        wait_until(lambda: all(_count(node) == len(everybody) for node in everybody))
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            wait_until(lambda p=primary, r=replica: r.ask("CLUSTER", "REPLICATE", p.id) == "+OK")  # type: ignore[misc]
        wait_until(lambda: all("cluster_state:ok" in str(node.ask("CLUSTER", "INFO")) for node in everybody))
        wait_until(lambda: all(len(_seen_slots(node)) == len(self.primaries) for node in everybody))
        wait_until(lambda: all("master_link_status:up" in str(r.ask("INFO", "replication")) for r in self.replicas))
        expected = 1 + bool(self.replicas)
        wait_until(lambda: all(len(slots) == 2 + expected for node in everybody for slots in _seen_slots(node)))


def _count(node: ClusterNode) -> int:
    lines = str(node.ask("CLUSTER", "NODES")).splitlines()
    return sum("handshake" not in line and "connected" in line.split() for line in lines)


def _seen_slots(node: ClusterNode) -> list:
    slots = node.ask("CLUSTER", "SLOTS")
    assert isinstance(slots, list)
    return slots


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the Redis cluster does not get there")
        time.sleep(0.02)


@contextmanager
def running_cluster(nodes: int = 3, replicas: int = 0) -> Iterator[Cluster]:
    """Run a cluster of *nodes* primaries with *replicas* each, none or one."""
    _need_redis()
    with ExitStack() as stack:
        every = []
        for _ in range(nodes * (1 + replicas)):
            node = ClusterNode(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.callback(lambda node=node: node.is_running and node.kill())  # type: ignore[misc]
            node.start()
            every.append(node)
        cluster = Cluster(every[:nodes], every[nodes:])
        cluster.set_up()
        yield cluster
