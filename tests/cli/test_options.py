"""The options that commands share: each command has them, and they mean the same."""

import re

import attrs
import pytest

from shadowcat.cli.forward import build_config as build_forward
from shadowcat.cli.main import build_parser
from shadowcat.cli.reverse import build_config as build_reverse
from shadowcat.errors import ConfigError

SHARED = ["--upstream", "http://upstream.invalid/mcp", "--forward-header", "A", "--max-body-size", "7"]
SHARED += ["--max-sessions", "2", "--linger", "3", "--replay-events", "4", "--no-session-recovery"]
SHARED += ["--heartbeat-interval", "5", "--shutdown-timeout", "6"]


def test_mean_the_same_to_each_command():
    forward = build_forward(build_parser().parse_args(["forward", *SHARED]))
    reverse = build_reverse(build_parser().parse_args(["reverse", *SHARED]))

    for field in attrs.fields(type(forward)):
        if field.name != "children":
            assert getattr(forward, field.name) == getattr(reverse, field.name), field.name
    assert forward.endpoint.max_body_size == 7


@pytest.mark.parametrize("command", ["reverse", "forward"])
def test_every_number_is_called_by_its_option(command, capsys):
    """None has a name of the library's in what is said of it, and the right command is named."""
    with pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"])
    options = set(re.findall(r"^  (--[a-z-]+) N\b", capsys.readouterr().out, re.MULTILINE))
    assert len(options) == (15 if command == "reverse" else 14)
    build = build_reverse if command == "reverse" else build_forward
    for option in options:
        server = ["--", "true"] if option in ("--max-children", "--spares") else ["--upstream", "http://h/"]
        with pytest.raises(ConfigError, match=f"^{option} must be .*see shadowcat {command} --help"):
            build(build_parser().parse_args([command, option, "-1", *server]))
