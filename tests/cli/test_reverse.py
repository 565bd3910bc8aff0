"""``shadowcat reverse``: its options, and the program as a user runs it."""

import http.client
import json
import logging
import math
import queue
import signal
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from shadowcat import (
    EndpointConfig,
    HttpUpstreamConfig,
    ListenerConfig,
    LogLimits,
    OriginConfig,
    RecoveryConfig,
    ReverseProxyConfig,
    SessionConfig,
    StreamConfig,
)
from shadowcat.cli import main
from shadowcat.cli.main import build_parser
from shadowcat.cli.reverse import build_config
from shadowcat.errors import ConfigError
from shadowcat.testing import modern_headers, modern_request, result
from tests.e2e.child import module, running

URL = "http://upstream.invalid/mcp"


def config_of(*options):
    return build_config(build_parser().parse_args(["reverse", "--upstream", URL, *options]))


class TestOptions:
    def test_defaults_are_those_of_the_configuration(self):
        """One home each: what the command line does not say is what the library does."""
        assert ReverseProxyConfig(upstream=HttpUpstreamConfig(url=URL)) == config_of()

    def test_every_option_has_its_place(self):
        """Nothing that is said is lost."""
        options = {
            "--bind": "127.0.0.1:0",
            "--path": "/x",
            "--allow-host": "h",
            "--allow-origin": "https://o",
            "--forward-header": "Authorization",
            "--upstream-header": "X-A: b: c ",
            "--max-body-size": "1",
            "--max-sessions": "2",
            "--session-idle-timeout": "3.5",
            "--heartbeat-interval": "4",
            "--connect-timeout": "5.5",
            "--answer-timeout": "6",
            "--shutdown-timeout": "0",
            "--replay-events": "7",
            "--replay-bytes": "8",
            "--replay-age": "9.5",
            "--linger": "10",
        }
        expected = ReverseProxyConfig(
            upstream=HttpUpstreamConfig(url=URL, headers=[("X-A", "b: c")], connect_timeout=5.5, answer_timeout=6.0),
            listener=ListenerConfig(bind="127.0.0.1:0"),
            path="/x",
            endpoint=EndpointConfig(max_body_size=1, heartbeat_interval=4.0, forward_headers=["authorization"]),
            sessions=SessionConfig(
                max_sessions=2,
                max_idle=3.5,
                streams=StreamConfig(limits=LogLimits(max_events=7, max_bytes=8, max_age=9.5), linger=10.0),
            ),
            recovery=RecoveryConfig(is_enabled=False),
            origin=OriginConfig(allowed_origins=["https://o"], allowed_hosts=["h"]),
            shutdown_timeout=0.0,
        )
        assert expected == config_of("--no-session-recovery", *[part for option in options.items() for part in option])

    def test_header_options_may_be_repeated(self, monkeypatch):
        """Secrets come from the environment, where no list of processes shows them."""
        monkeypatch.setenv("TOKEN", "Bearer a=b:c")
        config = config_of(
            *[
                "--upstream-header",
                "X-A:1",
                "--upstream-header",
                "X-B:",
                "--upstream-header-env",
                "Authorization=TOKEN",
            ],
            *["--forward-header", "A", "--forward-header", "b", "--allow-host", "*", "--allow-host", "h"],
        )

        assert (("X-A", "1"), ("X-B", ""), ("Authorization", "Bearer a=b:c")) == config.upstream.headers
        assert {b"a", b"b"} == config.endpoint.forward_headers
        assert ("*", "h") == config.origin.allowed_hosts

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            (["--upstream-header", "no-colon"], "--upstream-header"),
            (["--upstream-header", "bad name: x"], "bad name"),
            (["--upstream-header", ": x"], "''"),
            (["--upstream-header", "Mcp-Session-Id: x"], "Mcp-Session-Id"),
            (["--upstream-header", "Connection: close"], "Connection"),
            (["--upstream-header", "x: a\nb: c"], "'x'"),
            (["--upstream-header-env", "NAME"], "--upstream-header-env"),
            (["--upstream-header-env", "NAME=SHADOWCAT_UNSET"], "SHADOWCAT_UNSET"),
            (["--forward-header", "Host"], "host"),
            (["--forward-header", "mcp-session-id"], "mcp-session-id"),
            (["--bind", "8080"], "HOST:PORT"),
            (["--bind", ":8080"], "0.0.0.0:8080"),
            (["--bind", "::1:8080"], "[::1]:8080"),
            (["--bind", "127.0.0.1:65536"], "65535"),
            (["--path", "mcp"], "/mcp"),
            (["--path", "/health"], "/health"),
            (["--max-body-size", "0"], "--max-body-size must be at least 1, not 0"),
            (["--max-sessions", "0"], "--max-sessions must be at least 1, not 0"),
            (["--session-max-age", "nan"], "--session-max-age must be more than 0, not nan"),
            (["--session-idle-timeout", "0"], "--session-idle-timeout must be more than 0, not 0.0"),
            (["--heartbeat-interval", "nan"], "--heartbeat-interval must be more than 0, not nan"),
            (["--connect-timeout", "-1"], "--connect-timeout must be more than 0, not -1.0"),
            (["--answer-timeout", "0"], "--answer-timeout must be more than 0, not 0.0"),
            (["--shutdown-timeout", "-1"], "--shutdown-timeout must be at least 0, not -1.0"),
            (["--replay-events", "0"], "--replay-events must be at least 1, not 0"),
            (["--replay-bytes", "0"], "--replay-bytes must be at least 1, not 0"),
            (["--replay-age", "0"], "--replay-age must be more than 0, not 0.0"),
            (["--linger", "-1"], "--linger must be at least 0, not -1.0"),
        ],
    )
    def test_value_that_cannot_be_is_refused(self, options, named):
        """The message names what is wrong."""
        with pytest.raises(ConfigError) as excinfo:
            config_of(*options)
        assert named in str(excinfo.value)

    def test_several_workers_share_a_store(self):
        """Where sessions are in the memory of one process, no other can serve them."""
        assert config_of("--workers", "2", "--store", "sqlite", "--sqlite-path", "x.db").storage.sqlite is not None
        with pytest.raises(ConfigError, match="--workers 2 needs a store that processes share"):
            config_of("--workers", "2")

    @pytest.mark.parametrize("option", ["--replay-age", "--linger"])
    @pytest.mark.parametrize("value", ["inf", "nan", "soon"])
    def test_what_is_kept_is_kept_for_a_known_time(self, option, value, capsys):
        with pytest.raises(SystemExit):
            config_of(option, value)
        assert capsys.readouterr().err.endswith(f"argument {option}: must be a finite number, not {value}\n")

    def test_several_processes_serve_no_http_and_sse(self):
        """A message would have to reach the one that has its stream."""
        store = ["--store", "sqlite", "--sqlite-path", "x"]
        assert config_of(*store, "--workers", "2").http_sse is None
        assert config_of(*store).http_sse is not None

    def test_session_may_live_for_ever(self):
        assert config_of("--session-max-age", "inf").sessions.max_age == math.inf

    @pytest.mark.parametrize(
        "url", ["", "nonsense", "ftp://h/", "http:///mcp", "http://user:hidden@h/", "http://h:99999/"]
    )
    def test_upstream_that_cannot_be_is_refused(self, url):
        """... without what may be a password."""
        with pytest.raises(ConfigError, match="url") as excinfo:
            build_config(build_parser().parse_args(["reverse", "--upstream", url]))
        assert "hidden" not in str(excinfo.value)


