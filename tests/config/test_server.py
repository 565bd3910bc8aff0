"""The MCP server behind the proxy, as the command line names it."""

import pytest

from shadowcat import HttpUpstreamConfig
from shadowcat.cli.forward import build_config as build_forward
from shadowcat.cli.main import build_parser
from shadowcat.cli.options import read_values
from shadowcat.cli.reverse import build_config as build_reverse
from shadowcat.config import SettingsError
from shadowcat.config import build_reverse as build_from
from shadowcat.errors import ConfigError
from shadowcat.proxy import ServerRule
from shadowcat.resilience import CircuitConfig
from shadowcat.transport.upstream import HttpSseUpstreamConfig, PipeConfig, StdioConfig, WebSocketUpstreamConfig
from shadowcat.upstreams import CheckKind, Strategy
from tests.config.reading import parse, read

URL = "http://upstream.invalid/mcp"


def config_of(*arguments, command="reverse"):
    build = build_reverse if command == "reverse" else build_forward
    return build(build_parser().parse_args([command, *arguments]))


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["--upstream", URL], HttpUpstreamConfig),
        (["--upstream", URL, "--upstream-transport", "auto"], HttpUpstreamConfig),
        (["--upstream", URL, "--upstream-transport", "streamable-http"], HttpUpstreamConfig),
        (["--upstream", "https://h/sse", "--upstream-transport", "sse"], HttpSseUpstreamConfig),
        (["--upstream", "ws://h/ws"], WebSocketUpstreamConfig),
        (["--upstream", "wss://h/ws", "--upstream-transport", "ws"], WebSocketUpstreamConfig),
        (["--", "npx", "-y", "server"], StdioConfig),
    ],
)
@pytest.mark.parametrize("command", ["reverse", "forward"])
def test_url_or_command_says_how_it_is_reached(arguments, kind, command):
    assert isinstance(config_of(*arguments, command=command).upstream, kind)


@pytest.mark.parametrize("transport", [[], ["--upstream-transport", "sse"]])
def test_settings_of_a_url_are_those_of_its_transport(transport):
    options = ["--upstream-header", "X-A: b", "--connect-timeout", "1", "--answer-timeout", "2", "--ca-file", "f"]
    upstream = config_of("--upstream", URL, *transport, *options).upstream

    assert (upstream.url, tuple(upstream.headers), upstream.ca_file) == (URL, (("X-A", "b"),), "f")
    assert (upstream.connect_timeout, upstream.answer_timeout) == (1, 2)


def test_command_is_taken_to_the_letter(monkeypatch):
    """Its own options and dashes are its own."""
    monkeypatch.setenv("TOKEN", "t")
    options = ["--env", "A=b=c", "--env", "B=", "--env-pass", "TOKEN", "--cwd", "/"]
    command = ["npx", "-y", "--upstream", "x", "--", "--bind", ""]
    config = config_of(*options, "--max-children", "3", "--spares", "2", "--", *command)

    assert config.upstream == StdioConfig(command=command, env={"A": "b=c", "B": ""}, inherit=["TOKEN"], cwd="/")
    assert (config.children.max_sessions, config.children.spares) == (3, 2)


def test_command_for_one_client_has_no_spares():
    """They would wait for nobody."""
    assert config_of("--", "server", command="forward").children.spares == 0
    assert config_of("--", "server").children == PipeConfig()


def test_sessions_over_connections_are_limited_as_sessions():
    assert config_of("--upstream", "ws://h/", "--max-sessions", "7").children.max_sessions == 7


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "give --upstream URL, or -- COMMAND"),
        (["--upstream", URL, "--", "server"], "two servers"),
        (["--upstream", URL, "--env", "A=b"], "--env goes with a command after -- only"),
        (["--upstream", URL, "--env-pass", "A"], "--env-pass goes with a command after -- only"),
        (["--upstream", URL, "--cwd", "/"], "--cwd goes with a command after -- only"),
        (["--upstream", URL, "--max-children", "1"], "--max-children goes with"),
        (["--upstream", URL, "--spares", "0"], "--spares goes with"),
        (["--upstream-transport", "ws", "--", "server"], "--upstream-transport goes with --upstream only"),
        (["--ca-file", "f", "--", "server"], "--ca-file goes with --upstream only"),
        (["--upstream-header", "A: b", "--", "server"], "--upstream-header goes with --upstream only"),
        (["--env", "A", "--", "server"], "--env-pass A"),
        (["--env", "=b", "--", "server"], "NAME=VALUE"),
        (["--env-pass", "SHADOWCAT_UNSET", "--", "server"], "SHADOWCAT_UNSET"),
        (["--upstream", URL, "--upstream-transport", "ws"], "a ws or wss URL, not with 'http'"),
        (["--upstream", "ws://h/", "--upstream-transport", "sse"], "a http or https URL, not with 'ws'"),
        (["--upstream", "ws://h/", "--upstream-transport", "streamable-http"], "a http or https URL"),
        (["--max-children", "0", "--", "server"], "--max-children must be at least 1, not 0"),
        (["--spares", "-1", "--", "server"], "--spares must be at least 0, not -1"),
        (["--max-sessions", "0", "--upstream", "ws://h/"], "--max-sessions must be at least 1, not 0"),
    ],
)
@pytest.mark.parametrize("command", ["reverse", "forward"])
def test_contradiction_is_refused_and_named(arguments, named, command):
    with pytest.raises(ConfigError) as excinfo:
        config_of(*arguments, command=command)
    assert named in str(excinfo.value)


