"""Child processes of the tests: started, listened to, and always reaped."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds a child is given to say or do what a test waits for."""

URL = r"(http://127\.0\.0\.1:\d+/[\w/.-]*)"


class Child:
    """A process in a process group of its own, and the lines it has printed so far."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.command = list(command)
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._silent = False
        self._process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def resident(self) -> int:
        """Bytes of memory the process holds now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, since: int = 0) -> re.Match[str]:
        """Return the first match in any line printed so far or to come.

        Raises:
            AssertionError: The child ended, or `PATIENCE` did, without a match.
        """
        with self._said:
            self._said.wait_for(lambda: self._silent or self._find(pattern, since) is not None, PATIENCE)
            found = self._find(pattern, since)
            assert found is not None, f"{shlex.join(self.command)} never printed {pattern!r} but:\n{self.output}"
            return found

    def wait_for_url(self) -> str:
        return self.wait_for(URL)[1]

    def wait(self, timeout: float) -> int:
        """Wait for the child to end by itself, and for its last line; return its exit status."""
        status = self._process.wait(timeout)
        self._listener.join(PATIENCE)
        return status

    def stop(self) -> int:
        """Ask the group to stop, then make it; return the child's exit status."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._signal(signal.SIGKILL)
        return self.wait(PATIENCE)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _find(self, pattern: str, since: int) -> re.Match[str] | None:
        return next((match for line in self.lines[since:] if (match := re.search(pattern, line))), None)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._said:
                    self.lines.append(line.rstrip("\n"))
                    self._said.notify_all()
        with self._said:
            self._silent = True
            self._said.notify_all()


@contextlib.contextmanager
def running(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Iterator[Child]:
    """Run *command* for as long as the block lasts."""
    child = Child(command, env, cwd)
    try:
        yield child
    finally:
        child.stop()


def module(name: str, *arguments: str) -> list[str]:
    """Return the command line of a Python module of ours."""
    return [sys.executable, "-m", name, *arguments]


def proxy_command(upstream: str) -> list[str]:
    """Return the command line of a proxy in front of *upstream*.

    ``$SHADOWCAT_E2E_PROXY`` replaces ours, to see how another one does; it
    holds a command with ``{upstream}`` in it, which prints its URL.
    """
    other = os.environ.get("SHADOWCAT_E2E_PROXY")
    if other is not None:
        return [part.replace("{upstream}", upstream) for part in shlex.split(other)]
    return module("shadowcat", "reverse", "--bind", "127.0.0.1:0", "--upstream", upstream)
