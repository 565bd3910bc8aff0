"""The MCP server behind the proxy, as the command line names it."""

import pytest

from shadowcat import HttpUpstreamConfig
from shadowcat.cli.forward import build_config as build_forward
from shadowcat.cli.main import build_parser
from shadowcat.cli.reverse import build_config as build_reverse
from shadowcat.errors import ConfigError
from shadowcat.transport.upstream import HttpSseUpstreamConfig, PipeConfig, StdioConfig, WebSocketUpstreamConfig

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
