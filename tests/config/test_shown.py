"""Settings in force, with who said each, and no secret."""

import tomllib

import pytest

from shadowcat.cli.options import read_values
from shadowcat.config import SETTINGS, Values, build_reverse, settings_of
from shadowcat.config.shown import show_values, write_value
from tests.config.reading import URL, parse, read
from tests.config.test_file import SEVERAL


def test_each_is_shown_with_its_source(tmp_path, monkeypatch):
    path = tmp_path / "f.toml"
    path.write_text("\n[limits]\nmax_sessions = 7\n")
    monkeypatch.setenv("SHADOWCAT_LINGER", "8")
    flags = ["--upstream", URL, "--allow-host", 'a"\x7f', "--session-max-age", "inf", "--no-session-recovery"]
    shown = show_values(read_values(parse("--config", str(path), *flags)))

    parsed = tomllib.loads(shown)
    assert parsed["limits"]["max_sessions"] == 7
    assert parsed["listener"]["allow_hosts"] == ['a"\x7f']
    assert parsed["sessions"]["recovery"] is False
    for line in (
        f"max_sessions = 7  # {path}:3: limits.max_sessions",
        "linger = 8.0  # $SHADOWCAT_LINGER",
        f'url = "{URL}"  # --upstream',
        "max_age = inf  # --session-max-age",
        'path = "/mcp"  # default',
    ):
        assert line in shown.splitlines()


def test_no_secret_is_shown():
    flags = [
        "--upstream",
        f"{URL}?api_key=hidden",
        "--upstream-header",
        "A: hidden",
        "--redis-url",
        "redis://u:hidden@h:1/0?password=hidden",
    ]
    shown = show_values(read_values(parse(*flags)))
    assert "hidden" not in shown
    assert f'url = "{URL}?********"' in shown
    assert 'headers = { "A" = "********" }' in shown
    assert 'redis_url = "redis://********@h:1/0"' in shown


@pytest.mark.parametrize("url", ["hidden", "redis://[hidden", "//hidden"])
def test_what_is_no_url_is_masked_whole(url):
    setting = next(setting for setting in SETTINGS if setting.key == "sessions.redis_url")
    assert write_value(setting, url) == '"********"'


def test_servers_are_shown_as_they_were_written():
    given = read(SEVERAL.decode())
    values = Values(settings_of("reverse"), given)
    shown = show_values(values)

    again = Values(settings_of("reverse"), read(shown.replace("********", "b")))
    assert build_reverse(again) == build_reverse(values)


def test_address_that_is_not_watched_is_shown_without_what_watches():
    assert "circuit" not in show_values(read_values(parse("--upstream", URL)))
