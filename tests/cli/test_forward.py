"""``shadowcat forward``: its options, and the program as an MCP client starts it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import trio

from shadowcat import ForwardProxyConfig, HttpUpstreamConfig, ListenerConfig, StorageConfig
from shadowcat.cli import forward, main
from shadowcat.cli.forward import build_config
from shadowcat.cli.main import build_parser
from shadowcat.testing import modern_request, result
from tests.cli.test_reverse import Upstream, upstream
from tests.e2e.child import PATIENCE, module, running

__all__ = ["upstream"]

URL = "http://upstream.invalid/mcp"


def parse(*arguments):
    return build_parser().parse_args(["forward", *arguments])


def test_defaults_are_those_of_the_configuration():
    """One home each."""
    assert build_config(parse("--upstream", URL)) == ForwardProxyConfig(upstream=HttpUpstreamConfig(url=URL))


async def test_with_an_address_it_listens_there(monkeypatch):
    """And keeps sessions in memory, whatever the environment says for another command."""
    monkeypatch.setenv("SHADOWCAT_STORE", "redis")
    seen = []

    async def listen(config, serve):
        await trio.lowlevel.checkpoint()
        seen.append(config)

    monkeypatch.setattr(forward, "listen", listen)
    await forward.run(parse("--bind", "127.0.0.1:0", "--upstream", URL), trio.Event())

    assert (seen[0].listener, seen[0].storage) == (ListenerConfig(bind="127.0.0.1:0"), StorageConfig())


@pytest.fixture
def _root_logger():
    import logging

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_root_logger")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the MCP server: give --upstream URL, or -- COMMAND and its arguments at the end"),
        (["--", "shadowcat-no-such-program"], "install 'shadowcat-no-such-program' or write where it is"),
        (["--bind", "127.0.0.1:0", "--", "shadowcat-no-such-program"], "install 'shadowcat-no-such-program'"),
        (["--cwd", "/no/such/directory", "--", "true"], "/no/such/directory"),
    ],
)
def test_wrong_setting_is_one_line_and_1(arguments, said, capsys):
    """Before anything is read, or bound."""
    assert main(["forward", *arguments]) == 1
    captured = capsys.readouterr()

    assert captured.out == ""
    assert captured.err.startswith("shadowcat: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


@contextmanager
def started(upstream: Upstream, *options, **popen):
    """Start the program as a client does."""
    command = module("shadowcat", "forward", "--upstream", upstream.url, *options)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
    with subprocess.Popen(command, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def line(message):
    return json.dumps(message).encode() + b"\n"


@pytest.mark.slow
class TestProgram:
    def test_call_is_answered_and_the_end_of_input_ends_it(self, upstream):
        """Standard output has messages and nothing else; the exit status is 0."""
        upstream.release.set()
        with started(upstream) as process:
            out, err = process.communicate(line(modern_request(7, "ping")) + b"garbage\n", timeout=PATIENCE)
        messages = [json.loads(text) for text in out.splitlines()]

        assert process.returncode == 0, err
        assert result(7, ok=True) in messages
        assert [-32700] == [message["error"]["code"] for message in messages if "error" in message]

    def test_call_under_way_is_answered_after_the_end_of_input(self, upstream):
        with started(upstream) as process:
            process.stdin.write(line(modern_request(7, "ping")))
            process.stdin.close()
            assert upstream.arrived.wait(PATIENCE)
            upstream.release.set()
            assert json.loads(process.stdout.read()) == result(7, ok=True)
            assert process.wait(PATIENCE) == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_lets_a_call_finish(self, upstream, number):
        with started(upstream, "--log-level", "info") as process:
            process.stdin.write(line(modern_request(7, "ping")))
            process.stdin.flush()
            assert upstream.arrived.wait(PATIENCE)
            process.send_signal(number)
            while b"shutting down" not in process.stderr.readline():
                pass
            upstream.release.set()
            assert json.loads(process.stdout.read()) == result(7, ok=True)
            assert process.wait(PATIENCE) == 0

    def test_call_that_does_not_finish_is_told_so(self, upstream):
        with started(upstream, "--shutdown-timeout", "0.5") as process:
            process.stdin.write(line(modern_request(7, "ping")))
            process.stdin.close()
            told = json.loads(process.stdout.read())
            assert (told["id"], told["error"]["code"]) == (7, -32603)
            assert process.wait(PATIENCE) == 0

    def test_client_that_has_gone_ends_it(self, upstream):
        """Its output is closed: there is nobody to serve."""
        upstream.release.set()
        with started(upstream) as process:
            process.stdout.close()
            process.stdin.write(line(modern_request(7, "ping")))
            process.stdin.flush()
            assert process.wait(PATIENCE) == 0

    def test_input_may_be_a_file(self, upstream, tmp_path):
        upstream.release.set()
        (tmp_path / "in").write_bytes(line(modern_request(7, "ping")))
        with (tmp_path / "in").open("rb") as source, started(upstream, stdin=source) as process:
            assert json.loads(process.stdout.read()) == result(7, ok=True)
            assert process.wait(PATIENCE) == 0

    def test_no_input_is_the_end_of_it(self, upstream):
        with started(upstream, stdin=subprocess.DEVNULL) as process:
            assert process.communicate(timeout=PATIENCE)[0] == b""
            assert process.returncode == 0

    def test_blocking_mode_is_given_back(self, upstream):
        """The shell shares the file."""
        reader, writer = os.pipe()
        with started(upstream, stdin=subprocess.DEVNULL, stdout=writer) as process:
            assert process.wait(PATIENCE) == 0
            assert os.get_blocking(writer)
        os.close(reader)
        os.close(writer)

    def test_closed_input_is_said_to_be(self, upstream):
        code = "import os, sys; os.close(0); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", code, *module("shadowcat", "forward", "--upstream", upstream.url)]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == 1
        assert b"closed" in done.stderr

    def test_with_an_address_it_prints_where(self, upstream):
        with running(module("shadowcat", "forward", "--bind", "127.0.0.1:0", "--upstream", upstream.url)) as child:
            assert child.wait_for_url().endswith("/mcp")