class TestErrors:
    @pytest.fixture(autouse=True)
    def _root_logger(self):
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        yield
        root.handlers[:] = handlers
        root.setLevel(level)

    def test_wrong_setting_is_one_line_and_1(self, capsys):
        """Nothing was started."""
        assert main(["reverse", "--upstream", "nonsense"]) == 1
        captured = capsys.readouterr()

        assert captured.out == ""
        assert captured.err.startswith("shadowcat: ")
        assert captured.err.count("\n") == 1

    def test_address_in_use_is_a_sentence_and_1(self, capsys):
        """It says what to do."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert main(["reverse", "--upstream", URL, "--bind", f"127.0.0.1:{port}"]) == 1

        expected = f"shadowcat: 127.0.0.1:{port} is in use: stop the other program or choose another port with --bind\n"
        assert capsys.readouterr() == ("", expected)


class Upstream(ThreadingHTTPServer):
    """An MCP server that answers when it is told to."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.arrived = threading.Event()
        self.release = threading.Event()
        self.headers: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{self.server_port}/mcp"

    def handle_error(self, request, client_address):
        """A proxy that is stopped at once leaves; that is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self):
        self.server.headers = dict(self.headers)
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.arrived.set()
        self.server.release.wait(20)
        body = json.dumps(result(message["id"], ok=True)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def upstream():
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@contextmanager
def proxy(upstream, *options):
    """Run the program before *upstream*."""
    command = ["reverse", "--bind", "127.0.0.1:0", "--upstream", upstream.url, *options]
    with running(module("shadowcat", *command)) as child:
        yield child


def call(url):
    """Make a call in another thread; return the queue that will hold status and message."""
    answers: queue.Queue = queue.Queue()
    address = urlsplit(url)
    message = modern_request(7, "ping")

    def post():
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
            connection.request("POST", address.path, json.dumps(message), {**headers, **modern_headers(message)})
            response = connection.getresponse()
            answers.put((response.status, json.loads(response.read())))
        except OSError as error:
            answers.put(error)
        finally:
            connection.close()

    threading.Thread(target=post, daemon=True).start()
    return answers


@pytest.mark.slow
class TestProgram:
    def test_calls_reach_the_upstream_with_its_headers(self, upstream):
        """It prints the URL that clients use, and serves there."""
        upstream.release.set()
        with proxy(upstream, "--path", "/here", "--upstream-header", "X-Key: k") as child:
            assert child.wait_for_url().endswith("/here")
            assert call(child.wait_for_url()).get(timeout=20) == (200, result(7, ok=True))
        assert upstream.headers["x-key"] == "k"

    def test_first_signal_lets_a_call_finish(self, upstream):
        """The caller gets its answer, and the exit status is 0."""
        with proxy(upstream) as child:
            answers = call(child.wait_for_url())
            assert upstream.arrived.wait(20)
            child._process.send_signal(signal.SIGTERM)
            wait_until_refused(child.wait_for_url())
            upstream.release.set()

            assert answers.get(timeout=20) == (200, result(7, ok=True))
            assert child.wait(20) == 0

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_second_signal_ends_it_at_once(self, upstream, second):
        """The call is given up; 128 + the number of the signal."""
        with proxy(upstream, "--shutdown-timeout", "3600") as child:
            answers = call(child.wait_for_url())
            assert upstream.arrived.wait(20)
            child._process.send_signal(signal.SIGTERM)
            wait_until_refused(child.wait_for_url())
            child._process.send_signal(second)

            assert child.wait(20) == 128 + second
            assert answers.get(timeout=20) != (200, result(7, ok=True))
        assert "Traceback" not in child.output

    def test_call_that_does_not_finish_is_told_so(self, upstream):
        """After the timeout the caller is told that the upstream may still act; the exit status is 0."""
        with proxy(upstream, "--shutdown-timeout", "1") as child:
            answers = call(child.wait_for_url())
            assert upstream.arrived.wait(20)
            child._process.send_signal(signal.SIGTERM)

            status, message = answers.get(timeout=20)
            assert (status, message["id"]) == (504, 7)
            assert child.wait(20) == 0

    def test_warns_who_can_reach_it(self, upstream):
        """Bound to every interface, anyone can use the upstream."""
        with running(module("shadowcat", "reverse", "--bind", "0.0.0.0:0", "--upstream", upstream.url)) as child:
            child.wait_for("listening on 0.0.0.0: anyone who can reach it")
            child.wait_for("serving MCP at http://0.0.0.0:")


def wait_until_refused(url):
    """Return when the program has seen the signal: it accepts no connection any more, or drains."""
    address = urlsplit(url)
    for _ in range(10_000):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        try:
            connection.request("GET", "/ready")
            if connection.getresponse().status == 503:
                return
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()
    pytest.fail("the program goes on as if nothing had happened")
