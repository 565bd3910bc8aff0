"""Talking to a proxy that is there, or not, or another."""

import http.server
import socket
import threading
from functools import partial

import pytest
import trio

from shadowcat.cli import admin_client, main
from shadowcat.errors import ShadowcatError

from .steering import only, open_steered, run_command

TOKEN = "a-token-of-24-characters"


async def complaint(*argv):
    """Return what a command says that cannot work."""
    with pytest.raises((ShadowcatError, ExceptionGroup)) as excinfo:
        await run_command(*argv)
    return str(only(excinfo.value))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--admin", "localhost:9465"], "--admin takes the URL"),
        (["--admin", "http://u:secret-word@localhost/"], "--admin takes the URL"),
        (["--admin", "http://[::1"], "--admin takes the URL"),
        (["--token-file", "/nowhere/token"], "--token-file /nowhere/token cannot be read"),
    ],
)
async def test_a_bad_option_is_told(argv, said, monkeypatch):
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", TOKEN)
    text = await complaint("sessions", "list", *argv)
    assert said in text
    assert "secret-word" not in text


async def test_no_token_is_told(monkeypatch):
    monkeypatch.delenv("SHADOWCAT_ADMIN_TOKEN", raising=False)
    assert "set $SHADOWCAT_ADMIN_TOKEN" in await complaint("sessions", "list")


@pytest.mark.parametrize("token", ["two words", "new\nline", "\x07bell"])
async def test_a_bad_token_is_told_and_not_shown(token, monkeypatch):
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", token)
    text = await complaint("sessions", "list")
    assert "characters that no token has" in text
    assert token not in text


async def test_a_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    assert "the token alone" in await complaint("sessions", "list", "--token-file", str(tmp_path / "token"))


@pytest.mark.slow
async def test_a_token_is_read_from_its_file(capsys, monkeypatch, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    async with open_steered(capsys, monkeypatch, token="another-that-is-wrong") as steered:
        assert "no sessions\n" == await steered.run("sessions", "list", "--token-file", str(tmp_path / "token"))


@pytest.mark.slow
async def test_a_wrong_token_is_told(capsys, monkeypatch):
    async with open_steered(capsys, monkeypatch, token="another-that-is-wrong") as steered:
        text = await complaint("sessions", "list", "--admin", steered.url + "/")
    assert "does not take this token" in text
    assert "another-that-is-wrong" not in text


@pytest.mark.slow
async def test_nobody_there_is_told(monkeypatch):
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert "start the proxy with its admin API enabled" in await complaint("upstreams", "list", "--admin", url)


class AnotherServer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"jsonrpc":"2.0"}')

    def log_message(self, *_):
        pass


@pytest.mark.slow
async def test_another_server_is_told(monkeypatch):
    """The address of the MCP endpoint, for example."""
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", TOKEN)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), AnotherServer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            text = await complaint("sessions", "list", "--admin", f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert "is not the admin API" in text


@pytest.mark.slow
async def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", TOKEN)
    monkeypatch.setattr(admin_client, "_TIMEOUT", 0.2)
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, read_for_ever, 0, host="127.0.0.1")
        (listener,) = await nursery.start(listen)
        port = listener.socket.getsockname()[1]
        text = await complaint("sessions", "list", "--admin", f"http://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()
    assert "did not answer in order" in text


async def read_for_ever(stream):
    async for _ in stream:
        continue


@pytest.mark.slow
def test_what_is_wrong_is_one_line_and_the_status_1(monkeypatch, capsys):
    monkeypatch.delenv("SHADOWCAT_ADMIN_TOKEN", raising=False)
    assert 1 == main(["sessions", "list"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("shadowcat: there is no token")
