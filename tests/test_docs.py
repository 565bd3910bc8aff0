"""README and docs are true: what they show runs, parses, and points somewhere."""

import contextlib
import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio

from shadowcat import run_reverse_proxy
from shadowcat.cli import forward, reverse
from shadowcat.cli.main import build_parser
from shadowcat.errors import ConfigError
from shadowcat.protocol import headers
from shadowcat.proxy.answers import ANSWERS
from shadowcat.testing import request, result
from tests.e2e.child import running

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
HTTP_REFERENCE = DOCS / "reference" / "http.md"
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

INITIALIZE = request(1, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "t"})
HEADER_LISTS = [("To the upstream go", headers._TO_UPSTREAM), ("To the client go", headers._TO_CLIENT)]
ACCEPT = {"accept": "application/json, text/event-stream"}


def fences(page, *languages):
    return [text for language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def shown(*languages):
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}:{number}")
        for page in PAGES
        for number, text in enumerate(fences(page, *languages))
    ]


def example(name):
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / f"{name}.py")))


class FixtureServer(ThreadingHTTPServer):
    """Enough of an MCP server: it agrees to ``initialize``, and listening says nothing."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/mcp"
        self.seen, self.closing = [], threading.Event()


class Answer(BaseHTTPRequestHandler):
    server: FixtureServer

    def do_POST(self):
        self.server.seen.append((self.headers, self.rfile.read(int(self.headers["content-length"]))))
        self._start("application/json")
        self.wfile.write(json.dumps(result(1, protocolVersion="2025-11-25", capabilities={})).encode())

    def do_GET(self):
        self._start("text/event-stream")
        self.wfile.write(b": listening\n\n")
        self.server.closing.wait(10)

    def do_DELETE(self):
        self._start("text/plain")

    def log_message(self, *_):
        pass

    def _start(self, content_type):
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.end_headers()


@pytest.fixture
def server():
    with FixtureServer() as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


async def initialize(url):
    async with httpx.AsyncClient() as client:
        response = await client.post(url, json=INITIALIZE, headers=ACCEPT)
    assert response.status_code == 200, response.text
    return response.headers["mcp-session-id"]


def test_every_python_block_is_a_program_or_a_test():
    assert [] == [case.id for case in shown("python") if not re.search(r"trio\.run\(main\)|def test_", case.values[0])]


@pytest.mark.parametrize("text", [case for case in shown("python") if "trio.run(main)" in case.values[0]])
async def test_program_in_a_page_serves(text, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sender, receiver = trio.open_memory_channel(1)
    source = re.sub(r"127\.0\.0\.1:(8080|9464)", "127.0.0.1:0", text).replace("http://127.0.0.1:9000/mcp", server.url)
    names: dict[str, Any] = {"print": sender.send_nowait}
    exec(source.replace("trio.run(main)", ""), names)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(names["main"])
            assert await initialize(re.findall(r"http://\S+", await receiver.receive())[0])
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("text", [case for case in shown("python") if "def test_" in case.values[0]])
async def test_conversation_in_a_page_passes(text, autojump_clock):
    names: dict[str, Any] = {}
    exec(text, names)
    with trio.fail_after(7200):
        for test in [value for name, value in names.items() if name.startswith("test_")]:
            await test(autojump_clock)


def test_example_of_embedding_runs(server, capsys):
    trio.run(example("embed").main, server.url)

    assert re.search(r"serving MCP at http://127\.0\.0\.1:\d+/mcp\n200, session .{32}\n", capsys.readouterr().out)


async def test_embedding_at_an_address_in_use_is_a_config_error(server, nursery):
    with pytest.raises(ConfigError):
        await nursery.start(run_reverse_proxy, f"127.0.0.1:{server.server_port}", server.url)


async def test_example_of_mounting_serves_both_and_stops(server, capfd):
    shutdown = trio.Event()
    serve = partial(example("mount").serve_both, "127.0.0.1:0", server.url, shutdown=shutdown)
    with trio.fail_after(5):
        async with httpx.AsyncClient() as client, trio.open_nursery() as nursery:
            (base,) = await nursery.start(serve)
            assert (await client.get(base)).text == "hello\n"
            headers = {**ACCEPT, "mcp-session-id": await initialize(base + "/tools/mcp")}
            async with client.stream("GET", base + "/tools/mcp", headers=headers) as listening:
                shutdown.set()
                with trio.fail_after(1):
                    await listening.aread()


async def test_example_of_a_transport_signs_and_falls_back(server, nursery):
    serve = partial(example("own_transport").serve, "127.0.0.1:0", "http://127.0.0.1:1/mcp", server.url, b"key")
    with trio.fail_after(5):
        (url,) = await nursery.start(serve)
        assert await initialize(url)

    ((fields, body),) = server.seen
    assert len(fields["x-signature"]) == 64
    assert json.loads(body) == INITIALIZE


async def test_example_of_a_store_is_shared_by_two_proxies(server, nursery, tmp_path):
    serve = partial(example("own_store").serve, "127.0.0.1:0", tmp_path / "sessions", server.url)
    with trio.fail_after(5):
        (one,) = await nursery.start(serve)
        (other,) = await nursery.start(serve)
        headers = {**ACCEPT, "mcp-session-id": await initialize(one)}
        async with httpx.AsyncClient() as client:
            assert 200 == (await client.post(other, json=request(1, "ping"), headers=headers)).status_code
            assert 200 == (await client.delete(other, headers=headers)).status_code
            assert 404 == (await client.post(one, json=request(1, "ping"), headers=headers)).status_code


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conversation_test", "own_store_test"])
def test_example_of_a_test_passes_as_a_user_runs_it(name):
    options = ["-c", os.devnull, "-p", "no:cacheprovider", "-o", "trio_mode=true", "-W", "error"]
    subprocess.run([sys.executable, "-m", "pytest", *options, EXAMPLES / f"{name}.py"], check=True, timeout=60)


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial uses curl")
def test_tutorial_says_what_happens(tmp_path):
    page = DOCS / "tutorial" / "first-proxy.md"
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        server, proxy = (str(sock.getsockname()[1]) for sock in (first, second))

    def adapted(text):
        here = text.replace("docs/examples/", "").replace("python examples", f"python {ROOT}/examples")
        return here.replace("9000", server).replace("8080", proxy)

    (tmp_path / "call.py").write_text(adapted((EXAMPLES / "call.py").read_text()))
    install, start_server, start_proxy, *rest = map(adapted, fences(page, "sh"))
    assert "pip install" in install
    env = {**os.environ, "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]}
    with contextlib.ExitStack() as stack:
        for command in (start_server, start_proxy):
            stack.enter_context(running(["sh", "-c", "exec " + command], env, cwd=tmp_path)).wait_for_url()
        said = subprocess.check_output(["sh", "-ec", "\n".join(rest)], cwd=tmp_path, env=env, text=True, timeout=30)
    assert [] == [text for text in fences(page, "text") if text.strip() not in said]


def commands():
    for case in shown("sh", "ini"):
        text = case.values[0].replace("\\\n", " ")
        for number, line in enumerate(re.findall(r"(?:^|bin/)shadowcat (.*)$", text, re.M)):
            yield pytest.param(line, id=f"{case.id}.{number}")


@pytest.mark.parametrize("arguments", [*commands()])
def test_command_line_is_accepted(arguments, monkeypatch):
    monkeypatch.setenv("UPSTREAM_TOKEN", "Bearer t")
    args = build_parser().parse_args(shlex.split(arguments, comments=True))
    build = reverse.build_config if args.name == "reverse" else forward.build_config
    upstream = build(args).upstream
    assert args.upstream in (None, getattr(upstream, "url", ""))
    assert tuple(args.command) == getattr(upstream, "command", ())


CLIENT_CONFIGS = [
    pytest.param(server, id=f"{number}.{name}")
    for number, text in enumerate(fences(DOCS / "how-to" / "connect-a-stdio-client.md", "json"))
    for name, server in json.loads(text)["mcpServers"].items()
]


@pytest.mark.slow
@pytest.mark.parametrize("config", CLIENT_CONFIGS)
def test_server_in_a_clients_config_answers_when_it_is_started(config, server):
    arguments = [text.replace("http://127.0.0.1:9000/mcp", server.url) for text in config["args"]]
    process = subprocess.run(
        [sys.executable, "-m", config["command"], *arguments],
        input=json.dumps(INITIALIZE).encode() + b"\n",
        env={**os.environ, **config.get("env", {})},
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert json.loads(process.stdout)["result"]["protocolVersion"] == "2025-11-25"
    assert server.seen[0][0]["authorization"] == config.get("env", {}).get("UPSTREAM_TOKEN")


@pytest.mark.parametrize(
    ("number", "arguments"), [(0, ["--help"]), (1, ["reverse", "--help"]), (2, ["forward", "--help"])]
)
def test_command_reference_is_the_help(number, arguments, monkeypatch, capsys):
    # Without line breaks, which differ between versions of Python.
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        build_parser().parse_args(arguments)

    assert capsys.readouterr().out.split() == fences(DOCS / "reference" / "cli.md", "text")[number].split()


def test_error_table_is_the_one_of_the_code():
    rows = []
    for error, answer in ANSWERS.items():
        fields = ", ".join(f"`{name.decode()}: {value.decode()}`" for name, value in answer.headers)
        rows.append(f"| `{error.__name__}` | {int(answer.status)} | {answer.code} | {fields} |")
    page = HTTP_REFERENCE.read_text(encoding="utf-8")

    assert rows == re.findall(r"^\| `\w+` \| \d+ \|.*$", page, re.MULTILINE)


@pytest.mark.parametrize(("start", "passing"), HEADER_LISTS)
def test_header_lists_are_those_of_the_code(start, passing):
    page = HTTP_REFERENCE.read_text(encoding="utf-8")
    listed = page[page.index(start) :].partition("; ")[0]

    assert sorted(name.decode() for name in passing) == re.findall(r"`([\w-]+)`", listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for path, anchor in re.findall(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor
