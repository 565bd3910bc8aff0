"""README and docs are true: what they show runs, parses, and points somewhere."""

import argparse
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
from shadowcat.admin.routes import ROUTES
from shadowcat.cli import forward, main, reverse
from shadowcat.cli.check import sort_words
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
    monkeypatch.setenv("SHADOWCAT_ADMIN_TOKEN", "a-token-of-24-characters")
    sender, receiver = trio.open_memory_channel(1)
    source = re.sub(r"127\.0\.0\.1:(8080|946[45])", "127.0.0.1:0", text)
    source = source.replace("http://127.0.0.1:9000/mcp", server.url)
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


async def test_example_of_limits_refuses_what_comes_faster_than_it_may(server, nursery):
    with trio.fail_after(30):
        (url,) = await nursery.start(example("limits").serve, "127.0.0.1:0", server.url)
        async with httpx.AsyncClient() as client:
            answers = [await client.post(url, json=INITIALIZE, headers=ACCEPT)]
            while answers[-1].status_code != 429:
                answers.append(await client.post(url, json=INITIALIZE, headers=ACCEPT))

    assert len(answers) > 20
    assert answers[0].headers["ratelimit-policy"] == '"per_client";q=60;w=60;shadowcat-burst=20'
    assert answers[0].headers["ratelimit"] == '"per_client";r=19;t=1'
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].json()["error"]["data"]["limit"] == "per_client"


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
        for number, line in enumerate(re.findall(r"(?:^|bin/|^[A-Z_]+=.* )shadowcat (.*)$", text, re.M)):
            yield pytest.param(line, id=f"{case.id}.{number}")


@pytest.mark.parametrize("arguments", [*commands()])
def test_command_line_is_accepted(arguments, monkeypatch):
    monkeypatch.setenv("UPSTREAM_TOKEN", "Bearer t")
    args = build_parser().parse_args(shlex.split(arguments, comments=True))
    if "name" not in args:
        return
    build = reverse.build_config if args.name == "reverse" else forward.build_config
    if "words" in args:
        args.argv = tuple(shlex.split(arguments))
        sort_words(args)
    upstream = build(args).upstream
    assert args.upstream in (None, getattr(upstream, "url", ""))
    assert tuple(getattr(args, "command", ())) == getattr(upstream, "command", ())


CONFIGURATIONS = shown("toml")


def test_example_of_a_file_is_the_one_shown():
    assert (EXAMPLES / "shadowcat.toml").read_text(encoding="utf-8") in [case.values[0] for case in CONFIGURATIONS]


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configuration_in_a_page_is_right(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPSTREAM_TOKEN", "Bearer t")
    (tmp_path / "token").write_text("t\n", encoding="utf-8")
    (tmp_path / "shadowcat.toml").write_text(text.replace("/run/secrets/upstream_token", "token"), encoding="utf-8")
    assert main(["check", "shadowcat.toml"]) == 0, capsys.readouterr().err


def test_problems_in_a_page_are_told_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UPSTREAM_TOKEN", "Bearer t")
    page = DOCS / "how-to" / "configure-with-a-file.md"
    wrong = fences(page, "toml")[0].replace("allow_hosts", "allow_host").replace("= 1048576", '= "1 MiB"')
    (tmp_path / "shadowcat.toml").write_text(wrong, encoding="utf-8")
    assert main(["check", "shadowcat.toml"]) == 1
    assert capsys.readouterr().err == fences(page, "text")[0]


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


def command_paths(parser):
    """Yield the words of every command below *parser*, and none for itself."""
    yield ()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from ((name, *path) for path in command_paths(below))


@pytest.mark.parametrize("path", [*command_paths(build_parser())], ids=" ".join)
def test_command_reference_is_the_help(path, monkeypatch, capsys):
    """Each command has a section, with its help and no other."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        build_parser().parse_args([*path, "--help"])

    first, *others = re.split(r"\n##+ ", (DOCS / "reference" / "cli.md").read_text(encoding="utf-8"))
    sections = {(): first} | {tuple(text.splitlines()[0].split()[1:]): text for text in others}
    # Without line breaks, which differ between versions of Python.
    assert capsys.readouterr().out.split() == FENCE.findall(sections[path])[0][1].split()


def test_admin_reference_is_the_routes_of_the_code():
    rows = []
    for route in ROUTES:
        query = ", ".join(f"`{parameter.name}`" for parameter in route.parameters)
        rows.append(f"| `{route.method}` | `{route.path}` | {route.summary} | {query} |")
    known = {parameter.name: parameter for route in ROUTES for parameter in route.parameters}
    for p in known.values():
        default = "" if p.default is None else p.default
        rows.append(f"| `{p.name}` | {p.schema['type']} | {p.description} | {default} |")
    page = (DOCS / "reference" / "admin.md").read_text(encoding="utf-8")

    assert rows == re.findall(r"^\| `.*$", page, re.MULTILINE)


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