def test_secret_on_the_command_line_is_not_repeated():
    with pytest.raises(ConfigError) as excinfo:
        config_of("--upstream", URL, "--env", "TOKEN=hidden")
    assert "hidden" not in str(excinfo.value)


SEVERAL = """\
[upstream]
headers = { A = "b" }
strategy = "least-in-flight"

[[upstream.endpoints]]
name = "one"
url = "http://127.0.0.1:9001/mcp"
weight = 2

[[upstream.endpoints]]
name = "other"
url = "http://127.0.0.1:9002/mcp"

[upstream.health]
check = "http"

[upstream.concurrency]
max_in_flight = 10

[servers.search]
url = "http://127.0.0.1:9003/mcp"
transport = "sse"

[servers.files]
command = ["true", "x"]
circuit.enabled = false

[[rules]]
header = "X-Tenant"
value = "a"
server = "search"
"""


def build_file(text, *flags):
    values = read_values(parse(*flags)).with_given(read(text))
    values.file = "f.toml"
    return build_from(values)


def test_several_servers_and_endpoints_are_described_by_a_file():
    config = build_file(SEVERAL)
    default, files = config.upstream, config.servers["files"]

    assert [(each.name, each.upstream.url, each.weight) for each in default.endpoints] == [
        ("one", "http://127.0.0.1:9001/mcp", 2),
        ("other", "http://127.0.0.1:9002/mcp", 1),
    ]
    assert all(each.upstream.headers == (("A", "b"),) for each in default.endpoints)
    assert (default.strategy, default.check.kind) == (Strategy.LEAST_IN_FLIGHT, CheckKind.HTTP)
    assert (default.circuit, default.concurrency.max_in_flight) == (CircuitConfig(), 10)
    # What a server does not say, it has not from another.
    assert config.servers["search"] == HttpSseUpstreamConfig(url="http://127.0.0.1:9003/mcp")
    assert (files.endpoints[0].upstream, files.circuit) == (StdioConfig(command=["true", "x"]), None)
    assert config.rules == (ServerRule(header="X-Tenant", value="a", server="search"),)
    assert config.children == PipeConfig()


def test_plain_address_stays_plain():
    """What is not watched costs nothing."""
    assert build_file(f'[servers.x]\nurl = "{URL}"\n').servers["x"] == HttpUpstreamConfig(url=URL)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SEVERAL.replace('"search"', '"saerch"'), "f.toml:31: rules[0].server: there is no server 'saerch'"),
        (SEVERAL.replace('"other"', '"one"'), "f.toml:5: upstream.endpoints: two endpoints are called 'one'"),
        (SEVERAL.replace('name = "other"\n', ""), "f.toml:11: upstream.endpoints[1].url: give the endpoint a name"),
        (
            SEVERAL.replace("weight = 2", "weight = 0"),
            "f.toml:8: upstream.endpoints[0].weight must be at least 1, not 0",
        ),
        (
            SEVERAL.replace("max_in_flight = 10", "max_in_flight = 0"),
            "f.toml:18: upstream.concurrency.max_in_flight must",
        ),
        (
            SEVERAL.replace("[upstream]\n", f'[upstream]\nurl = "{URL}"\n'),
            "f.toml:2: upstream.url goes without endpoints",
        ),
        (SEVERAL.replace('server = "search"\n', ""), "f.toml:28: rules: rule 1 names no server"),
        (SEVERAL.replace('value = "a"\n', ""), "f.toml:29: rules[0].header: the rule for 'search' needs both"),
        ("[servers.x]\n", "f.toml:1: servers.x: give the server a url, a command or endpoints"),
        ("[servers.'a b']\n", "f.toml:1: servers.a b is no name"),
        ('[servers.x]\nurl = "http://h/"\ncwd = "/"\n', "f.toml:3: servers.x.cwd goes with upstream.command only"),
        ("[[upstream.endpoints]]\n", "f.toml:1: upstream.endpoints: give the endpoint a name"),
        ('[[upstream.endpoints]]\nname = "a"\n', "f.toml:2: upstream.endpoints[0].name: give the endpoint a url"),
        ("rules = []\n", "f.toml:1: name the MCP server"),
    ],
)
def test_what_is_wrong_with_servers_names_the_line(text, said):
    with pytest.raises(SettingsError) as excinfo:
        build_file(text)
    assert len(excinfo.value.problems) == 1
    assert str(excinfo.value).startswith(said)


def test_workers_share_no_commands_of_any_server(tmp_path):
    flags = ["--workers", "2", "--store", "sqlite", "--sqlite-path", "x"]
    with pytest.raises(SettingsError, match="--workers 2 needs an upstream at an http or https URL"):
        build_file(SEVERAL, *flags)


def test_how_many_commands_are_run_is_said_for_all_servers():
    children = build_file(SEVERAL.replace("[upstream]\n", "[upstream]\nmax_children = 7\n")).children
    assert children == PipeConfig(max_sessions=7)
